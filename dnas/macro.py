"""Macro-architectures that several shipped spaces share."""

from __future__ import annotations

from collections.abc import Sequence

from dnas.ops import ConvOp, GlobalPoolOp, InvertedResidualOp, LinearOp, Op, SkipOp
from dnas.slots import Layer, OneOf
from dnas.space import Space

# kernel, expansion, groups of the 1x1 convolutions; FBNet (arXiv:1812.03443), Table 2, in HW-NAS-Bench's order
FBNET_BLOCKS = ((3, 1, 1), (3, 1, 2), (3, 3, 1), (3, 6, 1), (5, 1, 1), (5, 1, 2), (5, 3, 1), (5, 6, 1))


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
    head: int,
    resolution: int,
    num_classes: int,
    expand1: bool,
) -> Space:
    """Stem convolution, searchable stages of (out channels, layers, stride of the first), 1x1 head, pooling, classifier.

    ``skip`` is a candidate only where input and output shapes match.
    """
    layers: list[Layer] = [ConvOp(in_=3, out=stem, kernel=3, stride=stem_stride)]
    in_ = stem
    for number, (out, repeats, first_stride) in enumerate(stages, 1):
        for position in range(repeats):
            stride = first_stride if position == 0 else 1
            options: list[Op] = [fbnet_block(in_, out, stride, *b, expand1) for b in FBNET_BLOCKS]
            if stride == 1 and in_ == out:
                options.append(SkipOp(in_=in_, out=out))
            layers.append(OneOf(f"s{number}.b{position + 1}", tuple(options)))
            in_ = out
    layers += [ConvOp(in_=in_, out=head), GlobalPoolOp(), LinearOp(in_=head, out=num_classes)]
    return Space(name, tuple(layers), 3, resolution, num_classes, options={"expand1": expand1, "head": head})
