"""Convolutions, lowered to what is fast on each platform.

XLA:CPU's grouped convolution is tens of times slower than its arithmetic, so on CPU a depthwise convolution is a sum of
shifted products with its own derivative, and a 1x1 convolution is a matrix product. Other platforms use theirs.
Maps are NHWC, kernels HWIO.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from dnas.layers.shares import ALL, OWN, on_each, summed

ACCUMULATOR_BYTES = 2**19  # within the 1 to 2 MiB second-level caches of today
PIECES = 8  # rows that are summed in registers by the kernel gradient
Pads = tuple[tuple[int, int], tuple[int, int]]


def padding_of(size: tuple[int, ...], kernel: int, stride: int, rule: str, pad: int | None) -> Pads:
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


def shuffle(x: Float[Array, "n h w c"], groups: int) -> Float[Array, "n h w c"]:
    """Channel shuffle: [.., g, c/g] -> [.., c/g, g]."""
    if groups == 1:
        return x
    n, h, w, c = x.shape
    return x.reshape(n, h, w, groups, c // groups).swapaxes(3, 4).reshape(n, h, w, c)


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
    return _depthwise_fwd(x, kernel, stride, pads)[0]


@partial(jax.jit, static_argnums=(2, 3))  # jit: traced once for all that are alike, and for derivatives
def _depthwise_fwd(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads):  # type: ignore[no-untyped-def]
    padded = lax.optimization_barrier(jnp.pad(x, ((0, 0), *pads, (0, 0))))
    return shift_add(padded, kernel, stride), (padded, kernel)


@partial(jax.jit, static_argnums=(0, 1))
def _depthwise_bwd(stride: int, pads: Pads, saved: tuple[jax.Array, jax.Array], dy: jax.Array):  # type: ignore[no-untyped-def]
    padded, kernel = saved
    sizes = tuple(n - before - after for n, (before, after) in zip(padded.shape[1:3], pads, strict=True))
    k = kernel.shape[0]
    dx = shift_add(lax.optimization_barrier(spread(dy, k, stride, pads, sizes)), kernel[::-1, ::-1], 1)
    # the barriers keep XLA from computing neighbours again in each of the k * k reads
    dkernel = on_each(partial(_kernel_gradient, k, stride), (OWN, OWN), ALL)(padded, dy)
    return lax.optimization_barrier(dx), dkernel.astype(kernel.dtype)


depthwise.defvjp(_depthwise_fwd, _depthwise_bwd)


def spread(dy: jax.Array, k: int, stride: int, pads: Pads, sizes: tuple[int, ...]) -> jax.Array:
    """``dy`` with zeros between and around: its convolution with the flipped kernel is the gradient of the input."""
    edges = [(0, 0, 0)]
    for (before, _), n, out in zip(pads, sizes, dy.shape[1:3], strict=True):
        low = k - 1 - before
        edges.append((low, n + k - 1 - low - ((out - 1) * stride + 1), stride - 1))
    return lax.pad(dy, jnp.zeros((), dy.dtype), (*edges, (0, 0, 0)))


def shift_add(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Depthwise convolution of a padded map: a sum of k * k shifted products.

    By operations of ``lax``, as all that is done for every tap: those of ``jnp`` take several times as long to trace.
    """
    k, channels = kernel.shape[0], kernel.shape[-1]
    height, width = ((n - k) // stride + 1 for n in x.shape[1:3])
    shape = (x.shape[0], height, width, channels)

    def product(i: int, j: int) -> jax.Array:
        tap = lax.slice(kernel, (i, j, 0), (i + 1, j + 1, channels))
        return lax.mul(window(x, i, j, height, width, stride), lax.broadcast_in_dim(tap, shape, (1, 2, 3)))

    return reduce(lax.add, (product(i, j) for i in range(k) for j in range(k)))


def window(x: jax.Array, i: int, j: int, height: int, width: int, stride: int) -> jax.Array:
    """The pixels of ``x`` (n h w c) that tap (i, j) of a kernel meets."""
    end = (x.shape[0], i + stride * (height - 1) + 1, j + stride * (width - 1) + 1, x.shape[3])
    return lax.slice(x, (0, i, j, 0), end, (1, stride, stride, 1))


def _kernel_gradient(k: int, stride: int, x: jax.Array, dy: jax.Array) -> jax.Array:
    """sum_n,h,w x[shifted] * dy per shift and channel, by blocks that stay in a second-level cache.

    A block is some rows of one image, or some whole images.
    """
    count, height, width, channels = dy.shape
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    row_bytes = width * channels * dtype.itemsize
    rows = block_size(height, row_bytes)
    images = block_size(count, rows * row_bytes) if rows == height else 1
    strips = height // rows
    reach = stride * (rows - 1) + k

    def add(index: jax.Array, total: jax.Array) -> jax.Array:
        image, strip = index // strips * images, index % strips * rows
        part = lax.dynamic_slice(x, (image, strip * stride, 0, 0), (images, reach, *x.shape[2:])).astype(dtype)
        gradient = lax.dynamic_slice(dy, (image, strip, 0, 0), (images, rows, width, channels)).astype(dtype)
        return add_taps(total, part, lambda: gradient, stride)

    total = lax.fori_loop(0, count // images * strips, add, jnp.zeros((k * k, channels), dtype))
    return summed(total).reshape(k, k, channels)


def add_taps(
    so_far: Float[Array, "taps c"],
    x: Float[Array, "n h w c"],
    dy: Callable[[], Float[Array, "n p q c"]],
    stride: int,
) -> Float[Array, "taps c"]:
    """``so_far`` plus the gradient of a depthwise kernel: for every tap the sum of its window of ``x`` times ``dy()``.

    ``dy`` is called in the loop, so that a view of another map is read there: a map of its own would be one more to write.

    Products of strips are added up in registers. The rows of taps are a loop, and share their kernels: every other one is
    compiled anew, which takes tens of milliseconds. (With one kernel for all taps the loop is slower.)
    """
    images, height, width = jax.eval_shape(dy).shape[:3]
    k = math.isqrt(so_far.shape[0])
    per_image = divisor(images, PIECES)
    per_row = divisor(height, PIECES // per_image)
    n, rows = images // per_image, height // per_row
    cuts = [((i * n, r * rows), ((i + 1) * n, (r + 1) * rows)) for i in range(per_image) for r in range(per_row)]

    def cut(maps: jax.Array, start: tuple[int, int], end: tuple[int, int]) -> jax.Array:
        return lax.slice(maps, (*start, 0, 0), (*end, *maps.shape[2:]))

    def add(i: jax.Array, so_far: jax.Array) -> jax.Array:
        band = lax.dynamic_slice_in_dim(x, i, stride * (height - 1) + 1, 1)
        own, gradient = [], dy()
        for j in range(k):
            seen = window(band, 0, j, height, width, stride)
            products = (lax.mul(cut(seen, *c), cut(gradient, *c)) for c in cuts)
            own.append(sums(flat(lax.optimization_barrier(reduce(lax.add, products)))))
        row = lax.dynamic_slice_in_dim(so_far, i * k, k) + jnp.stack(own)
        return lax.dynamic_update_slice_in_dim(so_far, row, i * k, 0)

    return lax.fori_loop(0, k, add, so_far)


def flat(maps: jax.Array) -> jax.Array:
    return maps.reshape(-1, maps.shape[-1])


def sums(rows: Float[Array, "pixels c"]) -> Float[Array, " c"]:
    """Sums over pixels as a matrix product, which XLA:CPU does at full speed; its column sums are several times slower."""
    return (jnp.ones((1, rows.shape[0]), rows.dtype) @ rows)[0]


def block_size(count: int, bytes_each: int) -> int:
    """The largest divisor of ``count`` whose share of accumulators stays in a second-level cache; at least 1."""
    return divisor(count, ACCUMULATOR_BYTES // bytes_each)


def divisor(count: int, limit: int) -> int:
    """The largest divisor of ``count`` up to ``limit``; at least 1."""
    return max((d for d in range(1, min(count, limit) + 1) if count % d == 0), default=1)
