"""Stem, head and separable convolutions, pooling, classifier, identity."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from dnas.ops.base import SE, Op
from dnas.ops.primitives import Act, Conv, Dense, GlobalPool, Norm, Primitive


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class ConvOp(Op):
    """conv k x k -> BN if ``norm`` == "bn" -> act; + input if ``residual``."""

    op: ClassVar[str] = "conv"
    in_: int
    out: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    bias: bool = False
    norm: str | None = "bn"
    act: str | None = "relu"
    residual: bool = False
    pad: int | None = None

    def check(self) -> None:
        if self.norm not in ("bn", None):
            raise ValueError(f"norm is {self.norm!r}; expected 'bn' or null")
        check_groups(self.in_, self.out, self.groups)

    def primitives(self) -> tuple[Primitive, ...]:
        conv = Conv("conv", self.in_, self.out, self.kernel, self.stride, self.groups, self.bias, self.pad)
        if self.norm:
            return (conv, Norm("bn", self.out, self.act))
        return (conv, Act("act", self.act)) if self.act else (conv,)

    @property
    def label(self) -> str:
        return f"conv_k{self.kernel}"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class DsConvOp(Op):
    """Depthwise k x k -> BN -> act -> [SE] -> 1x1 -> BN -> ``pw_act``; + input if ``residual`` (MobileNetV1)."""

    op: ClassVar[str] = "ds_conv"
    in_: int
    out: int
    kernel: int = 3
    stride: int = 1
    act: str = "relu"
    se: SE | None = None
    pw_act: str | None = None
    bias: bool = False
    residual: bool = False
    pad: int | None = None

    def primitives(self) -> tuple[Primitive, ...]:
        return (
            Conv("depthwise", self.in_, self.in_, self.kernel, self.stride, self.in_, self.bias, self.pad),
            Norm("depthwise_bn", self.in_, self.act),
            *((self.se.primitive(self.in_),) if self.se else ()),
            Conv("project", self.in_, self.out, bias=self.bias),
            Norm("project_bn", self.out, self.pw_act),
        )

    @property
    def label(self) -> str:
        return f"ds_k{self.kernel}"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class SkipOp(Op):
    """Identity. It never changes a shape: a skip that does is a ``conv`` (FBNetV2)."""

    op: ClassVar[str] = "skip"
    in_: int
    out: int
    stride: int = 1

    def check(self) -> None:
        if self.stride != 1 or self.in_ != self.out:
            raise ValueError(
                f"an identity cannot turn {self.in_} into {self.out} channels with stride {self.stride}; use a conv"
            )

    def primitives(self) -> tuple[Primitive, ...]:
        return ()


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class GlobalPoolOp(Op):
    op: ClassVar[str] = "global_pool"

    def primitives(self) -> tuple[Primitive, ...]:
        return (GlobalPool("pool"),)


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class LinearOp(Op):
    """Flatten, matrix product, bias."""

    op: ClassVar[str] = "linear"
    in_: int
    out: int
    bias: bool = True

    def primitives(self) -> tuple[Primitive, ...]:
        return (Dense("linear", self.in_, self.out, self.bias),)


def check_groups(in_: int, out: int, groups: int) -> None:
    if in_ % groups or out % groups:
        raise ValueError(f"{in_} -> {out} channels cannot be split into {groups} groups")
