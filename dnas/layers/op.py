"""The Flax layer of an op: its primitives, one after the other."""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from dnas.arch import Defaults
from dnas.hulls import OUTPUT
from dnas.layers.conv import conv, padding_of, per_channel, shuffle
from dnas.layers.masks import Masks, spread
from dnas.layers.norm import BatchNorm, activate
from dnas.layers.tokens import MODULES, pool_difference
from dnas.ops import Op
from dnas.ops import primitives as p


class Weights(nnx.Module):
    """Kernel and, if there is one, bias. Zeros here: ``dnas.supernet.init`` fills them."""

    def __init__(self, shape: tuple[int, ...], bias: bool):
        self.kernel = nnx.Param(jnp.zeros(shape))
        if bias:
            self.bias = nnx.Param(jnp.zeros(shape[-1]))

    def add_bias(self, y: jax.Array) -> jax.Array:
        return y + per_channel(self.bias[...].astype(y.dtype), y) if hasattr(self, "bias") else y


class SqueezeExcite(nnx.Module):
    def __init__(self, primitive: p.SqueezeExcite):
        self.reduce = Weights((primitive.channels, primitive.reduce), primitive.bias)
        self.expand = Weights((primitive.reduce, primitive.channels), primitive.bias)
        self.act, self.gate = primitive.act, primitive.gate

    def __call__(self, x: Float[Array, "n h w c"], mask: jax.Array | None = None) -> Float[Array, "n h w c"]:
        z = x.mean((1, 2))
        z = activate(self.reduce.add_bias(z @ self.reduce.kernel[...].astype(x.dtype)), self.act)
        z = z if mask is None else z * spread(mask, z)
        z = activate(self.expand.add_bias(z @ self.expand.kernel[...].astype(x.dtype)), self.gate)
        return x * z[:, None, None, :]


class OpLayer(nnx.Module):
    """Computes ``op``: parameters are named by its primitives (``expand.kernel``, ``expand_bn.scale``, ...)."""

    def __init__(self, op: Op, defaults: Defaults):
        self.op, self.defaults = op, defaults
        for step in op.primitives():
            if isinstance(step, p.Conv):
                setattr(self, step.name, Weights((step.kernel, step.kernel, step.in_ // step.groups, step.out), step.bias))
            elif isinstance(step, p.Dense):
                setattr(self, step.name, Weights((step.in_, step.out), step.bias))
            elif isinstance(step, p.Norm):
                setattr(self, step.name, BatchNorm(step.channels, step.act, defaults.bn_eps))
            elif isinstance(step, p.SqueezeExcite):
                setattr(self, step.name, SqueezeExcite(step))
            elif type(step) in MODULES:
                setattr(self, step.name, MODULES[type(step)](step))

    def __call__(
        self, x: Float[Array, "n h w c"], train: bool | jax.Array, momentum: float | jax.Array, masks: Masks | None = None
    ) -> jax.Array:
        """``masks``: of a hull, by the place of their cut (``dnas.layers.masks``)."""
        if masks:
            return self._masked(x, train, momentum, masks)
        y = x
        for step in self.op.steps():
            y = self._step(step, y, train, momentum)
        return y + x if self.op.has_residual else y

    def _masked(self, x: jax.Array, train: bool | jax.Array, momentum: float | jax.Array, masks: Masks) -> jax.Array:
        y = x
        for step in self.op.primitives():
            y = y * spread(masks[step.name], y) if step.name in masks else y
            if isinstance(step, p.SqueezeExcite):
                y = getattr(self, step.name)(y, masks.get(f"{step.name}.reduce"))
            else:
                y = self._step(step, y, train, momentum)
        y = y * spread(masks[OUTPUT], y) if OUTPUT in masks else y
        return y + x if self.op.has_residual else y

    def _step(self, step: p.Primitive, x: jax.Array, train: bool | jax.Array, momentum: float | jax.Array) -> jax.Array:
        module: Any = getattr(self, step.name, None)
        if isinstance(step, p.Conv):
            pads = padding_of(x.shape[1:3], step.kernel, step.stride, self.defaults.padding, step.pad)
            return module.add_bias(conv(x, module.kernel[...].astype(x.dtype), step.stride, pads, step.groups))
        if isinstance(step, p.Norm):
            return module(x, train, momentum)
        if isinstance(step, p.Act):
            return activate(x, step.act)
        if isinstance(step, p.Shuffle):
            return shuffle(x, step.groups)
        if isinstance(step, p.SqueezeExcite):
            return module(x)
        if isinstance(step, p.GlobalPool):
            return x.mean((1, 2), keepdims=True)
        if isinstance(step, p.Dense):
            return module.add_bias(x.reshape(x.shape[0], -1) @ module.kernel[...].astype(x.dtype))
        if type(step) in MODULES:
            return module(x)
        if isinstance(step, p.PoolDifference):
            return pool_difference(x, step.size)
        if isinstance(step, p.Residual):
            y = x
            for inner in step.steps:
                y = self._step(inner, y, train, momentum)
            return x + y
        if isinstance(step, p.Split):
            ends = list(itertools.accumulate(c.in_ for c in step.convs))[:-1]
            parts = zip(step.convs, jnp.split(x, ends, axis=-1), strict=True)
            return jnp.concatenate([self._step(c, part, train, momentum) for c, part in parts], axis=-1)
        if isinstance(step, p.Mean):
            outs = [self._step(head, x, train, momentum) for head in step.heads]
            return sum(outs[1:], outs[0]) / len(outs)
        raise TypeError(f"no layer for primitive {step!r}")


@lru_cache(maxsize=8192)
def layer_of(op: Op, defaults: Defaults) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Graph definition of an op's layer, and the shapes of its parameters and statistics."""
    layer = nnx.eval_shape(lambda: OpLayer(op, defaults))
    parts: Any = nnx.split(layer, nnx.Param, nnx.BatchStat)
    graph, params, stats = parts
    return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
