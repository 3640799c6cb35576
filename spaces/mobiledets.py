"""MobileDets' space of detection backbones: inverted, fused and Tucker blocks with their ratios per layer; 320 px.

Xiong et al., "MobileDets: Searching for Object Detection Architectures for Mobile Accelerators", CVPR 2021,
arXiv:2004.14525. Inverted residuals and fused ones with kernel 3 or 5 and expansion 4 or 8; Tucker convolutions (generalised
bottlenecks) with kernel 3 and ratios 0.25 or 0.75 of input and output channels.

``target``: whose widths. ``cpu`` has inverted residuals only, with squeeze-excite and h-swish (4 candidates in 18 layers:
6.9e10 points); ``dsp``, ``edgetpu`` and ``gpu`` have all 12. The published backbones are points of the space at their widths.
The paper searches the widths as well; here they are those of the target's backbone. The first layer of each row has no
residual, as in the authors' code. The output is a feature map; for a classifier give ``num_classes``.
"""

from dnas.arch import Defaults
from dnas.errors import SpaceError, nearest
from dnas.macro import Place, first_block, rows, searchable
from dnas.ops import SE, ConvOp, FusedInvertedResidualOp, GlobalPoolOp, InvertedResidualOp, LinearOp, Op, TuckerOp
from dnas.slots import OneOf
from dnas.space import Space

# stem, first block, stages of (out, layers, stride)
TARGETS = {
    "cpu": (16, 8, ((16, 1, 2), (32, 4, 2), (72, 4, 2), (72, 4, 1), (104, 4, 2), (144, 1, 1))),
    "dsp": (32, 24, ((32, 4, 2), (64, 4, 2), (120, 4, 2), (144, 4, 1), (160, 2, 2), (160, 2, 1), (240, 1, 1))),
    "edgetpu": (32, 16, ((16, 4, 2), (40, 4, 2), (72, 4, 2), (96, 4, 1), (120, 4, 2), (384, 1, 1))),
    "gpu": (32, 16, ((32, 4, 2), (64, 4, 2), (128, 4, 2), (128, 4, 1), (128, 4, 2), (384, 1, 1))),
}


def share(channels: int, ratio: float) -> int:
    """``ratio`` of the channels in multiples of 8, half up, without MobileNet's guard, as the authors round."""
    return max(int(channels * ratio / 8 + 0.5) * 8, 8)


def tuckers(at: Place, residual: bool) -> list[Op]:
    ratios = [(a, b) for a in (0.25, 0.75) for b in (0.25, 0.75)]
    ranks = dict.fromkeys((share(at.in_, a), share(at.out, b)) for a, b in ratios)
    return [
        TuckerOp(in_=at.in_, mid_in=a, mid_out=b, out=at.out, stride=at.stride, act="relu6", residual=residual)
        for a, b in ranks
    ]


def SPACE(target: str = "cpu", stages: int = 7, layers: int = 4, resolution: int = 320, num_classes: int = 0) -> Space:
    """``stages``, ``layers``: only the first stages, and of each at most so many layers; ``resolution`` in pixels."""
    if target not in TARGETS:
        raise SpaceError(f"target is {target!r}{nearest(target, TARGETS)}")
    stem, first, plan = TARGETS[target]
    on_cpu = target == "cpu"
    act = "hswish" if on_cpu else "relu6"
    table = rows(plan, stages, layers)

    def se(mid: int) -> SE | None:
        return SE(share(mid, 0.25), act="hswish", gate="sigmoid") if on_cpu else None

    def candidates(at: Place) -> list[Op]:
        more = {"in_": at.in_, "out": at.out, "stride": at.stride, "act": act, "residual": at.position > 0}
        mids = [(k, at.in_ * e) for k in (3, 5) for e in (4, 8)]
        found: list[Op] = [InvertedResidualOp(mid=mid, kernel=k, se=se(mid), **more) for k, mid in mids]
        if not on_cpu:
            found += [FusedInvertedResidualOp(mid=mid, kernel=k, **more) for k, mid in mids]
            found += tuckers(at, residual=at.position > 0)
        return found

    start = first_block(stem, first, act, se(stem))
    body = [
        ConvOp(in_=3, out=stem, kernel=3, stride=2, act=act),
        start if on_cpu else OneOf("s0.b1", (start, *tuckers(Place(stem, first, 1, 0, 0), residual=False))),
        *searchable(first, table, candidates),
    ]
    if num_classes:
        body += [GlobalPoolOp(), LinearOp(in_=table[-1].out, out=num_classes)]
    options = {"target": target, "stages": stages, "layers": layers}
    defaults = Defaults(bn_eps=1e-3, bn_momentum=0.99, padding="tf_same")
    return Space("mobiledets", tuple(body), 3, resolution, num_classes, defaults, options)
