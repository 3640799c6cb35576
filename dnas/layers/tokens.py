"""Layer normalisation, layer scale, pooling mixer and attention, on maps whose positions are the tokens."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from dnas.layers.conv import per_channel
from dnas.ops import primitives as p


class LayerNorm(nnx.Module):
    """(x - mean) / sqrt(var + eps) * scale + bias over the channels of every position, in float32 or wider."""

    def __init__(self, primitive: p.LayerNorm):
        self.scale = nnx.Param(jnp.ones(primitive.channels))
        self.bias = nnx.Param(jnp.zeros(primitive.channels))
        self.eps = primitive.eps

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        z = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        z = z - z.mean(-1, keepdims=True)
        z = z * lax.rsqrt((z * z).mean(-1, keepdims=True) + self.eps)
        return (z * per_channel(self.scale[...], z) + per_channel(self.bias[...], z)).astype(x.dtype)


class Scale(nnx.Module):
    def __init__(self, primitive: p.Scale):
        self.scale = nnx.Param(jnp.ones(primitive.channels))

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        return x * per_channel(self.scale[...].astype(x.dtype), x)


class Attention(nnx.Module):
    """softmax(q.k / sqrt(key_dim) + table[head, |dy| * resolution + |dx|]) v between all positions."""

    def __init__(self, primitive: p.Attention):
        self.primitive = primitive
        self.table = nnx.Param(jnp.zeros((primitive.heads, primitive.resolution**2)))

    def __call__(self, x: Float[Array, "n h w i"]) -> Float[Array, "n h w o"]:
        spec = self.primitive
        bias = self.table[...].astype(x.dtype)[:, distances(spec.resolution)]
        return attend(x, spec.heads, spec.key_dim, bias, spec.key_dim**-0.5)


def attend(
    x: Float[Array, "n h w i"], heads: int, key_dim: int, bias: Float[Array, "heads hw hw"], scale: float = 1.0
) -> Float[Array, "n h w o"]:
    """softmax(scale * q.k + bias) v over all positions; ``x`` holds q, k and v of each head side by side."""
    n, h, w, _ = x.shape
    each = x.reshape(n, h * w, heads, -1).swapaxes(1, 2)
    q, k, v = jnp.split(each, (key_dim, 2 * key_dim), axis=-1)
    logits = q @ k.swapaxes(-1, -2) * scale + bias[None]
    return (jax.nn.softmax(logits, -1) @ v).swapaxes(1, 2).reshape(n, h, w, -1)


def distances(side: int) -> np.ndarray:
    """|dy| * side + |dx| between all positions of a map of ``side`` x ``side``, i32[side**2, side**2]."""
    y, x = np.divmod(np.arange(side * side), side)
    return np.abs(y[:, None] - y) * side + np.abs(x[:, None] - x)


def pool_difference(x: Float[Array, "n h w c"], size: int) -> Float[Array, "n h w c"]:
    """Mean over ``size`` x ``size`` neighbours inside the map, minus x."""

    def sums(y: jax.Array) -> jax.Array:
        return lax.reduce_window(y, jnp.zeros((), y.dtype), lax.add, (1, size, size, 1), (1, 1, 1, 1), "SAME")

    return sums(x) / sums(jnp.ones((1, *x.shape[1:3], 1), x.dtype)) - x


MODULES = {p.LayerNorm: LayerNorm, p.Scale: Scale, p.Attention: Attention}
"""Primitive -> its module, called with the map alone."""
