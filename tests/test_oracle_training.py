"""benchmarks.oracle: a training through the supernet is that of the network alone; its file survives a power cut; the pilot."""

from __future__ import annotations

import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from dnas import oracle, supernet
from dnas.data import Dataset
from dnas.errors import ConfigError, RunError
from dnas.evaluate import accuracy, recalibrate
from dnas.latency import LatencyTable
from dnas.optimisers import sgd_cosine
from dnas.space import load_space

pytest.importorskip("benchmarks", reason="the wheel has no benchmarks")
from benchmarks.machine import machine
from benchmarks.oracle import images, pilot, results, stages
from benchmarks.oracle.trainer import Recipe, Trainer

RECIPE = Recipe(images=16, epochs=2, batch_size=8, lr=0.05, held_out=5)


class Batches:
    """As much of ``dnas.data.Feed`` as measuring needs."""

    def __init__(self, x, y, size):
        self.split, self.batch_size = x, size
        self.batches = [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]

    def batch(self, number):
        return self.batches[number]

    def evaluation(self):
        return ((x, y, jnp.ones(y.shape)) for x, y in self.batches)


@pytest.fixture(scope="module")
def trainer():
    rng = np.random.default_rng(0)
    labels = np.arange(50) % tiny.CLASSES
    pixels = rng.integers(0, 120, (50, 8, 8, 3), np.uint8) + 60 * labels[:, None, None, None].astype(np.uint8)
    data = Dataset.from_arrays(pixels[:40], labels[:40], pixels[40:], labels[40:])
    return Trainer(tiny.plain_space(), data, RECIPE)


def alone(trainer, genotype, seed):
    """What ``Trainer`` does, on the finished network: hits, test loss, loss of the last epoch."""
    own = trainer.images
    x, test_x = (trainer._normal(v) for v in (own.x, own.test_x))
    weights_key, order_key = jax.random.split(jax.random.key(seed))
    _, *trees = supernet.init(trainer.space, weights_key)
    params, stats = (supernet.inherit(trainer.space, genotype, tree) for tree in trees)
    net = supernet.Net.of(trainer.space.fix(genotype))
    optimiser = sgd_cosine(RECIPE.lr, RECIPE.epochs * RECIPE.steps, RECIPE.weight_decay)
    memory = optimiser.init(params)

    @jax.jit
    def step(params, stats, memory, x, y):
        def loss(params):
            logits, new = supernet.apply(net, params, stats, x, None, True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), new

        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, memory = optimiser.update(grads, memory, params)
        return optax.apply_updates(params, updates), stats, memory, value

    for key in jax.random.split(order_key, RECIPE.epochs):
        order, losses = jax.random.permutation(key, len(x)), []
        for i in range(RECIPE.steps):
            picked = order[i * 8 : (i + 1) * 8]
            params, stats, memory, value = step(params, stats, memory, x[picked], own.y[picked])
            losses.append(value)
    stats = recalibrate(net, params, stats, Batches(x, own.y, 8))
    found = accuracy(net, params, stats, Batches(test_x, own.test_y, 5))
    return found.hits, found.loss, float(jnp.stack(losses).mean())


@pytest.mark.slow  # half a minute of compilation
def test_a_training_is_that_of_the_network_alone(trainer) -> None:
    assert trainer.images.x.shape == (16, 8, 8, 3) and len(trainer.images.test_y) == 15
    for genotype, seed in (((1, 2), 0), ((3, 0), 1)):
        found = trainer(genotype, seed)
        assert found == pytest.approx(alone(trainer, genotype, seed), rel=1e-3)
        assert found == trainer(genotype, seed) != trainer(genotype, seed + 1)
    assert trainer.traces == 1  # one compilation serves all networks and seeds


def test_turned_images_are_the_same_ones_elsewhere() -> None:
    disc = np.hypot(*np.mgrid[-13.5:14, -13.5:14]) < 6
    rows = np.repeat((255 * disc).astype(np.uint8)[None, :, :, None], 200, axis=0)
    found = images.turned(rows, 0)
    np.testing.assert_array_equal(found, images.turned(rows, 0))
    negative = found[:, 0, 0, 0] == 255  # a corner
    assert 70 < negative.sum() < 130
    mass = np.where(negative[:, None, None], 255 - found[..., 0], found[..., 0]) / 255.0
    area = mass.sum((1, 2)) / disc.sum()
    assert images.SCALE[0] ** 2 - 0.03 < area.min() < 0.6 and 0.9 < area.max() < images.SCALE[1] ** 2 + 0.03
    centre = np.stack([(mass * at).sum((1, 2)) / mass.sum((1, 2)) for at in np.mgrid[-13.5:14, -13.5:14]])
    assert 0.9 * images.SHIFT_PX < np.abs(centre).max() < images.SHIFT_PX + 0.1
    assert len(np.unique(np.round(centre[0], 2))) > 100
    lower = rows * (np.mgrid[:28, :28][0] > 13)[None, :, :, None]  # whose halves tell how far they are turned
    turned = images.turned(lower, 0)
    assert not np.array_equal(turned, found) and 0.4 < (turned[~negative].mean() / found[~negative].mean()) < 0.6


def test_what_ships_is_what_was_trained(tmp_path: Path) -> None:
    own, done = oracle.load("fashion-mnist"), results.Results(results.RUNS)
    stages.pack(load_space("oracle"), done, own.runs.shape[1], tmp_path)
    packed = np.load(tmp_path / "oracle.npz")["hits"]
    np.testing.assert_array_equal(packed / (stages.IMAGES / 100), own.runs)
    assert done.about["space_sha256"] == load_space("oracle").fingerprint


def run(code: str, seed: int, hits: int) -> results.Run:
    return results.Run(code, seed, hits, 0.5, 0.4, 10.0, 11.0)


def test_the_file_survives_a_power_cut_another_machine_and_another_recipe(
    trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.jsonl"
    first = results.of_trainer(trainer, path)
    first.add(run("12", 0, 8))
    first.add(run("30", 1, 7))
    with open(path, "a") as file:
        file.write('{"code": "22", "se')
    again = results.of_trainer(trainer, path)
    assert again.runs == first.runs and again.about == first.about and again.done == {("12", 0), ("30", 1)}
    again.add(run("30", 0, 9))
    again.add(run("30", 0, 9)._replace(cpu_s=1.0))  # another process did the same
    assert [r.cpu_s for r in results.Results(path).runs] == [10.0] * 3
    assert results.Results(path).by_code() == {"12": [8], "30": [9, 7]}
    here = machine()
    monkeypatch.setattr("benchmarks.rows.machine", lambda: here | {"processor": "another"})
    results.of_trainer(trainer, path).add(run("31", 0, 6))
    elsewhere = results.Results(path)
    assert elsewhere.by_code()["31"] == [6] and [r.code for r in elsewhere.on("another")] == ["31"]
    assert len(elsewhere.on(here["processor"])) == 3
    made_with = {**again.about, "recipe": {"lr": 1}}
    with pytest.raises(RunError, match="made with another recipe; move it away"):
        results.Results(path, made_with)
    path.write_text('{"code": "22"}\n[]\n')
    with pytest.raises(RunError, match="not a file of results with code, seed"):
        results.Results(path)


def test_the_spread_between_networks_is_without_that_between_seeds() -> None:
    rng = np.random.default_rng(0)
    for between, within in ((2.0, 0.5), (0.0, 1.0)):
        truth = 80 + between * rng.normal(size=4000)
        band = pilot.spread((1.0, 1.1), (truth[:, None] + within * rng.normal(size=(4000, 5))).tolist())
        assert band.between_networks == pytest.approx(between, abs=0.12) and band.between_seeds == pytest.approx(
            within, rel=0.03
        )
        assert (band.ratio >= pilot.NEEDED) == (between > 0) == (band.trainings <= 1)


def test_the_pilot_chooses_networks_of_nearly_equal_latency() -> None:
    space, table = load_space("oracle"), LatencyTable.load("samsung_s8")
    bands = pilot.choose(space, table, stages.genotypes(space))
    every = [g for _, chosen in bands for g in chosen]
    assert len(bands) == pilot.BANDS and len(set(every)) == len(every) >= pilot.BANDS * (pilot.PER_BAND - 2)
    for low, chosen in bands:
        assert all(low <= table.latency_ms(space.fix(g)) < low * pilot.WIDTH for g in chosen)
    assert len(stages.pilot_work(space, table)) == len(every) * pilot.SEEDS


def test_packed_trainings_are_an_oracle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, rng = load_space("oracle"), np.random.default_rng(0)
    every = [stages.code_of(g) for g in stages.genotypes(space)]
    assert len({space.fix(g).fingerprint for g in stages.genotypes(space)}) == 108  # all different
    done = results.Results(tmp_path / "none.jsonl")
    done.runs = [run(c, s, int(rng.integers(7000, 9000))) for c in every for s in (1, 0)]
    with pytest.raises(RunError, match=r"108 of 324 trainings are missing \(first: network 00000, seed 2\)"):
        stages.pack(space, done, 3, tmp_path)
    stages.pack(space, done, 2, tmp_path)
    monkeypatch.setattr(oracle, "shipped", lambda folder: tmp_path)
    assert oracle.available() == ("fashion-mnist",)
    found = oracle.load("fashion-mnist")
    hits = done.by_code()
    assert found.networks == found.codes == tuple(every)
    assert all(found.seeds(c) == tuple(h / 300 for h in hits[c]) for c in every)
    with pytest.raises(
        ConfigError, match=r"nas-bench-macro.*not all of its networks are trained yet; available: fashion-mnist"
    ):
        oracle.load("nas-bench-macro")
    stages.table(space, done, [LatencyTable.load("samsung_s8")], tmp_path / "table.csv")
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert (
        len(rows) == 108
        and rows[7]["n"] == "2"
        and float(rows[7]["accuracy"]) == pytest.approx(np.mean(hits["00101"]) / 300, abs=1e-3)
    )
    assert float(rows[7]["samsung_s8_ms"]) == pytest.approx(found.costs("samsung_s8")[7], abs=1e-5)
    assert stages.status(space, done, 3)[-1] == "108 left for 3 seeds of every network: about 0.3 CPU-hours"
