"""``folder:PATH``: one folder of JPEG or PNG files per class, of any sizes.

``PATH/CLASS/*.jpg``, of which 20 % are held out for the test split, or ``PATH/train/CLASS/*`` with ``PATH/test`` (or ``val``,
``valid``, ``validation``) beside it. Images of one size that fit into memory are loaded; others are decoded on demand, so that
memory does not grow with their number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
from pathlib import Path

import numpy as np

from dnas import process
from dnas.data import checks, encoded
from dnas.data.arraytypes import Labels, Store
from dnas.data.dataset import Dataset, assemble
from dnas.data.paths import read_bytes, resolve
from dnas.errors import DataError, RunError, nearest
from dnas.files import kind, one_line, shown, write_bytes

ENDINGS = (".jpg", ".jpeg", ".png")
TEST_FOLDERS = ("test", "val", "valid", "validation")
LISTED = 10  # files named in a message
PROGRESS_FROM = 2000  # files


@dataclasses.dataclass(frozen=True)
class Files:
    """Encoded images in files. ``root`` and the names below it."""

    root: Path
    names: tuple[str, ...]

    def __call__(self, index: int) -> bytes:
        return read_bytes(self.root / self.names[index])

    def name(self, index: int) -> str:
        return str(self.root / self.names[index])


def load(argument: str, data_dir: str | None, resolution: int | None, bad_images: str = "refuse") -> Dataset:
    """The images below a folder.

    Args:
        argument: the folder.
        resolution: px; needed where images differ in size.
        bad_images: "refuse" the set where files cannot be read, or "skip" these; ``Dataset.skipped`` lists them.

    Raises:
        DataError: no such folder, no class folders, unreadable files (all are counted, some named), classes that do not fit.
    """
    root = resolve(argument, data_dir)
    if kind(root) != "folder":
        state = "is a file" if kind(root) else "does not exist"
        raise DataError(f"folder:{argument}: {root} {state}; expected a folder with one folder of images per class")
    train = root / "train" if kind(root / "train") == "folder" else root
    test = next((root / name for name in TEST_FOLDERS if train != root and kind(root / name) == "folder"), None)
    classes = _folders(train)
    if len(classes) < 2:
        raise DataError(
            f"folder:{argument}: {train} has {len(classes)} folders ({', '.join(classes) or 'none'}); expected one per class"
        )
    parts = [_part(train, classes)]
    if test is not None:
        if unknown := sorted(set(_folders(test)) - set(classes)):
            raise DataError(f"{test / unknown[0]}: class {unknown[0]!r} is not below {train}{nearest(unknown[0], classes)}")
        parts.append(_part(test, classes))
    seen = [scan(files) for files, _ in parts]
    bad = [f.name(int(i)) for (f, _), table in zip(parts, seen, strict=True) for i in np.flatnonzero(table[:, 2] == 0)]
    if bad and bad_images != "skip":
        raise DataError(
            f"folder:{argument}: {unreadable(bad)}; delete them, or leave them out by --bad-images skip (bad_images='skip')"
        )
    good = [np.flatnonzero(table[:, 2] > 0) for table in seen]
    readable = np.concatenate([table[chosen] for table, chosen in zip(seen, good, strict=True)])
    sizes = {(int(h), int(w)) for h, w in readable[:, :2]}
    if len(sizes) > 1 and resolution is None:
        raise DataError(f"the images of folder:{argument} differ in size; give a resolution in px (resolution=224)")
    channels = 3 if len(readable) and int(readable[:, 2].max()) > 1 else 1
    stores: list[Store] = []
    labels: list[Labels] = []
    for (files, every), chosen in zip(parts, good, strict=True):
        if not len(chosen):
            raise DataError(f"{files.root} has no readable image ({', '.join(ENDINGS)}); expected some in each class folder")
        height, width = (resolution, resolution) if resolution and len(sizes) > 1 else next(iter(sizes))
        images = encoded.Encoded(files, chosen, height, width, channels, len(sizes) > 1, str(files.root), files.name)
        stores.append(images if len(sizes) > 1 else images.store())
        labels.append(every[chosen])
    lost = np.setdiff1d(np.arange(len(classes)), labels[0])
    if len(lost):
        raise DataError(f"{train / classes[lost[0]]} has no readable image; add some, or remove the folder")
    lazy = not all(isinstance(store, np.ndarray) for store in stores)
    version = _version(parts, good, len(sizes) > 1 and resolution) if lazy else None
    names = checks.classes(classes, labels[0], f"folder:{argument}")
    tested, truth = (stores[1], labels[1]) if test is not None else (None, None)
    found = assemble(f"folder:{root.resolve().name}", stores[0], labels[0], tested, truth, names, version=version)
    return dataclasses.replace(found, skipped=tuple(bad))


def unreadable(names: list[str] | tuple[str, ...]) -> str:
    """How many files cannot be read, and the first of them."""
    rest = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{len(names)} image files cannot be read: {', '.join(names[:LISTED])}{rest}"


def scan(files: Files) -> np.ndarray:
    """``i32[n, 3]``: height, width and channels (1 or 3) of every file; 0 channels where it cannot be decoded.

    Every file is decoded once, JPEGs at an eighth of their size, in threads; the result is kept in the user's cache folder for
    files of the same names, sizes and times.
    """
    listing = hashlib.sha256(str(files.root.resolve()).encode())
    for name in files.names:
        state = os.stat(files.root / name)
        listing.update(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    cache = process.cache_folder()
    path = None if cache is None else cache / f"folder-{listing.hexdigest()[:32]}.npy"
    if path is not None:
        try:
            table = np.load(path, allow_pickle=False)
            if table.shape == (len(files.names), 3) and table.dtype == np.int32:
                return np.asarray(table)
        except (OSError, ValueError, EOFError):
            pass
    table = np.array(list(_watched(encoded.pool().map(lambda i: _look(files, i), range(len(files.names))), files)), np.int32)
    table = table.reshape(-1, 3)
    if path is not None:
        packed = io.BytesIO()
        np.save(packed, table)
        with contextlib.suppress(RunError):  # a cache that cannot be written only costs time
            write_bytes(path, packed.getvalue())
    return table


def _look(files: Files, index: int) -> tuple[int, int, int]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(files(index))) as image:
            width, height, mode = *image.size, image.mode
            image.draft(None, (1, 1))
            image.load()
    except (OSError, ValueError, SyntaxError, DataError, Image.DecompressionBombError):
        return 0, 0, 0
    return height, width, 1 if mode in ("1", "L", "I;16", "I") else 3


def _watched(items, files: Files):  # type: ignore[no-untyped-def]
    """``items``, with a progress bar on a terminal where there are many."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    quiet = len(files.names) < PROGRESS_FROM or not console.is_terminal
    text = f"checking {files.root.name}/"
    return track(items, text, total=len(files.names), console=console, transient=True, disable=quiet)


def _folders(path: Path) -> list[str]:
    try:
        return sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError as error:
        raise DataError(f"{path} cannot be listed ({one_line(error)}); give yourself read access") from error


def _part(root: Path, classes: list[str]) -> tuple[Files, Labels]:
    """All image files of the class folders, sorted, hidden ones left out; and their labels."""
    names: list[str] = []
    labels: list[int] = []
    for number, name in enumerate(classes):
        for place, below, found in os.walk(root / name):
            below.sort()
            for file in sorted(found):
                if file.lower().endswith(ENDINGS) and not file.startswith("."):
                    names.append(os.path.relpath(os.path.join(place, file), root))
                    labels.append(number)
    if not names:
        raise DataError(f"{root}: no {', '.join(ENDINGS)} files in its folders {shown(classes)}; expected images of each class")
    return Files(root, tuple(names)), np.array(labels, np.int32)


def _version(parts: list[tuple[Files, Labels]], good: list[np.ndarray], resolution: int | bool | None) -> str:
    """What tells one set of files from another: names and sizes of those that are used."""
    digest = hashlib.sha256(str(resolution).encode())
    for (files, _), chosen in zip(parts, good, strict=True):
        for i in chosen:
            name = files.names[i]
            digest.update(f"{name}\0{os.stat(files.root / name).st_size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
