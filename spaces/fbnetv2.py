"""FBNetV2's channel search: per layer kernel, squeeze-excite, activation or nothing, and middle channels; per stage its width.

Wan et al., "FBNetV2: Differentiable Neural Architecture Search for Spatial and Channel Dimensions", CVPR 2020,
arXiv:2004.05565. All widths are masks on one shared convolution, so that memory hardly grows with their number: the 8
candidates of a layer are its 8 sets of parameters. The latency of a layer couples the widths before, inside and after it.

Ranges are written as in the paper, (lowest, highest, step); they are close to its FBNetV2-F but were not checked against its
table, and the resolution, which it searches as well, is fixed for a run. Middle channels are expansions of the largest
input, in multiples of 8. ``skip`` is a candidate where the shape stays.
"""

import numpy as np

from dnas.choices import Follow, Layer, OneOf, Template, Width
from dnas.errors import SpaceError
from dnas.macro import head, quarter, round8
from dnas.ops import ConvOp, InvertedResidualOp, SkipOp
from dnas.space import Space

# channels, expansions, layers, stride of the first
STAGES = (
    ((16, 28, 4), (0.75, 3.25, 0.5), 3, 2),
    ((16, 40, 8), (0.75, 3.25, 0.5), 3, 2),
    ((48, 96, 8), (0.75, 3.75, 0.5), 3, 2),
    ((72, 128, 8), (0.75, 4.5, 0.75), 4, 1),
    ((112, 216, 8), (0.75, 4.5, 0.75), 4, 2),
)


def steps(low: float, high: float, step: float) -> list[float]:
    return [float(v) for v in np.arange(low, high + step / 2, step)]


def SPACE(stages: int = 5, layers: int = 4, resolution: int = 224, num_classes: int = 1000) -> Space:
    """``stages``, ``layers``: only the first stages, and of each at most so many layers; ``resolution`` in pixels."""
    if stages < 1 or layers < 1:
        raise SpaceError(f"stages {stages}, layers {layers}; expected at least 1 of each")
    before = Width("s0.width", (12, 16))
    first = {"in_": 16, "mid": 16, "out": before, "expand": False, "act": "hswish"}
    body: list[Layer] = [ConvOp(in_=3, out=16, kernel=3, stride=2, act="hswish"), Template(InvertedResidualOp, **first)]
    for number, (channels, expansions, repeats, first_stride) in enumerate(STAGES[:stages], 1):
        own = Width(f"s{number}.width", tuple(map(int, steps(*channels))))
        for position in range(min(repeats, layers)):
            name, stride = f"s{number}.b{position + 1}", first_stride if position == 0 else 1
            arriving = Follow(before.name, before.options)
            mids = dict.fromkeys(round8(max(before.options) * e) for e in steps(*expansions))
            mid = Width(f"{name}.mid", tuple(mids))
            se = Follow(mid.name, tuple(map(quarter, mid.options)))
            same = position > 0
            options = [
                Template(
                    InvertedResidualOp, label=f"k{k}_{act}{'_se' if with_se else ''}", in_=arriving, mid=mid, out=own, kernel=k,
                    stride=stride, act=act, se=se if with_se else None, residual=same,
                )
                for k in (3, 5) for with_se in (False, True) for act in ("relu", "hswish")
            ]  # fmt: skip
            skip = [Template(SkipOp, in_=arriving, out=arriving)] if same else []
            body.append(OneOf(name, (*options, *skip)))
            before = own
    _, *end = head(1984, 1984, num_classes)
    body += [Template(ConvOp, in_=Follow(before.name, before.options), out=1984, act="hswish"), *end]
    return Space("fbnetv2", tuple(body), 3, resolution, num_classes, options={"stages": stages, "layers": layers})
