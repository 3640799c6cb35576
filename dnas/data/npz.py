"""``npz:FILE``: a NumPy archive of images, as pixels or as JPEG/PNG files.

Pixels: ``images`` uint8 [n, h, w] or [n, h, w, c], ``labels`` [n]; optionally ``test_images``, ``test_labels`` and
``classes`` (strings). Encoded: ``jpeg`` (the bytes of all files, joined; any format that Pillow reads), ``offsets``
[n + 1] (image i is ``jpeg[offsets[i]:offsets[i + 1]]``), ``labels``, ``classes``. A file called ``X_train.npz`` takes
``X_test.npz`` beside it as its test split. Archives with pickled objects are refused, never unpickled.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from pathlib import Path

import numpy as np

from dnas.data import checks, encoded
from dnas.data.arraytypes import Labels, Store
from dnas.data.dataset import Dataset, assemble
from dnas.data.paths import resolve, unreadable
from dnas.errors import DataError
from dnas.files import kind, one_line


def load(argument: str, data_dir: str | None, resolution: int | None) -> Dataset:
    """The archive and its ``_test`` sibling; ``resolution`` (px) is used only for encoded images of several sizes."""
    path = resolve(argument, data_dir)
    arrays = read(path)
    name = f"npz:{path.stem.removesuffix('_train')}"
    images, labels, names = _part(path, arrays, "", resolution)
    classes = checks.classes(names, labels, str(path))
    test_images: Store | None = None
    test_labels: Labels | None = None
    files, sibling = [path], path.with_name(path.name.removesuffix("_train.npz") + "_test.npz")
    if "test_images" in arrays or "test_labels" in arrays:
        test_images, test_labels, _ = _part(path, arrays, "test_", resolution)
    elif path.name.endswith("_train.npz") and kind(sibling):
        others = read(sibling)
        test_images, test_labels, test_names = _part(sibling, others, "", resolution)
        if names is not None and test_names is not None and names != test_names:
            raise DataError(f"{sibling} has other classes than {path.name}; take both from the same set")
        files.append(sibling)
    lazy = not all(isinstance(store, np.ndarray | None) for store in (images, test_images))
    version = _version(*files) if lazy else None
    return assemble(name, images, labels, test_images, test_labels, classes, version=version)


def read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an archive.

    Raises:
        DataError: unreadable, damaged, not an archive, or with pickled objects.
    """
    key = ""
    try:
        if kind(path) == "folder":
            raise DataError(f"{path} is a folder; expected an .npz file")
        if not zipfile.is_zipfile(path):
            path.open("rb").close()  # a missing or unreadable file says so
            raise DataError(f"{path} is not an .npz archive (or is cut off); write one with np.savez_compressed")
        arrays = {}
        with np.load(path, allow_pickle=False) as archive:
            for key in archive.files:
                if not isinstance(value := archive[key], np.ndarray):
                    raise DataError(f"{path}: `{key}` is no array; expected an archive of arrays: write it with np.savez")
                arrays[key] = value
        return arrays
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path}: `{key}` is an object array, which only unpickling could read, and that can run code; "
                f"save it as np.array({key or 'values'}, dtype={'str' if key == 'classes' else 'np.uint8'})"
            ) from error
        if "encrypted" in str(error):
            raise DataError(f"{path}: `{key}` is encrypted; expected an archive without a password: write it again") from error
        raise DataError(f"{path}: `{key}` is damaged ({one_line(error)}); write or download the file again") from error


def _part(
    path: Path, arrays: dict[str, np.ndarray], prefix: str, resolution: int | None
) -> tuple[Store, Labels, tuple[str, ...] | None]:
    """Images, labels and class names of one split."""
    missing = [key for key in (prefix + "labels",) if key not in arrays]
    if not prefix and "jpeg" in arrays:
        missing += [key for key in ("offsets",) if key not in arrays]
    elif prefix + "images" not in arrays:
        missing.insert(0, prefix + "images")
    if missing:
        raise DataError(
            f"{path} has {', '.join(sorted(arrays)) or 'no arrays'} but no {' and no '.join(missing)}; "
            "expected images and labels, or jpeg, offsets and labels"
        )
    names = None
    if "classes" in arrays:
        if arrays["classes"].ndim != 1 or arrays["classes"].dtype.kind not in "US":
            raise DataError(f"{path}: `classes` is {arrays['classes'].dtype}; expected a list of names (dtype=str)")
        names = tuple(c.decode("utf-8", "replace") if isinstance(c, bytes) else str(c) for c in arrays["classes"])
    images: Store
    if not prefix and "jpeg" in arrays:
        images = _encoded(path, arrays["jpeg"], arrays["offsets"], resolution)
    else:
        images = checks.images(arrays[prefix + "images"], f"{path}: `{prefix}images`")
    return images, checks.labels(arrays[prefix + "labels"], len(images), f"{path}: `{prefix}labels`"), names


def _encoded(path: Path, data: np.ndarray, offsets: np.ndarray, resolution: int | None) -> Store:
    if data.dtype != np.uint8 or data.ndim != 1:
        raise DataError(f"{path}: `jpeg` is {data.dtype}{list(data.shape)}; expected the joined bytes, uint8[bytes]")
    if offsets.dtype.kind not in "iu" or offsets.ndim != 1 or len(offsets) < 2:
        raise DataError(f"{path}: `offsets` is {offsets.dtype}{list(offsets.shape)}; expected integers [n + 1]")
    offsets = offsets.astype(np.int64)
    if offsets[0] != 0 or offsets[-1] != len(data) or np.any(np.diff(offsets) <= 0):
        raise DataError(
            f"{path}: `offsets` must rise from 0 to the {len(data)} bytes of `jpeg`, but run from {offsets[0]} to "
            f"{offsets[-1]}{' with steps back' * bool(np.any(np.diff(offsets) <= 0))}; write the file again"
        )

    def fetch(index: int) -> bytes:
        return data[offsets[index] : offsets[index + 1]].tobytes()

    return encoded.open_store(fetch, len(offsets) - 1, resolution, str(path))


def _version(*files: Path) -> str:
    """SHA-256 of the files: lazy images are not decoded to be hashed."""
    digests = []
    for file in files:
        with file.open("rb") as opened:
            digests.append(hashlib.file_digest(opened, "sha256").hexdigest())
    return " ".join(digests)
