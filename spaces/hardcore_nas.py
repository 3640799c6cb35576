"""HardCoRe-NAS's space: kernel 3 or 5, expansion 3, 4 or 6, with or without squeeze-excite per layer, 2 to 4 layers per stage.

Nayman et al., "HardCoRe-NAS: Hard Constrained diffeRentiable Neural Architecture Search", ICML 2021, arXiv:2102.11646. The
macro-architecture is that of the published networks A to F (24, 40, 80, 112, 192 channels), which are points of it.

(12^2 + 12^3 + 12^4)^5 = 5.9e21 points.
"""

from dnas.macro import Place, inverted, mobilenetv3_head, quarter, rows, searchable
from dnas.ops import ConvOp, DsConvOp, Op
from dnas.space import Space

STAGES = ((24, 4, 2), (40, 4, 2), (80, 4, 2), (112, 4, 1), (192, 4, 2))


def SPACE(stages: int = 5, layers: int = 4, resolution: int = 224, num_classes: int = 1000) -> Space:
    """``stages``, ``layers``: only the first stages, and of each at most so many layers; ``resolution`` in pixels."""
    table = rows(STAGES, stages, layers)

    def candidates(at: Place) -> list[Op]:
        act = "relu" if at.stage <= 2 else "hswish"
        shapes = [(k, at.in_ * e) for k in (3, 5) for e in (3, 4, 6)]
        return [inverted(at, mid, k, act, se) for k, mid in shapes for se in (None, quarter(mid))]

    body = [
        ConvOp(in_=3, out=32, kernel=3, stride=2, act="hswish"),
        DsConvOp(in_=32, out=16),
        *searchable(16, table, candidates, depths=(2, 3, 4)),
        *mobilenetv3_head(table[-1].out, 960, 1280, num_classes, bias=True),
    ]
    options = {"stages": stages, "layers": layers}
    return Space("hardcore_nas", tuple(body), 3, resolution, num_classes, options=options)
