"""Convolutions, lowered to what is fast on each platform.

XLA:CPU's grouped convolution is tens of times slower than its arithmetic, so on CPU a depthwise convolution is a sum of
shifted products with its own derivative, and a 1x1 convolution is a matrix product. Other platforms use theirs.
Maps are NHWC, kernels HWIO.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Pads = tuple[tuple[int, int], tuple[int, int]]


def padding_of(size: tuple[int, int], kernel: int, stride: int, rule: str, pad: int | None) -> Pads:
    """(before, after) pixels for height and width; ``rule`` is "symmetric" or "tf_same", ``pad`` overrides it."""
    if pad is not None or rule == "symmetric":
        each = (kernel - 1) // 2 if pad is None else pad
        return ((each, each), (each, each))

    def same(n: int) -> tuple[int, int]:
        total = max((-(-n // stride) - 1) * stride + kernel - n, 0)
        return total // 2, total - total // 2

    return same(size[0]), same(size[1])


def per_channel(values: Float[Array, " c"], like: jax.Array) -> jax.Array:
    """``values`` with as many axes as ``like``, channels last: rank promotion is spelled out."""
    return values.reshape((1,) * (like.ndim - 1) + (-1,))


def conv(
    x: Float[Array, "n h w c"], kernel: Float[Array, "k k i o"], stride: int, pads: Pads, groups: int
) -> Float[Array, "n p q o"]:
    """Convolution of ``x`` with ``kernel``; the result has the dtype of ``x``."""
    size, out = kernel.shape[0], kernel.shape[-1]
    if size == 1 and not any(map(any, pads)):
        return _pointwise(x[:, ::stride, ::stride], kernel[0, 0], groups)
    if kernel.shape[2] == 1 and groups == out == x.shape[-1] and jax.default_backend() == "cpu":
        return depthwise(x, kernel[:, :, 0], stride, pads)
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


def _pointwise(x: jax.Array, kernel: jax.Array, groups: int) -> jax.Array:
    flat = x.reshape(-1, x.shape[-1])
    if groups == 1:
        y = flat @ kernel
    else:
        parts = zip(jnp.split(flat, groups, axis=1), jnp.split(kernel, groups, axis=1), strict=True)
        y = jnp.concatenate([a @ b for a, b in parts], axis=1)
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise(x: Float[Array, "n h w c"], kernel: Float[Array, "k k c"], stride: int, pads: Pads) -> jax.Array:
    """Depthwise convolution as a sum of k * k shifted products."""
    return _shift_add(jnp.pad(x, ((0, 0), *pads, (0, 0))), kernel, stride)


def _depthwise_fwd(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads):  # type: ignore[no-untyped-def]
    return depthwise(x, kernel, stride, pads), (x, kernel)


def _depthwise_bwd(stride: int, pads: Pads, saved: tuple[jax.Array, jax.Array], dy: jax.Array):  # type: ignore[no-untyped-def]
    x, kernel = saved
    k, zero = kernel.shape[0], jnp.zeros((), dy.dtype)
    spread = [(0, 0, 0)]
    for (before, _), n, out in zip(pads, x.shape[1:3], dy.shape[1:3], strict=True):
        low = k - 1 - before
        spread.append((low, n + k - 1 - low - ((out - 1) * stride + 1), stride - 1))
    dx = _shift_add(lax.pad(dy, zero, (*spread, (0, 0, 0))), kernel[::-1, ::-1], 1)
    return dx, _kernel_gradient(jnp.pad(x, ((0, 0), *pads, (0, 0))), dy, k, stride).astype(kernel.dtype)


depthwise.defvjp(_depthwise_fwd, _depthwise_bwd)


def _shift_add(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    k = kernel.shape[0]
    height, width = ((n - k) // stride + 1 for n in x.shape[1:3])
    windows = (_window(x, i, j, height, width, stride) * per_channel(kernel[i, j], x) for i in range(k) for j in range(k))
    return sum(windows)  # type: ignore[return-value]


def _window(x: jax.Array, i: int, j: int, height: int, width: int, stride: int) -> jax.Array:
    return x[..., i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride, :]


def _kernel_gradient(x: jax.Array, dy: jax.Array, k: int, stride: int) -> jax.Array:
    """sum_n,h,w x[shifted] * dy per shift and channel: k * k maps are accumulated over the batch, then summed once."""
    height, width, channels = dy.shape[1:]
    dtype = jnp.promote_types(x.dtype, jnp.float32)

    def add(n: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        image = lax.dynamic_index_in_dim(x, n, 0, keepdims=False).astype(dtype)
        gradient = lax.dynamic_index_in_dim(dy, n, 0, keepdims=False).astype(dtype)
        shifts = (_window(image, i, j, height, width, stride) for i in range(k) for j in range(k))
        return tuple(total + window * gradient for total, window in zip(sums, shifts, strict=True))

    zeros = tuple(jnp.zeros((height, width, channels), dtype) for _ in range(k * k))
    sums = lax.fori_loop(0, x.shape[0], add, zeros)
    return jnp.stack([total.sum((0, 1)) for total in sums]).reshape(k, k, channels)
