"""What the searches of ``searches.py`` found, by the oracle: regret and rank, against searches that train every network.

Random search and evolution are given as many trainings as a search's CPU time pays for (and, apart, as its training images
do). They choose by a network's first training and are scored, as all are, by its others; the reference best is chosen and
scored on different trainings. So nothing is measured by what it was chosen by.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.oracle.results import Results
from benchmarks.oracle.stages import IMAGES, code_of, genotypes
from benchmarks.study.ideal import Problem
from benchmarks.study.inference import holm, interval, paired, reference
from dnas.errors import RunError
from dnas.latency import LatencyTable
from dnas.methods import evolution, random_search
from dnas.methods.selection import Outcome
from dnas.oracle import Oracle
from dnas.space import Space

BY_TRAINING: dict[str, Callable[..., Outcome]] = {"random search": random_search.search, "evolution": evolution.search}
DEFAULT = "gumbel"
Row = dict[str, Any]


def oracle_of(space: Space, results: Results, table: LatencyTable, target_ms: float) -> Oracle:
    """Trainings, of which all networks within the target have equally many; those of the others are not numbers.

    Errors: RunError where a network within the target has fewer than two.
    """
    hits, codes = results.by_code(), [code_of(g) for g in genotypes(space)]
    within = Oracle("", space, np.zeros((len(codes), 1))).costs(table) <= target_ms
    counts = [len(hits.get(c, [])) for c in itertools.compress(codes, within)]
    if min(counts) < 2:
        raise RunError(
            f"{sum(n >= 2 for n in counts)} of the {len(counts)} networks within {target_ms:.4g} ms have two trainings; run: "
            f"python -m benchmarks.oracle train --seeds 2 --below-ms {target_ms * 1.0001:.6g}"
        )
    none = [np.nan] * min(counts)
    runs = [hits[c][: min(counts)] if inside else none for c, inside in zip(codes, within, strict=True)]
    return Oracle("fashion-mnist", space, np.array(runs) / (IMAGES / 100))


class Judge(NamedTuple):
    """One target: ``score`` f64[codes], mean accuracy in percent of the trainings after the first; ``best``: the reference."""

    problem: Problem
    score: np.ndarray
    best: float
    naive: float

    @classmethod
    def of(cls, oracle: Oracle, table: LatencyTable, share: float) -> Judge:
        problem = Problem.of(oracle, table, share)
        scored = oracle.runs[:, 1:]
        best = reference(scored, problem.costs <= problem.target_ms)
        return cls(problem, scored.mean(1), best.accuracy, best.naive)

    def regret(self, code: str) -> float:
        """Percentage points behind the reference; below 0 where a network's trainings were better than its."""
        return self.best - float(self.score[self.problem.oracle._index(code)])

    def rank(self, code: str) -> int:
        """1 for the best network within the target."""
        own = self.score[self.problem.oracle._index(code)]
        return 1 + int((self.score[self.problem.costs <= self.problem.target_ms] > own).sum())

    def within(self, code: str) -> bool:
        return bool(self.problem.costs[self.problem.oracle._index(code)] <= self.problem.target_ms * (1 + 1e-9))

    def by_training(self, name: str, tries: int, seed: int) -> list[str]:
        """Code of the best network so far after each of ``tries`` trainings."""
        oracle = self.problem.oracle
        outcome = BY_TRAINING[name](
            oracle.space, lambda g: float(oracle.runs[oracle._place(g), 0]), self.problem.terms,
            target_ms=self.problem.target_ms, budget=tries, seed=seed,
        )  # fmt: skip
        values = np.array([one.value for one in outcome.evaluated])
        return [code_of(outcome.evaluated[values[: i + 1].argmax()].genotype) for i in range(len(values))]


def regrets(rows: Sequence[Row], judges: dict[float, Judge]) -> dict[str, dict[tuple[float, int], float]]:
    """Case -> (share, seed) -> regret of the network that was found."""
    found: dict[str, dict[tuple[float, int], float]] = defaultdict(dict)
    for row in rows:
        found[row["case"]][row["share"], row["seed"]] = judges[row["share"]].regret(row["code"])
    return dict(found)


def equal_cost(rows: Sequence[Row], judges: dict[float, Judge], case: str, unit: str, each: float) -> dict[str, Any]:
    """Regrets of the searches that train, for the searches of ``case``: as many trainings as its ``unit`` ("cpu_s",
    "images"; a training takes ``each``) pays for, the same seeds and targets."""
    found: dict[str, Any] = {}
    for name in BY_TRAINING:
        own: dict[tuple[float, int], float] = {}
        for row in (r for r in rows if r["case"] == case):
            judge = judges[row["share"]]
            codes = judge.by_training(name, max(round(row[unit] / each), 1), row["seed"])
            own[row["share"], row["seed"]] = judge.regret(codes[-1])
        found[name] = own
    return found


def by_seed(values: dict[tuple[float, int], float], shares: Sequence[float]) -> dict[int, float]:
    """Mean over all targets of each seed that has them all: the unit of the analysis."""
    seeds = sorted({s for _, s in values})
    return {s: float(np.mean([values[h, s] for h in shares])) for s in seeds if all((h, s) in values for h in shares)}


def compare(default: dict[int, float], others: dict[str, dict[int, float]]) -> dict[str, dict[str, Any]]:
    """``default`` less each of ``others``, by the seeds that both have (two or more); p adjusted for their number."""
    found = {}
    for name, other in others.items():
        both = sorted(set(default) & set(other))
        if len(both) >= 2:
            found[name] = paired([default[s] for s in both], [other[s] for s in both])
    adjusted = holm({n: d.p for n, d in found.items()})
    return {n: {**d._asdict(), "p_holm": adjusted[n]} for n, d in found.items()}


def summary(values: dict[int, float]) -> dict[str, Any]:
    every = list(values.values())
    low, high = interval(every)
    return {"mean": float(np.mean(every)), "low": low, "high": high, "n": len(every)}


def judges_of(rows: Sequence[Row], space: Space, results: Results, table: LatencyTable) -> dict[float, Judge]:
    """By share, of those targets of ``rows`` whose networks are trained. Errors: RunError where there is none."""
    found, problems = dict[float, Judge](), []
    for share, target in sorted({(r["share"], r["target_ms"]) for r in rows}):
        try:
            found[share] = Judge.of(oracle_of(space, results, table, target), table, share)
        except RunError as problem:
            problems.append(problem)
    if not found:
        raise problems[0]
    return found


def judged(rows: Sequence[Row], judges: dict[float, Judge], each_cpu_s: float, each_images: int) -> dict[str, Any]:
    """All tables, over the targets of ``judges``. ``each_cpu_s``, ``each_images``: what one training takes.

    The CPU time of a search has the compilation of its programs in it, that of a training has not.
    """
    shares, rows = sorted(judges), [r for r in rows if r["share"] in judges]
    compile_s = {c: max(r["compile_s"] or 0.0 for r in rows if r["case"] == c) for c in {r["case"] for r in rows}}
    rows = [{**r, "cpu_s": r["cpu_s"] + compile_s.get(r["case"], 0.0)} for r in rows]
    of_case = {c: by_seed(v, shares) for c, v in regrets(rows, judges).items()}
    equal: dict[str, dict[int, float]] = {}
    for unit, each in (("cpu_s", each_cpu_s), ("images", each_images)):
        for name, values in equal_cost(rows, judges, DEFAULT, unit, each).items():
            equal[f"{name}, equal {'CPU time' if unit == 'cpu_s' else 'training images'}"] = by_seed(values, shares)
    every = {n: v for n, v in {**of_case, **equal}.items() if v}
    others = {n: v for n, v in every.items() if n != DEFAULT}
    searches = [{**r, "regret": judges[r["share"]].regret(r["code"]), "rank": judges[r["share"]].rank(r["code"])} for r in rows]
    return {
        "targets": [
            {"share": s, "target_ms": j.problem.target_ms, "best": j.best, "best_naive": j.naive,
             "trainings": j.problem.oracle.runs.shape[1],
             "networks": int((j.problem.costs <= j.problem.target_ms).sum())} for s, j in judges.items()
        ],
        "regret": {n: summary(v) for n, v in every.items()},
        "against_default": compare(every.get(DEFAULT, {}), others),
        "anytime": anytime(rows, judges, each_cpu_s, compile_s),
        "gap": {c: gap([r for r in rows if r["case"] == c]) for c in of_case},
        "searches": [{k: v for k, v in r.items() if k != "path"} for r in searches],
    }  # fmt: skip


def anytime(rows: Sequence[Row], judges: dict[float, Judge], each_cpu_s: float, compile_s: dict[str, float]) -> dict[str, Any]:
    """Case -> CPU seconds, and mean regret of what would be found if it stopped there: of searches after each epoch, their
    programs' compilation included; of those that train, after each training."""
    found: dict[str, Any] = {}
    for case in dict.fromkeys(r["case"] for r in rows):
        own = [r for r in rows if r["case"] == case and r["path"]]
        if own:
            steps = min(len(r["path"]) for r in own)
            cpu = [float(np.mean([r["path"][i][0] for r in own])) + compile_s.get(case, 0.0) for i in range(steps)]
            regret = [float(np.mean([judges[r["share"]].regret(r["path"][i][2]) for r in own])) for i in range(steps)]
            found[case] = {"trains": False, "cpu_s": cpu, "regret": regret}
    places = sorted({(r["share"], r["seed"]) for r in rows})
    longest = max((c["cpu_s"][-1] for c in found.values()), default=0.0)
    for name in BY_TRAINING:
        tries = max(round(longest / each_cpu_s), 1)
        codes = [judges[h].by_training(name, tries, seed) for h, seed in places]
        each = [
            [judges[h].regret(c[min(i, len(c) - 1)]) for i in range(tries)] for (h, _), c in zip(places, codes, strict=True)
        ]
        found[name] = {
            "trains": True, "cpu_s": [(i + 1) * each_cpu_s for i in range(tries)], "regret": np.mean(each, axis=0).tolist()
        }  # fmt: skip
    return found


def gap(rows: Sequence[Row]) -> dict[str, float] | None:
    """Mixture's accuracy on unseen images less that of the network it became, in percentage points: mean and n."""
    gaps = [100 * (r["mixture"] - r["inherited"]) for r in rows if r["mixture"] is not None]
    sd = float(np.std(gaps, ddof=1)) if len(gaps) > 1 else 0.0
    return {"mean": float(np.mean(gaps)), "sd": sd, "n": len(gaps)} if gaps else None
