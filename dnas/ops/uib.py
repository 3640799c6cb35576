"""The universal inverted bottleneck of MobileNetV4 (arXiv:2404.10518)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from dnas.ops.base import SE, Op
from dnas.ops.conv import ratio_label
from dnas.ops.primitives import Conv, Norm, Primitive, Scale


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class UniversalInvertedBottleneckOp(Op):
    """[dw_start -> BN] -> 1x1 in -> mid -> BN -> act -> [dw_mid -> BN -> act] -> [SE] -> 1x1 -> BN -> [dw_end -> BN]; + input.

    ``dw_start``, ``dw_mid`` and ``dw_end`` are kernel sizes, 0 where there is no such depthwise convolution; the stride sits
    in ``dw_mid``, else in ``dw_start``, else in ``dw_end``. ``layer_scale``: a learned factor per channel before the addition.
    """

    op: ClassVar[str] = "uib"
    in_: int
    mid: int
    out: int
    dw_start: int = 0
    dw_mid: int = 3
    dw_end: int = 0
    stride: int = 1
    act: str = "relu"
    se: SE | None = None
    layer_scale: bool = False
    bias: bool = False
    residual: bool = False

    def check(self) -> None:
        if self.stride > 1 and not self.strided:
            raise ValueError(f"stride {self.stride} needs a depthwise convolution (dw_mid, dw_start or dw_end)")

    @property
    def strided(self) -> str | None:
        """Which of the depthwise convolutions has the stride."""
        return next((name for name in ("dw_mid", "dw_start", "dw_end") if getattr(self, name)), None)

    def steps(self) -> tuple[Primitive, ...]:
        def depthwise(name: str, channels: int, act: str | None) -> tuple[Primitive, ...]:
            stride = self.stride if name == self.strided else 1
            conv = Conv(name, channels, channels, getattr(self, name), stride, channels, self.bias)
            return (conv, Norm(f"{name}_bn", channels, act)) if conv.kernel else ()

        return (
            *depthwise("dw_start", self.in_, None),
            Conv("expand", self.in_, self.mid, bias=self.bias),
            Norm("expand_bn", self.mid, self.act),
            *depthwise("dw_mid", self.mid, self.act),
            *((self.se.primitive(self.mid),) if self.se else ()),
            Conv("project", self.mid, self.out, bias=self.bias),
            Norm("project_bn", self.out),
            *depthwise("dw_end", self.out, None),
            *((Scale("scale", self.out),) if self.layer_scale else ()),
        )

    @property
    def label(self) -> str:
        kernels = [f"{n}{k}" for n, k in (("s", self.dw_start), ("m", self.dw_mid), ("e", self.dw_end)) if k]
        parts = ["uib", *kernels, ratio_label("e", self.mid, self.in_)]
        return "_".join(parts + ["se"] * (self.se is not None) + ["ls"] * self.layer_scale)
