"""What every source asks of images, labels and classes, with advice where it does not hold."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from dnas.data.arraytypes import Images, Labels
from dnas.errors import DataError

MAX_CHANNELS = 64  # of multispectral images; more is a mistake of the axes


def images(given: Any, what: str) -> Images:
    """``uint8[n, h, w, c]`` from ``[n, h, w]`` or ``[n, h, w, c]``; see ``Dataset.from_arrays`` for other types.

    Raises:
        DataError: naming ``what``.
    """
    array = np.asarray(given)
    if array.dtype == object:
        raise DataError(f"{what} is an object array (images of several sizes?); resize them and use np.stack")
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or 0 in array.shape:
        raise DataError(f"{what} has shape {list(np.shape(given))}; expected [n, h, w] or [n, h, w, c], none of them 0")
    if array.shape[3] > 4 and (array.shape[1] in (1, 3, 4) or array.shape[3] > MAX_CHANNELS):
        first = array.shape[1] in (1, 3, 4)
        advice = "it looks channels-first: use images.transpose(0, 2, 3, 1)" if first else f"expected 1 to {MAX_CHANNELS}"
        raise DataError(f"{what} has shape {list(array.shape)}, so {array.shape[3]} channels; {advice}")
    return np.ascontiguousarray(_bytes(array, what))


def _bytes(array: np.ndarray, what: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise DataError(f"{what} has type {array.dtype}; expected uint8")
    low, high = float(array.min()), float(array.max())
    if array.dtype.kind == "f":
        if low >= 0 and high <= 1:
            array = np.rint(array * 255)
            return array.astype(np.uint8)
        if not (low >= 0 and high <= 255 and bool(np.all(array == np.rint(array)))):
            raise DataError(
                f"{what} is {array.dtype} with values {low:.4g}..{high:.4g}; expected uint8, or floats in 0..1 or "
                "whole numbers in 0..255: undo the normalisation and convert with .astype(np.uint8)"
            )
    elif not (low >= 0 and high <= 255):
        raise DataError(f"{what} is {array.dtype} with values {low:.0f}..{high:.0f}; expected 0..255: scale to uint8")
    return array.astype(np.uint8)


def labels(given: Any, count: int, what: str) -> Labels:
    """``int32[n]``, none negative, from integers of any width.

    Raises:
        DataError: naming ``what``.
    """
    array = np.asarray(given)
    if array.ndim != 1:
        hint = "use labels.ravel()" if array.size == count else "use labels.argmax(1) if they are one-hot"
        raise DataError(f"{what} has shape {list(array.shape)}; expected [{count}], one integer per image: {hint}")
    if array.dtype.kind not in "iu":
        raise DataError(f"{what} has type {array.dtype}; expected integers 0..k-1, one per class")
    if len(array) != count:
        raise DataError(f"{what}: {len(array)} labels for {count} images; expected one for each")
    if count and int(array.min()) < 0:
        raise DataError(f"{what} contains {array.min()}; expected 0..k-1: drop unlabelled images")
    if count and int(array.max()) > 2**31 - 1:
        raise DataError(f"{what} contains {array.max()}; expected 0..k-1")
    return array.astype(np.int32)


def classes(names: Sequence[str] | None, train_labels: Labels, what: str) -> tuple[str, ...]:
    """The class names, or "0", "1", ... where none are given and every label up to the largest one occurs.

    Raises:
        DataError: fewer than two classes, a label without a name, or a gap in the labels without names.
    """
    present = np.unique(train_labels)
    top = int(present[-1]) if len(present) else -1
    if names is None:
        missing = np.setdiff1d(np.arange(min(top + 1, 2 * len(present) + 1)), present)
        if len(missing):
            raise DataError(
                f"{what}: labels go up to {top} but {missing[0]} never occurs; renumber them 0..k-1 "
                "(np.unique(labels, return_inverse=True)[1]), or pass `classes` if the gap is meant"
            )
        result = tuple(str(i) for i in range(top + 1))
    else:
        result = tuple(str(name) for name in names)
        if top >= len(result):
            raise DataError(f"{what}: label {top}, but only {len(result)} class names; labels run from 0")
    if len(result) < 2:
        raise DataError(f"{what}: {len(result)} class; a classifier needs at least two")
    return result


def seed(value: Any) -> int:
    """A seed in 0..2**32-1.

    Raises:
        DataError: otherwise.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number < 2**32:
        raise DataError(f"seed={value!r}; expected a whole number in 0..{2**32 - 1}")
    return number
