"""``load``: a data set by its spec, such as ``digits``, ``idx:FOLDER``, ``npz:FILE`` or ``tfds:cifar10``.

To add a source, write a function (argument, data_dir, resolution) -> Dataset and give it a line in ``SOURCES``.
"""

from __future__ import annotations

import importlib
import os
from typing import NamedTuple

import numpy as np

from dnas.data import checks
from dnas.data.dataset import Dataset, assemble
from dnas.errors import DataError, nearest
from dnas.files import expand, kind, shown


class Source(NamedTuple):
    """How a spec is written, and the function that loads it (module:name, imported when it is used)."""

    form: str
    loader: str
    options: tuple[str, ...] = ()  # of ``load``, that it takes besides


SOURCES = {
    "digits": Source("digits", "dnas.data.sources:digits"),
    "folder": Source("folder:PATH", "dnas.data.folder:load", ("bad_images",)),
    "idx": Source("idx:FOLDER", "dnas.data.idx:load"),
    "npz": Source("npz:FILE", "dnas.data.npz:load"),
    "tfds": Source("tfds:NAME", "dnas.data.tfds:load"),
}


def load(
    spec: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    resolution: int | None = None,
    bad_images: str = "refuse",
) -> Dataset:
    """A data set, by its spec.

    ==================================  ==============================================================================
    ``digits``                          scikit-learn's 1,797 handwritten digits, 8 x 8 px, 10 classes
    ``folder:PATH``                     one folder of JPEG or PNG files per class; see ``dnas.data.folder``
    ``idx:FOLDER``                      IDX files (MNIST, Fashion-MNIST), plain or gzipped
    ``npz:FILE``                        NumPy archive of images or of JPEG files; see ``dnas.data.npz``
    ``tfds:NAME[:VERSION][@SPLITS]``    TensorFlow Datasets, prepared as ArrayRecord; read without TensorFlow
    ==================================  ==============================================================================

    Args:
        spec: one of the above.
        data_dir: where relative paths start, and where TFDS keeps its sets (default: TFDS's own).
        resolution: px; images of a set whose images differ in size are scaled (shorter side) and centre-cropped to it.
            Sets of one size keep it: ``Feed`` resizes. No limit is set on how far an image is scaled up.
        bad_images: "refuse" or "skip" unreadable files of ``folder:``, which are listed either way. Damaged images of other
            sources are always refused.

    Raises:
        DataError: unknown spec, missing or damaged files, labels that are no classes; one line, with what to do.
    """
    spec = os.fspath(spec)
    name, colon, argument = spec.partition(":")
    if name not in SOURCES:
        raise DataError(f"unknown data set {shown(spec)}{_hint(spec, name)}")
    source = SOURCES[name]
    if (":" in source.form) != bool(argument) or (colon and not argument):
        raise DataError(f"{spec!r} is not a data set; write {source.form}")
    if resolution is not None and (not isinstance(resolution, int) or resolution < 1):
        raise DataError(f"resolution={resolution!r}; expected a whole number of px, such as 32")
    module, _, function = source.loader.partition(":")
    loader = getattr(importlib.import_module(module), function)
    if bad_images not in ("refuse", "skip"):
        raise DataError(f"bad_images={bad_images!r}; expected 'refuse' or 'skip'")
    more = {k: v for k, v in (("bad_images", bad_images),) if k in source.options}
    result: Dataset = loader(argument, None if data_dir is None else os.fspath(data_dir), resolution, **more)
    return result


def digits(argument: str, data_dir: str | None, resolution: int | None) -> Dataset:
    """The test part of "Optical Recognition of Handwritten Digits" (Alpaydin, Kaynak 1998, UCI), from scikit-learn."""
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise DataError("the data set 'digits' comes with scikit-learn; run: pip install scikit-learn") from error
    raw = load_digits()
    images = np.rint(raw.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = raw.target.astype(np.int32)
    return assemble("digits", images, labels, None, None, checks.classes(None, labels, "digits"))


def _hint(spec: str, name: str) -> str:
    path = expand(spec)
    if path.suffix == ".npz":
        return f"; did you mean 'npz:{spec}'?"
    if kind(path) == "folder":
        return f"; did you mean 'idx:{spec}' or 'folder:{spec}'?"
    close = nearest(name, SOURCES)
    if "did you mean" in close:
        return close
    known = f"; expected {', '.join(source.form for source in SOURCES.values())}"
    return known + (f" (for a set of TensorFlow Datasets, write 'tfds:{spec}')" if ":" not in spec else "")
