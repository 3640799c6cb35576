"""What the searches of ``searches.py`` found, by NAS-Bench-Macro: regret, rank, and how many trainings a search is worth.

One training of the benchmark is 50 epochs of 50,000 images; a search here sees a few per cent of that, so at equal training
images random search has none, and draws one network of its band. Random search, evolution and search by a predictor are also
given up to 32 trainings. These choose by a network's first training; everything is scored by the other two
(``benchmarks.study.verdict.Judge``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from benchmarks.macro.searches import CASES
from benchmarks.study import controls
from benchmarks.study.verdict import (
    BY_ACCURACY,
    BY_TRAINING,
    DEFAULT,
    Judge,
    Row,
    by_accuracy,
    by_seed,
    compare,
    gap,
    mean_of,
    regrets,
    said,
    summary,
    timed,
    warm_up,
)
from dnas.oracle import Oracle

TRAINING_IMAGES = 50 * 50_000
TRIES = (1, 4, 8, 16, 32)  # trainings
DRAWS = 100  # seeds of what costs nothing here


def judged(rows: Sequence[Row], judges: dict[float, Judge], draws: int = DRAWS, also: Sequence[Row] = ()) -> dict[str, Any]:
    """All tables, over the targets of ``judges``; cases that lack a target are left out of what is a mean over all. ``also``:
    rows of searches with what other rules choose."""
    shares, run = sorted(judges), list(dict.fromkeys(r["case"] for r in rows))
    searched, rows = rows, [*rows, *also, *by_accuracy(rows)]
    every_case = regrets(rows, judges)
    found = {c: every_case[c] for c in [*CASES, *every_case] if c in every_case}
    base = baselines(judges, draws)
    means = {n: {s: float(np.mean(v)) for s, v in per.items()} for n, per in base.items()}
    of_case = {c: v for c, each in found.items() if (v := by_seed(each, shares))}
    every = {n: float(np.mean([per[s] for s in shares])) for n, per in means.items()}
    return {
        "targets": [
            {"share": s, "target_ms": j.problem.target_ms, "best": j.best, "best_naive": j.naive,
             "networks": len(distinct(j))} for s, j in judges.items()
        ],
        "regret": {
            c: {"by_target": by_target(v), **({"all": known(of_case[c])} if c in of_case else {})} for c, v in found.items()
        },
        "baselines": {
            n: {"all": every[n], "by_target": {str(s): means[n][s] for s in shares},
                "low": float(np.mean([np.quantile(per[s], 0.1) for s in shares])),
                "high": float(np.mean([np.quantile(per[s], 0.9) for s in shares])), "n": len(per[shares[0]])}
            for n, per in base.items()
        },
        "default_against": against(of_case.get(DEFAULT, {}), of_case, every),
        "worth": {c: worth(v, every) for c, v in of_case.items()},
        "cost": {c: cost([r for r in searched if r["case"] == c]) for c in run},
        "gap": {c: gap([r for r in searched if r["case"] == c]) for c in run},
        "anytime": {c: path for c in run if (path := anytime([r for r in searched if r["case"] == c], judges))},
        "shortlists": shortlists(searched, judges),
        "searches": [
            {**{k: r[k] for k in ("case", "share", "seed", "code", "argmax", "ms", "inherited", "mixture", "entropy")},
             "regret": judges[r["share"]].regret(r["code"]), "rank": judges[r["share"]].rank(r["code"]),
             "argmax_within": judges[r["share"]].within(r["argmax"])} for r in rows
        ],
    }  # fmt: skip


def shortlists(rows: Sequence[Row], judges: dict[float, Judge]) -> list[dict[str, Any]]:
    """Of each search that says what the two or more networks it compared had: regret of the likeliest and of the best of them,
    and tau-b between their regret and what they are compared by."""
    found = []
    for row in (r for r in rows if len(r.get("compared", ())) > 1 and r["path"]):
        regret = [judges[row["share"]].regret(c) for c in row["compared"]]
        hits, loss = zip(*row["compared"].values(), strict=True)
        found.append({
            **{k: row[k] for k in ("case", "share", "seed")}, "likeliest": regret[0], "best": min(regret),
            "tau_by_loss": float(kendalltau(loss, regret)[0]), "tau_by_accuracy": float(-kendalltau(hits, regret)[0]),
        })  # fmt: skip
    return found


def distinct(judge: Judge) -> set[str]:
    """The different networks within the target."""
    problem = judge.problem
    return {problem.oracle.canonical(problem.oracle.codes[i]) for i in np.flatnonzero(problem.costs <= problem.target_ms)}


def known(values: dict[int, float]) -> dict[str, Any]:
    """Mean over seeds, its interval (None where one seed has none) and their number."""
    return {k: v if np.isfinite(v) else None for k, v in summary(values).items()}


def by_target(values: dict[tuple[float, int], float]) -> dict[str, dict[str, Any]]:
    """Mean over seeds, its interval and their number, by share."""
    return {str(h): known({s: v for (at, s), v in values.items() if at == h}) for h in sorted({at for at, _ in values})}


def baselines(judges: dict[float, Judge], draws: int) -> dict[str, dict[float, list[float]]]:
    """Regrets of what needs no supernet, by name and target: one for each of ``draws`` seeds, or one in all."""
    found: dict[str, dict[float, list[float]]] = {}
    for share, judge in judges.items():
        problem = judge.problem
        scored = problem._replace(oracle=Oracle(problem.oracle.name, problem.oracle.space, problem.oracle.runs[:, 1:]))
        above = judge.best - scored.best  # the controls' regret is against the best of means, which is inflated
        of_controls = {
            "most MACs": [controls.most_macs(scored)], "best uniform op": [controls.uniform_op(scored)],
            "best of depth alone": [controls.depth_only(scored)], "random theta": controls.random_theta(scored, draws).tolist(),
        }  # fmt: skip
        for name, each in of_controls.items():
            found.setdefault(name, {})[share] = [r + above for r in each]
        for name in BY_TRAINING:
            for tries, each in _after_trainings(judge, name, draws).items():
                found.setdefault(f"{name}, {tries}", {})[share] = each
    return found


def _after_trainings(judge: Judge, name: str, draws: int) -> dict[int, list[float]]:
    """Regrets after each number of ``TRIES``, one for each of ``draws`` seeds; after one training all are random search."""
    if name == "evolution":  # whose population depends on how many there are
        return {n: [judge.regret(judge.by_training(name, n, s)[-1]) for s in range(draws)] for n in TRIES[1:]}
    paths = [[judge.regret(c) for c in judge.by_training(name, TRIES[-1], s)] for s in range(draws)]
    return {n: [p[min(n, len(p)) - 1] for p in paths] for n in TRIES[name != "random search" :]}


def against(default: dict[int, float], cases: dict[str, dict[int, float]], every: dict[str, float]) -> dict[str, Any]:
    """The default's regret less that of the other cases (paired by seed) and of the baselines (whose mean is known, so that
    the seeds of the search are all the chance there is); p adjusted for their number."""
    others = {c: v for c, v in cases.items() if c != DEFAULT} | {n: dict.fromkeys(default, m) for n, m in every.items()}
    return compare(default, others)


def worth(values: dict[int, float], every: dict[str, float]) -> str:
    """Between which numbers of trainings random search has the mean regret of ``values``."""
    mean = float(np.mean(list(values.values())))
    better = [t for t in TRIES if every[f"random search, {t}"] <= mean]
    if not better:
        return f"more than {TRIES[-1]}"
    place = TRIES.index(better[0])
    return f"{TRIES[place - 1]} to {better[0]}" if place else "at most 1"


def cost(rows: Sequence[Row]) -> dict[str, Any]:
    """Of one search alone (its own architecture steps, and all weight steps), and as a share of one training of the truth.
    Seconds are of ``timed`` rows."""
    clocked = timed(rows)
    images, networks = (float(np.mean([r[k] for r in rows])) for k in ("images", "networks"))
    every, shared = (float(np.mean([r[k] for r in clocked])) if clocked else None for k in ("cpu_s", "shared_cpu_s"))
    return {
        "images": images, "of_a_training": images / TRAINING_IMAGES, "networks_compared": networks, "cpu_s_all_targets": every,
        "cpu_s_supernet": shared,
    }  # fmt: skip


def anytime(rows: Sequence[Row], judges: dict[float, Judge]) -> dict[str, Any]:
    """Training images after each epoch with architecture steps, and regret of what would be derived there by the logits alone:
    mean over targets, for each seed that has them all."""
    own = [r for r in rows if r["path"]]
    seeds = [s for s in sorted({r["seed"] for r in own}) if {r["share"] for r in own if r["seed"] == s} == set(judges)]
    if not seeds:
        return {}
    first = warm_up(CASES[own[0]["case"].partition(BY_ACCURACY)[0]].options, own[0]["epochs"])
    each = [
        np.mean([[judges[r["share"]].regret(c) for _, c in r["path"][first:]] for r in own if r["seed"] == s], axis=0).tolist()
        for s in seeds
    ]
    return {"images": [n for n, _ in own[0]["path"][first:]], "regret": each}


def table(body: dict[str, Any]) -> str:
    """The regrets as a Markdown table: means over seeds by target, and over all targets with their interval; the default less
    each, where they share two seeds or more."""
    heads = [f"{t['target_ms']:.2f} ms, best {t['best']:.2f} %" for t in body["targets"]]
    columns = ["regret in points", "n", *heads, "mean (95 % interval)", "default less this, p (Holm)"]
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    shares = [str(t["share"]) for t in body["targets"]]
    for case, found in body["regret"].items():
        every = found.get("all", {})
        means = [f"{found['by_target'][s]['mean']:.2f}" if s in found["by_target"] else "" for s in shares]
        whole, less = mean_of(every) if every else "", said(body["default_against"].get(case))
        lines.append(f"| **{case}** | {every.get('n', '')} | {' | '.join(means)} | {whole} | {less} |")
    for name, found in body["baselines"].items():
        means = [f"{found['by_target'][s]:.2f}" for s in shares]
        less = said(body["default_against"].get(name))
        lines.append(f"| {name} | {found['n']} | {' | '.join(means)} | {found['all']:.2f} | {less} |")
    return "\n".join(lines)
