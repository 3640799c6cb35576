"""Sources: what is in the files arrives unchanged, and what is wrong with them is said in one line."""

from __future__ import annotations

import errno
import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dnas.data import Feed, load, sources
from dnas.errors import DataError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 6, 5), dtype=np.uint8)
LABELS = (np.arange(12) % 3).astype(np.uint8)
NAMES = {"images": "-images-idx3-ubyte", "labels": "-labels-idx1-ubyte"}


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def folder(path, parts=("train", "t10k"), zipped=False, dotted=False, **replaced: bytes | None):
    """An IDX folder; ``replaced`` gives other bytes for a file (train_images=b"..."), or None to leave it out."""
    path.mkdir(exist_ok=True)
    for part in parts:
        for kind, array in (("images", IMAGES), ("labels", LABELS)):
            data = replaced.get(f"{part}_{kind}", idx(array if part == "train" else array[::-1]))
            if data is not None:
                name = part + (NAMES[kind].replace("-idx", ".idx") if dotted else NAMES[kind])
                (path / (name + ".gz" * zipped)).write_bytes(gzip.compress(data) if zipped else data)
    return f"idx:{path}"


def refused(message: str, spec: object, **options: object) -> None:
    with pytest.raises(DataError) as error:
        load(spec, **options)  # type: ignore[arg-type]
    assert message in str(error.value)
    assert "\n" not in str(error.value)


# -- specs and digits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec, message",
    [
        ("digts", "unknown data set 'digts'; did you mean 'digits'?"),
        ("ixd:here", "did you mean 'idx'"),
        ("cifar10", "write 'tfds:cifar10'"),
        ("some.npz", "did you mean 'npz:some.npz'?"),
        ("idx", "write idx:FOLDER"),
        ("npz:", "write npz:FILE"),
        ("digits:8", "write digits"),
    ],
)
def test_unknown_specs(spec, message):
    refused(message, spec)


def test_resolution_is_checked_and_a_bare_folder_is_recognised(tmp_path):
    refused("resolution=0", "digits", resolution=0)
    refused("resolution='8'", "digits", resolution="8")
    refused("did you mean 'idx:", tmp_path)


def test_digits():
    data = load("digits")
    assert data.name == "digits" and data.train.shape[1:] == (8, 8, 1) and data.num_classes == 10
    assert len(data.train) + len(data.test) == 1797 and len(data.test) == 359
    assert not set(data.train.indices.tolist()) & set(data.test.indices.tolist())
    assert data.train.images.max() == 255 and data.fingerprint == load("digits").fingerprint
    x, y = Feed(data.train, batch_size=32, resolution=16, channels=3, mean=data.mean, std=data.std).batch(0)
    assert x.shape == (32, 16, 16, 3) and 0 <= int(y.min()) <= int(y.max()) < 10


def test_digits_without_scikit_learn():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from dnas.data import load; from dnas.errors import DataError\n"
        "try: load('digits')\n"
        "except DataError as e: assert 'pip install scikit-learn' in str(e)\n"
        "else: raise SystemExit(1)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_new_source_is_one_line(monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "numbers", sources.Source("numbers", "dnas.data.sources:digits"))
    assert load("numbers").num_classes == 10


# -- IDX --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("dotted", [False, True])
def test_idx(tmp_path, zipped, dotted):
    data = load(folder(tmp_path / "small", zipped=zipped, dotted=dotted))
    assert data.name == "idx:small" and data.classes == ("0", "1", "2")
    assert np.array_equal(data.train.images[..., 0], IMAGES) and np.array_equal(data.train.labels, LABELS)
    assert np.array_equal(data.test.images[..., 0], IMAGES[::-1]) and np.array_equal(data.test.labels, LABELS[::-1])
    assert data.fingerprint == load("idx:small", data_dir=tmp_path).fingerprint
    x, _ = Feed(data.train, batch_size=4, resolution=4, channels=1, mean=data.mean, std=data.std).batch(0)
    assert x.shape == (4, 4, 4, 1)


def test_idx_without_test_files_holds_some_out(tmp_path):
    data = load(folder(tmp_path / "a", parts=("train",)))
    assert len(data.test) == 2 and len(data.train) == 10


CUT = gzip.compress(idx(IMAGES))[:-40]
BROKEN = {
    "magic": (dict(train_images=b"\x00\x00\x0d\x03" + bytes(20)), "magic number 0x00000d03, expected 0x00000803"),
    "labels for images": (dict(train_images=idx(LABELS)), "3 dimensions"),
    "empty": (dict(train_labels=b""), "(empty file)"),
    "header": (dict(train_images=idx(IMAGES)[:9]), "ends within the header"),
    "short": (dict(train_images=idx(IMAGES)[:-1]), "12 x 6 x 5 = 360 bytes, but 359 follow"),
    "long": (dict(train_labels=idx(LABELS) + b"\0"), "12 = 12 bytes, but 13 follow"),
    "gzip": (dict(train_images=CUT), "train-images-idx3-ubyte: damaged gzip file"),
    "gzip content": (dict(train_images=b"\x1f\x8b" + bytes(30)), "damaged gzip file"),
    "counts": (dict(train_labels=idx(LABELS[:11])), "has 12 images but train-labels-idx1-ubyte has 11 labels"),
    "no labels": (dict(train_labels=None), "has no train-labels-idx1-ubyte"),
    "no images": (dict(train_images=None), "has no train-images-idx3-ubyte"),
    "no test labels": (dict(t10k_labels=None), "has no t10k labels file beside it"),
    "test counts": (dict(t10k_labels=idx(LABELS[:3])), "has 12 images but t10k-labels"),
    "gap": (dict(train_labels=idx(LABELS * 2)), "1 never occurs"),
    "one class": (dict(train_labels=idx(LABELS * 0)), "at least two"),
    "no images in it": (dict(train_images=idx(IMAGES[:0])), "none of them 0"),
    "huge header": (dict(train_images=struct.pack(">4B3I", 0, 0, 8, 3, *[2**32 - 1] * 3)), "but 0 follow"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_idx(tmp_path, case):
    replaced, message = BROKEN[case]
    refused(message, folder(tmp_path / "x", **replaced))


def test_idx_folder_missing_or_a_file(tmp_path):
    refused("does not exist", f"idx:{tmp_path}/none")
    (tmp_path / "file").write_text("")
    refused("is a file", f"idx:{tmp_path}/file")
    spec = folder(tmp_path / "b", train_images=None)
    (tmp_path / "b" / "train-images-idx3-ubyte").mkdir()
    refused("cannot be read", spec)


@pytest.mark.parametrize("error, advice", [(errno.EACCES, "give yourself read access"), (errno.EIO, "check the path")])
def test_files_that_the_system_refuses(tmp_path, monkeypatch, error, advice):
    def refuse(self, *arguments, **options):
        raise OSError(error, os.strerror(error), str(self))

    spec = folder(tmp_path / "b")
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    refused(advice, spec)
    monkeypatch.setattr(np, "load", refuse)
    refused(advice, f"npz:{tmp_path}/a.npz")
