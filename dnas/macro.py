"""Macro-architectures that several shipped spaces share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from dnas.errors import SpaceError
from dnas.ops import SE, ConvOp, GlobalPoolOp, InvertedResidualOp, LinearOp, Op, SkipOp
from dnas.ops.widths import round8
from dnas.slots import Layer, OneOf, Stage
from dnas.space import Space

# kernel, expansion, groups of the 1x1 convolutions; FBNet (arXiv:1812.03443), Table 2, in HW-NAS-Bench's order
FBNET_BLOCKS = ((3, 1, 1), (3, 1, 2), (3, 3, 1), (3, 6, 1), (5, 1, 1), (5, 1, 2), (5, 3, 1), (5, 6, 1))


class Row(NamedTuple):
    """A stage of a macro-architecture: output channels, layers, stride of the first."""

    out: int
    layers: int
    stride: int


class Place(NamedTuple):
    """Where a layer stands: channels in and out, stride, number of its stage (from 1), position in it (from 0)."""

    in_: int
    out: int
    stride: int
    stage: int
    position: int

    @property
    def keeps_shape(self) -> bool:
        return self.stride == 1 and self.in_ == self.out


def rows(table: Sequence[tuple[int, int, int]], stages: int, layers: int, width: float = 1.0) -> tuple[Row, ...]:
    """The first ``stages`` rows of (out channels, layers, stride), at most ``layers`` of each, ``width`` times as wide."""
    if stages < 1 or layers < 1 or width <= 0:
        raise SpaceError(f"stages {stages}, layers {layers}, width {width:g}; expected at least 1, at least 1, more than 0")
    return tuple(Row(round8(out * width), min(repeats, layers), stride) for out, repeats, stride in table[:stages])


def searchable(
    in_: int, table: Sequence[Row], candidates: Callable[[Place], Sequence[Op]], depths: Sequence[int] = ()
) -> list[Layer]:
    """One choice s<stage>.b<layer> per layer, among the ops that ``candidates`` gives for its place.

    ``depths``: how many layers of a stage may run (s<stage>.depth chooses); none: all of them.
    """
    layers: list[Layer] = []
    for number, row in enumerate(table, 1):
        stage = []
        for position in range(row.layers):
            place = Place(in_, row.out, row.stride if position == 0 else 1, number, position)
            stage.append(OneOf(f"s{number}.b{position + 1}", tuple(candidates(place))))
            in_ = row.out
        fitting = tuple(d for d in depths if d <= row.layers)
        layers += [Stage(OneOf(f"s{number}.depth", fitting), tuple(stage))] if len(fitting) > 1 else stage
    return layers


def first_block(in_: int, out: int, act: str = "relu", se: SE | None = None) -> InvertedResidualOp:
    """The inverted residual without expansion that follows the stem; it adds its input where the shape stays."""
    return InvertedResidualOp(in_=in_, mid=in_, out=out, expand=False, act=act, se=se, residual=in_ == out)


def inverted(at: Place, mid: int, kernel: int, act: str = "relu", se: SE | None = None) -> InvertedResidualOp:
    """The inverted residual at a place, with ``mid`` middle channels; it adds its input wherever the shape stays."""
    return InvertedResidualOp(
        in_=at.in_, mid=mid, out=at.out, kernel=kernel, stride=at.stride, act=act, se=se, residual=at.keeps_shape
    )


def skip_where_possible(at: Place) -> tuple[Op, ...]:
    """An identity as the last candidate, where input and output shapes match."""
    return (SkipOp(in_=at.in_, out=at.out),) if at.keeps_shape else ()


def quarter(mid: int) -> SE:
    """MobileNetV3's squeeze-excite: a quarter of the middle channels, in multiples of 8 (arXiv:1905.02244)."""
    return SE(round8(mid // 4))


def head(in_: int, width: int, num_classes: int, act: str = "relu") -> list[Layer]:
    """1x1 convolution, pooling, classifier."""
    return [ConvOp(in_=in_, out=width, act=act), GlobalPoolOp(), LinearOp(in_=width, out=num_classes)]


def mobilenetv3_head(in_: int, width: int, features: int, num_classes: int, bias: bool) -> list[Layer]:
    """1x1 convolution, pooling, a 1x1 convolution on the pooled map without BN, classifier (arXiv:1905.02244)."""
    late = ConvOp(in_=width, out=features, bias=bias, norm=None, act="hswish")
    return [ConvOp(in_=in_, out=width, act="hswish"), GlobalPoolOp(), late, LinearOp(in_=features, out=num_classes)]


def fbnet_block(in_: int, out: int, stride: int, kernel: int, expansion: int, groups: int, expand1: bool) -> InvertedResidualOp:
    """One of FBNet's eight convolutional candidates; ``groups`` above 1 group both 1x1 convolutions, with a shuffle between."""
    expand = expansion > 1 or expand1
    return InvertedResidualOp(
        in_=in_, mid=in_ * expansion, out=out, kernel=kernel, stride=stride, expand=expand, act="relu",
        residual=stride == 1 and in_ == out, expand_groups=groups if expand else 1, project_groups=groups, shuffle=groups,
    )  # fmt: skip


def fbnet_space(
    name: str,
    stages: Sequence[tuple[int, int, int]],
    *,
    stem: int,
    stem_stride: int,
    head_width: int,
    resolution: int,
    num_classes: int,
    expand1: bool,
) -> Space:
    """Stem convolution, searchable stages of (out channels, layers, stride of the first), 1x1 head, pooling, classifier.

    ``skip`` is a candidate only where input and output shapes match.
    """

    def candidates(at: Place) -> list[Op]:
        return [*(fbnet_block(at.in_, at.out, at.stride, *b, expand1) for b in FBNET_BLOCKS), *skip_where_possible(at)]

    table = [Row(*stage) for stage in stages]
    layers: list[Layer] = [ConvOp(in_=3, out=stem, kernel=3, stride=stem_stride)]
    layers += searchable(stem, table, candidates) + head(table[-1].out, head_width, num_classes)
    return Space(name, tuple(layers), 3, resolution, num_classes, options={"expand1": expand1, "head": head_width})
