"""The methods that train a supernet against random search at equal cost, where the truth is known: a toy problem.

    python -m benchmarks.planted

Images of 8 px with one of six patterns of 5 x 5 pixels somewhere in noise; four layers, each the identity or a
depthwise-separable convolution of 3, 5 or 7 px: 169 different networks, with a table of invented latencies, as a device would
have that takes 1 us for 1,000 MACs and 5 us for an op. All networks within the target are trained alone, by two seeds, and
tested on 4,000 images: that is the truth.

A row for each search: CPU seconds of the process from its first step to the network that it returns, compilation and the first
state not counted; images that training steps took; and the regret of the network, in points of true accuracy against the best
one within the target. Random search (``--method random-search``: networks of 0.9 to 1 times the target, each trained from
fresh weights, the best on the selection images kept) comes in two forms, with more networks or with longer trainings, and is
cut at as many networks as it could train in the mean time of the method that it is compared with (at least one). Seeds are
those of splits, weights, batches and gates. Interval: of the mean difference, 95 %, by resampling of the seeds.

Written to benchmarks/results/planted.json after each part; what is there is not done again. All of it takes about 17 minutes of
CPU time, of which compilation three, unless JAX_COMPILATION_CACHE_DIR is set and has the programs.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

import dnas
from benchmarks.machine import machine
from benchmarks.oracle.stages import code_of
from benchmarks.oracle.trainer import Recipe, Trainer
from benchmarks.study.inference import paired
from dnas import loop
from dnas.config import SearchConfig
from dnas.data import Dataset
from dnas.files import write_text
from dnas.latency.keys import Entry
from dnas.ops import ConvOp, DsConvOp, GlobalPoolOp, LinearOp, Op, SkipOp
from dnas.runs import Journal
from dnas.search import Setup, init, prepare, step
from dnas.search.choose import choose
from dnas.search.console import Console
from dnas.search.family import begin
from dnas.search.phase import SearchPhase, measure
from dnas.space import Genotype, OneOf, Space

RESULT = Path(__file__).parent / "results" / "planted.json"
PX, CLASSES, CONTRAST = 8, 6, 50
TARGET_MS, SEEDS = 0.090, 10
CONTROLS = {"random-search, 4 epochs each": (4, 7), "random-search, 8 epochs each": (8, 3)}  # epochs, and networks
TRUTH = Recipe(images=2000, epochs=8, batch_size=64)
TRUE_SEEDS = 2
OPTIONS: dict[str, dict[str, Any]] = {
    **{
        name: {"epochs": 12, "derive_samples": 8}
        for name in ("gumbel", "softmax", "straight-through", "gdas", "two-path", "reinforce")
    },
    "reinforce, ten times its rate": {"epochs": 12, "derive_samples": 8, "theta_lr": 25 / 54},  # that of the others
    "single-path": {"epochs": 12, "evaluations": 24},
    **{name: {"epochs": each * networks, "evaluations": networks} for name, (each, networks) in CONTROLS.items()},
}


def images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """u8[count, 8, 8, 1] with one of six fixed patterns of 5 x 5 pixels somewhere in noise, and which."""
    patterns = np.random.default_rng(0).choice([-1.0, 1.0], (CLASSES, 5, 5))
    rng = np.random.default_rng((1, seed))
    labels = np.arange(count) % CLASSES
    pixels = rng.normal(128, 40, (count, PX, PX))
    for image, label in zip(pixels, labels, strict=True):
        y, x = rng.integers(PX - 4, size=2)
        image[y : y + 5, x : x + 5] += CONTRAST * patterns[label]
    return np.clip(pixels, 0, 255).astype(np.uint8)[..., None], labels


def dataset() -> Dataset:
    return Dataset.from_arrays(*images(2000, 0), *images(4000, 1), name="patterns in noise")


def space() -> Space:
    """Two layers on maps of 8 px and two on maps of 4 px: identity, or depthwise-separable convolutions of 3, 5, 7 px."""

    def layer(name: str, channels: int) -> OneOf:
        blocks: list[Op] = [DsConvOp(in_=channels, out=channels, kernel=k, residual=True) for k in (3, 5, 7)]
        return OneOf(name, (SkipOp(in_=channels, out=channels), *blocks))

    layers = (
        ConvOp(in_=1, out=8, kernel=1), layer("l1", 8), layer("l2", 8), ConvOp(in_=8, out=16, kernel=3, stride=2),
        layer("l3", 16), layer("l4", 16), GlobalPoolOp(), LinearOp(in_=16, out=CLASSES),
    )  # fmt: skip
    return Space("planted", layers, 1, PX, CLASSES)


def table(of: Space) -> dnas.LatencyTable:
    """1 us for 1,000 MACs and 5 us for each op, in whole microseconds."""
    ops = [(c.op, slot.shape_of(c)) for slot in of.slots for c in slot.candidates if c.op.primitives()]
    entries = {op.price_fields(shape): Entry(ms=round(5 + op.macs(shape) / 1e3) / 1e3) for op, shape in ops}
    found = dnas.LatencyTable(
        device="invented", runtime="none", precision="float32", status="estimated", meaning="absolute", entries=entries,
        source={"who": "benchmarks/planted.py"},
    )  # fmt: skip
    return dataclasses.replace(found, name="invented")


def within(of: Space, lut: dnas.LatencyTable) -> dict[Genotype, float]:
    """ms of each network that keeps the target."""
    every = itertools.product(*(range(len(c.options)) for c in of.choices.values()))
    ms = {g: lut.latency_ms(of.fix(g)) for g in sorted({of.canonical(g) for g in every})}
    return {g: v for g, v in ms.items() if v <= TARGET_MS}


def prepared(name: str, seed: int, like: Setup | None) -> Setup:
    """The search by ``name``; ``like``: by another seed, whose compiled programs it shares."""
    of, method = space(), name.partition(",")[0]
    config = SearchConfig(
        lut="invented", space="planted", data="patterns", method=method, target_ms=TARGET_MS, seed=seed, devices=1,
        augment="none", train_epochs=0, **OPTIONS[name],
    )  # fmt: skip
    return dataclasses.replace(prepare(config, of, table(of), dataset()), like=like)


def compile_all(setup: Setup) -> None:
    """Run every program of ``setup`` once."""
    state = init(setup)
    state, _ = step(setup, state, setup.feeds["weights"].batch(0), "weights", 1.0)
    if setup.method.theta:
        state, _ = step(setup, state, setup.feeds["architecture"].batch(0), "theta", 1.0)
    if setup.method.warm:
        state, _ = step(setup, state, setup.feeds["weights"].batch(0), "weights", 1.0, all_on=True)
    measure(setup, state, setup.space.canonical([0] * len(setup.space.choices)))


def searched(name: str, setup: Setup) -> dict[str, Any]:
    """One search, as ``dnas.search.run`` makes it: what it found and took. Of random search each network that it trained."""
    journal, batch, stamps = Journal(None), setup.feeds["weights"].batch_size, [0.0]
    state = begin(setup)
    phase = SearchPhase(setup)
    start = time.process_time()
    with Console(False).progress() as watcher:
        state = loop.run(phase, state, journal, watcher, on_epoch=lambda _: stamps.append(time.process_time() - start))
        notes, _, _ = choose(setup, state.member(0), watcher)
    seconds, steps = time.process_time() - start, setup.schedule.before(setup.schedule.epochs)
    row: dict[str, Any] = {"method": name, "seed": setup.config.seed, "cpu_s": round(seconds, 2)}
    row["images"] = steps * batch
    if name in CONTROLS:
        each, networks = CONTROLS[name]
        ends = journal.history[each - 1 :: each]
        row["networks"] = [
            {"code": code_of(r["genotype"]), "selection_top1": r["argmax_accuracy"], "selection_loss": r["argmax_loss"]}
            for r in ends
        ]
        row["cpu_s_each"] = round(stamps[-1] / networks, 3)
        return row
    last = journal.history[-1]
    return {
        **row, "code": code_of(setup.space.canonical(notes["genotype"])), "expected_ms": last["expected_ms"],
        "entropy": last["entropy"], "likeliest": code_of(last["genotype"]),
    }  # fmt: skip


def kept(row: dict[str, Any], networks: int) -> str:
    """What random search returns after as many networks."""
    best = max(row["networks"][:networks], key=lambda n: (n["selection_top1"], -n["selection_loss"]))
    return str(best["code"])


def summary(body: dict[str, Any]) -> dict[str, Any]:
    """What is true, and each method against random search at its cost, over the seeds that both have."""
    true = {g: statistics.fmean(v) for g, v in body["truth"].items()}
    noise = statistics.fmean(statistics.variance(v) for v in body["truth"].values()) ** 0.5
    best = max(true.values())
    found: dict[str, Any] = {
        "best": max(true, key=true.__getitem__), "best_accuracy": best, "sd_between_trainings": noise,
        "networks_within": len(true), "mean_regret_of_all": best - statistics.fmean(true.values()), "methods": {},
    }  # fmt: skip
    by = {name: {r["seed"]: r for r in body["rows"] if r["method"] == name} for name in OPTIONS}
    seeds = sorted(set.intersection(*(set(rows) for rows in by.values())))
    for name, rows in by.items() if len(seeds) > 1 else ():
        if name in CONTROLS:
            continue
        cost = statistics.fmean(rows[s]["cpu_s"] for s in seeds)
        regret = 100 * np.array([best - true[rows[s]["code"]] for s in seeds])
        figures = {"n": len(seeds), "cpu_s": cost, "images": rows[0]["images"], "regret": _spread(regret)}
        for control, (_, most) in CONTROLS.items():
            each = statistics.fmean(by[control][s]["cpu_s_each"] for s in seeds)
            networks = min(max(int(cost / each), 1), most)
            other = 100 * np.array([best - true[kept(by[control][s], networks)] for s in seeds])
            difference = paired(regret.tolist(), other.tolist())
            figures[control] = {
                "networks": networks, "cpu_s": networks * each, "regret": _spread(other),
                "difference": difference.mean, "interval95": [difference.low, difference.high],
            }  # fmt: skip
        found["methods"][name] = figures
    rounded: dict[str, Any] = json.loads(json.dumps(found), parse_float=lambda text: round(float(text), 4))
    return rounded


def _spread(values: np.ndarray) -> dict[str, float]:
    return {"mean": float(values.mean()), "sd": float(values.std(ddof=1))}


def main() -> None:
    body: dict[str, Any] = {"command": "python -m benchmarks.planted", "machine": machine(), "truth": {}, "rows": []}
    if RESULT.exists():
        body = json.loads(RESULT.read_text())

    def write() -> None:
        write_text(RESULT, json.dumps(body, indent=1) + "\n")

    of = space()
    inside = within(of, table(of))
    train = Trainer(of, dataset(), TRUTH)
    for genotype in inside:
        if code_of(genotype) not in body["truth"]:
            body["truth"][code_of(genotype)] = [train(genotype, seed).hits / 4000 for seed in range(TRUE_SEEDS)]
            write()
    likes: dict[str, Setup] = {}
    done = {(r["method"], r["seed"]) for r in body["rows"]}
    for seed, name in itertools.product(range(SEEDS), OPTIONS):
        if (name, seed) in done:
            continue
        setup = prepared(name, seed, likes.get(name))
        if name not in likes:
            compile_all(setup)
            likes[name] = setup
        body["rows"].append(searched(name, setup))
        body["summary"] = summary(body)
        write()
        print({k: v for k, v in body["rows"][-1].items() if k != "networks"}, flush=True)
    print(json.dumps(body["summary"], indent=1))


if __name__ == "__main__":
    main()
