"""From stored pixels to network input, on the device, in one jitted function."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32, UInt8

AUGMENTATIONS = ("none", "crop", "crop-flip")
Pixels = UInt8[Array, "n h w c"]
Batch = Float[Array, "b resolution resolution channels"]
Square = Float32[Array, "b resolution resolution c"]
Numbers = Int32[Array, "b"]
Moments = Float32[Array, "1 1 1 c"]
Images = Float32[Array, "b h w c"]


class Recipe(NamedTuple):
    """What is compiled into a batch function.

    Args:
        resolution: px of the square result.
        channels: of the result; grey images are repeated.
        augment: one of ``AUGMENTATIONS``.
        dtype: name of the result's type.
    """

    resolution: int
    channels: int
    augment: str
    dtype: str


@functools.partial(jax.jit, static_argnames="recipe")
def prepare(
    images: Pixels,
    indices: Numbers | None,
    labels: Numbers,
    mean: Moments,
    std: Moments,
    key: Any,
    step: Any,
    *,
    recipe: Recipe,
) -> tuple[Batch, Numbers]:
    """Gather, resize, augment and normalise one batch.

    Args:
        images: all images on the device, or the batch's own where ``indices`` is None.
        indices: which images to take.
        labels: of the batch; handed through, so that they arrive on the device with the images.
        mean, std: ``[1, 1, 1, channels]``, in units of 0..1.
        key: PRNG key of the feed; ``fold_in(key, step)`` is the key of the batch.
        step: which batch.

    Returns:
        x in ``recipe.dtype``, (pixels / 255 - mean) / std; and the labels.
    """
    x = (images if indices is None else images[indices]).astype(jnp.float32)
    x = shrink(x, recipe.resolution)
    if recipe.augment != "none":
        crop_key, flip_key = jax.random.split(jax.random.fold_in(key, step))
        x = random_crop(crop_key, x, max(1, recipe.resolution // 8))
        if recipe.augment == "crop-flip":
            x = random_flip(flip_key, x)
    x = (x / 255.0 - mean) / std  # before the repetition: a grey image has one mean
    return jnp.broadcast_to(x, (*x.shape[:3], recipe.channels)).astype(recipe.dtype), labels


def shrink(x: Images, resolution: int) -> Square:
    """Scale the shorter side to ``resolution`` px (bilinear, with antialiasing) and cut the centre square out."""
    n, height, width, channels = x.shape
    if (height, width) == (resolution, resolution):
        return x
    short = min(height, width)
    scaled = (n, round(height * resolution / short), round(width * resolution / short), channels)
    if scaled != x.shape:
        x = jax.image.resize(x, scaled, "bilinear")
    top, left = (scaled[1] - resolution) // 2, (scaled[2] - resolution) // 2
    return x[:, top : top + resolution, left : left + resolution]


def random_crop(key: Any, x: Square, pad: int) -> Square:
    """Pad each side with ``pad`` black px and cut the old size out at a random place, per image.

    As for CIFAR in He et al. (2015, arXiv:1512.03385), section 4.2.
    """
    n, size = x.shape[0], x.shape[1]
    padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    corner = jax.random.randint(key, (n, 2), 0, 2 * pad + 1)

    def cut(image: Any, place: Any) -> Any:
        return jax.lax.dynamic_slice(image, (place[0], place[1], 0), (size, size, x.shape[3]))

    result: Square = jax.vmap(cut)(padded, corner)
    return result


def random_flip(key: Any, x: Square) -> Square:
    """Mirror each image left to right with probability 1/2."""
    flip = jax.random.bernoulli(key, 0.5, (x.shape[0], 1, 1, 1))
    return jnp.where(flip, x[:, :, ::-1], x)
