"""Inverted residuals (MobileNetV2, arXiv:1801.04381), with FBNet's grouped form (arXiv:1812.03443)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from dnas.ops.base import SE, Op
from dnas.ops.conv import check_groups, check_kernels, check_splits, kernel_label, ratio_label
from dnas.ops.primitives import Norm, Primitive, Shuffle, depthwise, pointwise


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class InvertedResidualOp(Op):
    """[1x1 in -> mid -> BN -> act] -> [shuffle] -> depthwise k x k -> BN -> act -> [SE] -> 1x1 -> BN; + input.

    ``expand``: whether the first 1x1 exists; sources disagree where mid == in, so it is part of the op. ``kernel`` as a list:
    each share of the channels has its own; ``expand_splits`` and ``project_splits``: each share has a 1x1 of its own (MixNet,
    arXiv:1907.09595).
    """

    op: ClassVar[str] = "ir"
    in_: int
    mid: int
    out: int
    kernel: int | tuple[int, ...] = 3
    stride: int = 1
    expand: bool = True
    act: str = "relu"
    se: SE | None = None
    bias: bool = False
    residual: bool = False
    expand_groups: int = 1
    project_groups: int = 1
    shuffle: int = 1
    expand_splits: int = 1
    project_splits: int = 1
    pad: int | None = None

    def check(self) -> None:
        if not self.expand and self.mid != self.in_:
            raise ValueError(f"without an expansion convolution mid ({self.mid}) must equal in ({self.in_})")
        check_groups(self.in_, self.mid, self.expand_groups)
        check_groups(self.mid, self.out, self.project_groups)
        check_groups(self.mid, self.mid, self.shuffle)
        check_kernels(self.mid, self.kernel)
        check_splits(self.in_, self.mid, self.expand_splits, self.expand_groups)
        check_splits(self.mid, self.out, self.project_splits, self.project_groups)

    def steps(self) -> tuple[Primitive, ...]:
        mid, steps = self.mid, []
        if self.expand:
            steps += [
                pointwise("expand", self.in_, mid, self.expand_groups, self.expand_splits, self.bias),
                Norm("expand_bn", mid, self.act),
            ]
        if self.shuffle > 1:
            steps.append(Shuffle("shuffle", self.shuffle))
        return (
            *steps,
            depthwise("depthwise", mid, self.kernel, self.stride, self.bias, self.pad),
            Norm("depthwise_bn", mid, self.act),
            *((self.se.primitive(mid),) if self.se else ()),
            pointwise("project", mid, self.out, self.project_groups, self.project_splits, self.bias),
            Norm("project_bn", self.out),
        )

    @property
    def label(self) -> str:
        parts = [kernel_label(self.kernel), ratio_label("e", self.mid, self.in_)]
        if max(self.expand_groups, self.project_groups) > 1:
            parts.append(f"g{max(self.expand_groups, self.project_groups)}")
        return "_".join(parts + (["se"] if self.se else []))
