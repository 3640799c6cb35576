"""Blocks with full k x k convolutions, of MobileDets (arXiv:2004.14525)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from dnas.ops.base import SE, Op
from dnas.ops.conv import check_groups, ratio_label
from dnas.ops.primitives import Conv, Norm, Primitive


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class FusedInvertedResidualOp(Op):
    """conv k x k in -> mid -> BN -> act -> [SE] -> 1x1 -> BN; + input."""

    op: ClassVar[str] = "fused_ir"
    in_: int
    mid: int
    out: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    act: str = "relu"
    se: SE | None = None
    bias: bool = False
    residual: bool = False
    pad: int | None = None

    def check(self) -> None:
        check_groups(self.in_, self.mid, self.groups)

    def steps(self) -> tuple[Primitive, ...]:
        return (
            Conv("fused", self.in_, self.mid, self.kernel, self.stride, self.groups, self.bias, self.pad),
            Norm("fused_bn", self.mid, self.act),
            *((self.se.primitive(self.mid),) if self.se else ()),
            Conv("project", self.mid, self.out, bias=self.bias),
            Norm("project_bn", self.out),
        )

    @property
    def label(self) -> str:
        parts = [f"fused_k{self.kernel}", ratio_label("e", self.mid, self.in_)]
        return "_".join(parts + [f"g{self.groups}"] * (self.groups > 1) + ["se"] * (self.se is not None))


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class TuckerOp(Op):
    """1x1 in -> mid_in -> BN -> act -> k x k mid_in -> mid_out -> BN -> act -> 1x1 -> BN; + input (generalised bottleneck)."""

    op: ClassVar[str] = "tucker"
    in_: int
    mid_in: int
    mid_out: int
    out: int
    kernel: int = 3
    stride: int = 1
    act: str = "relu"
    bias: bool = False
    residual: bool = False
    pad: int | None = None

    def steps(self) -> tuple[Primitive, ...]:
        return (
            Conv("compress", self.in_, self.mid_in, bias=self.bias),
            Norm("compress_bn", self.mid_in, self.act),
            Conv("core", self.mid_in, self.mid_out, self.kernel, self.stride, bias=self.bias, pad=self.pad),
            Norm("core_bn", self.mid_out, self.act),
            Conv("project", self.mid_out, self.out, bias=self.bias),
            Norm("project_bn", self.out),
        )

    @property
    def label(self) -> str:
        ratios = ratio_label("i", self.mid_in, self.in_), ratio_label("o", self.mid_out, self.out)
        return "_".join([f"tucker_k{self.kernel}", *ratios])
