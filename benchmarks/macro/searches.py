"""Searches on CIFAR-10 in NAS-Bench-Macro's space: a supernet for all targets of a seed, one row for each target.

A proxy, for two cores: half the widths, 16 px, part of the images. Choices and options are those of the space, and latency is
that of the full network at 32 px: what is searched has a name among the 6,561. The weights that each supernet ends with are
kept in a folder, for ``ranking``. The default method's targets form a family: they share weights and their steps, each has its
own architecture steps, as many as a search of its own would have; single-path has nothing but weights to share.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from benchmarks.oracle.stages import code_of
from benchmarks.rows import Rows
from benchmarks.study.searches import derived, said, theta_on_weights
from dnas import checkpoint, loop
from dnas.config import SearchConfig
from dnas.data import Dataset
from dnas.evaluate import Accuracy
from dnas.latency import LatencyTable
from dnas.latency.terms import price
from dnas.runs import Journal
from dnas.search import Setup, prepare
from dnas.search.choose import choose
from dnas.search.console import Console
from dnas.search.family import begin, rows_of
from dnas.search.finish import SUPERNET
from dnas.search.phase import SearchPhase
from dnas.slots import OneOf
from dnas.space import Genotype, Space, load_space

KEY = ("case", "share", "seed")
OPS = (0, 1, 2)  # the digits of the benchmark's codes


class Recipe(NamedTuple):
    """What all searches have in common. ``images``: of the training images, the first; ``px``, ``width``: of the proxy."""

    images: int = 16_000
    px: int = 16
    width: float = 0.5
    batch: int = 64


class Case(NamedTuple):
    """``options``: of the search command, besides its defaults. ``ops``: those of each layer that it may choose from, of
    ``OPS``. ``proxy``: what differs from the recipe."""

    options: dict[str, Any]
    epochs: int = 6
    theta_on_weights: bool = False
    ops: tuple[int, ...] = OPS
    proxy: Mapping[str, Any] = MappingProxyType({})

    def code(self, genotype: Sequence[int]) -> str:
        """The benchmark's, of a genotype of ``among``'s space."""
        return code_of([self.ops[i] for i in genotype])

    def among(self, space: Space) -> Space:
        """``space`` with ``ops`` alone."""
        layers = (
            dataclasses.replace(one, options=tuple(one.options[i] for i in self.ops)) if isinstance(one, OneOf) else one
            for one in space.layers
        )
        return dataclasses.replace(space, layers=tuple(layers))


CASES = {
    "gumbel": Case({}),
    "gumbel, 18 epochs": Case({}, epochs=18),
    "gumbel, 32 px": Case({}, proxy={"px": 32, "width": 0.25}),
    "single-path": Case({"method": "single-path", "evaluations": 64}, epochs=12),
    "gumbel, no latency term": Case({"objective": "absolute", "strength": 0.0}),
    "gumbel, temperature 1": Case({"temperature_start": 1.0, "temperature_end": 1.0}),
    "gumbel, theta on training images": Case({}, theta_on_weights=True),
    "gumbel, --theta-images weights": Case({"theta_images": "weights"}),
    "gumbel, temperature 1, --theta-images weights": Case(
        {"temperature_start": 1.0, "temperature_end": 1.0, "theta_images": "weights"}
    ),
    "gumbel, temperature 0.2": Case({"temperature_start": 0.2, "temperature_end": 0.2}),
    "gumbel, temperature 1, theta on training images": Case(
        {"temperature_start": 1.0, "temperature_end": 1.0}, theta_on_weights=True
    ),
    "gumbel, argmax": Case({"derive": "argmax"}),
    "gumbel, warm-up 0.6": Case({"warm_up": 0.6}),
    "gumbel, skip dropout": Case({"skip_dropout": 0.5}),
    "gumbel, depth alone": Case({}, ops=(0, 2)),
    "gdas": Case({"method": "gdas"}),
    "two-path": Case({"method": "two-path"}),
}


def space_of(recipe: Recipe) -> Space:
    return load_space(f"nas_bench_macro:width={recipe.width:g},resolution={recipe.px}")


def first_images(data: Dataset, recipe: Recipe) -> Dataset:
    """``data`` with the first of its training images alone, whose order is random."""
    return dataclasses.replace(data, train=data.train.subset(np.arange(recipe.images)))


def targets_ms(shares: Sequence[float], table: LatencyTable) -> list[float]:
    """Of the full network: ``shares`` of the way from the fastest to the slowest."""
    low, high = load_space("nas_bench_macro").latency_range(table)
    return [low + s * (high - low) for s in shares]


def setup_of(
    case: Case, shares: Sequence[float], seed: int, table: LatencyTable, data: Dataset, recipe: Recipe,
    like: Setup | None = None,
) -> Setup:  # fmt: skip
    """A family with a member for each of ``shares``. ``like``: one of the same case, whose programs it shares."""
    recipe = recipe._replace(**case.proxy)
    space = case.among(space_of(recipe))
    low, high = space.latency_range(table)
    passes = 1 if case.options.get("method") == "single-path" else len(shares)
    config = SearchConfig(
        lut=table.name, family_ms=tuple(low + s * (high - low) for s in shares), seed=seed, epochs=case.epochs,
        batch_size=recipe.batch, train_epochs=0, devices=1, theta_passes=passes, **case.options,
    )  # fmt: skip
    setup = prepare(config, space, table, data)
    full = load_space("nas_bench_macro").at(num_classes=data.num_classes)
    terms = price(case.among(full), table, None)  # of the full network
    true = dataclasses.replace(setup.config, family_ms=tuple(targets_ms(shares, table)))
    setup = dataclasses.replace(setup, config=true, terms=terms, like=like.members[0] if like else None)
    return theta_on_weights(setup) if case.theta_on_weights else setup


def search(case: Case, setup: Setup, keep: Path) -> list[dict[str, Any]]:
    """What each member found. ``keep``: folder for the weights that the supernet ends with."""
    begun, journal = time.process_time(), Journal(None)
    with Console(True).progress() as watcher:
        state = loop.run(SearchPhase(setup), begin(setup), journal, watcher)
        trees = {"params": state.shared.params, "stats": state.shared.stats}
        checkpoint.save(keep / SUPERNET, 0, trees, {"space": setup.space.fingerprint})
        shared = time.process_time() - begun
        rows = []
        for index, member in enumerate(setup.members):
            notes, compared, _ = choose(member, state.member(index), watcher)
            rows.append(found(case, member, journal, index, notes, compared) | {"shared_cpu_s": round(shared, 1)})
        return rows


def found(
    case: Case, setup: Setup, journal: Journal, index: int, notes: dict[str, Any], compared: Mapping[Genotype, Accuracy]
) -> dict[str, Any]:
    """A row of one member: the network, and what would have been derived after each epoch: [training images, code]."""
    history, schedule, batch = rows_of(journal.history, index), setup.schedule, setup.config.batch_size or 0
    members, last = schedule.members, history[-1]
    weights = [(e + 1) * schedule.weight_steps for e in range(schedule.epochs)]
    theta = [schedule.before(e + 1) - w for e, w in enumerate(weights)]
    own = [(w + -(-t // members)) * batch for w, t in zip(weights, theta, strict=True)]  # those of a search of its own
    path = [[n, case.code(derived(setup, r))] for n, r in zip(own, history, strict=True) if setup.method.ends == "logits"]
    hits, n, loss = notes["inherited"]
    return {
        "target_ms": setup.config.target_ms, "code": case.code(notes["genotype"]), "ms": notes["derivation"]["derived_ms"],
        "argmax": case.code(notes["derivation"]["argmax_genotype"]), "expected_ms": last["expected_ms"],
        "entropy": last["entropy"], "skip_share": [round(r["skip_share"], 4) for r in history],
        "mixture": last["mixture_accuracy"], "inherited": hits / n, "inherited_loss": loss, "selection_images": n,
        "networks": notes["draws"], "compared": said(compared, case.code),
        "images": own[-1], "family_images": schedule.before(schedule.epochs) * batch,
        "train_accuracy": [r["train_accuracy"] for r in history], "path": path,
        "probabilities": {k: [round(p, 4) for p in v] for k, v in last["probabilities"].items()},
    }  # fmt: skip


def folder_of(runs: Path, case: str, seed: int) -> Path:
    return runs / f"{case.replace(', ', '-').replace(' ', '_')}-s{seed}"


def run(
    cases: Sequence[str], shares: Sequence[float], seeds: int, rows: Rows, table: LatencyTable, data: Dataset, runs: Path,
    recipe: Recipe,
) -> None:  # fmt: skip
    """Do those that ``rows`` lacks, seed by seed; the rows of a family are written together. Ctrl-C loses one family."""
    first: dict[str, Setup] = {}
    for seed in range(seeds):
        for name in cases:
            if {(name, s, seed) for s in shares} <= rows.done:
                continue
            begun = time.process_time()
            setup = setup_of(CASES[name], shares, seed, table, data, recipe, first.get(name))
            first.setdefault(name, setup)
            every = search(CASES[name], setup, folder_of(runs, name, seed))
            spent = round(time.process_time() - begun, 1)
            for share, one in zip(shares, every, strict=True):
                what = {"case": name, "share": share, "seed": seed, "epochs": setup.schedule.epochs, **CASES[name].proxy}
                rows.add({**what, "cpu_s": spent, **one})
            print(name, seed, [r["code"] for r in every], f"{spent} CPU s", flush=True)
