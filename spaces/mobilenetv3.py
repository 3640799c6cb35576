"""A space around MobileNetV3: kernel, expansion, squeeze-excite and activation per layer, number of layers per stage; 224 px.

Howard et al., "Searching for MobileNetV3", ICCV 2019, arXiv:1905.02244, Tables 1 and 2. The paper's own search was MnasNet's
per block and NetAdapt's per layer; this is their common ground: the widths of V3-Large (``small``: V3-Small), and per
layer kernel 3 or 5, expansion 3, 4 or 6, SE of a quarter or none, ReLU or h-swish. NetAdapt left other expansions in some
stages; these are candidates there too (2.3 and 2.5 in the stage of 80 channels, 4.5 and 3.67 in the 24 of V3-Small).
V3-Large and V3-Small are points; ``padding=tf_same`` gives the TensorFlow networks.

Large: stages of 2 to 4 layers with 24 (40) candidates, (24^2 + 24^3 + 24^4)^4 * (40^2 + 40^3 + 40^4) = 3.8e28 points.
"""

from dnas.arch import Defaults
from dnas.macro import Place, inverted, mobilenetv3_head, quarter, round8, rows, searchable
from dnas.ops import SE, ConvOp, DsConvOp, Op
from dnas.space import Space

# out, layers, stride, and the expansions of this stage beside 3, 4 and 6
LARGE = ((24, 4, 2), (40, 4, 2), (80, 4, 2), (112, 4, 1), (160, 4, 2))
SMALL = ((24, 4, 2), (40, 4, 2), (48, 4, 1), (96, 4, 2))
FURTHER = {False: {3: (2.3, 2.5)}, True: {1: (3.67, 4.5)}}


def SPACE(
    small: bool = False, width: float = 1.0, stages: int = 5, layers: int = 4, padding: str = "symmetric",
    resolution: int = 224, num_classes: int = 1000,
) -> Space:  # fmt: skip
    """``width``: multiple of the stages' widths (stem and features, below 1, keep theirs, as in the published 0.75).

    ``stages``, ``layers``: only the first stages, and of each at most so many layers; ``resolution`` in pixels.
    """
    table = rows(SMALL if small else LARGE, stages, layers, width)
    stem = round8(16 * max(width, 1))
    first = round8(16 * width)
    last = round8((576 if small else 960) * width)
    features = round8((1024 if small else 1280) * max(width, 1))

    def candidates(at: Place) -> list[Op]:
        expansions = sorted((3, 4, 6, *FURTHER[small].get(at.stage, ())))
        mids = dict.fromkeys(round8(at.in_ * e) for e in expansions)
        return [
            inverted(at, mid, k, act, se)
            for k in (3, 5) for mid in mids for se in (None, quarter(mid)) for act in ("relu", "hswish")
        ]  # fmt: skip

    body = [
        ConvOp(in_=3, out=stem, kernel=3, stride=2, act="hswish"),
        DsConvOp(in_=stem, out=first, stride=2, se=SE(round8(stem // 4)))
        if small
        else DsConvOp(in_=stem, out=first, residual=stem == first),
        *searchable(first, table, candidates, depths=(2, 3, 4)),
        *mobilenetv3_head(table[-1].out, last, features, num_classes, bias=True),
    ]
    options = {"small": small, "width": width, "stages": stages, "layers": layers, "padding": padding}
    return Space("mobilenetv3", tuple(body), 3, resolution, num_classes, Defaults(padding=padding), options)
