"""ProxylessNAS's space: kernel 3, 5 or 7, expansion 3 or 6, or nothing, for each of 21 layers; 224 px.

Cai et al., "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware", ICLR 2019, arXiv:1812.00332.

The paper's zero operation, behind a residual connection, is ``skip``; it is a candidate only where the shape stays, so 6
layers have 6 candidates and 15 have 7: 6^6 * 7^15 = 2.2e17 points.
``net``: whose channel widths: ``search`` is the supernet (stages of 24, 40, 80, 96, 192, 320 channels); ``mobile``, ``gpu``,
``cpu`` and ``mobile_14`` are those of the published networks, which are points of the space at their widths.
"""

from dnas.arch import Defaults
from dnas.errors import SpaceError, nearest
from dnas.macro import Place, first_block, head, inverted, rows, searchable, skip_where_possible
from dnas.ops import ConvOp, Op
from dnas.space import Space

# stem, first block, stages, head
WIDTHS = {
    "search": (32, 16, (24, 40, 80, 96, 192, 320), 1280),
    "mobile": (32, 16, (32, 40, 80, 96, 192, 320), 1280),
    "gpu": (40, 24, (32, 56, 112, 128, 256, 432), 1728),
    "cpu": (40, 24, (32, 48, 88, 104, 216, 360), 1432),
    "mobile_14": (48, 24, (40, 56, 112, 136, 256, 448), 1792),
}
LAYERS, STRIDES = (4, 4, 4, 4, 4, 1), (2, 2, 2, 1, 2, 1)


def SPACE(net: str = "search", stages: int = 6, layers: int = 4, resolution: int = 224, num_classes: int = 1000) -> Space:
    """``stages``, ``layers``: only the first stages, and of each at most so many layers; ``resolution`` in pixels."""
    if net not in WIDTHS:
        raise SpaceError(f"net is {net!r}{nearest(net, WIDTHS)}")
    stem, first, outs, last = WIDTHS[net]
    table = rows(list(zip(outs, LAYERS, STRIDES, strict=True)), stages, layers)

    def candidates(at: Place) -> list[Op]:
        blocks = [inverted(at, at.in_ * e, k, "relu6") for k in (3, 5, 7) for e in (3, 6)]
        return [*blocks, *skip_where_possible(at)]

    body = [
        ConvOp(in_=3, out=stem, kernel=3, stride=2, act="relu6"),
        first_block(stem, first, "relu6"),
        *searchable(first, table, candidates),
        *head(table[-1].out, last, num_classes, "relu6"),
    ]
    options = {"net": net, "stages": stages, "layers": layers}
    return Space("proxylessnas", tuple(body), 3, resolution, num_classes, Defaults(bn_eps=1e-3), options)
