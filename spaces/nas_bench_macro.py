"""NAS-Bench-Macro's space: 8 layers of identity, inverted residual k3 e3, or inverted residual k5 e6; 32 px.

Su et al., "Prioritized Architecture Sampling with Monto-Carlo Tree Search", CVPR 2021, arXiv:2103.11922; every network was
trained on CIFAR-10 (``dnas.oracle.load("nas-bench-macro")``). A genotype is the benchmark's code. Where the shape changes,
identity is a strided 1x1 convolution with BN. 3^8 = 6,561 codes build 3,969 different networks.
"""

from dnas.macro import Place, head, inverted, rows, searchable
from dnas.ops import ConvOp, Op, SkipOp
from dnas.space import Space

STAGES = ((64, 2, 2), (128, 3, 2), (256, 3, 2))


def SPACE(width: float = 1.0, stages: int = 3, layers: int = 3, resolution: int = 32, num_classes: int = 10) -> Space:
    """``width``: multiple of all widths; ``stages``, ``layers``: only the first, for quick tries; ``resolution`` in pixels."""
    table = rows(STAGES, stages, layers, width)
    stem, last = int(32 * width), int(1280 * width)

    def candidates(at: Place) -> list[Op]:
        strided = ConvOp(in_=at.in_, out=at.out, stride=at.stride, act=None)
        return [
            SkipOp(in_=at.in_, out=at.out) if at.keeps_shape else strided,
            *(inverted(at, at.in_ * e, k) for k, e in ((3, 3), (5, 6))),
        ]

    body = [
        ConvOp(in_=3, out=stem, kernel=3),
        *searchable(stem, table, candidates),
        *head(table[-1].out, last, num_classes),
    ]
    options = {"width": width, "stages": stages, "layers": layers}
    return Space("nas_bench_macro", tuple(body), 3, resolution, num_classes, options=options)
