"""Searches on CIFAR-10 in NAS-Bench-Macro's space, and what they found by its 6,561 trained networks.

    python -m benchmarks.macro search --data npz:cifar10_train.npz   a row for each target: macro_searches.jsonl; resumable
    python -m benchmarks.macro rank --data npz:cifar10_train.npz     networks with the supernets' weights: macro_ranking.jsonl
    python -m benchmarks.macro derive --data npz:cifar10_train.npz   --derive predictor with the supernets' weights
    python -m benchmarks.macro together --data npz:cifar10_train.npz what all seeds compared, with the weights of each
    python -m benchmarks.macro verdict                               macro_verdict.json, docs/study_macro*.png; no images

Results are written to benchmarks/results/. ``tfds:cifar10`` is another source of the images. Searches take about 20 CPU minutes
a seed, ranking some more; both can be stopped at any time, and go on where they were.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from dnas import process
from dnas.cli import command
from dnas.files import dump_json, write_text

RESULTS = Path(__file__).parents[1] / "results"
DOCS = Path(__file__).parents[2] / "docs"
SEARCHES, RANKING = RESULTS / "macro_searches.jsonl", RESULTS / "macro_ranking.jsonl"
TOGETHER = RESULTS / "macro_together.jsonl"
DERIVED = RESULTS / "macro_derived.jsonl"
VERDICT = RESULTS / "macro_verdict.json"
TEAMS = (2, 3)  # supernets


@dataclasses.dataclass(frozen=True)
class MacroConfig:
    """Search on CIFAR-10, measure the supernets' ranking, or judge both by NAS-Bench-Macro."""

    part: Positional[Literal["search", "rank", "derive", "together", "verdict"]]
    """What to do. No unit."""
    data: str = "tfds:cifar10"
    """CIFAR-10, as a data set of dnas. No unit."""
    cases: tuple[str, ...] = ("gumbel", "single-path")
    """But for verdict: methods and ablations by name. No unit."""
    seeds: int = 3
    """But for verdict: seeds from 0 on. No unit."""
    shares: tuple[float, ...] = (0.25, 0.5, 0.75)
    """Of search: where targets lie between the fastest (0) and the slowest (1) network. No unit."""
    lut: str = "samsung_s8"
    """The latency table of the targets."""
    team: int | None = None
    """Of together: measure what disjoint teams of so many seeds put up, a number from 2, in place of all that any seed
    compared. No unit. Default: none."""
    runs: str = "runs/macro"
    """Folder for the weights of the supernets. No unit."""


def images(config: MacroConfig) -> tuple[Any, dict[str, Any]]:
    """The images that searches use, and what rows are made with."""
    from benchmarks.macro.searches import Recipe, first_images
    from dnas.data import load
    from dnas.latency import LatencyTable
    from dnas.space import load_space

    recipe, table = Recipe(), LatencyTable.load(config.lut)
    data = load(config.data)
    about = {
        "space_sha256": load_space("nas_bench_macro").fingerprint, "data": data.name, "data_sha256": data.fingerprint,
        "table": table.name, "table_sha256": table.sha256, "recipe": recipe._asdict(),
    }  # fmt: skip
    return first_images(data, recipe), about


def checked(config: MacroConfig) -> None:
    from benchmarks.macro.searches import CASES
    from dnas.errors import ConfigError, nearest

    if config.team is not None and config.team < 2:
        raise ConfigError(f"--team is {config.team}; expected a number from 2")
    if wrong := [c for c in config.cases if c not in CASES]:
        raise ConfigError(f"--cases {wrong[0]!r}{nearest(wrong[0], CASES)}")


def search(config: MacroConfig) -> None:
    """Do what is missing of the searches."""
    from benchmarks.macro.searches import KEY, Recipe, run
    from benchmarks.rows import Rows
    from dnas.latency import LatencyTable

    data, about = images(config)
    rows, table = Rows(SEARCHES, KEY, about), LatencyTable.load(config.lut)
    run(config.cases, config.shares, config.seeds, rows, table, data, Path(config.runs), Recipe())


def rank(config: MacroConfig) -> None:
    """Measure networks with the weights of the supernets in ``--runs``."""
    from benchmarks.macro.ranking import KEY, measure_all, networks
    from benchmarks.macro.searches import Recipe, targets_ms
    from benchmarks.rows import Rows
    from dnas.latency import LatencyTable
    from dnas.oracle import load

    data, about = images(config)
    table, oracle = LatencyTable.load(config.lut), load("nas-bench-macro")
    codes = networks(oracle, oracle.costs(table), 0.9 * targets_ms(config.shares, table)[0])
    rows = Rows(RANKING, KEY, about)
    measure_all(config.cases, config.seeds, lambda *_: codes, rows, table, data, Path(config.runs), Recipe(), config.shares)


def derive(config: MacroConfig) -> None:
    """Derive networks by a predictor with the weights of the supernets in ``--runs``."""
    from benchmarks.macro.derived import KEY, run
    from benchmarks.macro.searches import Recipe
    from benchmarks.rows import Rows
    from dnas.latency import LatencyTable

    data, about = images(config)
    rows, table = Rows(DERIVED, KEY, about), LatencyTable.load(config.lut)
    run(config.cases, config.shares, config.seeds, rows, table, data, Path(config.runs), Recipe())


def together(config: MacroConfig) -> None:
    """Measure all networks that the seeds of a case compared, those with a supernet in ``--runs``, with each of these; or what
    teams put up, with those of each team."""
    from benchmarks.macro.ranking import KEY, measure_all
    from benchmarks.macro.searches import KEY as SEARCHED
    from benchmarks.macro.searches import Recipe
    from benchmarks.macro.together import compared, put_up
    from benchmarks.rows import Rows
    from dnas.latency import LatencyTable
    from dnas.oracle import load

    data, about = images(config)
    rows, searched, table = Rows(TOGETHER, KEY, about), Rows(SEARCHES, SEARCHED).rows, LatencyTable.load(config.lut)
    runs, oracle = Path(config.runs), load("nas-bench-macro")

    def codes(case: str, seed: int) -> list[str]:
        if config.team is None:
            return compared(searched, runs, config.seeds, case)
        return put_up(searched, oracle, config.team, config.seeds, case, seed)

    measure_all(config.cases, config.seeds, codes, rows, table, data, runs, Recipe(), config.shares)


def verdict(config: MacroConfig) -> None:
    """Write what the committed rows say, and the figures."""
    from benchmarks.machine import machine
    from benchmarks.macro import figures, predictors, ranking
    from benchmarks.macro.derived import against, rows_of
    from benchmarks.macro.searches import KEY
    from benchmarks.macro.together import choices, of_teams
    from benchmarks.macro.verdict import judged, table
    from benchmarks.rows import Rows
    from benchmarks.study.verdict import DEFAULT, Judge
    from dnas.errors import RunError
    from dnas.latency import LatencyTable
    from dnas.oracle import load

    begun = time.process_time()
    rows, oracle = Rows(SEARCHES, KEY), load("nas-bench-macro")
    if not rows.rows:
        raise RunError(f"{SEARCHES} has no searches; run: python -m benchmarks.macro search --data npz:FILE")
    lut = LatencyTable.load(rows.about["table"])
    judges = {s: Judge.of(oracle, lut, s) for s in sorted({r["share"] for r in rows.rows})}
    derived = Rows(DERIVED, KEY).rows if DERIVED.exists() else []
    body = judged(rows.rows, judges, also=rows_of(rows.rows, derived))
    body["derived"] = against(rows.rows, derived, judges)
    figures.verdict(body).savefig(DOCS / "study_macro.png", dpi=110)
    if RANKING.exists():
        measured = Rows(RANKING, ranking.KEY).rows
        found = ranking.rankings(measured, oracle, lut)
        body["choices"] = ranking.choices(measured, judges)
        body["ranking"] = [ranking.said(r) for r in found]
        body["ranking_together"] = ranking.together(measured, DEFAULT, oracle, lut)
        body["ranking_learnt"] = predictors.learnt(oracle, oracle.costs(lut), sorted({r["code"] for r in measured}))
        figures.ranking(found, body["ranking_learnt"]).savefig(DOCS / "study_macro_ranking.png", dpi=110)
    if TOGETHER.exists():
        measured = Rows(TOGETHER, ranking.KEY).rows
        body["together"] = choices(measured, rows.rows, judges)
        body["teams"] = [one for size in TEAMS for one in of_teams(measured, rows.rows, judges, size)]
    spent = round(time.process_time() - begun, 1)
    about = {"command": "python -m benchmarks.macro verdict", "machine": machine(), "cpu_s": spent, "made_with": rows.about}
    write_text(VERDICT, dump_json(about | body))
    print(table(body))


PARTS = {"search": search, "rank": rank, "derive": derive, "together": together, "verdict": verdict}


def main(config: MacroConfig) -> int:
    """Do a part."""
    process.set_up("benchmarks.macro")
    checked(config)
    PARTS[config.part](config)
    return 0


if __name__ == "__main__":
    sys.exit(command("python -m benchmarks.macro", MacroConfig, main))
