"""Once-for-all's space on ProxylessNAS's macro-architecture: kernel 3, 5 or 7 and expansion 3, 4 or 6 per layer, 2 to 4 layers.

Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient Deployment", ICLR 2020, arXiv:1908.09791. The
authors' networks for CPUs and GPUs (Xeon, 1080 Ti, V100, TX2) come from here, at ``width`` 1.3, the published supernet.

Five stages of 2 to 4 layers and one layer of 9 candidates: (9^2 + 9^3 + 9^4)^5 * 9 = 2.0e20 networks for each resolution.
"""

from dnas.arch import Defaults
from dnas.macro import Place, first_block, head, inverted, round8, rows, searchable
from dnas.ops import ConvOp, Op
from dnas.space import Space

STAGES = ((24, 4, 2), (40, 4, 2), (80, 4, 2), (96, 4, 1), (192, 4, 2), (320, 1, 1))


def SPACE(width: float = 1.3, stages: int = 6, layers: int = 4, resolution: int = 224, num_classes: int = 1000) -> Space:
    """``stages``, ``layers``: only the first stages, and of each at most so many layers; ``resolution`` in pixels."""
    table = rows(STAGES, stages, layers, width)
    stem, first, last = (round8(w * width) for w in (32, 16, 1280))

    def candidates(at: Place) -> list[Op]:
        return [inverted(at, at.in_ * e, k, "relu6") for k in (3, 5, 7) for e in (3, 4, 6)]

    body = [
        ConvOp(in_=3, out=stem, kernel=3, stride=2, act="relu6"),
        first_block(stem, first, "relu6"),
        *searchable(first, table, candidates, depths=(2, 3, 4)),
        *head(table[-1].out, last, num_classes, "relu6"),
    ]
    options = {"width": width, "stages": stages, "layers": layers}
    return Space("ofa_proxyless", tuple(body), 3, resolution, num_classes, Defaults(bn_eps=1e-3), options)
