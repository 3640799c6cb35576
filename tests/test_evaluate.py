"""Accuracy counts each image once, its interval is Wilson's, and recalibration is the mean of batch statistics."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from jax.sharding import Mesh
from scipy.stats import binomtest

from dnas import gates, supernet
from dnas.data.dataset import Split
from dnas.data.feed import Feed
from dnas.devices import replicate
from dnas.evaluate import Accuracy, _shared, accuracy, recalibrate

SPACE = tiny.stage_space()
GENOTYPE = (1, 0, 1, 0)
CHOSEN = gates.one_hot(SPACE, GENOTYPE)


def feed(count: int, batch_size: int) -> Feed:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)
    split = Split(images, rng.integers(0, 3, count))
    return Feed(split, batch_size=batch_size, resolution=8, channels=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))


@pytest.fixture(scope="module")
def supernetwork():
    net, params, stats = supernet.init(SPACE, jax.random.key(0))
    return net, params, jax.tree.map(lambda v: v + 0.1, stats)


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 50), (50, 50), (3, 7), (45, 100), (9_970, 10_000)])
def test_interval_is_wilsons(hits: int, n: int) -> None:
    wanted = binomtest(hits, n).proportion_ci(method="wilson")
    assert Accuracy(hits, n, 0.0).interval95 == pytest.approx((wanted.low, wanted.high), abs=1e-6)


def test_accuracy_as_data_and_text() -> None:
    found = Accuracy(45, 100, 1.25)
    assert found.to_dict() == {"top1": 0.45, "interval95": list(found.interval95), "n": 100, "loss": 1.25}
    assert str(found) == "45.00% (95 % interval 35.61% to 54.76%, n = 100)"


def test_every_image_counts_once(supernetwork) -> None:
    """13 images in batches of 8: the padding of the last batch counts for nothing."""
    net, params, stats = supernetwork
    images = feed(13, 8)
    found = accuracy(net, params, stats, images, CHOSEN)
    x, y, _ = next(iter(images.evaluation(13)))
    logits, _ = jax.jit(partial(supernet.apply, net))(params, stats, x, CHOSEN)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    assert (found.hits, found.n) == (int((logits.argmax(-1) == y).sum()), 13)
    assert found.loss == pytest.approx(float(loss.mean()), rel=1e-5)


@pytest.mark.parametrize(("images", "batches"), [(16, 2), (17, 3), (1000, 5)])
def test_recalibration_is_the_mean_of_batch_statistics(supernetwork, images: int, batches: int) -> None:
    """At least ``images``, at most all of them; what is not on the path keeps its statistics."""
    net, params, stats = supernetwork
    some = feed(40, 8)
    got = recalibrate(net, params, stats, some, CHOSEN, images=images)
    batch_stats = jax.jit(lambda x: supernet.apply(net, params, stats, x, CHOSEN, jnp.bool_(True), jnp.float32(0))[1])
    found = [batch_stats(some.batch(i)[0]) for i in range(batches)]
    tiny.assert_close(got, jax.tree.map(lambda *v: sum(np.asarray(u, np.float64) for u in v) / batches, *found), 1e-5)
    picked = {(f"{i:02d}", c.label) for i, c in enumerate(SPACE.picked(GENOTYPE))}
    for layer, candidates in got.items():
        for label, tree in candidates.items():
            same = all(jax.tree.leaves(jax.tree.map(np.array_equal, tree, stats[layer][label])))
            assert same != ((layer, label) in picked)


def test_several_devices_measure_as_one(supernetwork) -> None:
    """Copies of the weights on four devices, which share batches of 8 images; they could not share 6."""
    net, *weights = supernetwork
    mesh, images, found = Mesh(np.array(jax.devices()[:4]), ("data",)), feed(21, 8), []
    for on in (None, mesh):
        params, stats = replicate(on, weights)
        stats = recalibrate(net, params, stats, images, CHOSEN)
        found.append((stats, dataclasses.astuple(accuracy(net, params, stats, images, CHOSEN))))
    tiny.assert_close(found[1], found[0], 1e-5)
    assert [_shared(params, (jnp.ones((n, 8)),))[0] for n in (8, 6)] == [mesh, None]


def test_statistics_of_the_first_layer_by_hand(supernetwork) -> None:
    """Mean and biased variance of the stem's convolution, averaged over batches, whatever they were before."""
    net, params, stats = supernetwork
    some = feed(24, 8)
    found = recalibrate(net, params, stats, some, CHOSEN, images=24)["00"]["conv_k3"]["bn"]
    maps = [
        jax.lax.conv_general_dilated(
            some.batch(i)[0], params["00"]["conv_k3"]["conv"]["kernel"], (2, 2), ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        for i in range(3)
    ]  # fmt: skip
    np.testing.assert_allclose(found["mean"], np.mean([np.mean(m, (0, 1, 2)) for m in maps], 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["var"], np.mean([np.var(m, (0, 1, 2)) for m in maps], 0), rtol=1e-4)
