"""NPZ archives: pixels and encoded images, in memory and on demand."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from dnas.data import Feed, encoded, load
from dnas.errors import DataError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 6, 5), dtype=np.uint8)
LABELS = (np.arange(12) % 3).astype(np.uint8)


def encode(image: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def jpeg_archive(path, files: list[bytes], labels, **more):
    offsets = np.cumsum([0, *map(len, files)])
    arrays = dict(jpeg=np.frombuffer(b"".join(files), np.uint8), offsets=offsets, labels=labels) | more
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})


def refused(message: str, spec: object, **options: object) -> None:
    with pytest.raises(DataError) as error:
        load(spec, **options)  # type: ignore[arg-type]
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_npz_of_pixels(tmp_path):
    colour = RNG.integers(0, 256, (12, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "own.npz", images=colour, labels=LABELS, test_images=colour[:6], test_labels=LABELS[:6])
    data = load(f"npz:{tmp_path}/own.npz")
    assert data.name == "npz:own" and np.array_equal(data.train.images, colour)
    assert np.array_equal(data.test.images, colour[:6]) and data.classes == ("0", "1", "2")
    np.savez_compressed(tmp_path / "two_train.npz", images=IMAGES, labels=LABELS, classes=np.array(["a", "b", "c"]))
    assert len(load("npz:two_train.npz", data_dir=tmp_path).test) == 2
    np.savez_compressed(tmp_path / "two_test.npz", images=IMAGES[:5], labels=LABELS[:5])
    data = load("npz:two_train.npz", data_dir=tmp_path)
    assert data.name == "npz:two" and len(data.train) == 12 and len(data.test) == 5 and data.classes == ("a", "b", "c")
    np.savez_compressed(tmp_path / "two_test.npz", images=IMAGES, labels=LABELS, classes=np.array(["c", "b", "a"]))
    refused("other classes than two_train.npz", "npz:two_train.npz", data_dir=tmp_path)


ARCHIVES = {
    "no labels": (dict(images=IMAGES), "has images but no labels; expected images and labels, or jpeg"),
    "nothing": (dict(other=IMAGES), "has other but no images and no labels"),
    "no offsets": (dict(jpeg=LABELS, labels=LABELS), "but no offsets"),
    "object classes": (dict(images=IMAGES, labels=LABELS, classes=np.array(["a", None], object)), "dtype=str"),
    "object images": (dict(images=np.array([None]), labels=LABELS), "`images` is an object array"),
    "number classes": (dict(images=IMAGES, labels=LABELS, classes=np.arange(3)), "expected a list of names"),
    "floats": (dict(images=IMAGES - 100.0, labels=LABELS), "undo the normalisation"),
    "float labels": (dict(images=IMAGES, labels=LABELS / 2), "`labels` has type float64"),
    "counts": (dict(images=IMAGES, labels=LABELS[:4]), "4 labels for 12 images"),
    "half a test": (dict(images=IMAGES, labels=LABELS, test_images=IMAGES), "but no test_labels"),
    "jpeg type": (dict(jpeg=LABELS.astype(int), offsets=[0, 12], labels=[0]), "expected the joined bytes"),
    "offset type": (dict(jpeg=LABELS, offsets=[0.0, 12.0], labels=[0]), "expected integers [n + 1]"),
    "offset end": (dict(jpeg=LABELS, offsets=[0, 11], labels=[0]), "run from 0 to 11"),
    "offset order": (dict(jpeg=LABELS, offsets=[0, 5, 3, 12], labels=[0]), "steps back"),
    "no image": (dict(jpeg=LABELS, offsets=[0, 12], labels=[0]), "image 0 is not a readable JPEG or PNG image (12 b"),
}


@pytest.mark.parametrize(
    "flag, message", [(0, "`notes.txt` is no array"), (1, "`notes.txt` is encrypted; expected an archive wi")]
)
def test_members_that_are_no_arrays_or_encrypted(tmp_path, flag, message):
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("notes.txt", b"words")
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[data.rindex(b"PK\1\2") + 8] |= flag  # of the last member, in the list at the end of the archive
    (tmp_path / "a.npz").write_bytes(data)
    refused(message, f"npz:{tmp_path}/a.npz")


@pytest.mark.parametrize("case", ARCHIVES)
def test_broken_npz(tmp_path, case):
    arrays, message = ARCHIVES[case]
    np.savez(tmp_path / "a.npz", **arrays)
    refused(message, f"npz:{tmp_path}/a.npz")


def test_npz_that_is_none(tmp_path):
    refused("does not exist", f"npz:{tmp_path}/none.npz")
    refused("is a folder", f"npz:{tmp_path}")
    (tmp_path / "text.npz").write_text("hello")
    refused("is not an .npz archive", f"npz:{tmp_path}/text.npz")
    np.savez_compressed(tmp_path / "cut.npz", images=IMAGES, labels=LABELS)
    whole = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-100])
    refused("is not an .npz archive (or is cut off)", f"npz:{tmp_path}/cut.npz")
    (tmp_path / "cut.npz").write_bytes(whole[:200] + bytes(40) + whole[240:])
    refused("`images` is damaged", f"npz:{tmp_path}/cut.npz")


def test_pickles_are_never_loaded(tmp_path):
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return open, (str(marker), "w")

    np.savez(tmp_path / "evil.npz", images=IMAGES, labels=LABELS, classes=np.array([Evil()], object))
    refused("unpickling", f"npz:{tmp_path}/evil.npz")
    assert not marker.exists()


def test_npz_of_encoded_images(tmp_path):
    colour = RNG.integers(0, 256, (130, 8, 8, 3), dtype=np.uint8)
    labels = (np.arange(130) % 3).astype(np.uint8)
    names = np.array(["a", "b", "c"])
    jpeg_archive(tmp_path / "set_train.npz", [encode(i) for i in colour], labels, classes=names)
    jpeg_archive(tmp_path / "set_test.npz", [encode(i) for i in colour[:7]], labels[:7], classes=names)
    data = load(f"npz:{tmp_path}/set_train.npz", resolution=32)
    assert np.array_equal(data.train.images, colour) and np.array_equal(data.test.images, colour[:7])
    assert data.classes == ("a", "b", "c") and data.fingerprint == load(f"npz:{tmp_path}/set_train.npz").fingerprint

    jpegs = [encode(i, "JPEG") for i in colour]
    jpeg_archive(tmp_path / "j.npz", jpegs, labels)
    decoded = np.stack([np.asarray(Image.open(io.BytesIO(j))) for j in jpegs])
    train = load(f"npz:{tmp_path}/j.npz").train
    assert np.array_equal(train.images, decoded[train.indices])

    jpegs[77] = jpegs[77][: len(jpegs[77]) // 2]
    jpeg_archive(tmp_path / "j.npz", jpegs, labels)
    refused("image 77 is not a readable JPEG", f"npz:{tmp_path}/j.npz")


def test_encoded_images_of_several_sizes_need_a_resolution(tmp_path):
    sizes = [(12, 8)] * 5 + [(8, 16)] + [(8, 8)] * 3
    images = [np.full((*size, 3), 40 * i % 256, np.uint8) for i, size in enumerate(sizes)]
    images[5][:, 4:12] = 90  # the centre of the wide one
    jpeg_archive(tmp_path / "a.npz", [encode(i) for i in images], np.arange(9) % 2)
    refused("give a resolution", f"npz:{tmp_path}/a.npz")
    data = load(f"npz:{tmp_path}/a.npz", resolution=8)
    assert data.train.shape[1:] == (8, 8, 3)
    assert np.all(data.train.store[5] == 90) and np.all(data.train.store[2] == 80)
    assert load(f"npz:{tmp_path}/a.npz", resolution=4).train.shape[1:] == (4, 4, 3)


def test_large_sets_stay_encoded_and_feed_the_same(tmp_path, monkeypatch):
    colour = RNG.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    jpeg_archive(tmp_path / "a.npz", [encode(i) for i in colour], np.arange(40) % 4)
    memory = load(f"npz:{tmp_path}/a.npz")
    monkeypatch.setattr(encoded, "IN_MEMORY_BYTES", 1000)
    lazy = load(f"npz:{tmp_path}/a.npz")
    assert lazy.train.lazy and not memory.train.lazy and lazy.train.shape == memory.train.shape
    assert lazy.mean == memory.mean and lazy.std == memory.std
    assert np.array_equal(lazy.train.images.read(np.arange(5)), memory.train.images[:5])
    options = dict(batch_size=8, resolution=10, channels=3, mean=memory.mean, std=memory.std, augment="crop-flip")
    a, b = Feed(memory.train, **options), Feed(lazy.train, **options)
    for step in (0, 1, 2, 9):
        assert all(np.array_equal(x, y) for x, y in zip(a.batch(step), b.batch(step), strict=True))
    for left, right in zip(a.evaluation(6), b.evaluation(6), strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(left, right, strict=True))


def test_grey_and_palette_files_are_converted():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    rgb = encoded.decode(encode(grey), (8, 8, 3), False, "grey")
    assert np.array_equal(rgb, np.repeat(grey[..., None], 3, axis=2))
    assert encoded.decode(encode(np.stack([grey] * 3, -1)), (8, 8, 1), False, "x").shape == (8, 8, 1)
    assert encoded.size(encode(grey), "x") == (8, 8, 1)
    assert encoded.size(encode(np.stack([grey] * 4, -1)), "x") == (8, 8, 4)
