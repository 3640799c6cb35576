"""A batch in blocks of images whose wide maps fit the processor's caches, and sums over pixels at its full speed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from dnas.layers.conv import Pads, divisor, window

BLOCK_BYTES = 2**20  # one wide map of a block; second-level caches have 1 to 2 MiB
KEEP_CHANNELS = 48  # from this many input channels on, the expansion is kept: its product costs more than its memory traffic
PIECES = 8  # rows that are summed in registers by the kernel gradient

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

    def add_taps(self, so_far: tuple[jax.Array, ...], a: Maps, dd: Maps) -> tuple[jax.Array, ...]:
        """``so_far`` plus the gradient of the depthwise kernel, tap by tap; strips of products are added up in registers.

        ``dd`` is read where ``spread`` put it: a map of its own would be computed again by every tap.
        """
        (top, _), (left, _) = self.pads
        stride = self.stride
        per_image = divisor(self.images, PIECES)
        per_row = divisor(self.height, PIECES // per_image)
        images, rows = self.images // per_image, self.height // per_row
        strips = [
            [m[n * images : (n + 1) * images, stride * r * rows :] for m in (a, dd)]
            for n in range(per_image)
            for r in range(per_row)
        ]

        def tap(i: int, j: int) -> jax.Array:
            size = (rows, self.width, stride)
            products = (window(x, i, j, *size) * window(dy, self.k - 1 - top, self.k - 1 - left, *size) for x, dy in strips)
            return sums(flat(lax.optimization_barrier(sum(products))))

        return tuple(total + tap(*divmod(t, self.k)) for t, total in enumerate(so_far))


def flat(maps: jax.Array) -> jax.Array:
    return maps.reshape(-1, maps.shape[-1])


def sums(rows: Float[Array, "pixels c"]) -> Float[Array, " c"]:
    """Sums over pixels as a matrix product, which XLA:CPU does at full speed; its column sums are several times slower."""
    return (jnp.ones((1, rows.shape[0]), rows.dtype) @ rows)[0]
