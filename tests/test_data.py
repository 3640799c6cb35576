"""Splits and arrays: disjoint, stratified, the same in every run; and what is no image set is refused with advice."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnas.data import Dataset, Split, split
from dnas.errors import DataError


def make(n: int = 100, shape: tuple[int, ...] = (8, 8, 3), classes: int = 4, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(n) % 251  # tells the images apart
    labels = rng.permutation(np.arange(n) % classes)
    return Dataset.from_arrays(images, labels, images[:10], labels[:10] % classes, name="made")


# -- splits -----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(60, 300),
    classes=st.integers(2, 12),
    seed=st.integers(0, 2**32 - 1),
    architecture=st.floats(0.05, 0.5),
    selection=st.floats(0.05, 0.4),
)
def test_splits_partition_the_training_images_and_keep_the_classes(n, classes, seed, architecture, selection):
    labels = np.random.default_rng(seed).permutation(np.arange(n) % classes)
    images = np.zeros((n, 4, 4, 1), np.uint8)
    data = Dataset.from_arrays(images, labels, images[:5], labels[:5])
    try:
        parts = split(data, seed, architecture, selection)
    except DataError as error:  # large fractions of a few images
        assert n / classes < 12 and "keeps none to train on" in str(error)
        return
    together = np.concatenate([parts.weights.indices, parts.architecture.indices, parts.selection.indices])
    assert sorted(together) == list(range(n))
    assert len(parts.architecture) == pytest.approx(n * architecture, abs=1)
    assert len(parts.selection) == pytest.approx(n * selection, abs=2)
    for part, fraction in ((parts.architecture, architecture), (parts.selection, selection)):
        expected = np.bincount(labels, minlength=classes) * fraction
        assert np.all(np.abs(np.bincount(part.labels, minlength=classes) - expected) < 2)
        assert np.array_equal(part.labels, labels[part.indices])
    assert parts.train is data.train and parts.test is data.test
    shared = split(data, seed, architecture, selection, shared=True)
    assert np.array_equal(shared.architecture.indices, parts.architecture.indices)
    assert np.array_equal(shared.selection.indices, parts.selection.indices)
    assert sorted(shared.weights.indices) == sorted([*parts.weights.indices, *parts.architecture.indices])


def test_split_depends_on_seed_and_fractions_only():
    data, again = make(), make()
    first, second = split(data, 3), split(again, 3)
    np.random.seed(0)  # the global stream must not matter
    for name in ("weights", "architecture", "selection"):
        assert np.array_equal(getattr(first, name).indices, getattr(second, name).indices)
    assert not np.array_equal(first.weights.indices, split(data, 4).weights.indices)
    assert not np.array_equal(first.architecture.indices, split(data, 4).architecture.indices)
    assert np.array_equal(first.architecture.indices, split(data, 3, selection=0.3).architecture.indices)
    assert len(split(data, selection=0.0).selection) == 0
    # a stored value: the split of a published run must not move with NumPy
    plain = Dataset.from_arrays(np.zeros((100, 2, 2), np.uint8), np.arange(100) % 4, np.zeros((2, 2, 2), np.uint8), [0, 1])
    assert split(plain, 0).selection.indices.tolist() == [10, 28, 29, 34, 40, 47, 53, 54, 76, 95]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(architecture=1.0), "fraction of the training images in [0, 1)"),
        (dict(selection=-0.1), "selection=-0.1"),
        (dict(architecture=float("nan")), "architecture=nan"),
        (dict(architecture=0.7, selection=0.3), "leave nothing"),
        (dict(seed=-1), "seed=-1"),
        (dict(seed="a"), "seed='a'"),
        (dict(architecture=0.001), "none is left for the architecture split"),
    ],
)
def test_split_refuses(options, message):
    with pytest.raises(DataError, match=message.replace("[", r"\[").replace("(", r"\(").replace(")", r"\)")):
        split(make(), **options)


def test_a_class_that_keeps_no_training_image_is_refused():
    images = np.zeros((20, 2, 2), np.uint8)
    with pytest.raises(DataError, match=r"tiny: class 'c\d+' has 1 image and keeps none .*held out for the test") as error:
        Dataset.from_arrays(images, np.arange(20), classes=[f"c{i}" for i in range(20)], name="tiny")
    assert "\n" not in str(error.value)
    data = Dataset.from_arrays(images, np.arange(20), images, np.arange(20), name="tiny")
    with pytest.raises(
        DataError, match=r"tiny: class '\d+' has 1 image and keeps none .*architecture=0.2 and selection=0.1 take"
    ):
        split(data)
    assert len(split(data, 0, 0, 0).weights) == 20
    three = np.arange(60) % 20
    assert set(split(Dataset.from_arrays(np.zeros((60, 2, 2), np.uint8), three, images, np.arange(20))).weights.labels) == set(
        three
    )


def test_held_out_test_images_never_change():
    images = np.arange(200, dtype=np.uint8).reshape(200, 1, 1, 1) * np.ones((1, 4, 4, 1), np.uint8)
    labels = np.arange(200) % 5
    data = Dataset.from_arrays(images, labels)
    assert np.bincount(data.test.labels).tolist() == [8] * 5
    assert np.array_equal(data.test.indices, Dataset.from_arrays(images, labels).test.indices)
    used = [set(split(data, seed).train.indices.tolist()) for seed in (0, 1)]
    assert used[0] == used[1] and not used[0] & set(data.test.indices.tolist())
    assert data.test.store is data.train.store  # views, no copy


def test_mean_std_and_fingerprint_follow_the_training_pixels():
    data = make()
    pixels = data.train.images / 255.0
    np.testing.assert_allclose(data.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(data.std, pixels.std((0, 1, 2)), rtol=1e-9)
    assert data.fingerprint == make().fingerprint and len(data.fingerprint) == 64
    for images, labels in ((1, 0), (0, 1)):
        changed_images, changed_labels = data.train.images.copy(), data.train.labels.copy()
        changed_images[7, 1, 1, 1] ^= images
        changed_labels[:2] = changed_labels[:2] if not labels else (changed_labels[:2] + 1) % 4
        other = Dataset.from_arrays(changed_images, changed_labels, data.test.images, data.test.labels)
        assert other.fingerprint != data.fingerprint
    constant = Dataset.from_arrays(np.full((4, 4, 4), 9, np.uint8), [0, 1, 0, 1], np.zeros((2, 4, 4), np.uint8), [0, 1])
    assert constant.std == (1 / 255,)


# -- arrays -----------------------------------------------------------------------------------------------------------


GREY = np.zeros((6, 4, 4), np.uint8)
LABELS = [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    "images, labels, options, message",
    [
        (np.zeros((6, 4)), LABELS, {}, "expected \\[n, h, w\\]"),
        (np.zeros((6, 3, 32, 32), np.uint8), LABELS, {}, "transpose\\(0, 2, 3, 1\\)"),
        (np.zeros((0, 4, 4), np.uint8), [], {}, "none of them 0"),
        (np.full((6, 4, 4), -1.5), LABELS, {}, "undo the normalisation"),
        (np.full((6, 4, 4), 1.5), LABELS, {}, "undo the normalisation"),
        (np.full((6, 4, 4), np.nan), LABELS, {}, "undo the normalisation"),
        (np.full((6, 4, 4), 256), LABELS, {}, "scale to uint8"),
        (np.array([[None]]), LABELS, {}, "object array"),
        (np.full((6, 4, 4), "a"), LABELS, {}, "expected uint8"),
        (GREY, LABELS[:5], {}, "5 labels for 6 images"),
        (GREY, np.eye(6), {}, "argmax"),
        (GREY, np.array(LABELS)[:, None], {}, "ravel"),
        (GREY, np.array(LABELS, float), {}, "expected integers"),
        (GREY, [-1, 1, 2, 0, 1, 2], {}, "contains -1"),
        (GREY, [0, 1, 3, 0, 1, 3], {}, "2 never occurs; renumber"),
        (GREY, [1, 2, 3, 1, 2, 3], {}, "0 never occurs; renumber"),
        (GREY, [0] * 6, {}, "at least two"),
        (GREY, [0] * 6, dict(classes=["a"]), "at least two"),
        (GREY, LABELS, dict(classes=["a", "b"]), "label 2, but only 2 class names"),
        (GREY, LABELS, dict(test_images=GREY), "test_images without test_labels"),
        (GREY, LABELS, dict(test_images=GREY, test_labels=[0, 1, 2, 3, 0, 1]), "test label 3"),
        (GREY, LABELS, dict(test_images=np.zeros((6, 4, 4, 3), np.uint8), test_labels=LABELS), "test images 3"),
    ],
)
def test_from_arrays_refuses(images, labels, options, message):
    with pytest.raises(DataError, match=message) as error:
        Dataset.from_arrays(images, labels, **options)
    assert "\n" not in str(error.value)


def test_from_arrays_converts_what_is_clear():
    grey = Dataset.from_arrays(GREY, LABELS, GREY, LABELS)
    assert grey.train.shape == (6, 4, 4, 1) and grey.classes == ("0", "1", "2") and grey.num_classes == 3
    gap = Dataset.from_arrays(GREY, [0, 1, 3, 0, 1, 3], GREY, LABELS, classes="abcd")
    assert gap.classes == ("a", "b", "c", "d")
    ramp = np.linspace(0, 1, 6 * 16, dtype=np.float32).reshape(6, 4, 4)
    unit = Dataset.from_arrays(ramp, LABELS, ramp, LABELS).train.images
    assert np.array_equal(unit[..., 0], np.rint(ramp * 255))
    for dtype in (np.float64, np.int64):
        whole = np.rint(ramp * 255).astype(dtype)
        assert np.array_equal(Dataset.from_arrays(whole, LABELS, whole, LABELS).train.images, unit)
    binary = Dataset.from_arrays(ramp > 0.5, LABELS, ramp > 0.5, LABELS).train.images
    assert sorted(np.unique(binary)) == [0, 255]


def test_split_checks_its_parts():
    images = np.zeros((4, 2, 2, 1), np.uint8)
    for arguments, message in (
        ((images, [0, 1]), "one label for each"),
        ((images, [0, 1], [0, 4]), "outside the 4 images"),
        ((images[0], [0]), "uint8\\[n, h, w, c\\]"),
        ((images.astype(float), [0] * 4), "from_arrays"),
    ):
        with pytest.raises(DataError, match=message):
            Split(*arguments)
    view = Split(images, [1, 0], [3, 2]).subset(np.array([1]))
    assert view.indices.tolist() == [2] and view.labels.tolist() == [0] and len(view) == 1


# -- imports ----------------------------------------------------------------------------------------------------------


def test_importing_the_room_imports_no_heavy_library():
    code = (
        "import sys, dnas.data, dnas.data.dataset, dnas.data.sources, dnas.data.tfds, dnas.data.npz, dnas.data.idx\n"
        "assert dnas.data.load and dnas.data.Dataset and 'Feed' in dir(dnas.data)\n"
        "heavy = {'jax', 'tensorflow_datasets', 'tensorflow', 'sklearn', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import dnas.data.feed; assert dnas.data.Feed is dnas.data.feed.Feed\n"
        "try: dnas.data.nothing\n"
        "except AttributeError: pass\n"
        "else: raise SystemExit(1)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
