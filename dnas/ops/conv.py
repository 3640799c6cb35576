"""Stem, head and separable convolutions, pooling, classifier, identity."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from dnas.ops.base import SE, Op
from dnas.ops.primitives import Act, Conv, Dense, GlobalPool, Norm, Primitive, depthwise, pointwise, shares


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

    def steps(self) -> tuple[Primitive, ...]:
        conv = Conv("conv", self.in_, self.out, self.kernel, self.stride, self.groups, self.bias, self.pad)
        if self.norm:
            return (conv, Norm("bn", self.out, self.act))
        return (conv, Act("act", self.act)) if self.act else (conv,)

    @property
    def label(self) -> str:
        return f"conv_k{self.kernel}"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class DsConvOp(Op):
    """Depthwise k x k -> BN -> act -> [SE] -> 1x1 -> BN -> ``pw_act``; + input if ``residual`` (MobileNetV1).

    ``kernel`` as a list and ``project_splits`` as in ``ir``.
    """

    op: ClassVar[str] = "ds_conv"
    in_: int
    out: int
    kernel: int | tuple[int, ...] = 3
    stride: int = 1
    act: str = "relu"
    se: SE | None = None
    pw_act: str | None = None
    bias: bool = False
    residual: bool = False
    project_splits: int = 1
    pad: int | None = None

    def check(self) -> None:
        check_kernels(self.in_, self.kernel)
        check_splits(self.in_, self.out, self.project_splits)

    def steps(self) -> tuple[Primitive, ...]:
        return (
            depthwise("depthwise", self.in_, self.kernel, self.stride, self.bias, self.pad),
            Norm("depthwise_bn", self.in_, self.act),
            *((self.se.primitive(self.in_),) if self.se else ()),
            pointwise("project", self.in_, self.out, splits=self.project_splits, bias=self.bias),
            Norm("project_bn", self.out, self.pw_act),
        )

    @property
    def label(self) -> str:
        return f"ds_{kernel_label(self.kernel)}"


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

    def steps(self) -> tuple[Primitive, ...]:
        return ()


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class GlobalPoolOp(Op):
    """Mean over height and width; keeps 1x1."""

    op: ClassVar[str] = "global_pool"

    def steps(self) -> tuple[Primitive, ...]:
        return (GlobalPool("pool"),)


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class LinearOp(Op):
    """Flatten, matrix product, bias."""

    op: ClassVar[str] = "linear"
    in_: int
    out: int
    bias: bool = True

    def steps(self) -> tuple[Primitive, ...]:
        return (Dense("linear", self.in_, self.out, self.bias),)


def check_groups(in_: int, out: int, groups: int) -> None:
    if in_ % groups or out % groups:
        raise ValueError(f"{in_} -> {out} channels cannot be split into {groups} groups")


def check_kernels(channels: int, kernel: int | tuple[int, ...]) -> None:
    if isinstance(kernel, tuple) and not 1 < len(kernel) <= channels:
        raise ValueError(f"kernel is {list(kernel)} for {channels} channels; expected a number, or 2 to {channels} of them")


def check_splits(in_: int, out: int, splits: int, groups: int = 1) -> None:
    if splits > min(in_, out):
        raise ValueError(f"{in_} -> {out} channels cannot be split into {splits} convolutions")
    for a, b in zip(shares(in_, splits), shares(out, splits), strict=True):
        check_groups(a, b, groups)


def kernel_label(kernel: int | tuple[int, ...]) -> str:
    """k3; k3.5.7 for mixed kernels, as in timm's strings."""
    return "k" + ".".join(map(str, kernel if isinstance(kernel, tuple) else (kernel,)))


def ratio_label(letter: str, width: int, of: int) -> str:
    """e6 for a width of 6 times ``of``; the width itself, as in m50, where the ratio is no round number."""
    ratio = width / of
    return f"{letter}{ratio:g}" if ratio * 100 % 1 == 0 else f"{letter if letter != 'e' else ''}m{width}"
