"""What the searches of ``searches.py`` found, by the oracle: regret and rank, against searches that train every network.

Random search and evolution are given as many trainings as a search's CPU time pays for (and, apart, as its training images
do). They choose by one training of each network and are scored by its others, every training choosing in turn; so is the
reference best. Searches with a supernet have seen none of them, and are scored by all. So nothing is measured by what it was
chosen by.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.oracle.results import Results
from benchmarks.oracle.stages import IMAGES, code_of, genotypes
from benchmarks.study import controls
from benchmarks.study.ideal import Problem
from benchmarks.study.inference import holm, interval, paired, reference
from benchmarks.study.searches import CASES
from dnas.config import SearchConfig, warm_up_epochs, with_recipe
from dnas.errors import RunError
from dnas.latency import LatencyTable
from dnas.methods import evolution, predictor, random_search
from dnas.methods.selection import Outcome
from dnas.oracle import Oracle
from dnas.plot.ranking import RankingInfo, info
from dnas.space import Space

BY_TRAINING: dict[str, Callable[..., Outcome]] = {
    "random search": random_search.search, "evolution": evolution.search, "predictor": predictor.search,
}  # fmt: skip
DEFAULT = "gumbel"
BY_ACCURACY = ", compared by accuracy"
SAID = 5  # seeds without which a table states no interval: a bootstrap of fewer says too little
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
    """One target. ``score``: f64[codes], mean accuracy in percent of the trainings after the first, or of all (``crossed``).
    ``best``: that of the reference, chosen and scored by different ones of these; ``naive``: by the same."""

    problem: Problem
    score: np.ndarray
    best: float
    naive: float

    @classmethod
    def of(cls, oracle: Oracle, table: LatencyTable, share: float, crossed: bool = False) -> Judge:
        """``crossed``: every training chooses in turn, for ``regrets_by_training``; otherwise the first one chooses."""
        problem = Problem.of(oracle, table, share)
        scored = oracle.runs if crossed else oracle.runs[:, 1:]
        best = reference(scored, problem.costs <= problem.target_ms)
        return cls(problem, scored.mean(1), best.accuracy, best.naive)

    def regret(self, code: str, chosen_by: int | None = None) -> float:
        """Percentage points behind the reference; below 0 where a network's trainings were better than its. ``chosen_by``: of
        ``crossed``, a training that is left out."""
        index = self.problem.oracle._index(code)
        own = self.score[index] if chosen_by is None else np.delete(self.problem.oracle.runs[index], chosen_by).mean()
        return self.best - float(own)

    def rank(self, code: str) -> int:
        """1 for the best network within the target."""
        own = self.score[self.problem.oracle._index(code)]
        return 1 + int((self.score[self.problem.costs <= self.problem.target_ms] > own).sum())

    def within(self, code: str) -> bool:
        return bool(self.problem.costs[self.problem.oracle._index(code)] <= self.problem.target_ms * (1 + 1e-9))

    def by_training(self, name: str, tries: int, seed: int, by: int = 0) -> list[str]:
        """Code of the best network so far after each of ``tries`` trainings, by the training ``by`` of each."""
        oracle = self.problem.oracle
        outcome = BY_TRAINING[name](
            oracle.space, lambda g: float(oracle.runs[oracle._place(g), by]), self.problem.terms,
            target_ms=self.problem.target_ms, budget=tries, seed=seed,
        )  # fmt: skip
        values = np.array([one.value for one in outcome.evaluated])
        return [code_of(outcome.evaluated[values[: i + 1].argmax()].genotype) for i in range(len(values))]

    def regrets_by_training(self, name: str, tries: int, seed: int) -> np.ndarray:
        """f64[tries]: regret after each training, mean over the trainings that chose; the last one's from where all networks of
        the band are tried."""
        found = []
        for by in range(self.problem.oracle.runs.shape[1]):
            path = [self.regret(c, by) for c in self.by_training(name, tries, seed, by)]
            found.append(path + path[-1:] * (tries - len(path)))
        return np.mean(found, axis=0)


def regrets(rows: Sequence[Row], judges: dict[float, Judge]) -> dict[str, dict[tuple[float, int], float]]:
    """Case -> (share, seed) -> regret of the network that was found."""
    found: dict[str, dict[tuple[float, int], float]] = defaultdict(dict)
    for row in rows:
        found[row["case"]][row["share"], row["seed"]] = judges[row["share"]].regret(row["code"])
    return dict(found)


def equal_cost(
    rows: Sequence[Row], judges: dict[float, Judge], case: str, unit: str, each: float, first: float = 0.0
) -> dict[str, Any]:
    """Regrets of the searches that train, for the searches of ``case``: as many trainings as its ``unit`` ("cpu_s",
    "images"; a training takes ``each``, and ``first`` is spent before) pays for, the same seeds and targets."""
    found: dict[str, Any] = {}
    for name in BY_TRAINING:
        own: dict[tuple[float, int], float] = {}
        for row in (r for r in rows if r["case"] == case):
            tries = max(round((row[unit] - first) / each), 1)
            own[row["share"], row["seed"]] = judges[row["share"]].regrets_by_training(name, tries, row["seed"])[-1]
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


def said(found: dict[str, Any] | None) -> str:
    """A difference that ``compare`` found, for a table: mean, interval, p and Holm's p; of few seeds the mean alone."""
    if not found:
        return ""
    if found["n"] < SAID:
        return f"{found['mean']:+.2f}"
    return f"{found['mean']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f}), {found['p']:.2g} ({found['p_holm']:.2g})"


def mean_of(found: dict[str, Any]) -> str:
    """A mean with its interval, for a table; of few seeds the mean alone."""
    return f"{found['mean']:.2f}" + ("" if found["n"] < SAID else f" ({found['low']:.2f} to {found['high']:.2f})")


def judges_of(rows: Sequence[Row], space: Space, results: Results, table: LatencyTable) -> dict[float, Judge]:
    """By share, of those targets of ``rows`` whose networks are trained. Errors: RunError where there is none."""
    found, problems = dict[float, Judge](), []
    for share, target in sorted({(r["share"], r["target_ms"]) for r in rows}):
        try:
            found[share] = Judge.of(oracle_of(space, results, table, target), table, share, crossed=True)
        except RunError as problem:
            problems.append(problem)
    if not found:
        raise problems[0]
    return found


class Cost(NamedTuple):
    """Of one training: CPU seconds, images; and the CPU seconds of compiling its program, once for all networks."""

    cpu_s: float
    images: int
    compile_s: float


def timed(rows: Sequence[Row]) -> list[Row]:
    """Those whose CPU seconds count: not from a host that was slower than the others', of which ``timed`` is false."""
    return [r for r in rows if r.get("timed", True)]


def judged(rows: Sequence[Row], judges: dict[float, Judge], each: Cost) -> dict[str, Any]:
    """All tables, over the targets of ``judges``. CPU time has compilation in it, of searches and of trainings; it is that of
    ``timed`` rows."""
    shares, rows = sorted(judges), [r for r in rows if r["share"] in judges]
    compile_s: dict[str, float] = defaultdict(float)
    for row in timed(rows):
        compile_s[row["case"]] = max(compile_s[row["case"]], row["compile_s"] or 0.0)
    rows = [{**r, "cpu_s": r["cpu_s"] + compile_s[r["case"]]} for r in rows]
    of_case = {c: by_seed(v, shares) for c, v in regrets([*rows, *by_accuracy(rows)], judges).items()}
    rules = {f"{DEFAULT}, {rule}": by_seed(v, shares) for rule, v in other_rules(rows, judges).items()}
    of_case = {n: v for n, v in rules.items() if v != of_case.get(DEFAULT)} | of_case
    equal: dict[str, dict[int, float]] = {}
    for unit, own, per, first in (("cpu_s", timed(rows), each.cpu_s, each.compile_s), ("images", rows, each.images, 0.0)):
        for name, values in equal_cost(own, judges, DEFAULT, unit, per, first).items():
            equal[f"{name}, equal {'CPU time' if unit == 'cpu_s' else 'training images'}"] = by_seed(values, shares)
    every = {n: v for n, v in {**of_case, **equal}.items() if v}
    others = {n: v for n, v in every.items() if n != DEFAULT}
    searches = [{**r, "regret": judges[r["share"]].regret(r["code"]), "rank": judges[r["share"]].rank(r["code"])} for r in rows]
    return {
        "targets": [
            {"share": s, "target_ms": j.problem.target_ms, "best": j.best, "best_naive": j.naive,
             "trainings": j.problem.oracle.runs.shape[1],
             "networks": int((j.problem.costs <= j.problem.target_ms).sum()), "controls": free(j)} for s, j in judges.items()
        ],
        "regret": {n: summary(v) for n, v in every.items()},
        "against_default": compare(every.get(DEFAULT, {}), others),
        "anytime": anytime(timed(rows), judges, each, compile_s),
        "gap": {c: gap([r for r in rows if r["case"] == c]) for c in regrets(rows, judges)},
        "ranking": ranking(rows, judges),
        "searches": [{k: v for k, v in r.items() if k not in ("path", "ranked", "compared")} for r in searches],
    }  # fmt: skip


def by_accuracy(rows: Sequence[Row]) -> list[Row]:
    """What would have been found if networks were compared by accuracy: of the default's searches."""
    found = []
    for row in (r for r in rows if r["case"] == DEFAULT and r.get("compared")):
        compared = row["compared"]
        code = max(compared, key=lambda c: (compared[c][0], -compared[c][1]))
        found.append({**row, "case": row["case"] + BY_ACCURACY, "code": code, "inherited": None})
    return found


def other_rules(rows: Sequence[Row], judges: dict[float, Judge]) -> dict[str, dict[tuple[float, int], float]]:
    """Rule of derivation -> (share, seed) -> regret of what the default's searches would have ended with by it."""
    found: dict[str, dict[tuple[float, int], float]] = defaultdict(dict)
    for row in (r for r in rows if r["case"] == DEFAULT):
        for rule, code in row.get("other_rules", {}).items():
            found[rule][row["share"], row["seed"]] = judges[row["share"]].regret(code)
    return dict(found)


def free(judge: Judge, seeds: int = 20) -> dict[str, float]:
    """Regrets of the controls that cost nothing; of random theta the mean of ``seeds``."""
    inflated = judge.naive - judge.best  # what the controls' own reference has too much
    return {
        "most MACs": controls.most_macs(judge.problem) - inflated,
        "best uniform op": controls.uniform_op(judge.problem) - inflated,
        "best of depth alone": controls.depth_only(judge.problem) - inflated,
        "random theta": float(controls.random_theta(judge.problem, seeds).mean()) - inflated,
    }


def ranking(rows: Sequence[Row], judges: dict[float, Judge]) -> dict[str, Any]:
    """Case -> Kendall's tau-b between losses (and accuracies) with supernets' weights and the oracle's accuracies, in bands of
    10 %: means over the supernets that have measured all networks."""
    found = {}
    for case in dict.fromkeys(r["case"] for r in rows if r.get("ranked")):
        own = [r for r in rows if r["case"] == case and r.get("ranked")]
        problem, codes = judges[own[0]["share"]].problem, list(own[0]["ranked"])
        index = np.array([problem.oracle._index(c) for c in codes])
        trained = np.isfinite(problem.oracle.runs[index]).all(1)
        kept = index[trained]

        def of(proxy: np.ndarray, kept: np.ndarray = kept, problem: Problem = problem) -> RankingInfo:
            return info(proxy.tolist(), problem.oracle.runs[kept], problem.costs[kept].tolist())

        measured = [np.array([r["ranked"][c] for c in codes])[trained] for r in own]
        by_accuracy, by_loss = [of(m[:, 0]) for m in measured], [of(-m[:, 1]) for m in measured]
        macs = of(problem.oracle.costs("macs")[kept])
        found[case] = {
            "supernets": len(own), "tau_in_bands": float(np.mean([i.tau for i in by_loss])),
            "tau_in_bands_each": [i.tau for i in by_loss],
            "tau_in_bands_by_accuracy": float(np.mean([i.tau for i in by_accuracy])), "ceiling_between_seeds": macs.ceiling,
            "tau_of_all": float(np.mean([i.global_tau for i in by_loss])), "networks": len(kept), "bands": len(macs.bands),
            "tau_in_bands_of_macs": macs.tau, "tau_of_all_of_macs": macs.global_tau,
        }  # fmt: skip
    return found


def warm_up(options: dict[str, Any], epochs: int) -> int:
    """Epochs after which equal logits choose nothing yet."""
    return warm_up_epochs(with_recipe(SearchConfig(lut="samsung_s8", target_ms=1.0, epochs=epochs, **options)))


def anytime(rows: Sequence[Row], judges: dict[float, Judge], each: Cost, compile_s: dict[str, float]) -> dict[str, Any]:
    """Case -> CPU seconds, and mean regret of what would be found if it stopped there, compilation included: of searches after
    each epoch with architecture steps (by the logits alone), and of their ``choice``; of those that train, after each one."""
    found: dict[str, Any] = {}
    for case in dict.fromkeys(r["case"] for r in rows):
        own = [r for r in rows if r["case"] == case]
        steps, spent = min(len(r["path"]) for r in own), compile_s.get(case, 0.0)
        first = warm_up(CASES[case], steps) if steps else 0
        cpu = [float(np.mean([r["path"][i][0] for r in own])) + spent for i in range(first, steps)]
        regret = [float(np.mean([judges[r["share"]].regret(r["path"][i][2]) for r in own])) for i in range(first, steps)]
        choice = float(np.mean([r["cpu_s"] for r in own])), float(np.mean([judges[r["share"]].regret(r["code"]) for r in own]))
        found[case] = {"trains": False, "cpu_s": cpu, "regret": regret, "choice": choice}
    places = sorted({(r["share"], r["seed"]) for r in rows})
    longest = max(c["choice"][0] for c in found.values())
    tries = max(round((longest - each.compile_s) / each.cpu_s), 1)
    for name in BY_TRAINING:
        regret = np.mean([judges[h].regrets_by_training(name, tries, seed) for h, seed in places], axis=0).tolist()
        cpu = [each.compile_s + (i + 1) * each.cpu_s for i in range(tries)]
        found[name] = {"trains": True, "cpu_s": cpu, "regret": regret}
    return found


def gap(rows: Sequence[Row]) -> dict[str, float] | None:
    """Mixture's accuracy on theta's images less that of the network it became on selection images, in percentage points: mean
    and n. Where the weights know theta's images, the mixture is flattered."""
    gaps = [100 * (r["mixture"] - r["inherited"]) for r in rows if None not in (r["mixture"], r["inherited"])]
    sd = float(np.std(gaps, ddof=1)) if len(gaps) > 1 else 0.0
    return {"mean": float(np.mean(gaps)), "sd": sd, "n": len(gaps)} if gaps else None


def table(body: dict[str, Any]) -> str:
    """What ``judged`` found as a Markdown table: means by target and over all, the default less each, CPU seconds. Controls
    that cost nothing come last."""
    targets = body["targets"]
    heads = [f"{1000 * t['target_ms']:.2f} us, best {t['best']:.1f} %" for t in targets]
    columns = ["regret in points", "n", *heads, "mean (95 % interval)", "default less this, p (Holm)", "CPU s"]
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for name, every in sorted(body["regret"].items(), key=lambda one: one[0] != DEFAULT):
        own = [[r["regret"] for r in body["searches"] if (r["case"], r["share"]) == (name, t["share"])] for t in targets]
        means = [f"{np.mean(v):.2f}" if v else "" for v in own]
        spent = f"{body['anytime'][name]['choice'][0]:.0f}" if name in body["gap"] and name in body["anytime"] else ""
        cells = [name, str(every["n"]), *means, mean_of(every), said(body["against_default"].get(name)), spent]
        lines.append(f"| {' | '.join(cells)} |")
    for name in targets[0]["controls"]:
        each = [t["controls"][name] for t in targets]
        lines.append(f"| {name} | | {' | '.join(f'{v:.2f}' for v in each)} | {np.mean(each):.2f} | | |")
    return "\n".join(lines)
