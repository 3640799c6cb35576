"""The steps that ops are made of: their shapes, parameters and multiply-accumulates."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple


class Shape(NamedTuple):
    """Size of one feature map; ``height`` and ``width`` in pixels."""

    height: int
    width: int
    channels: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}x{self.channels}"


@dataclasses.dataclass(frozen=True)
class Primitive:
    """One step of an op. ``name`` is its place in the parameter tree."""

    name: str

    def out_shape(self, shape: Shape) -> Shape:
        return shape

    @property
    def params(self) -> int:
        """Trainable parameters (running statistics are not counted)."""
        return 0

    def macs(self, shape: Shape) -> int:
        """Multiply-accumulates of convolutions and matrix products on one input of ``shape``."""
        return 0


@dataclasses.dataclass(frozen=True)
class Conv(Primitive):
    """k x k convolution. ``pad`` is pixels on every side, or None for the network's padding rule."""

    in_: int
    out: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    bias: bool = False
    pad: int | None = None

    @property
    def depthwise(self) -> bool:
        return self.groups == self.in_ == self.out and self.groups > 1

    @property
    def params(self) -> int:
        return self.kernel**2 * (self.in_ // self.groups) * self.out + (self.out if self.bias else 0)

    def out_shape(self, shape: Shape) -> Shape:
        def size(n: int) -> int:
            if self.pad is None:
                return -(-n // self.stride)
            return (n + 2 * self.pad - self.kernel) // self.stride + 1

        return Shape(size(shape.height), size(shape.width), self.out)

    def macs(self, shape: Shape) -> int:
        out = self.out_shape(shape)
        return out.height * out.width * self.kernel**2 * (self.in_ // self.groups) * self.out


@dataclasses.dataclass(frozen=True)
class Norm(Primitive):
    """Batch normalisation over ``channels``, followed by ``act`` (None: linear)."""

    channels: int
    act: str | None = None

    @property
    def params(self) -> int:
        return 2 * self.channels


@dataclasses.dataclass(frozen=True)
class Act(Primitive):
    act: str


@dataclasses.dataclass(frozen=True)
class Shuffle(Primitive):
    """Channel shuffle: [.., g, C/g] -> [.., C/g, g]."""

    groups: int


@dataclasses.dataclass(frozen=True)
class SqueezeExcite(Primitive):
    """x * gate(expand(act(reduce(mean(x)))))."""

    channels: int
    reduce: int
    act: str
    gate: str
    bias: bool = True

    @property
    def params(self) -> int:
        return 2 * self.channels * self.reduce + (self.channels + self.reduce if self.bias else 0)

    def macs(self, shape: Shape) -> int:
        return 2 * self.channels * self.reduce


@dataclasses.dataclass(frozen=True)
class GlobalPool(Primitive):
    """Mean over height and width; keeps 1x1."""

    def out_shape(self, shape: Shape) -> Shape:
        return Shape(1, 1, shape.channels)


@dataclasses.dataclass(frozen=True)
class Dense(Primitive):
    """Flatten, matrix product."""

    in_: int
    out: int
    bias: bool = True

    @property
    def params(self) -> int:
        return self.in_ * self.out + (self.out if self.bias else 0)

    def out_shape(self, shape: Shape) -> Shape:
        return Shape(1, 1, self.out)

    def macs(self, shape: Shape) -> int:
        return self.in_ * self.out
