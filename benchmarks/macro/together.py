"""What the supernets of several seeds choose together, by the rule of ``dnas.search.together``.

Over all sets of so many seeds, where all have measured all networks; and over disjoint teams of seeds, independent of one
another, which need to measure no more than a search of several seeds does.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.macro.searches import folder_of
from benchmarks.study.inference import paired
from benchmarks.study.verdict import Judge, Row
from dnas.evaluate import Accuracy
from dnas.oracle import Oracle
from dnas.search.together import liked

Losses = Mapping[tuple[int, str], float]  # (seed, code) -> with that supernet
Lists = Mapping[tuple[float, int], Mapping[str, Accuracy]]  # (share, seed) -> what that search compared


def compared(searched: Sequence[Row], runs: Path, seeds: int, case: str) -> list[str]:
    """Codes that any of the first ``seeds`` compared, of those whose supernet is in ``runs``."""
    own = (r for r in searched if r["case"] == case and r["seed"] < seeds and folder_of(runs, case, r["seed"]).is_dir())
    return list(dict.fromkeys(code for row in own for code in row["compared"]))


def put_up(searched: Sequence[Row], oracle: Oracle, size: int, seeds: int, case: str, seed: int) -> list[str]:
    """Codes that the team of ``seed`` likes, for all targets; none where it is not wholly among the first ``seeds``."""
    lists = _lists(searched, case)
    team = next((t for t in disjoint({s for _, s in lists if s < seeds}, size) if seed in t), None)
    shares = sorted({h for h, _ in lists})
    return list(dict.fromkeys(c for h in shares for c in _pool(lists, h, team, oracle))) if team else []


def disjoint(seeds: set[int], size: int) -> list[tuple[int, ...]]:
    """Teams of ``size`` seeds that follow each other: 0, 1, 2; then 3, 4, 5; those of which any is not there are left out."""
    teams = (tuple(range(first, first + size)) for first in range(0, max(seeds, default=-1) + 1, size))
    return [team for team in teams if seeds.issuperset(team)]


def choices(rows: Sequence[Row], searched: Sequence[Row], judges: dict[float, Judge]) -> list[dict[str, Any]]:
    """Per case and number of supernets: mean regret, over all sets of so many, of what they choose together: of the seeds, in
    order, that have measured all that all of them compared."""
    found = []
    for case, losses in _by_case(rows).items():
        lists, seeds = _lists(searched, case), list[int]()
        for seed in sorted({seed for seed, _ in losses}):
            both = [*seeds, seed]
            if all((s, c) in losses for s in both for (_, other), own in lists.items() if other in both for c in own):
                seeds = both
        for size in range(1, len(seeds) + 1):
            sets = list(itertools.combinations(seeds, size))
            each = {h: [_regret(h, one, lists, losses, j) for one in sets] for h, j in judges.items()}
            by_target = {str(h): float(np.mean(v)) for h, v in each.items()}
            mean = float(np.mean(list(by_target.values())))
            found.append({"case": case, "supernets": size, "sets": len(sets), "by_target": by_target, "mean": mean})
    return found


def of_teams(rows: Sequence[Row], searched: Sequence[Row], judges: dict[float, Judge], size: int) -> list[dict[str, Any]]:
    """Per case: regret, mean over targets, of what each disjoint team of ``size`` chooses that has measured what it put up; of
    its members alone; and the difference (of five teams p is 0.06 or more)."""
    found = []
    for case, losses in _by_case(rows).items():
        lists = _lists(searched, case)
        teams = [
            team for team in disjoint({s for _, s in lists}, size)
            if all((s, c) in losses for h, j in judges.items() for c in _pool(lists, h, team, j.problem.oracle) for s in team)
        ]  # fmt: skip
        if not teams:
            continue
        each = [float(np.mean([_regret(h, team, lists, losses, j) for h, j in judges.items()])) for team in teams]
        own = {(h, s): min(v, key=lambda c: v[c].loss) for (h, s), v in lists.items()}
        alone = [float(np.mean([j.regret(own[h, s]) for h, j in judges.items() for s in team])) for team in teams]
        against = paired(each, alone)._asdict() if len(teams) > 1 else None
        found.append({
            "case": case, "supernets": size, "teams": [list(t) for t in teams], "each": each, "mean": float(np.mean(each)),
            "alone_each": alone, "alone": float(np.mean(alone)), "less_alone": against,
        })  # fmt: skip
    return found


def _by_case(rows: Sequence[Row]) -> dict[str, Losses]:
    return {
        c: {(r["seed"], r["code"]): r["loss"] for r in rows if r["case"] == c} for c in dict.fromkeys(r["case"] for r in rows)
    }


def _lists(searched: Sequence[Row], case: str) -> Lists:
    """Of the seeds that have all targets."""
    shares = {r["share"] for r in searched}
    has = {(r["share"], r["seed"]) for r in searched if r["case"] == case}
    return {
        (row["share"], row["seed"]): {c: Accuracy(hits, row["selection_images"], x) for c, (hits, x) in row["compared"].items()}
        for row in searched if row["case"] == case and all((h, row["seed"]) in has for h in shares)
    }  # fmt: skip


def _pool(lists: Lists, share: float, team: Sequence[int], oracle: Oracle) -> list[str]:
    return liked([lists[share, seed] for seed in team], oracle.canonical)


def _regret(share: float, team: Sequence[int], lists: Lists, losses: Losses, judge: Judge) -> float:
    """Of the network that ``team`` chooses."""
    pool = _pool(lists, share, team, judge.problem.oracle)
    return judge.regret(min(pool, key=lambda code: np.mean([losses[seed, code] for seed in team])))
