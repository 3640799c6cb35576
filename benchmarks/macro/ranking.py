"""How well supernets rank: accuracy with inherited weights, BN recalibrated, of networks in bands of 10 % of latency."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.macro.searches import CASES, OPS, Recipe, folder_of, setup_of
from benchmarks.oracle.stages import code_of
from benchmarks.rows import Rows
from benchmarks.study.verdict import Judge
from dnas.data import Dataset
from dnas.derive import Limit, highest
from dnas.errors import ConfigError
from dnas.latency import LatencyTable
from dnas.methods import predictor
from dnas.methods.random_search import BAND
from dnas.oracle import Oracle
from dnas.plot.ranking import RankingInfo, info
from dnas.space import Genotype

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
    cases: Sequence[str], seeds: int, codes_of: Callable[[str, int], Sequence[str]], rows: Rows, table: LatencyTable,
    data: Dataset, runs: Path, recipe: Recipe, shares: Sequence[float],
) -> None:  # fmt: skip
    """A row for each of the codes of a case and seed that ``rows`` lacks, for every supernet in ``runs``; others are named and
    left out, as are cases that have not all networks."""
    from dnas.search import init
    from dnas.search.phase import measure
    from dnas.search.supernets import read

    for name in cases:
        if CASES[name].ops != OPS:
            print(name, "has not all of these networks", flush=True)
            continue
        for seed in range(seeds):
            missing = [c for c in codes_of(name, seed) if (name, seed, c) not in rows.done]
            if not missing:
                continue
            if not folder_of(runs, name, seed).is_dir():
                print(name, seed, "has no folder in --runs", flush=True)
                continue
            setup = setup_of(CASES[name], shares, seed, table, data, recipe).members[0]
            (params, stats), _ = read(str(folder_of(runs, name, seed)), setup.space)
            state = init(setup)._replace(params=params, stats=stats)
            for code in missing:
                found = measure(setup, state, digits(code))
                rows.add({"case": name, "seed": seed, "code": code, "hits": found.hits, "n": found.n, "loss": found.loss})
            print(name, seed, f"{len(missing)} networks", flush=True)


class Ranking(NamedTuple):
    """Of one proxy: by accuracy on so many ``images``, and, of supernets, by loss, and by what a linear model says of each
    network that has learnt the losses of all of them."""

    case: str
    seed: int | None
    networks: int
    images: int | None
    by_accuracy: RankingInfo
    by_loss: RankingInfo | None
    by_model: RankingInfo | None


def supernets(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """(case, seed) -> rows, in order of their codes, of each supernet that has been measured wholly. Errors: ConfigError for
    none."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda r: (list(CASES).index(r["case"]), r["seed"], r["code"])):
        groups.setdefault((row["case"], row["seed"]), []).append(row)
    if not groups:
        raise ConfigError("no networks are measured with a supernet's weights; run: python -m benchmarks.macro rank")
    most = max(map(len, groups.values()))
    return {k: own for k, own in groups.items() if len(own) == most}  # the others are still being measured


def judged(own: Sequence[dict[str, Any]], proxy: Any, oracle: Oracle, costs: np.ndarray) -> RankingInfo:
    """How well ``proxy`` ranks the networks of the rows ``own``."""
    at = np.array([oracle._index(r["code"]) for r in own])
    return info(proxy, oracle.runs[at], costs[at], WIDTH, LEAST)


def rankings(rows: Sequence[dict[str, Any]], oracle: Oracle, table: LatencyTable) -> list[Ranking]:
    """Of each of ``supernets``, and of MACs on the same networks. Errors: ConfigError for none."""
    costs, macs, found, groups = oracle.costs(table), oracle.costs("macs"), [], supernets(rows)
    for (case, seed), own in groups.items():
        model = learnt(own, oracle)
        proxies = [r["hits"] for r in own], [-r["loss"] for r in own], model.predict([digits(r["code"]) for r in own])[0]
        found.append(Ranking(case, seed, len(own), own[0]["n"], *(judged(own, p, oracle, costs) for p in proxies)))
    own = next(iter(groups.values()))
    by_macs = judged(own, [macs[oracle._index(r["code"])] for r in own], oracle, costs)
    found.append(Ranking("MACs", None, len(own), None, by_macs, None, None))
    return found


def learnt(own: Sequence[dict[str, Any]], oracle: Oracle) -> predictor.Predictor:
    """A linear model of the losses of one supernet, the smaller the better."""
    return predictor.fit(oracle.space, [digits(r["code"]) for r in own], [-r["loss"] for r in own])


def digits(code: str) -> Genotype:
    return tuple(map(int, code))


def together(rows: Sequence[dict[str, Any]], case: str, oracle: Oracle, table: LatencyTable) -> list[dict[str, Any]]:
    """How well 1, 2, ... supernets of ``case`` rank by the mean of their standardised losses: means over all such sets."""
    costs, answer = oracle.costs(table), []
    groups = [own for (name, _), own in supernets(rows).items() if name == case]
    losses = [np.array([r["loss"] for r in own]) for own in groups]
    proxies = [(v.mean() - v) / v.std() for v in losses]
    for size in range(1, len(proxies) + 1):
        each = [judged(groups[0], np.sum(own, 0), oracle, costs) for own in itertools.combinations(proxies, size)]
        tau, behind = np.mean([e.tau for e in each]), np.mean([given_up(e) for e in each])
        answer.append({"supernets": size, "sets": len(each), "tau": float(tau), "given_up": float(behind)})
    return answer


def choices(rows: Sequence[dict[str, Any]], judges: Mapping[float, Judge]) -> list[dict[str, Any]]:
    """Regret of what each supernet would choose, without logits: of the measured networks in the last two bands below each
    target, by accuracy and by loss; and of all networks in the last tenth, by ``learnt``."""
    found = []
    groups = dict.fromkeys((r["case"], r["seed"]) for r in rows)
    for (case, seed), (share, judge) in itertools.product(groups, judges.items()):
        target, costs = judge.problem.target_ms, judge.problem.costs
        own = [r for r in rows if (r["case"], r["seed"]) == (case, seed)]
        inside = [r for r in own if target / WIDTH**2 <= costs[judge.problem.oracle._index(r["code"])] <= target]
        if inside:
            accurate = max(inside, key=lambda r: (r["hits"], -r["loss"]))["code"]
            sure = min(inside, key=lambda r: r["loss"])["code"]
            limit, worth = Limit(judge.problem.terms, target), learnt(own, judge.problem.oracle).by_choice()
            (likely,) = highest(judge.problem.oracle.space, worth, [limit], band=BAND)
            found.append({
                "case": case, "seed": seed, "share": share, "networks": len(inside), "by_accuracy": judge.regret(accurate),
                "by_loss": judge.regret(sure), "by_model": judge.regret(code_of(likely)),
                "at_random": float(np.mean([judge.regret(r["code"]) for r in inside])),
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
    acc, loss, model = found.by_accuracy, found.by_loss, found.by_model
    return {
        "case": found.case, "seed": found.seed, "networks": found.networks, "images": found.images, "bands": len(acc.bands),
        "tau": acc.tau, "tau_by_loss": loss and loss.tau, "ceiling": acc.ceiling, "global_tau": acc.global_tau,
        "global_tau_by_loss": loss and loss.global_tau, "given_up": given_up(acc),
        "given_up_by_loss": loss and given_up(loss), "given_up_at_random": at_random(acc),
        "tau_by_model": model and model.tau, "given_up_by_model": model and given_up(model),
    }  # fmt: skip
