"""Batches of a split on the device, as a pure function of the step."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float32

from dnas.data import checks
from dnas.data.arraytypes import Indices
from dnas.data.augment import AUGMENTATIONS, Batch, Numbers, Recipe, prepare
from dnas.data.dataset import Split
from dnas.data.lookahead import LookAhead
from dnas.devices import from_rows, own_rows, replicate
from dnas.errors import DataError, nearest

Mask = Float32[Array, "b"]


class _Resident:
    """Images on the device, and the array they came from (held, so that its id stays its own)."""

    def __init__(self, source: np.ndarray, mesh: Mesh | None) -> None:
        self.source = source
        self.array = jnp.asarray(source) if mesh is None else replicate(mesh, source)


_residents: weakref.WeakValueDictionary[tuple[int, Mesh | None], _Resident] = weakref.WeakValueDictionary()


class Feed:
    """Batches of one split.

    Batch k depends on (split, seed, k) alone, so a run resumes from the step number. Each epoch is a new permutation,
    drawn from (seed, epoch); a last batch that is not full is left out, and its images have their chance in the next
    epoch. Images in memory are put on the device once, however many feeds share them; gathering, resizing,
    augmentation and normalisation are one jitted function. Lazy images are decoded by threads, some steps ahead.

    Args:
        split: what to feed.
        batch_size: images per batch; reduced to the size of the split if that is smaller (``.batch_size`` tells).
        resolution: px. Images are resized to it (bilinear; the shorter side, then the centre square). Any factor is
            possible; far above 8 x the network sees little but interpolation.
        channels: of the network's input; grey images become RGB by repetition.
        mean, std: per channel of the images, in units of 0..1, as ``Dataset`` has them.
        augment: "none"; "crop" (pad by resolution // 8 px, at least 1, and cut out at random); "crop-flip" (then also
            mirror at random).
        seed: 0..2**32-1.
        shuffle: False feeds the images in their order, every epoch.
        dtype: of the images.
        mesh: devices of several processes over which batches are split. All processes ask for the same batches; each
            reads its own images alone, and an image is augmented as it would be in one process.

    Raises:
        DataError: the split is empty or does not fit the network, or an option is unknown.

    Attributes:
        batch_size: images per batch.
        steps_per_epoch: full batches in one epoch.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        resolution: int,
        channels: int,
        mean: Sequence[float],
        std: Sequence[float],
        augment: str = "none",
        seed: int = 0,
        shuffle: bool = True,
        dtype: Any = "float32",
        mesh: Mesh | None = None,
    ) -> None:
        if len(split) == 0:
            raise DataError("the split has no images; give it a larger fraction of the training images")
        if augment not in AUGMENTATIONS:
            raise DataError(f"unknown augmentation {augment!r}{nearest(augment, AUGMENTATIONS)}")
        self.split = split
        self.batch_size = min(_positive("batch_size", batch_size), len(split))
        self.steps_per_epoch = len(split) // self.batch_size
        self._recipe = Recipe(_positive("resolution", resolution), _channels(split, channels), augment, _float(dtype))
        self._mean = _moments("mean", mean, split.shape[3])
        self._std = _moments("std", std, split.shape[3])
        if np.any(self._std <= 0):
            raise DataError(f"std={tuple(std)}; every channel's must be above 0")
        self._seed = checks.seed(seed)
        self._key = jax.random.key(np.uint32(self._seed))
        self._shuffle = shuffle
        self._mesh = mesh
        self._orders: dict[int, Indices] = {}
        self._resident: _Resident | None = None
        self._ahead: LookAhead | None = None
        if isinstance(split.store, np.ndarray):
            self._resident = _put(split.store, mesh)
        else:
            own = own_rows(mesh, self.batch_size)
            self._ahead = LookAhead(split.store, lambda step: split.indices[self.positions(step)[own]])

    def batch(self, step: int) -> tuple[Batch, Numbers]:
        """Batch number ``step``, counted from 0 over all epochs.

        Returns:
            x ``f32[batch_size, resolution, resolution, channels]``, normalised; y ``i32[batch_size]``.

        Raises:
            DataError: ``step`` is negative, or an image of a lazy set is damaged.
        """
        step = operator.index(step)
        if not 0 <= step < 2**32:
            raise DataError(f"step={step}; expected a number of 0 or more")
        positions = self.positions(step)
        images = None if self._ahead is None else self._ahead.get(step)
        return self._prepare(images, positions, step, self._recipe)

    def positions(self, step: int) -> Indices:
        """Which images of the split batch ``step`` consists of, ``int[batch_size]``."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch not in self._orders:
            while len(self._orders) > 1:  # two: the look-ahead reaches into the next epoch
                self._orders.pop(next(iter(self._orders)))
            order = np.arange(len(self.split))
            if self._shuffle:
                order = np.random.RandomState((self._seed, epoch)).permutation(len(self.split))
            self._orders[epoch] = order
        return self._orders[epoch][place * self.batch_size : (place + 1) * self.batch_size]

    def evaluation(self, batch_size: int | None = None) -> Iterator[tuple[Batch, Numbers, Mask]]:
        """All images of the split once, in order, without augmentation, in batches of one size.

        Args:
            batch_size: that of the feed if not given; it is not reduced to the size of the split, and raised to the next
                number that a mesh divides.

        Yields:
            x and y as in ``batch``, and mask ``f32[b]``: 1 for an image, 0 for the padding of the last batch.
        """
        size = self.batch_size if batch_size is None else _positive("batch_size", batch_size)
        share = self._mesh.size if self._mesh else 1
        return self._evaluation(-(-size // share) * share)

    def _evaluation(self, size: int) -> Iterator[tuple[Batch, Numbers, Mask]]:
        count, own = -(-len(self.split) // size), own_rows(self._mesh, size)

        def positions(number: int) -> Indices:  # the padding repeats the last image
            return np.minimum(np.arange(number * size, (number + 1) * size), len(self.split) - 1)

        def plan(number: int) -> Indices | None:  # padding is not decoded
            if number >= count:
                return None
            return self.split.indices[np.unique(positions(number)[own])]

        store = self.split.store
        ahead = None if isinstance(store, np.ndarray) else LookAhead(store, plan)
        recipe = self._recipe._replace(augment="none")
        for number in range(count):
            images = None
            if ahead is not None:
                images = ahead.get(number)
                images = np.concatenate([images, np.repeat(images[-1:], own.stop - own.start - len(images), axis=0)])
            x, y = self._prepare(images, positions(number), 0, recipe)
            mask = np.asarray(np.arange(number * size, (number + 1) * size) < len(self.split), np.float32)
            yield x, y, jnp.asarray(from_rows(self._mesh, mask[own], size))

    def _prepare(self, images: Any, positions: Indices, step: int, recipe: Recipe) -> tuple[Batch, Numbers]:
        mesh, count = self._mesh, len(positions)
        own = positions[own_rows(mesh, count)]
        indices = None
        if self._resident is not None:
            images, indices = self._resident.array, from_rows(mesh, self.split.indices[own], count)
        else:
            images = from_rows(mesh, images, count)
        return prepare(
            images,
            indices,
            from_rows(mesh, self.split.labels[own], count),
            self._mean,
            self._std,
            self._key,
            np.uint32(step),
            recipe=recipe,
        )


def _put(images: np.ndarray, mesh: Mesh | None) -> _Resident:
    """The images on the devices, shared by all feeds that use the same array; freed with the last of them."""
    place = (id(images), mesh)
    resident = _residents.get(place)
    if resident is None:
        resident = _residents[place] = _Resident(images, mesh)
    return resident


def _positive(name: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise DataError(f"{name}={value!r}; expected a whole number of 1 or more")
    return number


def _float(dtype: Any) -> str:
    try:
        if jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
            return str(jnp.dtype(dtype).name)
    except TypeError:
        pass
    raise DataError(f"dtype={dtype!r}; images are fed as floats, such as 'float32' or 'bfloat16'")


def _channels(split: Split, channels: int) -> int:
    has = split.shape[3]
    if has == channels and has in (1, 3):
        return channels
    if (has, channels) == (1, 3):
        return channels
    if has == 4:
        advice = "drop the alpha channel with images[..., :3], or blend it into a background"
    elif (has, channels) == (3, 1):
        advice = "use a network with 3 input channels, or convert the images to grey"
    else:
        advice = "images must be grey (1) or RGB (3), and the network must take 3 channels, or 1 for grey"
    raise DataError(f"the images have {has} channels and the network takes {channels}; {advice}")


def _moments(name: str, values: Sequence[float], channels: int) -> np.ndarray:
    array = np.asarray(values, np.float32)
    if array.shape != (channels,) or not np.all(np.isfinite(array)):
        raise DataError(f"{name}={tuple(values)}; expected finite numbers, one for each of the {channels} channels")
    return array.reshape(1, 1, 1, channels)
