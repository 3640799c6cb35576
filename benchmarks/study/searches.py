"""Searches with a supernet in the oracle's space, on the images that its networks were trained on: one row each.

Rows are appended to benchmarks/results/study_searches.jsonl as they come; those that are there are not run again. CPU seconds
are those of the process (one thread): gradients, recalibration, measuring after each epoch and selection; ``compile_s`` stands
beside them: of the first search of a process with such programs, which the others share. ``"timed": false`` has been put, by
hand, into rows from a host that was not as fast as when the oracle's trainings were timed; their seconds are not used.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from benchmarks.oracle.stages import code_of, genotypes
from benchmarks.rows import Rows
from dnas import derive, loop
from dnas.config import SearchConfig
from dnas.data import Dataset
from dnas.derive import Limit
from dnas.evaluate import Accuracy
from dnas.latency import LatencyTable
from dnas.loop import interruptible
from dnas.runs import Journal
from dnas.search import Setup, prepare
from dnas.search.choose import choose
from dnas.search.console import Console
from dnas.search.family import begin
from dnas.search.phase import SearchPhase, measure
from dnas.space import Genotype, Space

METHODS: dict[str, dict[str, Any]] = {
    "gumbel": {},
    "softmax": {"method": "softmax"},
    "gdas": {"method": "gdas"},
    "two-path": {"method": "two-path"},
    "single-path": {"method": "single-path", "evaluations": 100},
}
ON_TRAINING_IMAGES = "gumbel, theta on training images"
ABLATIONS: dict[str, dict[str, Any]] = {
    "gumbel, no latency term": {"objective": "absolute", "strength": 0.0},
    "gumbel, temperature 1": {"temperature_start": 1.0, "temperature_end": 1.0},
    ON_TRAINING_IMAGES: {},
    "gumbel, --theta-images weights": {"theta_images": "weights"},
    "gumbel, --derive predictor": {"derive": "predictor"},
    "gumbel, --theta-images weights, --derive predictor": {"theta_images": "weights", "derive": "predictor"},
    "gumbel, skip dropout": {"skip_dropout": 0.5},
    "gumbel, argmax": {"derive": "argmax"},
}
CASES = METHODS | ABLATIONS
RULES = {"from 98 %": 0.98, "from 90 %": 0.9, "from 0 %": 0.0}  # other derivations: --derive-from
RANKED = [(method, 0.5, seed) for method in METHODS for seed in range(3)]  # whose supernets measure every network of the space


class Task(NamedTuple):
    """One search: a case, where its target lies between the fastest (0) and the slowest (1) network, and a seed."""

    case: str
    share: float
    seed: int


def tasks(cases: Sequence[str], shares: Sequence[float], seeds: int) -> list[Task]:
    """All, seed by seed, so that what is done is balanced."""
    return [Task(c, share, seed) for seed, share, c in itertools.product(range(seeds), shares, cases)]


def setup_of(task: Task, space: Space, table: LatencyTable, data: Dataset, epochs: int, like: Setup | None = None) -> Setup:
    """``like``: a search of the same case before, whose compiled programs it shares."""
    ends = space.latency_range(table)
    target = float(ends[0] + task.share * (ends[1] - ends[0]))
    common: dict[str, Any] = {"epochs": epochs, "train_epochs": 0, "devices": 1, "augment": "none"}  # as the oracle's images
    config = SearchConfig(lut=table.name, target_ms=target, seed=task.seed, **common, **CASES[task.case])
    setup = prepare(config, space, table, data)
    if task.case == ON_TRAINING_IMAGES:
        setup = theta_on_weights(setup)
    return dataclasses.replace(setup, like=like)


def theta_on_weights(setup: Setup) -> Setup:
    """Theta learns from images that the weights learn from, as many as the architecture split has."""
    parts = setup.splits
    same = parts.weights.subset(np.arange(len(parts.architecture)))
    return dataclasses.replace(setup, splits=dataclasses.replace(parts, architecture=same))


def search(setup: Setup, ranked: Sequence[Genotype] = ()) -> dict[str, Any]:
    """What one search found, and what would have been derived after each epoch: [CPU s, training images, code].

    ``ranked``: networks whose hits and loss on the selection images, with the supernet's weights, are wanted, too; like what
    other rules of derivation would have found, they are taken after the clock has stopped.
    """
    begun, journal, stamps = time.process_time(), Journal(None), list[float]()
    with Console(False).progress() as watcher, TemporaryDirectory() as folder:
        family = loop.run(
            SearchPhase(setup), begin(setup), journal, watcher, on_epoch=lambda _: stamps.append(time.process_time() - begun)
        )
        state = family.member(0)
        notes, compared, state = choose(setup, state, watcher, Path(folder))
        cpu = time.process_time() - begun
        rules: dict[str, Any] = {}
        if setup.config.derive == "budget":
            for name, near in RULES.items():
                under = dataclasses.replace(setup, config=dataclasses.replace(setup.config, derive_from=near), like=setup)
                rules[name] = code_of(choose(under, state, watcher, Path(folder))[0]["genotype"])
    batch = setup.config.batch_size or 0
    images = [setup.schedule.before(e + 1) * batch for e in range(len(stamps))]
    path = [
        [round(s, 2), n, code_of(derived(setup, row))]
        for s, row, n in zip(stamps, journal.history, images, strict=True) if setup.method.ends == "logits"
    ]  # fmt: skip
    last, genotype = journal.history[-1], tuple(notes["genotype"])
    hits, n, loss = notes["inherited"]
    return {
        "target_ms": setup.config.target_ms, "code": code_of(genotype), "ms": setup.terms.at(setup.space.assignment(genotype)),
        "argmax": code_of(notes["derivation"]["argmax_genotype"]), "expected_ms": last["expected_ms"],
        "entropy": last["entropy"], "mixture": last["mixture_accuracy"],
        "inherited": hits / n, "inherited_loss": loss, "selection_images": n, "networks": notes["draws"], "other_rules": rules,
        "compared": said(compared), "images": images[-1], "cpu_s": round(cpu, 2), "path": path,
        "ranked": said({g: measure(setup, state, g) for g in ranked}),
    }  # fmt: skip


def said(networks: Mapping[Genotype, Accuracy], code: Callable[[Genotype], str] = code_of) -> dict[str, list[float]]:
    """Code -> [hits, loss] on the selection images."""
    return {code(genotype): [found.hits, round(found.loss, 5)] for genotype, found in networks.items()}


def derived(setup: Setup, row: dict[str, Any]) -> tuple[int, ...]:
    """The most probable of the networks that would be compared, by one epoch's figures."""
    target = setup.config.target_ms or 0.0
    multiplier = max(row["multipliers"][0], 0.0) / target if row["multipliers"] else 0.0
    logits = {n: np.log(np.maximum(p, 1e-9)) for n, p in row["probabilities"].items()}
    most, near = setup.config.derive_samples or 1, setup.config.derive_from
    return derive.shortlist(setup.space, logits, [Limit(setup.terms, target, multiplier)], most, near=near).genotypes[0]


def run(
    work: Sequence[Task], rows: Rows, space: Space, table: LatencyTable, data: Dataset, epochs: int, minutes: float | None
) -> None:
    """Do those of ``work`` that ``rows`` lacks, until the time is up or after the search in which Ctrl-C was pressed."""
    until = None if minutes is None else time.monotonic() + 60 * minutes
    first = dict[str, tuple[Setup, float]]()  # by what decides about programs
    with interruptible() as interrupted:
        for task in work:
            if tuple(task) in rows.done:
                continue
            if (until is not None and time.monotonic() > until) or interrupted():
                break
            programs = repr(CASES[task.case])
            like = first[programs][0] if programs in first else None
            setup = setup_of(task, space, table, data, epochs, like)
            if like is None:
                first[programs] = setup, compiled(setup)
            found = search(setup, genotypes(space) if tuple(task) in RANKED else ())
            rows.add({**task._asdict(), "epochs": epochs, **found, "compile_s": first[programs][1]})
            print(f"{task.case}, {task.share:g}, seed {task.seed}: {rows.rows[-1]['code']}", flush=True)


def compiled(setup: Setup) -> float:
    """CPU seconds of a search's first epochs beyond those of the next ones: a search of few steps, done twice."""
    theta = 1 if setup.method.theta else 0
    schedule = dataclasses.replace(setup.schedule, epochs=1, warm_up=0, weight_steps=1, theta_steps=theta)
    short = dataclasses.replace(setup, schedule=schedule, like=setup)
    first, second = (search(short)["cpu_s"] for _ in range(2))
    return round(first - second, 2)
