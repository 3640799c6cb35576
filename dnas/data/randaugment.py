"""RandAugment (Cubuk et al. 2020, arXiv:1909.13719) on the device, for a batch at once.

Every image draws its own operations. Branches under ``vmap`` would all run, so the 14 operations are three passes, of which
an operation uses one: an affine map, a table of 256 values per channel, and a blend with a degenerate image.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

LAYERS = 2
MAX_MAGNITUDE = 30
OPERATIONS = (
    "identity", "shear-x", "shear-y", "translate-x", "translate-y", "rotate", "brightness", "color", "contrast", "sharpness",
    "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
Image = Float32[Array, "h w c"]


def randaugment(keys: Any, x: Float32[Array, "b h w c"], magnitude: float) -> Float32[Array, "b h w c"]:
    """Two random operations of strength ``magnitude`` (0 to 30) on each image of whole numbers 0..255, with its own key.

    Ranges as in the paper's code: shear 0.3, shift 45 % of the side, rotation 30 degrees, factors 1 +- 0.9, 4 bits, signs at
    random. Moved pixels are nearest neighbours; what comes from outside is black.
    """

    def one(key: Any, image: Image) -> Image:
        def layer(image: Image, own: Any) -> tuple[Image, None]:  # compiled once for all layers
            pick, sign = jax.random.split(own)
            number = jax.random.randint(pick, (), 0, len(OPERATIONS))
            way = jnp.where(jax.random.bernoulli(sign), 1.0, -1.0)
            return operate(image, number, magnitude / MAX_MAGNITUDE, way), None

        result, _ = jax.lax.scan(layer, image, jax.random.split(key, LAYERS))
        return result

    result: Float32[Array, "b h w c"] = jax.vmap(one)(keys, jnp.rint(x))
    return result


def operate(image: Image, number: Any, strength: float, sign: Any) -> Image:
    """Operation ``number`` of ``OPERATIONS`` with ``strength`` 0 to 1 and ``sign`` -1 or 1."""
    image = _moved(image, number, strength * sign)
    image = _mapped(image, number, strength, 1 + 0.9 * strength * sign)
    return _blended(image, number, 1 + 0.9 * strength * sign)


def _is(number: Any, name: str) -> Any:
    return number == OPERATIONS.index(name)


def _moved(image: Image, number: Any, amount: Any) -> Image:
    """Shear, shift and rotation about the centre, as one inverse affine map; ``amount`` is -1 to 1."""
    height, width, _ = image.shape
    angle = jnp.where(_is(number, "rotate"), amount * math.pi / 6, 0.0)
    shear_x, shear_y = (jnp.where(_is(number, f"shear-{axis}"), 0.3 * amount, 0.0) for axis in "xy")
    shift_x, shift_y = (
        jnp.where(_is(number, f"translate-{axis}"), 150 / 331 * amount * size, 0.0)
        for axis, size in (("x", width), ("y", height))
    )
    y, x = jnp.meshgrid(jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing="ij")
    from_x = jnp.cos(angle) * x + (shear_x - jnp.sin(angle)) * y + shift_x + (width - 1) / 2
    from_y = (shear_y + jnp.sin(angle)) * x + jnp.cos(angle) * y + shift_y + (height - 1) / 2
    column, row = jnp.rint(from_x).astype(int), jnp.rint(from_y).astype(int)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    found = image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
    return jnp.where(inside[..., None], found, 0.0)


def _mapped(image: Image, number: Any, strength: float, factor: Any) -> Image:
    """The operations that change each value by itself, with Pillow's rounding."""
    value = jnp.arange(256.0)[:, None]
    low, high = image.min((0, 1))[None], image.max((0, 1))[None]
    mean = jnp.floor(grey(image).mean() + 0.5)
    bits = round(4 * strength)
    table = jnp.broadcast_to(value, (256, image.shape[2]))
    for name, values in (
        ("brightness", jnp.floor(jnp.clip(value * factor, 0, 255))),
        ("contrast", jnp.floor(jnp.clip(mean + factor * (value - mean), 0, 255))),
        ("posterize", jnp.floor(value / 2**bits) * 2**bits),
        ("solarize", jnp.where(value < 255 * (1 - strength), value, 255 - value)),
        ("autocontrast", _stretched(value, low, high)),
        ("equalize", _equalised(image)),
    ):
        table = jnp.where(_is(number, name), values, table)
    levels = image.astype(int)
    channel = jnp.broadcast_to(jnp.arange(image.shape[2])[None, None], levels.shape)
    return table[levels, channel]


def _stretched(value: Any, low: Any, high: Any) -> Any:
    scale = 255 / jnp.maximum(high - low, 1)
    stretched = jnp.floor(jnp.clip((value - low) * scale + 1e-4, 0, 255))  # 1e-4: 255 may round to just below
    return jnp.where(high > low, stretched, value)


def _equalised(image: Image) -> Any:
    """Histogram equalisation per channel, as Pillow computes it."""
    flat = image.reshape(-1, image.shape[2]).astype(int)
    counts = jax.vmap(lambda v: jnp.zeros(256, int).at[v].add(1), in_axes=1, out_axes=1)(flat)
    last = 255 - jnp.argmax(counts[::-1] > 0, axis=0)
    step = (flat.shape[0] - jnp.take_along_axis(counts, last[None], axis=0)) // 255
    before = jnp.cumsum(counts, axis=0) - counts
    table = jnp.minimum((step // 2 + before) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, table, jnp.arange(256)[:, None]).astype(jnp.float32)


def _blended(image: Image, number: Any, factor: Any) -> Image:
    """Colour and sharpness: factor * image + (1 - factor) * its grey or smoothed version."""
    plain = jnp.where(_is(number, "color"), grey(image), _smooth(image))
    mixed = jnp.floor(jnp.clip(plain + factor * (image - plain), 0, 255))
    return jnp.where(_is(number, "color") | _is(number, "sharpness"), mixed, image)


def grey(image: Image) -> Float32[Array, "h w 1"]:
    """Luminance by ITU-R 601 for RGB; the mean of the channels otherwise."""
    if image.shape[2] != 3:
        return jnp.floor(image.mean(2, keepdims=True) + 0.5)
    return jnp.floor((image * jnp.array([[[0.299, 0.587, 0.114]]], jnp.float32)).sum(2, keepdims=True) + 0.5)


def _smooth(image: Image) -> Image:
    """3 x 3 mean that counts the centre five times; the border stays."""
    height, width, _ = image.shape
    if min(height, width) < 3:
        return image
    total = sum(image[i : height - 2 + i, j : width - 2 + j] for i in range(3) for j in range(3))
    inner = jnp.floor((total + 4 * image[1:-1, 1:-1]) / 13 + 0.5)
    return image.at[1:-1, 1:-1].set(inner)
