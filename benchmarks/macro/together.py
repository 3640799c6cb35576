"""What the supernets of several seeds choose together, by the rule of ``dnas.search.together``."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.macro.searches import folder_of
from benchmarks.study.verdict import Judge, Row
from dnas.evaluate import Accuracy
from dnas.search.together import liked


def compared(searched: Sequence[Row], runs: Path, seeds: int, case: str) -> list[str]:
    """Codes that any of the first ``seeds`` compared, of those whose supernet is in ``runs``."""
    own = (r for r in searched if r["case"] == case and r["seed"] < seeds and folder_of(runs, case, r["seed"]).is_dir())
    return list(dict.fromkeys(code for row in own for code in row["compared"]))


def choices(rows: Sequence[Row], searched: Sequence[Row], judges: dict[float, Judge]) -> list[dict[str, Any]]:
    """Per case and number of supernets: mean regret, over all sets of so many, of what they choose together. Cases of which
    anything is still to be measured are left out."""
    found = []
    for case in dict.fromkeys(r["case"] for r in rows):
        losses = {(r["seed"], r["code"]): r["loss"] for r in rows if r["case"] == case}
        seeds = sorted({seed for seed, _ in losses})
        own = [r for r in searched if r["case"] == case and r["seed"] in seeds]
        if all((seed, code) in losses for seed in seeds for r in own for code in r["compared"]):
            found += [{"case": case, **_of(size, seeds, own, losses, judges)} for size in range(1, len(seeds) + 1)]
    return found


def _of(
    size: int, seeds: Sequence[int], searched: Sequence[Row], losses: dict[tuple[int, str], float], judges: dict[float, Judge]
) -> dict[str, Any]:
    """All sets of ``size`` of the ``seeds`` of one case."""
    lists = {
        (row["share"], row["seed"]): {c: Accuracy(hits, row["selection_images"], x) for c, (hits, x) in row["compared"].items()}
        for row in searched
    }

    def chosen(share: float, team: Sequence[int]) -> str:
        pool = liked([lists[share, seed] for seed in team], judges[share].problem.oracle.canonical)
        return min(pool, key=lambda code: np.mean([losses[seed, code] for seed in team]))

    teams = list(itertools.combinations(seeds, size))
    by_target = {str(h): float(np.mean([j.regret(chosen(h, team)) for team in teams])) for h, j in judges.items()}
    return {"supernets": size, "sets": len(teams), "by_target": by_target, "mean": float(np.mean(list(by_target.values())))}
