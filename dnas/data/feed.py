"""Batches of a split on the device, as a pure function of the step."""

from __future__ import annotations

import operator
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float32

from dnas.data import checks
from dnas.data.arraytypes import Images, Indices
from dnas.data.augment import Batch, Numbers, Recipe, Soft, parse, prepare, uniform
from dnas.data.dataset import Split
from dnas.data.stream import Stream
from dnas.devices import from_rows, own_rows, replicate
from dnas.errors import DataError

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
    epoch. How an image is augmented depends on (seed, epoch, image). Images in memory are put on the device once, however many
    feeds share them; gathering, resizing, augmentation and normalisation are one jitted function. Lazy images are decoded by
    threads, some steps ahead.

    Args:
        split: what to feed.
        batch_size: images per batch; reduced to the size of the split if that is smaller (``.batch_size`` tells).
        resolution: px. Images are resized to it (bilinear; the shorter side, then the centre square). Any factor is
            possible; far above 8 x the network sees little but interpolation.
        channels: of the network's input; grey images become RGB by repetition.
        mean, std: per channel of the images, in units of 0..1, as ``Dataset`` has them.
        augment: "none", or names of ``dnas.data.augment.AUGMENTATIONS`` joined by +, with a number after = where one is
            taken: "crop+flip", "resized-crop=0.2+flip+randaugment=9+erase=0.25+mixup=0.2+cutmix=1".
        seed: 0..2**32-1.
        shuffle: False feeds the images in their order, every epoch.
        balanced: every class has the same number of images in an epoch (to within one): images of small classes come
            several times, augmented differently, and some of large ones not at all.
        classes: number of classes, needed by mixup and cutmix, whose labels are ``f32[batch_size, classes]``.
        dtype: of the images.
        mesh: devices of several processes over which batches are split. All processes ask for the same batches; each
            reads its own images alone, and an image is augmented as it would be in one process.
        workers: threads that decode images of a lazy set; by default one for each core, at most 16.

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
        balanced: bool = False,
        classes: int = 0,
        dtype: Any = "float32",
        mesh: Mesh | None = None,
        workers: int | None = None,
    ) -> None:
        if len(split) == 0:
            raise DataError("the split has no images; give it a larger fraction of the training images")
        self.split = split
        self.batch_size = min(_positive("batch_size", batch_size), len(split))
        self.steps_per_epoch = len(split) // self.batch_size
        self._recipe = Recipe(
            _positive("resolution", resolution), _channels(split, channels), parse(augment), _float(dtype), classes
        )
        if self._recipe.mixes and classes <= (int(split.labels.max()) if len(split) else 0):
            raise DataError(f"augmentation {augment!r} mixes labels, and classes={classes}; expected the number of classes")
        self._mean = _moments("mean", mean, split.shape[3])
        self._std = _moments("std", std, split.shape[3])
        if np.any(self._std <= 0):
            raise DataError(f"std={tuple(std)}; every channel's must be above 0")
        self._seed = checks.seed(seed)
        self._key = jax.random.key(np.uint32(self._seed))
        self._shuffle = shuffle
        self._balanced = balanced
        self._mesh = mesh
        self._orders: dict[int, tuple[Indices, Indices]] = {}
        self._lock = threading.Lock()  # the threads of a stream ask for places too
        self._workers = workers
        self._cut = dict(self._recipe.steps).get("resized-crop")
        self._resident: _Resident | None = None
        self._ahead: Stream | None = None
        if isinstance(split.store, np.ndarray):
            self._resident = _put(split.store, mesh)
        else:
            self._ahead = Stream(self._read, self._plan, workers=workers)

    def batch(self, step: int) -> tuple[Batch, Numbers | Soft]:
        """Batch number ``step``, counted from 0 over all epochs.

        Returns:
            x ``f32[batch_size, resolution, resolution, channels]``, normalised; y ``i32[batch_size]``, or
            ``f32[batch_size, classes]`` where images are mixed.

        Raises:
            DataError: ``step`` is negative, or an image of a lazy set is damaged.
        """
        step = operator.index(step)
        if not 0 <= step < 2**32:
            raise DataError(f"step={step}; expected a number of 0 or more")
        positions, tags = self._places(step)
        images = None if self._ahead is None else self._ahead.get(step)
        return self._prepare(images, positions, tags, step // self.steps_per_epoch, self._recipe)

    @property
    def _cuts_on_host(self) -> bool:
        """Whether the store cuts images itself, out of the originals."""
        return self._cut is not None and hasattr(self.split.store, "cuts")

    def _plan(self, step: int) -> tuple[Indices, Any]:
        positions, tags = self._places(step)
        own = own_rows(self._mesh, self.batch_size)
        draws = uniform(self._seed, step // self.steps_per_epoch, tags[own]) if self._cuts_on_host else None
        return self.split.indices[positions[own]], draws

    def _read(self, indices: Indices, draws: Any) -> Images:
        store: Any = self.split.store
        return store.read(indices) if draws is None else store.cuts(indices, draws, self._recipe.resolution, self._cut)

    def positions(self, step: int) -> Indices:
        """Which images of the split batch ``step`` consists of, ``int[batch_size]``."""
        return self._places(step)[0]

    def _places(self, step: int) -> tuple[Indices, Indices]:
        """Positions in the split, and what tells an image of this epoch from all others, also from itself if it comes again."""
        epoch, place = divmod(step, self.steps_per_epoch)
        with self._lock:
            if epoch not in self._orders:
                while len(self._orders) > 1:  # two: the stream reaches into the next epoch
                    self._orders.pop(next(iter(self._orders)))
                self._orders[epoch] = self._order(epoch)
            order, tags = self._orders[epoch]
        rows = slice(place * self.batch_size, (place + 1) * self.batch_size)
        return order[rows], tags[rows]

    def _order(self, epoch: int) -> tuple[Indices, Indices]:
        """All positions and tags of an epoch."""
        order, random = np.arange(len(self.split)), np.random.RandomState((self._seed, epoch))
        if self._balanced:
            order = balanced_order(self.split.labels, random)
        elif self._shuffle:
            order = random.permutation(len(self.split))
        tags = self.split.indices[order].astype(np.uint32)
        if self._balanced:
            tags += np.uint32(len(self.split.store)) * _repeats(order).astype(np.uint32)
        return order, tags

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

        def plan(number: int) -> tuple[Indices, Any]:  # padding is not decoded
            return self.split.indices[np.unique(positions(number)[own])], None

        images_here = (count - 1) * (own.stop - own.start) + len(plan(count - 1)[0])
        lazy = self._ahead is not None
        ahead = Stream(self._read, plan, images_here, self._workers) if lazy else None
        recipe = self._recipe._replace(steps=())
        for number in range(count):
            images = None
            if ahead is not None:
                images = ahead.get(number)
                images = np.concatenate([images, np.repeat(images[-1:], own.stop - own.start - len(images), axis=0)])
            places = positions(number)
            x, y = self._prepare(images, places, places.astype(np.uint32), 0, recipe)
            mask = np.asarray(np.arange(number * size, (number + 1) * size) < len(self.split), np.float32)
            yield x, y, jnp.asarray(from_rows(self._mesh, mask[own], size))

    def _prepare(
        self, images: Any, positions: Indices, tags: Indices, epoch: int, recipe: Recipe
    ) -> tuple[Batch, Numbers | Soft]:
        mesh, count = self._mesh, len(positions)
        rows = own_rows(mesh, count)
        if self._cuts_on_host:
            recipe = recipe._replace(steps=tuple(step for step in recipe.steps if step[0] != "resized-crop"))
        cut = any(name == "resized-crop" for name, _ in recipe.steps)
        draws = from_rows(mesh, uniform(self._seed, epoch, tags[rows]), count) if cut else None
        return prepare(
            from_rows(mesh, images, count) if self._resident is None else self._resident.array,
            from_rows(mesh, self.split.indices[positions[rows]], count),
            from_rows(mesh, tags[rows], count),
            from_rows(mesh, self.split.labels[positions[rows]], count),
            self._mean,
            self._std,
            self._key,
            np.uint32(epoch),
            draws,
            recipe=recipe,
            gather=self._resident is not None,
        )


def balanced_order(labels: np.ndarray, random: np.random.RandomState) -> Indices:
    """As many positions as there are labels, every class that occurs equally often to within one, in random order."""
    classes, numbers = np.unique(labels, return_inverse=True)
    wanted = np.full(len(classes), len(labels) // len(classes))
    wanted[random.permutation(len(classes))[: len(labels) % len(classes)]] += 1
    members = [np.flatnonzero(numbers == c) for c in range(len(classes))]
    rounds = [
        np.concatenate([random.permutation(m) for _ in range(-(-w // len(m)))])[:w]
        for m, w in zip(members, wanted, strict=True)
    ]
    return random.permutation(np.concatenate(rounds))


def _repeats(order: Indices) -> Indices:
    """How often each entry has been there before."""
    place = np.argsort(order, kind="stable")
    first = np.r_[True, np.diff(order[place]) != 0]
    start = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    result = np.empty_like(order)
    result[place] = np.arange(len(order)) - start
    return result


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
    if has == channels or (has, channels) == (1, 3):
        return channels
    if has == 4:
        advice = "drop the alpha channel with images[..., :3], or blend it into a background"
    elif (has, channels) == (3, 1):
        advice = "use a network with 3 input channels, or convert the images to grey"
    else:
        advice = "they must be as many, or grey images (1) for a network that takes 3"
    raise DataError(f"the images have {has} channels and the network takes {channels}; {advice}")


def _moments(name: str, values: Sequence[float], channels: int) -> np.ndarray:
    array = np.asarray(values, np.float32)
    if array.shape != (channels,) or not np.all(np.isfinite(array)):
        raise DataError(f"{name}={tuple(values)}; expected finite numbers, one for each of the {channels} channels")
    return array.reshape(1, 1, 1, channels)
