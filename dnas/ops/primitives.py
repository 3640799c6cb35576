"""The steps that ops are made of: their shapes, parameters and multiply-accumulates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dnas.errors import ArchitectureError


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

    @property
    def takes(self) -> int | None:
        """Channels that it needs; None if any will do."""
        return getattr(self, "in_", None) or getattr(self, "channels", None)

    def check(self, shape: Shape) -> None:
        """Raise ArchitectureError, in words, where it cannot read a map of ``shape``."""
        if self.takes not in (None, shape.channels):
            raise ArchitectureError(
                f"{self.name or 'input'} takes {self.takes} channels but is given {shape.channels} ({shape})"
            )

    def out_shape(self, shape: Shape) -> Shape:
        return shape

    def walk(self, shape: Shape) -> Iterator[tuple[Primitive, Shape]]:
        """Itself, or what it is made of, each with the shape that it reads. Errors: ArchitectureError."""
        self.check(shape)
        if min(self.out_shape(shape)[:2]) < 1:
            raise ArchitectureError(f"the map is empty after {self.name!r} (it reads {shape})")
        yield self, shape

    def leaves(self) -> tuple[Primitive, ...]:
        """Itself, or what it is made of, in execution order."""
        return (self,)

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

    def check(self, shape: Shape) -> None:
        if math.prod(shape) != self.in_:
            raise ArchitectureError(f"{self.name} takes {self.in_} channels but is given {math.prod(shape)} ({shape})")

    @property
    def params(self) -> int:
        return self.in_ * self.out + (self.out if self.bias else 0)

    def out_shape(self, shape: Shape) -> Shape:
        return Shape(1, 1, self.out)

    def macs(self, shape: Shape) -> int:
        return self.in_ * self.out


@dataclasses.dataclass(frozen=True)
class LayerNorm(Primitive):
    """Normalisation over the channels of every position (Ba et al. 2016, arXiv:1607.06450)."""

    channels: int
    eps: float = 1e-5

    @property
    def params(self) -> int:
        return 2 * self.channels


@dataclasses.dataclass(frozen=True)
class Scale(Primitive):
    """One learned factor per channel (layer scale, arXiv:2103.17239)."""

    channels: int

    @property
    def params(self) -> int:
        return self.channels


@dataclasses.dataclass(frozen=True)
class PoolDifference(Primitive):
    """Mean over ``size`` x ``size`` neighbours, those outside the map not counted, minus x (PoolFormer, arXiv:2111.11418)."""

    size: int


@dataclasses.dataclass(frozen=True)
class Attention(Primitive):
    """softmax(q.k / sqrt(key_dim) + table[head, abs(dy) * resolution + abs(dx)]) v (LeViT, arXiv:2104.01136).

    Reads q, k and v side by side per head; the table ties it to maps of ``resolution`` x ``resolution``. Its two matrix
    products have no parameters and, as in published figures, are not counted as MACs.
    """

    heads: int
    key_dim: int
    value_dim: int
    resolution: int

    @property
    def takes(self) -> int:
        return self.heads * (2 * self.key_dim + self.value_dim)

    @property
    def params(self) -> int:
        return self.heads * self.resolution**2

    def check(self, shape: Shape) -> None:
        super().check(shape)
        if (shape.height, shape.width) != (self.resolution, self.resolution):
            raise ArchitectureError(
                f"{self.name} has positions for {self.resolution}x{self.resolution} tokens but is given {shape}"
            )

    def out_shape(self, shape: Shape) -> Shape:
        return shape._replace(channels=self.heads * self.value_dim)


@dataclasses.dataclass(frozen=True)
class Add(Primitive):
    """The sum, or mean, at the end of a ``Residual`` or ``Mean``."""


@dataclasses.dataclass(frozen=True)
class Concat(Primitive):
    """Puts the parts of a ``Split`` together again."""


@dataclasses.dataclass(frozen=True)
class Residual(Primitive):
    """x + the last of ``steps`` applied one after the other to x."""

    steps: tuple[Primitive, ...]

    def walk(self, shape: Shape) -> Iterator[tuple[Primitive, Shape]]:
        out = shape
        for step in self.steps:
            yield from step.walk(out)
            out = step.out_shape(out)
        if out != shape:
            raise ArchitectureError(f"{self.name}: a residual needs equal shapes, got {shape} -> {out}")
        yield Add(f"{self.name}_add"), shape

    def leaves(self) -> tuple[Primitive, ...]:
        return (*(leaf for step in self.steps for leaf in step.leaves()), Add(f"{self.name}_add"))


@dataclasses.dataclass(frozen=True)
class Split(Primitive):
    """Channels are split among ``convs`` in order, and their outputs put together (MixNet, arXiv:1907.09595)."""

    convs: tuple[Conv, ...]

    @property
    def takes(self) -> int:
        return sum(conv.in_ for conv in self.convs)

    def out_shape(self, shape: Shape) -> Shape:
        return self.convs[0].out_shape(shape)._replace(channels=sum(conv.out for conv in self.convs))

    def walk(self, shape: Shape) -> Iterator[tuple[Primitive, Shape]]:
        self.check(shape)
        maps = set()
        for conv in self.convs:
            part = shape._replace(channels=conv.in_)
            yield from conv.walk(part)
            maps.add(conv.out_shape(part)[:2])
        if len(maps) > 1:
            raise ArchitectureError(f"{self.name}: its parts give maps of different sizes: {sorted(maps)}")
        yield Concat(f"{self.name}_concat"), self.out_shape(shape)

    def leaves(self) -> tuple[Primitive, ...]:
        return (*self.convs, Concat(f"{self.name}_concat"))


@dataclasses.dataclass(frozen=True)
class Mean(Primitive):
    """Mean of the outputs of ``heads``, which all read the same."""

    heads: tuple[Dense, ...]

    def out_shape(self, shape: Shape) -> Shape:
        return self.heads[0].out_shape(shape)

    def walk(self, shape: Shape) -> Iterator[tuple[Primitive, Shape]]:
        for head in self.heads:
            yield from head.walk(shape)
        yield Add(f"{self.name}_mean"), self.out_shape(shape)

    def leaves(self) -> tuple[Primitive, ...]:
        return (*self.heads, Add(f"{self.name}_mean"))


def shares(channels: int, parts: int) -> tuple[int, ...]:
    """``channels`` in ``parts``: channels // parts each, the remainder added to the first."""
    each = channels // parts
    return (channels - each * (parts - 1), *(each,) * (parts - 1))


def depthwise(name: str, channels: int, kernel: int | tuple[int, ...], stride: int, bias: bool, pad: int | None) -> Primitive:
    """One depthwise convolution, or for several kernels one on each share of the channels."""
    if isinstance(kernel, int):
        return Conv(name, channels, channels, kernel, stride, channels, bias, pad)
    widths = shares(channels, len(kernel))
    convs = (Conv(f"{name}_{i}", c, c, k, stride, c, bias, pad) for i, (c, k) in enumerate(zip(widths, kernel, strict=True)))
    return Split(name, tuple(convs))


def pointwise(name: str, in_: int, out: int, groups: int = 1, splits: int = 1, bias: bool = False) -> Primitive:
    """One 1x1 convolution, or for ``splits`` above 1 one on each share of the channels."""
    if splits == 1:
        return Conv(name, in_, out, groups=groups, bias=bias)
    widths: Sequence[tuple[int, int]] = list(zip(shares(in_, splits), shares(out, splits), strict=True))
    return Split(name, tuple(Conv(f"{name}_{i}", a, b, groups=groups, bias=bias) for i, (a, b) in enumerate(widths)))
