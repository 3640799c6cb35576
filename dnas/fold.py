"""A trained network as plain steps: batch normalisation and layer scale folded into convolutions, classifiers into one.

This is what exporters and latency probes write. Folding is done in float64 in NumPy; ``apply`` says in JAX what the steps mean.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from dnas.arch import Architecture
from dnas.errors import WeightsError
from dnas.layers import conv as layers
from dnas.layers.norm import activate
from dnas.layers.tokens import attend, distances, pool_difference
from dnas.ops import Shape
from dnas.ops import primitives as p

Tree = Mapping[str, Any]
Vector = Float64[np.ndarray, " c"]


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """``reads``: the values that it takes, 0 the image and i + 1 the output of step i; ``shape`` of its own output."""

    name: str
    reads: tuple[int, ...]
    shape: Shape


@dataclasses.dataclass(frozen=True, eq=False)
class Conv(Step):
    """Convolution, bias, activation; ``pads``: pixels (before, after) in height and width, less those that no window reads."""

    kernel: Float64[np.ndarray, "k k i o"]
    bias: Vector
    stride: int = 1
    pads: tuple[tuple[int, int], ...] = ((0, 0), (0, 0))
    groups: int = 1
    act: str | None = None

    @property
    def depthwise(self) -> bool:
        return self.kernel.shape[2] == 1 and self.groups == self.kernel.shape[3] > 1


@dataclasses.dataclass(frozen=True, eq=False)
class Dense(Step):
    """Flatten (``before``: the shape that it reads), matrix product, bias."""

    before: Shape
    kernel: Float64[np.ndarray, "i o"]
    bias: Vector


@dataclasses.dataclass(frozen=True, eq=False)
class Affine(Step):
    """x * scale + shift per channel, where no convolution is before it to take them up; activation."""

    scale: Vector
    shift: Vector
    act: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Act(Step):
    act: str


@dataclasses.dataclass(frozen=True, eq=False)
class Shuffle(Step):
    groups: int


@dataclasses.dataclass(frozen=True, eq=False)
class GlobalPool(Step):
    """Mean over height and width, kept as 1x1."""


@dataclasses.dataclass(frozen=True, eq=False)
class PoolDifference(Step):
    """Mean over ``size`` x ``size`` neighbours, those outside the map not counted, minus x."""

    size: int


@dataclasses.dataclass(frozen=True, eq=False)
class Slice(Step):
    """Channels ``start`` to ``stop``."""

    start: int
    stop: int


@dataclasses.dataclass(frozen=True, eq=False)
class Concat(Step):
    """All that it reads, along the channels."""


@dataclasses.dataclass(frozen=True, eq=False)
class Add(Step):
    """The sum of two maps."""


@dataclasses.dataclass(frozen=True, eq=False)
class Multiply(Step):
    """A map times one number per channel (1x1xc)."""


@dataclasses.dataclass(frozen=True, eq=False)
class LayerNorm(Step):
    scale: Vector
    bias: Vector
    eps: float


@dataclasses.dataclass(frozen=True, eq=False)
class Attention(Step):
    """softmax(q.k + positions) v; the factor 1 / sqrt(key_dim) is in q already."""

    heads: int
    key_dim: int
    value_dim: int
    positions: Float64[np.ndarray, "heads n n"]


@dataclasses.dataclass(frozen=True, eq=False)
class Folded:
    """``steps`` in order, the last one's output is the network's; maps are NHWC, a 1x1 output is flattened to [n, outputs]."""

    architecture: Architecture
    steps: tuple[Step, ...]

    @property
    def input_shape(self) -> Shape:
        return self.architecture.shapes[0]

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Without the batch: (outputs,), or (height, width, channels) of a feature map."""
        out = self.architecture.shapes[-1]
        return (out.channels,) if out[:2] == (1, 1) else tuple(out)

    @property
    def params(self) -> int:
        """Numbers that are left after folding."""
        return sum(v.size for step in self.steps for v in vars(step).values() if isinstance(v, np.ndarray))


def fold(architecture: Architecture, params: Tree, stats: Tree) -> Folded:
    """The network as plain steps. ``params``, ``stats`` as ``dnas.init`` gives them.

    Errors: WeightsError where a tensor is missing or has another shape than the architecture says.
    """
    builder = _Builder(architecture)
    value = 0
    for index, (op, shape) in enumerate(zip(architecture.layers, architecture.shapes, strict=False)):
        place = f"{index:02d}"
        leaves = _Leaves(place, *(tree.get(place, {}).get(op.label, {}) for tree in (params, stats)))
        start, builder.kept = value, len(builder.steps)
        for step in op.steps():
            value = builder.step(step, value, leaves)
        if op.has_residual:
            value = builder.add(Add(f"{place}/add", (value, start), shape))
    return Folded(architecture, tuple(builder.steps))


def apply(folded: Folded, x: Float[Array, "n h w c"], convolve: Callable[..., jax.Array] = layers.conv) -> jax.Array:
    """What the steps compute, in JAX and in the dtype of ``x``. ``convolve``: as ``dnas.layers.conv.conv``."""
    values = [x]
    for step in folded.steps:
        args = [values[i] for i in step.reads]
        values.append(_conv(step, args[0], convolve) if isinstance(step, Conv) else _RUN[type(step)](step, *args))
    return values[-1].reshape(x.shape[0], *folded.output_shape)


class _Leaves:
    """Tensors of one layer by name, in float64, with the shapes that they must have."""

    def __init__(self, place: str, params: Tree, stats: Tree):
        self.place, self.trees = place, (params, stats)

    def __call__(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        for tree in self.trees:
            node: Any = tree
            for part in name.split("/"):
                node = node.get(part) if isinstance(node, Mapping) else None
            if node is not None and tuple(node.shape) == shape:
                return np.asarray(node, np.float64)
            if node is not None:
                raise WeightsError(f"layer {self.place}: {name} is {tuple(node.shape)}; the architecture needs {shape}")
        raise WeightsError(f"layer {self.place}: {name} is missing; these weights are not of this architecture")


class _Builder:
    def __init__(self, architecture: Architecture):
        self.steps: list[Step] = []
        self.input = architecture.shapes[0]
        self.defaults = architecture.defaults
        self.kept = 0  # steps up to here are read by others too

    def shape(self, value: int) -> Shape:
        return self.steps[value - 1].shape if value else self.input

    def add(self, step: Step) -> int:
        """The value that ``step``, appended, makes."""
        self.steps.append(step)
        return len(self.steps)

    def step(self, step: p.Primitive, value: int, leaves: _Leaves) -> int:
        """Append what ``step`` does to ``value``; the value that comes out."""
        shape = self.shape(value)
        out, name = step.out_shape(shape), f"{leaves.place}/{step.name}"
        if isinstance(step, p.Conv):
            return self.conv(step, value, leaves)
        if isinstance(step, p.Norm):
            scale, bias, mean, var = (leaves(f"{step.name}/{n}", (step.channels,)) for n in ("scale", "bias", "mean", "var"))
            gain = scale / np.sqrt(var + self.defaults.bn_eps)
            return self.affine(name, value, gain, bias - mean * gain, step.act)
        if isinstance(step, p.Scale):
            return self.affine(name, value, leaves(f"{step.name}/scale", (step.channels,)), np.zeros(step.channels))
        if isinstance(step, p.SqueezeExcite):
            return self.squeeze_excite(step, value, leaves)
        if isinstance(step, p.Dense | p.Mean):
            heads = step.heads if isinstance(step, p.Mean) else (step,)
            kernel = np.mean([leaves(f"{h.name}/kernel", (h.in_, h.out)) for h in heads], 0)
            bias = np.mean([leaves(f"{h.name}/bias", (h.out,)) if h.bias else np.zeros(h.out) for h in heads], 0)
            return self.add(Dense(name, (value,), out, shape, kernel, bias))
        if isinstance(step, p.Act):
            if conv := self._linear(value):
                self.steps[value - 1] = dataclasses.replace(conv, act=step.act)
                return value
            return self.add(Act(name, (value,), out, step.act))
        if isinstance(step, p.Shuffle):
            return self.add(Shuffle(name, (value,), out, step.groups)) if step.groups > 1 else value
        if isinstance(step, p.GlobalPool):
            return self.add(GlobalPool(name, (value,), out))
        if isinstance(step, p.PoolDifference):
            return self.add(PoolDifference(name, (value,), out, step.size))
        if isinstance(step, p.LayerNorm):
            scale, bias = (leaves(f"{step.name}/{n}", (step.channels,)) for n in ("scale", "bias"))
            return self.add(LayerNorm(name, (value,), out, scale, bias, step.eps))
        if isinstance(step, p.Attention):
            table = leaves(f"{step.name}/table", (step.heads, step.resolution**2))
            scale = np.ones((step.heads, 2 * step.key_dim + step.value_dim))
            scale[:, : step.key_dim] = step.key_dim**-0.5
            value = self.affine(f"{name}_scale", value, scale.ravel(), np.zeros(scale.size))
            positions = table[:, distances(step.resolution)]
            return self.add(Attention(name, (value,), out, step.heads, step.key_dim, step.value_dim, positions))
        if isinstance(step, p.Residual):
            kept, self.kept = self.kept, len(self.steps)
            inner = value
            for part in step.steps:
                inner = self.step(part, inner, leaves)
            self.kept = kept
            return self.add(Add(f"{name}_add", (inner, value), out))
        if isinstance(step, p.Split):
            ends, outs = np.cumsum([0, *(c.in_ for c in step.convs)]), []
            for one, start, stop in zip(step.convs, ends, ends[1:], strict=False):
                share = self.add(Slice(f"{name}_slice", (value,), shape._replace(channels=one.in_), int(start), int(stop)))
                outs.append(self.conv(one, share, leaves))
            return self.add(Concat(f"{name}_concat", tuple(outs), out))
        raise TypeError(f"no folded step for primitive {step!r}")

    def conv(self, step: p.Conv, value: int, leaves: _Leaves) -> int:
        shape = self.shape(value)
        out = step.out_shape(shape)
        kernel = leaves(f"{step.name}/kernel", (step.kernel, step.kernel, step.in_ // step.groups, step.out))
        bias = leaves(f"{step.name}/bias", (step.out,)) if step.bias else np.zeros(step.out)
        rule = layers.padding_of(shape[:2], step.kernel, step.stride, self.defaults.padding, step.pad)
        pads = tuple(  # padding that no window reads is left out
            (before, max((size - 1) * step.stride + step.kernel - n - before, 0))
            for (before, _), size, n in zip(rule, out, shape, strict=False)
        )
        return self.add(Conv(f"{leaves.place}/{step.name}", (value,), out, kernel, bias, step.stride, pads, step.groups))

    def squeeze_excite(self, step: p.SqueezeExcite, value: int, leaves: _Leaves) -> int:
        place = f"{leaves.place}/{step.name}"
        gate = self.add(GlobalPool(f"{place}/pool", (value,), Shape(1, 1, step.channels)))
        for part, in_, out, act in (
            ("reduce", step.channels, step.reduce, step.act),
            ("expand", step.reduce, step.channels, step.gate),
        ):
            kernel = leaves(f"{step.name}/{part}/kernel", (in_, out))[None, None]
            bias = leaves(f"{step.name}/{part}/bias", (out,)) if step.bias else np.zeros(out)
            no_pads = ((0, 0), (0, 0))
            gate = self.add(Conv(f"{place}/{part}", (gate,), Shape(1, 1, out), kernel, bias, 1, no_pads, 1, act))
        return self.add(Multiply(f"{place}/multiply", (value, gate), self.shape(value)))

    def affine(self, name: str, value: int, scale: Vector, shift: Vector, act: str | None = None) -> int:
        """x * scale + shift, then ``act``: in the convolutions before it where they are linear and nothing else reads them."""
        last = self.steps[value - 1] if value > self.kept else None
        parts = last.reads if isinstance(last, Concat) else (value,)
        if last is None or not all(isinstance(self._linear(part), Conv) for part in parts):
            return self.add(Affine(name, (value,), self.shape(value), scale, shift, act))
        start = 0
        for part in parts:
            conv = self._linear(part)
            assert conv is not None
            own = slice(start, start := start + conv.shape.channels)
            self.steps[part - 1] = dataclasses.replace(
                conv, kernel=conv.kernel * scale[own], bias=conv.bias * scale[own] + shift[own], act=act
            )
        return value

    def _linear(self, value: int) -> Conv | None:
        """The convolution that makes ``value``, if it may still be changed."""
        step = self.steps[value - 1] if value > self.kept else None
        return step if isinstance(step, Conv) and step.act is None else None


def _conv(step: Conv, x: jax.Array, convolve: Callable[..., jax.Array]) -> jax.Array:
    y = convolve(x, jnp.asarray(step.kernel, x.dtype), step.stride, step.pads, step.groups)
    return activate(y + _per_channel(step.bias, y), step.act)


def _per_channel(values: np.ndarray, like: jax.Array) -> jax.Array:
    return layers.per_channel(jnp.asarray(values, like.dtype), like)


def _layer_norm(step: LayerNorm, x: jax.Array) -> jax.Array:
    z = x - x.mean(-1, keepdims=True)
    z = z / jnp.sqrt((z * z).mean(-1, keepdims=True) + step.eps)
    return z * _per_channel(step.scale, z) + _per_channel(step.bias, z)


def _dense(step: Dense, x: jax.Array) -> jax.Array:
    y = x.reshape(x.shape[0], math.prod(x.shape[1:])) @ jnp.asarray(step.kernel, x.dtype)
    return (y + _per_channel(step.bias, y))[:, None, None]


_RUN: dict[type[Step], Callable[..., jax.Array]] = {
    Dense: _dense,
    Affine: lambda s, x: activate(x * _per_channel(s.scale, x) + _per_channel(s.shift, x), s.act),
    Act: lambda s, x: activate(x, s.act),
    Shuffle: lambda s, x: layers.shuffle(x, s.groups),
    GlobalPool: lambda s, x: x.mean((1, 2), keepdims=True),
    PoolDifference: lambda s, x: pool_difference(x, s.size),
    Slice: lambda s, x: x[..., s.start : s.stop],
    Concat: lambda s, *parts: jnp.concatenate(parts, -1),
    Add: lambda s, a, b: a + b,
    Multiply: lambda s, x, gate: x * gate,
    LayerNorm: _layer_norm,
    Attention: lambda s, x: attend(x, s.heads, s.key_dim, jnp.asarray(s.positions, x.dtype)),
}
