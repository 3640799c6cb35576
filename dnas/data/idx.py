"""``idx:FOLDER``: the IDX files of MNIST, Fashion-MNIST and EMNIST, plain or gzipped.

The format: a big-endian magic number (0, 0, type, rank), rank sizes of 32 bits, then the values (LeCun, Cortes and
Burges, "The MNIST database of handwritten digits").
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from dnas.data import checks
from dnas.data.dataset import Dataset, assemble
from dnas.data.paths import read_bytes, resolve
from dnas.errors import DataError
from dnas.files import kind as kind_of


def load(argument: str, data_dir: str | None, resolution: int | None) -> Dataset:
    """The folder's ``train-*`` files and, where they are there, its ``t10k-*`` files; images keep their size."""
    folder = resolve(argument, data_dir)
    if kind_of(folder) != "folder":
        state = "is a file" if kind_of(folder) else "does not exist"
        raise DataError(f"idx:{argument}: {folder} {state}; expected a folder with train-images-idx3-ubyte[.gz]")
    name = f"idx:{folder.name}"
    images_file, labels_file = find(folder, "train", "images", 3), find(folder, "train", "labels", 1)
    if images_file is None or labels_file is None:
        missing = "train-images-idx3-ubyte" if images_file is None else "train-labels-idx1-ubyte"
        raise DataError(f"{folder} has no {missing}[.gz]; put the four IDX files of the set there")
    images, labels = _pair(images_file, labels_file)
    classes = checks.classes(None, labels, str(labels_file))
    test_images, test_labels = find(folder, "t10k", "images", 3), find(folder, "t10k", "labels", 1)
    if test_images is None and test_labels is None:
        return assemble(name, images, labels, None, None, classes)
    if test_images is None or test_labels is None:
        found, missing = (test_labels, "images") if test_images is None else (test_images, "labels")
        raise DataError(f"{found} has no t10k {missing} file beside it; add it, or remove both to hold 20 % out")
    return assemble(name, images, labels, *_pair(test_images, test_labels), classes)


def find(folder: Path, part: str, kind: str, rank: int) -> Path | None:
    """The file of one part ("train", "t10k") and kind ("images", "labels"), under any of its usual names."""
    for dot in "-.":
        for suffix in ("", ".gz"):
            path = folder / f"{part}-{kind}{dot}idx{rank}-ubyte{suffix}"
            if kind_of(path):
                return path
    return None


def read(path: Path, rank: int) -> np.ndarray:
    """The array of unsigned bytes in one IDX file.

    Args:
        path: plain or gzipped (told by content).
        rank: the expected number of dimensions: 3 for images, 1 for labels.

    Raises:
        DataError: unreadable, truncated, or not an IDX file of unsigned bytes with this rank.
    """
    data = read_bytes(path)
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(f"{path}: damaged gzip file ({error}); download it again") from error
    expected = bytes((0, 0, 8, rank))
    if data[:4] != expected:
        raise DataError(
            f"{path}: magic number 0x{data[:4].hex() or '(empty file)'}, expected 0x{expected.hex()} "
            f"(IDX, unsigned bytes, {rank} dimension{'s' * (rank > 1)}); is it another file under this name?"
        )
    start = 4 + 4 * rank
    if len(data) < start:
        raise DataError(f"{path}: ends within the header; download it again")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", rank, 4))
    count = int(np.prod(shape, dtype=object))
    if len(data) - start != count:
        raise DataError(
            f"{path}: the header says {' x '.join(map(str, shape))} = {count} bytes, but {len(data) - start} follow; "
            "the file is truncated or damaged: download it again"
        )
    return np.frombuffer(data, np.uint8, count, start).reshape(shape)


def _pair(images_file: Path, labels_file: Path) -> tuple[np.ndarray, np.ndarray]:
    images, labels = checks.images(read(images_file, 3), str(images_file)), read(labels_file, 1)
    if len(images) != len(labels):
        raise DataError(
            f"{images_file} has {len(images)} images but {labels_file.name} has {len(labels)} labels; "
            "take both from the same set"
        )
    return images, checks.labels(labels, len(images), str(labels_file))
