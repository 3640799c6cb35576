"""Feeds: what a batch contains is a function of (split, seed, step) and of nothing else."""

from __future__ import annotations

import gc
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnas.data import Dataset, Feed, Split, split
from dnas.data import feed as feed_module
from dnas.data.augment import AUGMENTATIONS, random_crop, random_flip, shrink
from dnas.errors import DataError


def make(n: int = 100, shape: tuple[int, ...] = (8, 8, 3), classes: int = 4, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(n) % 251  # tells the images apart
    labels = rng.permutation(np.arange(n) % classes)
    return Dataset.from_arrays(images, labels, images[:10], labels[:10] % classes, name="made")


def feed(data: Dataset, part: Split | None = None, **options: object) -> Feed:
    defaults = dict(batch_size=16, resolution=8, channels=data.channels, mean=data.mean, std=data.std)
    return Feed(data.train if part is None else part, **(defaults | options))  # type: ignore[arg-type]


def same(a: tuple[jax.Array, ...], b: tuple[jax.Array, ...]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_without_augmentation_a_batch_is_the_normalised_pixels():
    data = make()
    source = feed(data, seed=5)
    x, y = source.batch(2)
    positions = source.positions(2)
    mean, std = np.float32(data.mean), np.float32(data.std)
    expected = (data.train.images[positions].astype(np.float32) / np.float32(255) - mean) / std
    assert x.dtype == jnp.float32 and y.dtype == jnp.int32 and x.shape == (16, 8, 8, 3)
    np.testing.assert_allclose(x, expected, rtol=2e-6, atol=2e-6)
    assert np.array_equal(y, data.train.labels[positions])


def test_each_epoch_is_a_new_permutation_of_full_batches():
    data = make()
    part = split(data).weights  # 70 images
    source = feed(data, part, batch_size=16)
    assert source.steps_per_epoch == 4
    epochs = [np.concatenate([source.positions(4 * e + k) for k in range(4)]) for e in range(3)]
    for order in epochs:
        assert len(set(order.tolist())) == 64 and set(order.tolist()) <= set(range(70))
    assert not np.array_equal(epochs[0], epochs[1]) and not np.array_equal(epochs[1], epochs[2])
    assert not np.array_equal(epochs[0], np.concatenate([feed(data, part, seed=1).positions(k) for k in range(4)]))
    straight = feed(data, part, shuffle=False)
    assert straight.positions(5).tolist() == list(range(16, 32))
    # and the images are those of the view, not of the common store
    y = np.concatenate([source.batch(k)[1] for k in range(4)])
    assert np.array_equal(y, part.labels[epochs[0]])


@pytest.mark.parametrize("augment", ["none", "crop", "crop-flip"])
def test_a_batch_depends_on_the_step_alone(augment):
    data = make()
    run = feed(data, augment=augment, seed=7)
    history = [run.batch(k) for k in range(15)]
    resumed = feed(data, augment=augment, seed=7)
    for k in (13, 2, 7):
        assert same(resumed.batch(k), history[k])
    assert not same(feed(data, augment=augment, seed=8).batch(2), history[2])


def test_batch_compiles_once():
    events: list[str] = []
    data = make(shape=(7, 7, 1))
    source = feed(data, resolution=9, augment="crop-flip", channels=3)

    def listen(event: str, seconds: float, **_: object) -> None:
        if "compile" in event or "trace" in event:
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        source.batch(0)
        assert events, "the listener hears compilations"
        events.clear()
        for step in (1, 2, source.steps_per_epoch, 3 * source.steps_per_epoch + 1):
            source.batch(step)
        assert events == []
        # another view of the same images with the same recipe needs no compilation either
        feed(data, split(data).weights, resolution=9, augment="crop-flip", channels=3).batch(0)
        assert not [e for e in events if "backend_compile" in e]
        list(source.evaluation(32))
        events.clear()
        list(source.evaluation(32))
        assert events == []
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_feeds_share_the_images_on_the_device_and_free_them():
    data = make(seed=9)
    parts = split(data)
    first, second = feed(data, parts.weights), feed(data, parts.architecture)
    assert first._resident is second._resident
    key = (id(data.train.store), None)
    assert key in feed_module._residents
    del first, second
    gc.collect()
    assert key not in feed_module._residents


def test_crops_are_windows_of_the_padded_image():
    x = jnp.asarray(np.arange(1, 1 + 64 * 16, dtype=np.float32).reshape(64, 4, 4, 1))
    out = np.asarray(random_crop(jax.random.split(jax.random.key(0), 64), x, 0.25))
    padded = np.pad(np.asarray(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    places = set()
    for image, source in zip(out, padded, strict=True):
        found = [(r, c) for r in range(3) for c in range(3) if np.array_equal(source[r : r + 4, c : c + 4], image)]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) == 9  # every offset, and not one for the whole batch


def test_flips_mirror_about_half_of_the_images():
    x = jnp.asarray(np.random.default_rng(0).random((400, 4, 4, 3), np.float32))
    out = np.asarray(random_flip(jax.random.split(jax.random.key(1), 400), x))
    flipped = np.array([np.array_equal(a, b[:, ::-1]) for a, b in zip(out, np.asarray(x), strict=True)])
    kept = np.array([np.array_equal(a, b) for a, b in zip(out, np.asarray(x), strict=True)])
    assert np.all(flipped ^ kept) and 150 < flipped.sum() < 250


def test_a_feed_applies_the_augmentation_it_was_asked_for():
    data = make()
    plain, crop, both = (feed(data, augment=a, seed=2) for a in ("none", "crop", "crop-flip"))
    positions = plain.positions(0)
    pixels = data.train.images[positions].astype(np.float32)
    epoch = jax.random.fold_in(jax.random.key(2), 0)

    def keys(name):
        number = list(AUGMENTATIONS).index(name)
        return jnp.stack([jax.random.fold_in(jax.random.fold_in(epoch, int(p)), number) for p in positions])

    cut = random_crop(keys("crop"), jnp.asarray(pixels), 0.125)
    mean, std = np.float32(data.mean).reshape(1, 1, 1, 3), np.float32(data.std).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(crop.batch(0)[0], (cut / 255 - mean) / std, rtol=1e-5, atol=1e-5)
    mirrored = random_flip(keys("flip"), cut)
    np.testing.assert_allclose(both.batch(0)[0], (mirrored / 255 - mean) / std, rtol=1e-5, atol=1e-5)
    assert not np.array_equal(plain.batch(0)[0], crop.batch(0)[0])


def test_resize_scales_the_shorter_side_and_cuts_the_centre():
    x = jnp.asarray(np.random.default_rng(0).random((2, 6, 10, 3), np.float32))
    assert np.array_equal(shrink(x, 6), x[:, :, 2:8])
    tall = jnp.transpose(x, (0, 2, 1, 3))
    assert np.array_equal(shrink(tall, 6), tall[:, 2:8])
    expected = jax.image.resize(x, (2, 12, 20, 3), "bilinear")[:, :, 4:16]
    np.testing.assert_allclose(shrink(x, 12), expected, rtol=1e-6)
    assert shrink(x, 5).shape == (2, 5, 5, 3)
    square = x[:, :, :6]
    assert shrink(square, 6) is square


def test_grey_becomes_rgb_by_repetition():
    data = make(shape=(8, 8, 1))
    one, three = feed(data).batch(0)[0], feed(data, channels=3).batch(0)[0]
    assert three.shape == (16, 8, 8, 3)
    for channel in range(3):
        assert np.array_equal(three[..., channel], one[..., 0])


def test_evaluation_shows_every_image_once_and_masks_the_padding():
    data = make(n=37)
    source = feed(data, augment="crop-flip", resolution=8)
    batches = list(source.evaluation(16))
    assert [b[0].shape for b in batches] == [(16, 8, 8, 3)] * 3
    assert [int(b[2].sum()) for b in batches] == [16, 16, 5]
    x = np.concatenate([b[0] for b in batches])[:37]
    straight = feed(data, batch_size=37, shuffle=False).batch(0)
    assert np.array_equal(x, straight[0])
    assert np.array_equal(np.concatenate([b[1] for b in batches])[:37], data.train.labels)
    assert [b[0].shape[0] for b in source.evaluation()] == [16] * 3
    assert [int(b[2].sum()) for b in source.evaluation(50)] == [37]


def test_batch_size_tells_the_truth():
    data = make(n=20)
    source = feed(data, batch_size=64)
    assert source.batch_size == 20 and source.steps_per_epoch == 1
    assert source.batch(3)[0].shape[0] == 20


def test_dtype():
    for dtype in ("bfloat16", jnp.bfloat16):
        assert feed(make(), dtype=dtype).batch(0)[0].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(augment="crop-flop"), "unknown augmentation 'crop-flop'.*did you mean 'crop-flip'"),
        (dict(channels=1), "3 channels and the network takes 1; use a network"),
        (dict(channels=4), "they must be as many, or grey images"),
        (dict(batch_size=0), "batch_size=0"),
        (dict(batch_size=1.5), "batch_size=1.5"),
        (dict(resolution=-8), "resolution=-8"),
        (dict(mean=(0.5,)), "mean=\\(0.5,\\); expected finite numbers, one for each of the 3"),
        (dict(std=(0.5, 0.0, 0.5)), "above 0"),
        (dict(std=(0.5, float("nan"), 0.5)), "finite"),
        (dict(seed=2**32), "seed="),
        (dict(dtype="int32"), "fed as floats"),
        (dict(dtype="float33"), "fed as floats"),
    ],
)
def test_feed_refuses(options, message):
    with pytest.raises(DataError, match=message):
        feed(make(), **options)


def test_feed_refuses_alpha_empty_splits_and_negative_steps():
    with pytest.raises(DataError, match="drop the alpha channel"):
        feed(make(shape=(8, 8, 4)), channels=3)
    data = make()
    with pytest.raises(DataError, match="no images"):
        feed(data, data.train.subset(np.zeros(0, int)))
    with pytest.raises(DataError, match="step=-1"):
        feed(data).batch(-1)


# -- lazy sets --------------------------------------------------------------------------------------------------------


class Slow:
    """A lazy store over an array that counts what was read, and in which thread."""

    def __init__(self, images: np.ndarray) -> None:
        self.array, self.reads, self.threads = images, [], set()

    @property
    def shape(self):
        return self.array.shape

    def __len__(self):
        return len(self.array)

    def read(self, indices):
        self.reads.extend(indices.tolist())
        self.threads.add(threading.current_thread())
        return self.array[indices]

    def take(self, indices):
        return Slow(self.array[indices])


@pytest.mark.parametrize("augment", ["none", "crop-flip"])
def test_lazy_feed_equals_the_feed_in_memory(augment):
    data = make()
    part = split(data).weights
    lazy = Split(Slow(data.train.images), part.labels, part.indices)
    assert lazy.lazy and not part.lazy and lazy.shape == part.shape
    assert np.array_equal(lazy.images.read(np.arange(70)), part.images)
    a, b = (feed(data, p, augment=augment, resolution=12, seed=1) for p in (part, lazy))
    for step in (0, 1, 2, 5, 4, 30):
        assert same(a.batch(step), b.batch(step))
    for left, right in zip(a.evaluation(32), b.evaluation(32), strict=True):
        assert same(left, right)


def test_lazy_feed_reads_ahead_in_other_threads_and_reads_once():
    data = make()
    store = Slow(data.train.images)
    source = feed(data, Split(store, data.train.labels))
    source.batch(0)
    limit = time.monotonic() + 60
    while len(store.reads) < 3 * 16 and time.monotonic() < limit:  # later steps are on their way without being asked for
        time.sleep(0.01)
    assert len(store.reads) >= 3 * 16
    for step in range(1, 6):
        source.batch(step)
    assert threading.main_thread() not in store.threads
    read = np.array(store.reads)
    wanted = np.concatenate([source.positions(step) for step in range(-(-len(read) // 16) + 1)])
    counts, most = np.bincount(read, minlength=100), np.bincount(wanted, minlength=100)
    assert (counts <= most).all() and len(read) >= 96  # none was read twice


def test_an_error_in_a_thread_arrives_as_it_is():
    class Broken(Slow):
        def read(self, indices):
            raise DataError("photo.jpg is not a readable JPEG or PNG image (3 bytes)")

    data = make()
    source = feed(data, Split(Broken(data.train.images), data.train.labels))
    with pytest.raises(DataError, match=r"^photo\.jpg is not a readable"):
        source.batch(0)
