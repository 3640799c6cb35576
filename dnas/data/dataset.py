"""Values: an image set, its splits, and the division of the training images that a search needs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dnas.data import checks
from dnas.data.arraytypes import Images, Indices, Labels, Lazy, Shape, Store
from dnas.errors import DataError
from dnas.files import shown

HELD_OUT = 0.2
HELD_OUT_SEED = (20_181_209,)  # fixed for ever: the test images of a set must not change between runs


@dataclass(frozen=True, eq=False, init=False)
class Split:
    """Images and labels of one split: an index view, so that several splits share one store of images.

    Args:
        images: the common store, ``uint8[m, h, w, c]`` or a ``Lazy`` one.
        labels: ``int32[n]``, one for each entry of ``indices``.
        indices: ``int[n]``, which images of the store belong to this split; all of them if not given.

    Raises:
        DataError: lengths or types do not fit.
    """

    store: Store
    labels: Labels
    indices: Indices

    def __init__(self, images: Store, labels: Labels, indices: Indices | None = None) -> None:
        if not isinstance(images, Lazy) and (images.ndim != 4 or images.dtype != np.uint8):
            raise DataError(
                f"a split holds images uint8[n, h, w, c], got {images.dtype}{list(images.shape)}; "
                "Dataset.from_arrays converts other arrays"
            )
        indices = np.arange(len(images), dtype=np.int32) if indices is None else np.asarray(indices, np.int32)
        labels = np.asarray(labels, np.int32)
        if labels.shape != indices.shape:
            raise DataError(f"{len(indices)} images and {len(labels)} labels; a split needs one label for each image")
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(images):
            raise DataError(f"indices {indices.min()}..{indices.max()} reach outside the {len(images)} images")
        object.__setattr__(self, "store", images)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "indices", indices)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def lazy(self) -> bool:
        """Whether images are decoded on demand instead of lying in memory."""
        return not isinstance(self.store, np.ndarray)

    @property
    def shape(self) -> Shape:
        """(n, h, w, c) of this split."""
        _, h, w, c = self.store.shape
        return len(self), int(h), int(w), int(c)

    @property
    def images(self) -> Store:
        """The images of this split: ``uint8[n, h, w, c]`` (a copy, unless it is the whole store), or a lazy view."""
        if isinstance(self.store, np.ndarray):
            whole = np.array_equal(self.indices, np.arange(len(self.store)))
            return self.store if whole else self.store[self.indices]
        return self.store.take(self.indices)

    def read(self, positions: Indices) -> Images:
        """The images at these positions of the split, in memory: ``uint8[k, h, w, c]``."""
        chosen = self.indices[positions]
        return self.store[chosen] if isinstance(self.store, np.ndarray) else self.store.read(chosen)

    def subset(self, positions: Indices) -> Split:
        """The split restricted to these positions, on the same store."""
        return Split(self.store, self.labels[positions], self.indices[positions])


@dataclass(frozen=True, eq=False)
class Dataset:
    """An image set for classification.

    Args:
        name: what it is called in logs and plots.
        train: the images that a search may use.
        test: the source's own test images, or, where the source has none, a held-out 20 % of its images, stratified
            by class. Its seed is fixed and is not the run's, so the test images are the same in every run.
        classes: name of each class; label i means ``classes[i]``.
        mean: per channel of the training images, in units of 0..1 (of a sample of them for a lazy set).
        std: as ``mean``; at least 1/255, so that dividing by it is safe.
        fingerprint: SHA-256 of the content, or of source and version for a lazy set.
        skipped: files that could not be read and were left out.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    skipped: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """How many classes the labels distinguish."""
        return len(self.classes)

    @property
    def channels(self) -> int:
        """Channels of the images: 1 for grey, 3 for RGB."""
        return self.train.shape[3]

    @classmethod
    def from_arrays(
        cls,
        images: Any,
        labels: Any,
        test_images: Any = None,
        test_labels: Any = None,
        *,
        classes: Sequence[str] | None = None,
        name: str = "arrays",
    ) -> Dataset:
        """A data set from arrays in memory.

        Args:
            images: ``[n, h, w]`` or ``[n, h, w, c]``, uint8. Other integers in 0..255, and floats that are either in
                0..1 or whole numbers in 0..255, are converted to uint8; other floats are refused.
            labels: integers ``[n]``, 0..k-1.
            test_images, test_labels: the test split; without them 20 % of the images are held out (see ``Dataset``).
            classes: names; needed only if some class has no training image.
            name: what the set is called.

        Raises:
            DataError: shapes, types or labels do not fit, or there are fewer than two classes.
        """
        if (test_images is None) != (test_labels is None):
            given, missing = ("test_images", "test_labels") if test_labels is None else ("test_labels", "test_images")
            raise DataError(f"{name}: {given} without {missing}; give both, or neither to hold 20 % out")
        pixels = checks.images(images, f"{name}: images")
        digits = checks.labels(labels, len(pixels), f"{name}: labels")
        names = checks.classes(classes, digits, name)
        if test_images is None:
            return assemble(name, pixels, digits, None, None, names)
        test_pixels = checks.images(test_images, f"{name}: test_images")
        test_digits = checks.labels(test_labels, len(test_pixels), f"{name}: test_labels")
        return assemble(name, pixels, digits, test_pixels, test_digits, names)


def assemble(
    name: str,
    images: Store,
    labels: Labels,
    test_images: Store | None,
    test_labels: Labels | None,
    classes: tuple[str, ...],
    *,
    version: str | None = None,
) -> Dataset:
    """A data set from checked stores: holds test images out where there are none, computes mean, std, fingerprint.

    Args:
        images, labels, test_images, test_labels: as in ``Split``; ``None`` holds 20 % out.
        version: source and version of a lazy set, hashed in place of its content.

    Raises:
        DataError: train and test do not fit each other.
    """
    if test_images is None or test_labels is None:
        held = np.zeros(len(labels), bool)
        held[stratified(labels, HELD_OUT, HELD_OUT_SEED)] = True
        kept, out = np.flatnonzero(~held), np.flatnonzero(held)
        _none_lost(labels, labels[kept], classes, name, "the other images are held out for the test split")
        train, test = Split(images, labels[kept], kept), Split(images, labels[out], out)
    else:
        if images.shape[3] != test_images.shape[3]:
            raise DataError(f"{name}: train images have {images.shape[3]} channels, test images {test_images.shape[3]}")
        train, test = Split(images, labels), Split(test_images, test_labels)
    if len(train) == 0 or len(test) == 0:
        raise DataError(f"{name}: {len(train)} training and {len(test)} test images; both must have at least one")
    if int(test.labels.max()) >= len(classes):
        raise DataError(f"{name}: test label {test.labels.max()}, but the training split has {len(classes)} classes")
    mean, std = _moments(train)
    return Dataset(name, train, test, classes, mean, std, _fingerprint(train, test, classes, version))


def stratified(labels: Labels, fraction: float, seed: Sequence[int]) -> Indices:
    """Positions of a random ``fraction`` of each class, in ascending order.

    Over all classes the count is n * fraction, rounded; each class gets its share, rounded up or down.
    """
    order = np.random.RandomState(seed).permutation(len(labels))  # its stream is frozen (NEP 19)
    order = order[np.argsort(labels[order], kind="stable")]  # random within each class
    place = np.arange(len(labels) + 1)
    quota = np.floor(place * fraction + 0.5 + 1e-9).astype(np.int64)
    starts = np.flatnonzero(np.r_[True, np.diff(labels[order]) != 0]) if len(labels) else np.zeros(0, np.int64)
    ends = np.r_[starts[1:], len(labels)]
    chosen = [order[a : a + quota[b] - quota[a]] for a, b in zip(starts, ends, strict=False)]
    return np.sort(np.concatenate([*chosen, np.zeros(0, np.int64)]))


@dataclass(frozen=True, eq=False)
class Splits:
    """The division of a data set for a search.

    Args:
        weights: trains the weights of the supernet; batch statistics are recalibrated on it.
        architecture: trains the architecture parameters.
        selection: ranks sampled candidates and decides on early stopping.
        train: weights, architecture and selection together, for the final training of the derived network.
        test: touched once, at the end.
    """

    weights: Split
    architecture: Split
    selection: Split
    train: Split
    test: Split


def split(dataset: Dataset, seed: int = 0, architecture: float = 0.2, selection: float = 0.1, shared: bool = False) -> Splits:
    """Divide the training images into weights, architecture and selection: stratified by class, and disjoint unless ``shared``.

    The result depends on the data set, the seed and the fractions, on nothing else; ``selection`` does not change
    which images ``architecture`` gets.

    Args:
        dataset: what ``load`` gave.
        seed: 0..2**32-1.
        architecture, selection: fractions of the training images, each in [0, 1), less than 1 together. The weights
            get the rest. 0 makes a split empty.
        shared: weights also get the images of architecture.

    Raises:
        DataError: a fraction is out of range, or there are too few images for it, or of one class to train on.
    """
    checks.seed(seed)
    for name, value in (("architecture", architecture), ("selection", selection)):
        if not (isinstance(value, int | float) and math.isfinite(value) and 0 <= value < 1):
            raise DataError(f"{name}={value!r}; expected a fraction of the training images in [0, 1), such as 0.2")
    if architecture + selection >= 1:
        raise DataError(
            f"architecture={architecture} and selection={selection} leave nothing to train the weights; "
            "make them less than 1 together"
        )
    train, every = dataset.train, np.arange(len(dataset.train))
    chosen = stratified(train.labels, architecture, (seed, 0))
    rest = np.delete(every, chosen)
    picked = rest[stratified(train.labels[rest], selection / (1 - architecture), (seed, 1))]
    weights = np.delete(every, picked if shared else np.r_[chosen, picked])
    for name, fraction, positions in (
        ("architecture", architecture, chosen),
        ("selection", selection, picked),
        ("weights", 1 - architecture - selection, weights),
    ):
        if fraction > 0 and len(positions) == 0:
            raise DataError(
                f"{dataset.name} has only {len(train)} training images: none is left for the {name} split "
                f"({fraction:.2g} of them); use a larger set or fraction"
            )
    takers = {"selection": selection} if shared else {"architecture": architecture, "selection": selection}
    elsewhere = " and ".join(f"{k}={v:.2g}" for k, v in takers.items()) + (" takes" if shared else " take") + " the others"
    _none_lost(train.labels, train.labels[weights], dataset.classes, dataset.name, elsewhere)
    return Splits(train.subset(weights), train.subset(chosen), train.subset(picked), train, dataset.test)


def _none_lost(before: Labels, after: Labels, classes: Sequence[str], name: str, elsewhere: str) -> None:
    """Errors: DataError that names a class whose every image went to another split."""
    lost = np.setdiff1d(before, after)
    if len(lost):
        count = int((before == lost[0]).sum())
        raise DataError(
            f"{name}: class {shown(classes[lost[0]])} has {count} image{'s' * (count > 1)} and keeps none to train on: "
            f"{elsewhere}; expected more images of each class: add some, or drop the class"
        )


def _moments(train: Split, sample: int = 2048) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Exact mean and standard deviation per channel; of ``sample`` evenly spaced images for a lazy split."""
    n, h, w, c = train.shape
    positions = np.arange(n)
    if train.lazy and n > sample:
        positions = np.linspace(0, n - 1, sample).astype(np.int64)
    counts = np.zeros((c, 256), np.int64)
    step = max(1, 4_000_000 // (h * w * c))
    for start in range(0, len(positions), step):
        pixels = train.read(positions[start : start + step])
        for channel in range(c):
            counts[channel] += np.bincount(pixels[..., channel].ravel(), minlength=256)
    values = np.arange(256) / 255.0
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ values
    variance = (share * (values - mean[:, None]) ** 2).sum(axis=1)
    std = np.maximum(np.sqrt(variance), 1 / 255)
    return tuple(float(m) for m in mean), tuple(float(s) for s in std)


def _fingerprint(train: Split, test: Split, classes: tuple[str, ...], version: str | None) -> str:
    """SHA-256 of classes, labels, and the images' shape and pixels (of ``version`` in place of lazy pixels)."""
    digest = hashlib.sha256(repr((classes, version)).encode())
    stores: list[Store] = [train.store] if train.store is test.store else [train.store, test.store]
    for part in (train, test):
        digest.update(repr(part.shape).encode())
        digest.update(np.ascontiguousarray(part.labels, "<i4").data)
        digest.update(np.ascontiguousarray(part.indices, "<i4").data)
    for store in stores:
        if isinstance(store, np.ndarray):
            digest.update(np.ascontiguousarray(store).data)
    return digest.hexdigest()
