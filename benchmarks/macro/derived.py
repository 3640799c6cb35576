"""What ``--derive predictor`` finds with the supernets that searches have left, in place of what these found."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.macro.ranking import digits
from benchmarks.macro.searches import CASES, Recipe, folder_of, setup_of
from benchmarks.oracle.stages import code_of
from benchmarks.rows import Rows
from benchmarks.study.searches import said
from benchmarks.study.verdict import Judge, Row, by_seed
from dnas.data import Dataset
from dnas.derive import Limit, highest
from dnas.latency import LatencyTable
from dnas.methods import predictor
from dnas.methods.random_search import BAND
from dnas.search import init
from dnas.search.console import Console
from dnas.search.predicted import predict
from dnas.search.supernets import read

KEY = ("case", "share", "seed")
NETWORKS = 64  # that the model learns from
NAME = ", --derive predictor"


def run(
    cases: Sequence[str], shares: Sequence[float], seeds: int, rows: Rows, table: LatencyTable, data: Dataset, runs: Path,
    recipe: Recipe,
) -> None:  # fmt: skip
    """A row for each search that ``rows`` lacks, of the supernets in ``runs``; others are named and left out."""
    for name in cases:
        for seed in range(seeds):
            missing = [s for s in shares if (name, s, seed) not in rows.done]
            folder = folder_of(runs, name, seed)
            if not missing or not folder.is_dir():
                print(name, seed, "is done" if not missing else "has no folder in --runs", flush=True)
                continue
            setup = setup_of(CASES[name], shares, seed, table, data, recipe)
            (params, stats), _ = read(str(folder), setup.space)
            state = init(setup.members[0])._replace(params=params, stats=stats)
            for share, member in zip(shares, setup.members, strict=True):
                config = dataclasses.replace(member.config, derive="predictor", derive_samples=NETWORKS)
                with Console(False).progress() as watcher:
                    genotype, found, about = predict(dataclasses.replace(member, config=config), state, watcher, None)
                row = {"case": name, "share": share, "seed": seed, "code": CASES[name].code(genotype)}
                rows.add(row | {"inherited_loss": found[genotype].loss, **about, "compared": said(found, CASES[name].code)})
            print(name, seed, flush=True)


def against(searched: Sequence[Row], derived: Sequence[Row], judges: Mapping[float, Judge]) -> list[dict[str, Any]]:
    """Of each case, over the same supernets: mean regret of what was ``searched``, of what was ``derived``, and of what a
    linear model of the same losses alone likes best; and of how many seeds the second is smaller."""
    found = {tuple(r[k] for k in KEY): r["code"] for r in searched}
    every: dict[str, dict[str, dict[tuple[float, int], float]]] = {}
    for row in derived:
        judge, at = judges[row["share"]], (row["share"], row["seed"])
        known = {digits(code): -loss for code, (_, loss) in row["compared"].items()}
        problem = judge.problem
        model = predictor.fit(problem.oracle.space, list(known), list(known.values()))
        (best,) = highest(problem.oracle.space, model.by_choice(), [Limit(problem.terms, problem.target_ms)], band=BAND)
        codes = {"searched": found[tuple(row[k] for k in KEY)], "derived": row["code"], "linear": code_of(best)}
        for way, code in codes.items():
            every.setdefault(row["case"], {}).setdefault(way, {})[at] = judge.regret(code)
    ways = {case: {way: by_seed(v, sorted(judges)) for way, v in own.items()} for case, own in every.items()}
    return [
        {"case": case, "seeds": sorted(own["derived"]), **{way: float(np.mean(list(v.values()))) for way, v in own.items()},
         "smaller": sum(own["derived"][s] < own["searched"][s] for s in own["derived"])}
        for case, own in ways.items()
    ]  # fmt: skip


def rows_of(searched: Sequence[Row], derived: Sequence[Row]) -> list[Row]:
    """The rows ``searched`` with what was ``derived`` from the same supernets instead."""
    codes = {tuple(d[k] for k in KEY): d["code"] for d in derived}
    own = [r for r in searched if tuple(r[k] for k in KEY) in codes]
    return [{**r, "case": r["case"] + NAME, "code": codes[tuple(r[k] for k in KEY)]} for r in own]
