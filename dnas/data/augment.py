"""From stored pixels to network input, on the device, in one jitted function; and the augmentations, one entry each.

Randomness is per image: an image's key is made of (seed, epoch, number of the image), so neither the size of a batch nor the
number of workers or devices changes how it is augmented. Only mixing takes its partner from the batch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32, UInt8, UInt32

from dnas.data.randaugment import MAX_MAGNITUDE, randaugment
from dnas.errors import DataError, nearest

Pixels = UInt8[Array, "n h w c"]
Batch = Float[Array, "b resolution resolution channels"]
Square = Float32[Array, "b resolution resolution c"]
Numbers = Int32[Array, "b"]
Tags = UInt32[Array, "b"]
Draws = Float32[Array, "b 4"]
Soft = Float32[Array, "b classes"]
Moments = Float32[Array, "1 1 1 c"]
Images = Float32[Array, "b h w c"]
Keys = Any  # a PRNG key for each image


class Augmentation(NamedTuple):
    """One augmentation.

    Args:
        kind: "cut" replaces resizing; "pixels" changes images of 0..255; "normal" changes normalised ones; "mix" joins two
            images and their labels.
        apply: (keys, x, number) -> x; mix: (keys, x, soft labels, number) -> (x, labels).
        number: default of its number; None if it takes none.
        low, high: range of the number.
    """

    kind: str
    apply: Callable[..., Any]
    number: float | None = None
    low: float = 0.0
    high: float = 1.0


class Recipe(NamedTuple):
    """What is compiled into a batch function.

    Args:
        resolution: px of the square result.
        channels: of the result; grey images are repeated.
        steps: the augmentations, (name, number), in the order of ``AUGMENTATIONS``.
        dtype: name of the result's type.
        classes: length of the soft labels that mixing makes.
    """

    resolution: int
    channels: int
    steps: tuple[tuple[str, float], ...]
    dtype: str
    classes: int = 0

    @property
    def mixes(self) -> bool:
        return any(AUGMENTATIONS[name].kind == "mix" for name, _ in self.steps)


def parse(text: str) -> tuple[tuple[str, float], ...]:
    """``crop+flip+erase=0.25`` as steps; ``none`` is none, ``crop-flip`` is ``crop+flip``.

    Raises:
        DataError: unknown names, numbers out of range, or two ways to cut.
    """
    found: dict[str, float] = {}
    for word in text.replace("crop-flip", "crop+flip").split("+") if text != "none" else []:
        name, equals, given = word.partition("=")
        entry = AUGMENTATIONS.get(name)
        if entry is None:
            raise DataError(f"unknown augmentation {name!r} in {text!r}{nearest(name, ['none', 'crop-flip', *AUGMENTATIONS])}")
        number = entry.number or 0.0
        if equals:
            try:
                number = float(given)
            except ValueError:
                number = math.nan
            if entry.number is None or not entry.low <= number <= entry.high:
                wanted = (
                    "takes no number" if entry.number is None else f"expected a number from {entry.low:g} to {entry.high:g}"
                )
                raise DataError(f"augmentation {word!r}: {wanted}")
        if name in found:
            raise DataError(f"augmentation {name!r} appears twice in {text!r}; expected each once")
        found[name] = number
    if "crop" in found and "resized-crop" in found:
        raise DataError(f"augmentation {text!r}: crop and resized-crop both cut; choose one")
    return tuple((name, found[name]) for name in AUGMENTATIONS if name in found)


@functools.partial(jax.jit, static_argnames=("recipe", "gather"))
def prepare(
    images: Pixels,
    numbers: Numbers,
    tags: Tags,
    labels: Numbers,
    mean: Moments,
    std: Moments,
    key: Any,
    epoch: Any,
    draws: Draws | None = None,
    *,
    recipe: Recipe,
    gather: bool,
) -> tuple[Batch, Numbers | Soft]:
    """Gather, resize, augment and normalise one batch.

    Args:
        images: all images on the device, or (not ``gather``) the batch's own.
        numbers: which images to take.
        tags: what tells the images of an epoch apart; ``fold_in(fold_in(key, epoch), tag)`` is an image's key.
        labels: of the batch.
        mean, std: ``[1, 1, 1, channels]``, in units of 0..1.
        key: PRNG key of the feed.
        draws: for ``resized-crop``, as ``cuts`` takes them.

    Returns:
        x in ``recipe.dtype``, (pixels / 255 - mean) / std; and the labels, soft ones where images were mixed.
    """
    x = (images[numbers] if gather else images).astype(jnp.float32)
    epoch_key = jax.random.fold_in(key, epoch)
    own: Keys = jax.vmap(lambda tag: jax.random.fold_in(epoch_key, tag))(tags) if recipe.steps else None
    steps = dict(recipe.steps)

    def keys(name: str) -> Keys:
        return jax.vmap(lambda k: jax.random.fold_in(k, list(AUGMENTATIONS).index(name)))(own)

    if "resized-crop" in steps:
        assert draws is not None
        x = resized_crop(draws, x, recipe.resolution, steps["resized-crop"])
    else:
        x = shrink(x, recipe.resolution)
    for name, number in recipe.steps:
        if AUGMENTATIONS[name].kind == "pixels":
            x = AUGMENTATIONS[name].apply(keys(name), x, number)
    x = (x / 255.0 - mean) / std  # before the repetition: a grey image has one mean
    for name, number in recipe.steps:
        if AUGMENTATIONS[name].kind == "normal":
            x = AUGMENTATIONS[name].apply(keys(name), x, number)
    y: Any = labels
    if recipe.mixes:
        y = jax.nn.one_hot(labels, recipe.classes, dtype=jnp.float32)
        mixed = [AUGMENTATIONS[n].apply(keys(n), x, y, number) for n, number in recipe.steps if AUGMENTATIONS[n].kind == "mix"]
        x, y = mixed[0] if len(mixed) == 1 else _either(keys("cutmix"), *mixed)
    return jnp.broadcast_to(x, (*x.shape[:3], recipe.channels)).astype(recipe.dtype), y


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


def cuts(draws: Any, height: Any, width: Any, least: float) -> tuple[Any, Any, Any, Any]:
    """Boxes (top, left, height, width) in px, floats, from ``draws`` of [0, 1)^4, in NumPy or JAX.

    Area ``least`` to 1 of the image's, aspect ratio 3/4 to 4/3, log-uniform (Szegedy et al. 2014, arXiv:1409.4842, section 6);
    a box that is too long for the image is cut to it.
    """
    xp = np if isinstance(draws, np.ndarray) else jnp
    area = height * width * (least + (1 - least) * draws[..., 0])
    ratio = xp.exp(math.log(3 / 4) + math.log(16 / 9) * draws[..., 1])
    wide, high = xp.minimum(xp.sqrt(area * ratio), width), xp.minimum(xp.sqrt(area / ratio), height)
    return (height - high) * draws[..., 2], (width - wide) * draws[..., 3], high, wide


def uniform(seed: int, epoch: int, tags: Any) -> np.ndarray:
    """``f32[b, 4]`` in [0, 1), a function of (seed, epoch, tag): SplitMix64 (Steele et al. 2014) of the three.

    On the host and without JAX, because worker processes cut images too.
    """
    golden = np.uint64(0x9E3779B97F4A7C15)

    def mix(z: np.ndarray) -> np.ndarray:
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

    with np.errstate(over="ignore"):
        start = mix(np.array([(seed << 32) | epoch], np.uint64) + golden)
        places = np.asarray(tags, np.uint64)[:, None] * np.uint64(4) + np.arange(1, 5, dtype=np.uint64)
        bits = mix(start + places * golden)
    return ((bits >> np.uint64(40)) / np.float32(2**24)).astype(np.float32)


def resized_crop(draws: Draws, x: Images, resolution: int, least: float) -> Square:
    """Cut a random box out of each image and scale it to the resolution (bilinear, with antialiasing)."""

    def one(draw: Any, image: Any) -> Any:
        top, left, high, wide = cuts(draw, image.shape[0], image.shape[1], least)
        scale = resolution / jnp.stack([high, wide])
        return jax.image.scale_and_translate(
            image, (resolution, resolution, image.shape[2]), (0, 1), scale, -jnp.stack([top, left]) * scale, "linear"
        )

    result: Square = jax.vmap(one)(draws, x)
    return jnp.clip(result, 0, 255)


def random_crop(keys: Keys, x: Square, share: float) -> Square:
    """Pad each side with black, ``share`` of it (at least 1 px), and cut the old size out at a random place, per image.

    As for CIFAR in He et al. (2015, arXiv:1512.03385), section 4.2.
    """
    size = x.shape[1]
    pad = max(1, int(size * share))
    padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))

    def cut(key: Any, image: Any) -> Any:
        place = jax.random.randint(key, (2,), 0, 2 * pad + 1)
        return jax.lax.dynamic_slice(image, (place[0], place[1], 0), (size, size, x.shape[3]))

    result: Square = jax.vmap(cut)(keys, padded)
    return result


def random_flip(keys: Keys, x: Square, _: float = 0.0) -> Square:
    """Mirror each image left to right with probability 1/2."""
    flip = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(flip[:, None, None, None], x[:, :, ::-1], x)


def erase(keys: Keys, x: Square, probability: float) -> Square:
    """Fill a box of 2 % to 33 % of the image with noise (Zhong et al. 2017, arXiv:1708.04896); ``x`` is normalised."""

    def one(key: Any, image: Any) -> Any:
        chance, box, noise = jax.random.split(key, 3)
        u = jax.random.uniform(box, (4,))
        area, ratio = 0.02 + u[0] * (1 / 3 - 0.02), jnp.exp((2 * u[1] - 1) * math.log(1 / 0.3))
        inside = _box(image.shape, jnp.sqrt(area * ratio), jnp.sqrt(area / ratio), u[2], u[3])
        filled = jnp.where(inside[..., None], jax.random.normal(noise, image.shape), image)
        return jnp.where(jax.random.bernoulli(chance, probability), filled, image)

    result: Square = jax.vmap(one)(keys, x)
    return result


def mixup(keys: Keys, x: Square, y: Soft, alpha: float) -> tuple[Square, Soft]:
    """lambda * image + (1 - lambda) * the next one of the batch, lambda ~ Beta(alpha, alpha); labels alike.

    Zhang et al. 2017, arXiv:1710.09412.
    """
    share = jax.vmap(lambda k: jax.random.beta(k, alpha, alpha))(keys)
    return _blend(share[:, None, None, None], x), _blend(share[:, None], y)


def cutmix(keys: Keys, x: Square, y: Soft, alpha: float) -> tuple[Square, Soft]:
    """A box of the next image of the batch in each; its area is 1 - lambda, lambda ~ Beta(alpha, alpha).

    Labels are mixed by the area that is left. Yun et al. 2019, arXiv:1905.04899.
    """

    def one(key: Any) -> Any:
        size, place = jax.random.split(key)
        side = jnp.sqrt(1 - jax.random.beta(size, alpha, alpha))
        return _box(x.shape[1:], side, side, *jax.random.uniform(place, (2,)))

    inside = jax.vmap(one)(keys)
    share = 1 - inside.mean((1, 2))
    return jnp.where(inside[..., None], jnp.roll(x, 1, 0), x), _blend(share[:, None], y)


def _box(shape: tuple[int, ...], high: Any, wide: Any, down: Any, along: Any) -> Any:
    """bool[h, w]: a box of ``high`` x ``wide`` (shares of the sides, cut to the image), whole px, somewhere inside."""
    height, width = shape[:2]
    rows, columns = (jnp.rint(jnp.clip(share, 0, 1) * size) for share, size in ((high, height), (wide, width)))
    top, left = jnp.rint((height - rows) * down), jnp.rint((width - columns) * along)
    y, x = jnp.arange(height)[:, None], jnp.arange(width)[None]
    return (y >= top) & (y < top + rows) & (x >= left) & (x < left + columns)


def _blend(share: Any, v: Any) -> Any:
    return share * v + (1 - share) * jnp.roll(v, 1, 0)


def _either(keys: Keys, first: tuple[Square, Soft], second: tuple[Square, Soft]) -> tuple[Square, Soft]:
    """One or the other, by a coin for each image."""
    coin = jax.vmap(lambda k: jax.random.bernoulli(jax.random.fold_in(k, 1)))(keys)
    x, y = (jnp.where(coin.reshape(-1, *(1,) * (a.ndim - 1)), a, b) for a, b in zip(first, second, strict=True))
    return x, y


AUGMENTATIONS: dict[str, Augmentation] = {
    "resized-crop": Augmentation("cut", resized_crop, 0.08, 1e-3, 1),  # least share of the area
    "crop": Augmentation("pixels", random_crop, 0.125, 0, 0.5),  # padding, as a share of the side
    "flip": Augmentation("pixels", random_flip),
    "randaugment": Augmentation("pixels", randaugment, 9, 0, MAX_MAGNITUDE),  # magnitude
    "erase": Augmentation("normal", erase, 0.25, 0, 1),  # probability
    "mixup": Augmentation("mix", mixup, 0.2, 1e-3, 100),  # alpha
    "cutmix": Augmentation("mix", cutmix, 1.0, 1e-3, 100),  # alpha
}
