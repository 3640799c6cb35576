"""Once-for-all's MobileNetV3 space: kernel 3, 5 or 7 and expansion 3, 4 or 6 per layer, 2 to 4 layers per stage.

Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient Deployment", ICLR 2020, arXiv:1908.09791.

(9^2 + 9^3 + 9^4)^5 = 2.2e19 networks for each input resolution (the paper: about 1e19 without it). The resolution, 128 to
224 px in steps of 4 in the paper, is fixed for a run: ``ofa_mobilenetv3:resolution=160``. ``width`` is the multiple of
all widths: 1.0 and 1.2 are the published supernets.
"""

from dnas.macro import Place, first_block, inverted, mobilenetv3_head, quarter, round8, rows, searchable
from dnas.ops import ConvOp, Op
from dnas.space import Space

STAGES = ((24, 4, 2), (40, 4, 2), (80, 4, 2), (112, 4, 1), (160, 4, 2))
SE_STAGES, RELU_STAGES = (2, 4, 5), (1, 2)  # the others have none, and h-swish


def SPACE(width: float = 1.0, stages: int = 5, layers: int = 4, resolution: int = 224, num_classes: int = 1000) -> Space:
    """``stages``, ``layers``: only the first stages, and of each at most so many layers; ``resolution`` in pixels."""
    table = rows(STAGES, stages, layers, width)
    stem, last, features = (round8(w * width) for w in (16, 960, 1280))

    def candidates(at: Place) -> list[Op]:
        act = "relu" if at.stage in RELU_STAGES else "hswish"
        se = quarter if at.stage in SE_STAGES else lambda mid: None
        return [inverted(at, at.in_ * e, k, act, se(at.in_ * e)) for k in (3, 5, 7) for e in (3, 4, 6)]

    body = [
        ConvOp(in_=3, out=stem, kernel=3, stride=2, act="hswish"),
        first_block(stem, stem),
        *searchable(stem, table, candidates, depths=(2, 3, 4)),
        *mobilenetv3_head(table[-1].out, last, features, num_classes, bias=False),
    ]
    options = {"width": width, "stages": stages, "layers": layers}
    return Space("ofa_mobilenetv3", tuple(body), 3, resolution, num_classes, options=options)
