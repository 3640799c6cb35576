"""A batch in blocks of images whose wide maps fit the processor's caches, and sums over pixels at its full speed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from dnas.layers.conv import Pads, divisor, window

BLOCK_BYTES = 2**20  # one wide map of a block; second-level caches have 1 to 2 MiB
KEEP_CHANNELS = 48  # from this many input channels on, the expansion is kept: its product costs more than its memory traffic

Maps = Float[Array, "n h w c"]


class Blocks:
    """How the batch is cut, and what one block goes through."""

    def __init__(self, x: Maps, taps: Float[Array, "k k m"], mids: tuple[int, ...], stride: int, pads: Pads):
        n, h, width, _ = x.shape
        self.k = k = taps.shape[0]
        self.mids, self.stride, self.pads, self.wide = mids, stride, pads, taps.shape[-1]
        self.size = (h, width)
        self.height, self.width = ((s + sum(p) - k) // stride + 1 for s, p in zip(self.size, pads, strict=True))
        self.images = divisor(n, BLOCK_BYTES // (h * width * self.wide * x.dtype.itemsize))
        self.count = n // self.images
        self.batch = n
        self.keep = x.shape[-1] >= KEEP_CHANNELS

    def at(self, whole: jax.Array, i: jax.Array) -> jax.Array:
        """Block ``i`` of maps, or of pixels in a row."""
        rows = whole.shape[0] // self.count
        return lax.dynamic_slice_in_dim(whole, i * rows, rows, 0)

    def put(self, whole: jax.Array, block: jax.Array, i: jax.Array) -> jax.Array:
        return lax.dynamic_update_slice_in_dim(whole, block, i * block.shape[0], 0)

    def maps(self, pixels: jax.Array) -> Maps:
        """A block of output pixels as images."""
        return pixels.reshape(self.images, self.height, self.width, -1)

    def split(self, values: jax.Array) -> list[jax.Array]:
        """The channels of each candidate."""
        return lax.split(values, self.mids, axis=values.ndim - 1)  # type: ignore[return-value]

    def padded(self, pixels: jax.Array) -> Maps:
        """A block of input pixels as padded images."""
        return lax.optimization_barrier(jnp.pad(pixels.reshape(self.images, *self.size, -1), ((0, 0), *self.pads, (0, 0))))

    def seen(self, dd: Maps) -> Maps:
        """The gradients of a block's outputs, where ``conv.spread`` put them."""
        top, left = (self.k - 1 - before for before, _ in self.pads)
        return window(dd, top, left, self.height, self.width, self.stride)
