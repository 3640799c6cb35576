"""Augmentations: each against what defines it, and all against dependence on anything but (seed, epoch, image)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from test_data_feed import feed, make

from dnas.data import Dataset, Feed
from dnas.data.augment import AUGMENTATIONS, cutmix, cuts, erase, mixup, parse, resized_crop, uniform
from dnas.data.randaugment import OPERATIONS, operate, randaugment
from dnas.errors import DataError

ALL = "resized-crop+flip+randaugment+erase+mixup+cutmix"
RNG = np.random.default_rng(0)


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def test_every_augmentation_is_a_function_of_seed_epoch_and_image_alone():
    """The same image in batches of other sizes, at other places, is augmented alike (mixing apart, which takes a partner)."""
    data = make(n=32, classes=3)
    text = "resized-crop+flip+randaugment+erase"
    small, large = (feed(data, batch_size=b, augment=text, seed=4) for b in (4, 16))
    for epoch in (0, 1):
        found: list[dict[int, np.ndarray]] = [{}, {}]
        for source, seen in zip((small, large), found, strict=True):
            for step in range(epoch * source.steps_per_epoch, (epoch + 1) * source.steps_per_epoch):
                seen |= dict(zip(source.positions(step).tolist(), np.asarray(source.batch(step)[0]), strict=True))
        for place, image in found[0].items():
            np.testing.assert_allclose(image, found[1][place], atol=1e-5)
    assert not np.allclose(feed(data, augment=text, seed=5).batch(0)[0], large.batch(0)[0])


def test_mixing_needs_classes_and_gives_labels_that_sum_to_one():
    data = make(n=32, classes=3)
    with pytest.raises(DataError, match="mixes labels, and classes=0"):
        feed(data, augment="mixup")
    x, y = feed(data, augment=ALL, classes=3, channels=3).batch(1)
    assert x.shape == (16, 8, 8, 3) and y.shape == (16, 3)
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-5)
    assert ((np.asarray(y) > 0).sum(1) <= 2).all()


def test_mixup_is_the_blend_that_its_labels_say():
    x, y = jnp.asarray(RNG.random((50, 4, 4, 1), np.float32)), jnp.eye(50)
    mixed, soft = mixup(keys(50), x, y, 1.0)
    share = np.asarray(soft)[np.arange(50), np.arange(50)]
    np.testing.assert_allclose(
        mixed, share[:, None, None, None] * x + (1 - share)[:, None, None, None] * np.roll(x, 1, 0), atol=1e-5
    )
    assert 0.3 < share.mean() < 0.7 and share.std() > 0.15  # Beta(1, 1)


def test_cutmix_pastes_a_box_whose_area_is_in_the_label():
    x = jnp.broadcast_to(jnp.arange(1.0, 41)[:, None, None, None], (40, 10, 10, 1))
    mixed, soft = cutmix(keys(40), x, jnp.eye(40), 1.0)
    own = np.asarray(mixed == x)[..., 0]
    np.testing.assert_allclose(own.mean((1, 2)), np.asarray(soft)[np.arange(40), np.arange(40)], atol=1e-6)
    for inside in ~own:
        if inside.any():
            rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
            assert inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


def test_erasing_fills_a_box_in_the_share_of_images_that_was_asked_for():
    x = jnp.zeros((300, 16, 16, 3))
    out = np.asarray(erase(keys(300), x, 0.25))
    area = (out != 0).any(-1).mean((1, 2))
    assert 40 < (area > 0).sum() < 115 and area.max() < 0.45 and area[area > 0].min() > 0.005


def test_random_parts_keep_area_and_ratio_and_scale_exactly():
    draws = uniform(7, 3, np.arange(2000, dtype=np.uint32))
    assert np.all((draws >= 0) & (draws < 1)) and np.abs(draws.mean(0) - 0.5).max() < 0.03
    assert np.abs(np.corrcoef(draws.T) - np.eye(4)).max() < 0.08
    assert not np.array_equal(draws, uniform(7, 4, np.arange(2000))) and not np.array_equal(
        draws, uniform(8, 3, np.arange(2000))
    )
    top, left, high, wide = cuts(draws, 50, 50, 0.2)
    assert (top >= 0).all() and (left >= 0).all() and (top + high <= 50.001).all() and (left + wide <= 50.001).all()
    assert (high * wide >= 0.2 * 2500 * 0.74).all()  # long boxes are cut to the image
    whole = jnp.asarray(RNG.integers(0, 256, (3, 12, 12, 2)), jnp.float32)
    same = resized_crop(jnp.full((3, 4), 0.5).at[:, 1].set(0.5), whole, 12, 1.0)  # all of the area, ratio 1
    np.testing.assert_allclose(same, whole, atol=1e-3)
    half = resized_crop(jnp.zeros((3, 4)).at[:, 1].set(0.5), whole, 6, 0.25)  # the upper left quarter
    np.testing.assert_allclose(half, whole[:, :6, :6], atol=1e-3)


def pillow(name, image, strength, sign):
    factor = 1 + 0.9 * strength * sign
    return {
        "identity": lambda: image,
        "brightness": lambda: ImageEnhance.Brightness(image).enhance(factor),
        "color": lambda: ImageEnhance.Color(image).enhance(factor),
        "contrast": lambda: ImageEnhance.Contrast(image).enhance(factor),
        "sharpness": lambda: ImageEnhance.Sharpness(image).enhance(factor),
        "posterize": lambda: ImageOps.posterize(image, 8 - round(4 * strength)),
        "solarize": lambda: ImageOps.solarize(image, 255 * (1 - strength)),
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
    }[name]()


@pytest.mark.parametrize("grey", [False, True])
def test_operations_on_values_are_those_of_pillow(grey):
    pixels = np.clip(RNG.normal(110, 40, (24, 20, 3)), 3, 250).astype(np.uint8)
    image = Image.fromarray(pixels[..., 0] if grey else pixels)
    given = jnp.asarray(pixels[..., :1] if grey else pixels, jnp.float32)
    run = jax.jit(operate, static_argnums=2)
    for name in OPERATIONS:
        if name.partition("-")[0] in ("shear", "translate", "rotate"):
            continue
        for sign in (-1, 1):
            for strength in (0.3, 0.9):
                found = np.asarray(run(given, OPERATIONS.index(name), strength, float(sign)))
                wanted = np.asarray(pillow(name, image, strength, sign), np.float32).reshape(found.shape)
                assert np.abs(found - wanted).max() <= 1, (name, sign, strength)


def test_moves_are_the_maps_that_their_names_say():
    image = jnp.asarray(RNG.integers(1, 256, (33, 33, 1)), jnp.float32)
    run = jax.jit(operate, static_argnums=2)

    def moved(name, strength, sign=1.0):
        return np.asarray(run(image, OPERATIONS.index(name), strength, sign))

    pixels = np.asarray(image)
    shift = round(150 / 331 * 33 * 0.4)
    right = moved("translate-x", 0.4)
    assert np.array_equal(right[:, : 33 - shift], pixels[:, shift:]) and not right[:, 33 - shift :].any()
    assert np.array_equal(moved("translate-y", 0.4, -1.0)[shift:], pixels[: 33 - shift])
    assert np.array_equal(moved("shear-x", 1.0)[16], pixels[16]) and np.array_equal(moved("shear-y", 1.0)[:, 16], pixels[:, 16])
    assert np.array_equal(moved("rotate", 1.0)[16, 16], pixels[16, 16])
    turned = np.asarray(Image.fromarray(pixels[..., 0].astype(np.uint8)).rotate(30))
    assert (np.abs(moved("rotate", 1.0)[..., 0] - turned) < 1).mean() > 0.97  # rounding at ties apart


def test_randaugment_draws_for_each_image():
    x = jnp.broadcast_to(jnp.asarray(RNG.integers(0, 256, (1, 12, 12, 3)), jnp.float32), (64, 12, 12, 3))
    out = np.asarray(jax.jit(randaugment, static_argnums=2)(keys(64), x, 9))
    assert len({image.tobytes() for image in out}) > 25 and out.min() >= 0 and out.max() <= 255
    assert np.array_equal(out, np.rint(out))


def test_balanced_feeds_show_every_class_alike_and_repetitions_differ():
    labels = np.r_[np.zeros(60, int), np.ones(12, int), [2, 2]]
    images = RNG.integers(0, 256, (74, 8, 8, 3), dtype=np.uint8)
    data = Dataset.from_arrays(images, labels, images[:3], [0, 1, 2])
    source = feed(data, batch_size=37, balanced=True, augment="crop", seed=1)
    order = np.concatenate([source.positions(k) for k in range(2)])
    assert sorted(np.bincount(labels[order]).tolist()) == [24, 25, 25]
    assert not np.array_equal(order, np.concatenate([source.positions(k) for k in (2, 3)]))
    twice = [i for i, p in enumerate(source.positions(0)) if labels[p] == 2]
    crops = {np.asarray(source.batch(0)[0][i]).tobytes() for i in twice}
    assert len(twice) > 4 and len(crops) > 4  # of two images
    again = feed(data, batch_size=37, balanced=True, augment="crop", seed=1)
    assert np.array_equal(again.batch(1)[0], source.batch(1)[0])


def test_images_of_other_channel_counts_are_fed_to_networks_that_take_as_many():
    images = RNG.integers(0, 256, (12, 8, 8, 6), dtype=np.uint8)
    data = Dataset.from_arrays(images, np.arange(12) % 2)
    assert data.channels == 6 and len(data.mean) == 6
    x, _ = Feed(data.train, batch_size=4, resolution=8, channels=6, mean=data.mean, std=data.std, augment=ALL, classes=2).batch(
        0
    )
    assert x.shape == (4, 8, 8, 6)
    with pytest.raises(DataError, match="looks channels-first"):
        Dataset.from_arrays(images.transpose(0, 3, 1, 2)[:, :3], np.arange(12) % 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("crop+flop", "unknown augmentation 'flop' in 'crop\\+flop'; did you mean 'flip'"),
        ("flip=2", "takes no number"),
        ("erase=2", "expected a number from 0 to 1"),
        ("randaugment=x", "expected a number from 0 to 30"),
        ("crop+resized-crop", "both cut; choose one"),
        ("flip+flip", "appears twice"),
    ],
)
def test_what_is_no_augmentation_is_refused(text, words):
    with pytest.raises(DataError, match=words):
        parse(text)


def test_an_order_of_words_is_the_order_of_the_table():
    assert parse("cutmix=0.5+crop-flip+erase") == (("crop", 0.125), ("flip", 0.0), ("erase", 0.25), ("cutmix", 0.5))
    assert parse("none") == () and list(dict(parse(ALL))) == [n for n in AUGMENTATIONS if n != "crop"]
