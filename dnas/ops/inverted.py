"""Inverted residuals (MobileNetV2, arXiv:1801.04381), with FBNet's grouped form (arXiv:1812.03443)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from dnas.ops.base import SE, Op
from dnas.ops.conv import check_groups
from dnas.ops.primitives import Conv, Norm, Primitive, Shuffle


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class InvertedResidualOp(Op):
    """[1x1 in -> mid -> BN -> act] -> [shuffle] -> depthwise k x k -> BN -> act -> [SE] -> 1x1 -> BN; + input.

    ``expand``: whether the first 1x1 exists; sources disagree where mid == in, so it is part of the op.
    """

    op: ClassVar[str] = "ir"
    in_: int
    mid: int
    out: int
    kernel: int = 3
    stride: int = 1
    expand: bool = True
    act: str = "relu"
    se: SE | None = None
    bias: bool = False
    residual: bool = False
    expand_groups: int = 1
    project_groups: int = 1
    shuffle: int = 1
    pad: int | None = None

    def check(self) -> None:
        if not self.expand and self.mid != self.in_:
            raise ValueError(f"without an expansion convolution mid ({self.mid}) must equal in ({self.in_})")
        check_groups(self.in_, self.mid, self.expand_groups)
        check_groups(self.mid, self.out, self.project_groups)
        check_groups(self.mid, self.mid, self.shuffle)

    def primitives(self) -> tuple[Primitive, ...]:
        mid, steps = self.mid, []
        if self.expand:
            steps += [
                Conv("expand", self.in_, mid, groups=self.expand_groups, bias=self.bias),
                Norm("expand_bn", mid, self.act),
            ]
        if self.shuffle > 1:
            steps.append(Shuffle("shuffle", self.shuffle))
        return (
            *steps,
            Conv("depthwise", mid, mid, self.kernel, self.stride, mid, self.bias, self.pad),
            Norm("depthwise_bn", mid, self.act),
            *((self.se.primitive(mid),) if self.se else ()),
            Conv("project", mid, self.out, groups=self.project_groups, bias=self.bias),
            Norm("project_bn", self.out),
        )

    @property
    def label(self) -> str:
        ratio = self.mid / self.in_
        parts = [f"k{self.kernel}", f"e{ratio:g}" if ratio * 100 % 1 == 0 else f"m{self.mid}"]
        if max(self.expand_groups, self.project_groups) > 1:
            parts.append(f"g{max(self.expand_groups, self.project_groups)}")
        return "_".join(parts + (["se"] if self.se else []))
