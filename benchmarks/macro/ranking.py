"""How well supernets rank: accuracy with inherited weights, BN recalibrated, of networks in bands of 10 % of latency."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.macro.searches import CASES, Case, Recipe, folder_of, setup_of
from benchmarks.rows import Rows
from benchmarks.study.verdict import Judge
from dnas.data import Dataset
from dnas.errors import ConfigError
from dnas.latency import LatencyTable
from dnas.oracle import Oracle
from dnas.plot.ranking import RankingInfo, info

KEY = ("case", "seed", "code")
BANDS, EACH, WIDTH = 10, 10, 1.1  # bands of latency, networks in each, and how wide each is
LEAST = 5  # networks of a case and seed without which no tau is said


def networks(oracle: Oracle, costs: np.ndarray, low: float) -> list[str]:
    """``EACH`` different networks of each of ``BANDS`` bands from ``low`` ms upwards, band by band in turn."""
    rng, place = np.random.default_rng(0), {c: i for i, c in enumerate(oracle.codes)}
    every = np.array([place[c] for c in oracle.networks])
    band = np.floor(np.log(costs[every] / low) / np.log(WIDTH))
    drawn = [rng.permutation(every[band == b])[:EACH] for b in range(BANDS)]
    return [oracle.codes[d[i]] for i in range(EACH) for d in drawn if i < len(d)]


def measure_all(
    cases: Sequence[str], seeds: int, codes: Sequence[str], rows: Rows, table: LatencyTable, data: Dataset, runs: Path,
    recipe: Recipe, shares: Sequence[float],
) -> None:  # fmt: skip
    """A row for each of ``codes`` that ``rows`` lacks, for every supernet in ``runs``; others are named and left out, as are
    cases that have not all networks."""
    from dnas.search import init
    from dnas.search.phase import measure
    from dnas.search.supernets import read

    for name in cases:
        if CASES[name].ops != Case({}).ops:
            print(name, "has not all of these networks", flush=True)
            continue
        for seed in range(seeds):
            missing = [c for c in codes if (name, seed, c) not in rows.done]
            if not missing:
                continue
            if not folder_of(runs, name, seed).is_dir():
                print(name, seed, "has no folder in --runs", flush=True)
                continue
            setup = setup_of(CASES[name], shares, seed, table, data, recipe).members[0]
            (params, stats), _ = read(str(folder_of(runs, name, seed)), setup.space)
            state = init(setup)._replace(params=params, stats=stats)
            for code in missing:
                found = measure(setup, state, tuple(map(int, code)))
                rows.add({"case": name, "seed": seed, "code": code, "hits": found.hits, "n": found.n, "loss": found.loss})
            print(name, seed, f"{len(missing)} networks", flush=True)


class Ranking(NamedTuple):
    """Of one proxy: by accuracy on so many ``images``, and, of supernets, by loss."""

    case: str
    seed: int | None
    networks: int
    images: int | None
    by_accuracy: RankingInfo
    by_loss: RankingInfo | None


def rankings(rows: Sequence[dict[str, Any]], oracle: Oracle, table: LatencyTable) -> list[Ranking]:
    """Of each supernet that has been measured wholly, and of MACs on the same networks. Errors: ConfigError for too few."""
    costs, macs, found = oracle.costs(table), oracle.costs("macs"), []
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["case"], row["seed"]), []).append(row)
    if not groups:
        raise ConfigError("no networks are measured with a supernet's weights; run: python -m benchmarks.macro rank")
    most = max(map(len, groups.values()))

    def judged(own: Sequence[dict[str, Any]], proxy: Sequence[float]) -> RankingInfo:
        at = np.array([oracle._index(r["code"]) for r in own])
        return info(proxy, oracle.runs[at], costs[at], WIDTH, LEAST)

    for (case, seed), own in sorted(groups.items(), key=lambda g: (list(CASES).index(g[0][0]), g[0][1])):
        if len(own) < most:  # it is still being measured
            continue
        by_accuracy, by_loss = judged(own, [r["hits"] for r in own]), judged(own, [-r["loss"] for r in own])
        found.append(Ranking(case, seed, len(own), own[0]["n"], by_accuracy, by_loss))
    largest = max(groups.values(), key=len)
    by_macs = judged(largest, [macs[oracle._index(r["code"])] for r in largest])
    found.append(Ranking("MACs", None, len(largest), None, by_macs, None))
    return found


def choices(rows: Sequence[dict[str, Any]], judges: Mapping[float, Judge]) -> list[dict[str, Any]]:
    """What each supernet would choose, without logits, of the measured networks in the last two bands below each target: by
    accuracy and by loss, with the regret of both."""
    found = []
    groups = dict.fromkeys((r["case"], r["seed"]) for r in rows)
    for (case, seed), (share, judge) in itertools.product(groups, judges.items()):
        target, costs = judge.problem.target_ms, judge.problem.costs
        own = [r for r in rows if (r["case"], r["seed"]) == (case, seed)]
        inside = [r for r in own if target / WIDTH**2 <= costs[judge.problem.oracle._index(r["code"])] <= target]
        if inside:
            accurate = max(inside, key=lambda r: (r["hits"], -r["loss"]))["code"]
            sure = min(inside, key=lambda r: r["loss"])["code"]
            found.append({
                "case": case, "seed": seed, "share": share, "networks": len(inside), "by_accuracy": judge.regret(accurate),
                "by_loss": judge.regret(sure), "at_random": float(np.mean([judge.regret(r["code"]) for r in inside])),
            })  # fmt: skip
    return found


def given_up(found: RankingInfo) -> float:
    """Points by which the best network of a band is better than the one that the proxy likes most: mean over bands."""
    gaps = [found.truth[b.members].max() - found.truth[b.members[found.proxy[b.members].argmax()]] for b in found.bands]
    return float(np.mean(gaps))


def at_random(found: RankingInfo) -> float:
    """The same of a network drawn from each band."""
    return float(np.mean([found.truth[b.members].max() - found.truth[b.members].mean() for b in found.bands]))


def said(found: Ranking) -> dict[str, Any]:
    """For a result file."""
    acc, loss = found.by_accuracy, found.by_loss
    return {
        "case": found.case, "seed": found.seed, "networks": found.networks, "images": found.images, "bands": len(acc.bands),
        "tau": acc.tau, "tau_by_loss": loss and loss.tau, "ceiling": acc.ceiling, "global_tau": acc.global_tau,
        "global_tau_by_loss": loss and loss.global_tau, "given_up": given_up(acc),
        "given_up_by_loss": loss and given_up(loss), "given_up_at_random": at_random(acc),
    }  # fmt: skip
