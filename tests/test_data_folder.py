"""``folder:``: one folder per class, images of any size, unreadable files, and reading that does not depend on threads."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dnas.data import Feed, folder, load
from dnas.data.augment import cuts, uniform
from dnas.errors import DataError

RNG = np.random.default_rng(4)


def write(path, count=8, classes=("ant", "bee"), sizes=((20, 14), (9, 30)), grey=False, seed=0):
    """Class folders of noise: ants dark, bees bright; JPEG and PNG in turn."""
    rng = np.random.default_rng(seed)
    for number, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for i in range(count):
            height, width = sizes[i % len(sizes)]
            shape = (height, width) if grey else (height, width, 3)
            pixels = rng.integers(0, 100, shape, dtype=np.uint8) + np.uint8(100 * number)
            Image.fromarray(pixels).save(path / name / f"{i}{('.JPG', '.png')[i % 2]}")
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_images_of_odd_sizes_stay_files_and_a_fifth_of_each_class_is_held_out(tmp_path):
    root = write(tmp_path / "set", count=10)
    data = load(f"folder:{root}", resolution=12)
    assert data.classes == ("ant", "bee") and data.name == "folder:set" and data.channels == 3
    assert data.train.lazy and data.train.shape == (16, 12, 12, 3) and len(data.test) == 4
    assert np.bincount(data.train.labels).tolist() == [8, 8]
    bright = data.train.read(np.arange(16)).mean((1, 2, 3)) > 100
    assert np.array_equal(bright, data.train.labels == 1)
    assert load("folder:set", data_dir=tmp_path, resolution=12).fingerprint == data.fingerprint
    assert load(f"folder:{root}", resolution=8).fingerprint != data.fingerprint
    with pytest.raises(DataError, match="differ in size; give a resolution"):
        load(f"folder:{root}")


def test_one_size_is_loaded_and_splits_are_taken_from_folders(tmp_path):
    root = tmp_path / "set"
    write(root / "train", sizes=((6, 7),), grey=True)
    write(root / "val", count=3, sizes=((6, 7),), grey=True, seed=1)
    data = load(f"folder:{root}", resolution=12)
    assert not data.train.lazy and data.train.shape == (16, 6, 7, 1) and data.test.shape == (6, 6, 7, 1)
    with Image.open(root / "train" / "bee" / "1.png") as image:
        assert np.array_equal(data.train.images[9, ..., 0], np.asarray(image))


def test_unreadable_files_are_listed_and_refused_or_left_out(tmp_path):
    root = write(tmp_path / "set", count=10)
    whole = (root / "ant" / "0.JPG").read_bytes()
    (root / "ant" / "a cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "bee" / "text.png").write_text("no image")
    (root / "bee" / "notes.txt").write_text("ignored")
    (root / "bee" / "._0.JPG").write_text("ignored")
    for _ in range(2):  # the second time from the cache
        with pytest.raises(DataError, match=r"2 image files cannot be read: .*a cut\.jpg, .*text\.png; .*--bad-images skip"):
            load(f"folder:{root}", resolution=12)
    data = load(f"folder:{root}", resolution=12, bad_images="skip")
    assert [name.rsplit("/", 1)[1] for name in data.skipped] == ["a cut.jpg", "text.png"] and len(data.train) == 16
    assert len(list((tmp_path / "cache" / "dnas").iterdir())) == 1
    (root / "bee" / "text.png").unlink()
    with pytest.raises(DataError, match="1 image files"):
        load(f"folder:{root}", resolution=12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: None, "does not exist; expected a folder with one folder of images per class"),
        (lambda p: p.write_text(""), "is a file"),
        (lambda p: write(p, classes=("ant",)), r"has 1 folders \(ant\); expected one per class"),
        (lambda p: [(p / n).mkdir(parents=True) for n in "ab"], "no .jpg, .jpeg, .png files"),
        (lambda p: [write(p), (p / "empty").mkdir()], "empty has no readable image"),
        (lambda p: [write(p / "train"), write(p / "test", classes=("ant", "bea"))], "class 'bea' is not below .*'bee'"),
    ],
)
def test_what_is_no_such_folder_is_refused(tmp_path, make, words):
    make(tmp_path / "set")
    with pytest.raises(DataError, match=words):
        load(f"folder:{tmp_path / 'set'}", resolution=8)


def test_batches_do_not_depend_on_the_number_of_threads_nor_on_where_a_run_begins(tmp_path):
    data = load(f"folder:{write(tmp_path / 'set', count=12)}", resolution=10)
    options = dict(batch_size=5, resolution=10, channels=3, mean=data.mean, std=data.std, seed=3)
    options["augment"] = "resized-crop=0.2+flip+erase"
    one, many = (Feed(data.train, **options, workers=n) for n in (1, 7))
    for step in (0, 1, 2, 3, 7, 6):
        for a, b in zip(one.batch(step), many.batch(step), strict=True):
            assert np.array_equal(a, b)
    assert not np.array_equal(one.batch(0)[0], one.batch(4)[0])


def test_random_parts_are_cut_out_of_the_original(tmp_path):
    """A gradient from left to right and from top to bottom tells where a part is from."""
    root = tmp_path / "set"
    x, y = np.meshgrid(np.arange(120), np.arange(80))
    for name, last in (("a", 100), ("b", 101)):
        (root / name).mkdir(parents=True)
        for i in range(5):
            Image.fromarray(np.stack([2 * x, 3 * y, 0 * x], -1).astype(np.uint8)[:, : last + i]).save(root / name / f"{i}.png")
    data = load(f"folder:{root}", resolution=16)
    store = data.train.store
    draws = uniform(1, 2, np.arange(10, dtype=np.uint32))
    found = store.cuts(np.arange(10), draws, 16, 0.1).astype(float)
    for image, draw, (height, width) in zip(found, draws, [(80, s + i) for s in (100, 101) for i in range(5)], strict=True):
        top, left, high, wide = cuts(draw, height, width, 0.1)
        assert top >= 0 and left >= 0 and top + high <= height + 1e-3 and left + wide <= width + 1e-3
        centre = 2 * (left + wide / 2 - 0.5), 3 * (top + high / 2 - 0.5)
        np.testing.assert_allclose(image[..., :2].mean((0, 1)), centre, atol=2)


def test_many_files_are_scanned_once(tmp_path, monkeypatch):
    root = write(tmp_path / "set", count=4)
    load(f"folder:{root}", resolution=8)
    monkeypatch.setattr(folder, "_look", None)  # would be called for a file that has not been looked at
    load(f"folder:{root}", resolution=8)
