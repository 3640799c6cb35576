"""Searches with a supernet in the oracle's space, on the images that its networks were trained on: one row each.

Rows are appended to benchmarks/results/study_searches.jsonl as they come; those that are there are not run again. CPU seconds
are those of the process (one thread): gradients, recalibration, measuring after each epoch and selection; ``compile_s`` stands
beside them: of the first search of a process with such programs, which the others share.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from benchmarks.oracle.stages import code_of
from benchmarks.rows import Rows
from dnas import derive
from dnas.config import SearchConfig
from dnas.data import Dataset
from dnas.derive import Limit, within
from dnas.latency import LatencyTable
from dnas.loop import interruptible
from dnas.runs import Journal
from dnas.search import Epoch, SearchResult, Setup, prepare
from dnas.search.console import Console
from dnas.search.finish import finish
from dnas.space import Space

METHODS: dict[str, dict[str, Any]] = {
    "gumbel": {},
    "softmax": {"method": "softmax"},
    "gdas": {"method": "gdas"},
    "two-path": {"method": "two-path"},
    "single-path": {"method": "single-path", "evaluations": 100},
}
ON_TRAINING_IMAGES = "gumbel, theta on training images"
FROM_90 = "gumbel, derived from 90 % of the target"  # where the toolkit takes 98 %
ABLATIONS: dict[str, dict[str, Any]] = {
    "gumbel, no latency term": {"objective": "absolute", "strength": 0.0},
    "gumbel, temperature 1": {"temperature_start": 1.0, "temperature_end": 1.0},
    ON_TRAINING_IMAGES: {},
    FROM_90: {},
    "gumbel, skip dropout": {"skip_dropout": 0.5},
    "gumbel, argmax": {"derive": "argmax"},
}
CASES = METHODS | ABLATIONS


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
    if task.case == ON_TRAINING_IMAGES:  # as many as the architecture split has, of those that the weights learn from
        parts = setup.splits
        same = parts.weights.subset(np.arange(len(parts.architecture)))
        setup = dataclasses.replace(setup, splits=dataclasses.replace(parts, architecture=same))
    return dataclasses.replace(setup, like=like)


def search(setup: Setup) -> dict[str, Any]:
    """What one search found, and what would have been derived after each epoch: [CPU s, training images, code]."""
    begun, seen = time.process_time(), list[tuple[float, dict[str, Any]]]()

    def listen(epoch: Epoch) -> None:
        seen.append((time.process_time() - begun, dict(epoch.row)))

    found = finish(dataclasses.replace(setup, on_epoch=listen, like=setup.like or setup), Journal(None), Console(False))
    assert isinstance(found, SearchResult)
    cpu = time.process_time() - begun
    batch = setup.config.batch_size or 0
    images = [setup.schedule.before(e + 1) * batch for e in range(len(seen))]
    path = [
        [round(s, 2), n, code_of(derived(setup, row))]
        for (s, row), n in zip(seen, images, strict=True) if setup.method.ends == "logits"
    ]  # fmt: skip
    last = seen[-1][1]
    return {
        "target_ms": setup.config.target_ms, "code": code_of(found.genotype), "ms": found.latency.total_ms,
        "argmax": code_of(found.derivation["argmax_genotype"]), "expected_ms": last["expected_ms"], "entropy": last["entropy"],
        "mixture": last["mixture_accuracy"], "inherited": found.inherited.top1, "networks": found.draws,
        "images": images[-1], "cpu_s": round(cpu, 2), "path": path,
    }  # fmt: skip


def derived(setup: Setup, row: dict[str, Any]) -> tuple[int, ...]:
    """The most probable network within the target by one epoch's figures."""
    target = setup.config.target_ms or 0.0
    multiplier = max(row["multipliers"][0], 0.0) / target if row["multipliers"] else 0.0
    logits = {n: np.log(np.maximum(p, 1e-9)) for n, p in row["probabilities"].items()}
    return derive.shortlist(setup.space, logits, [Limit(setup.terms, target, multiplier)], 1).genotypes[0]


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
            with mock.patch.object(within, "NEAR", 0.9 if task.case == FROM_90 else within.NEAR):
                found = search(setup)
            rows.add({**task._asdict(), "epochs": epochs, **found, "compile_s": first[programs][1]})
            print(f"{task.case}, {task.share:g}, seed {task.seed}: {rows.rows[-1]['code']}", flush=True)


def compiled(setup: Setup) -> float:
    """CPU seconds of a search's first epochs beyond those of the next ones: a search of few steps, done twice."""
    schedule = dataclasses.replace(setup.schedule, epochs=1, warm_up=0, weight_steps=1, theta_steps=1)
    short = dataclasses.replace(setup, schedule=schedule, like=setup)
    spent = []
    for _ in range(2):
        begun = time.process_time()
        finish(short, Journal(None), Console(False))
        spent.append(time.process_time() - begun)
    return round(spent[0] - spent[1], 2)
