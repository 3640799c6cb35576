"""Searches over networks of known accuracy against random search, at an equal number of networks evaluated.

    python -m benchmarks.oracle_search

NAS-Bench-Macro, budgets in MACs. A row for each method, budget and seed: the regret, in points of CIFAR-10 test accuracy, of
the network returned against the best one within the budget. ``random-search`` draws from 90 % to 100 % of the budget,
``random-anywhere`` from all networks within it. Written to benchmarks/results/oracle_search.json after every row; rows that
are there are not run again.
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from dnas import oracle
from dnas.errors import ConfigError
from dnas.files import write_text
from dnas.latency.costs import by_count
from dnas.methods import evolution, predictor, random_search, reinforce

RESULT = Path(__file__).parent / "results" / "oracle_search.json"
NETWORKS = 100  # evaluated by each search
BUDGETS = (40e6, 60e6, 80e6)  # MACs
SEEDS = range(20)
SEARCHES: dict[str, Callable[..., Any]] = {
    "random-search": random_search.search,
    "random-anywhere": partial(random_search.search, band=0.0),
    "evolution, regularised": evolution.search,
    "evolution, nsga2": partial(evolution.search, algorithm="nsga2"),
    "predictor": predictor.search,
    "reinforce": reinforce.search,
}


def one(name: str, budget: float, seed: int) -> dict[str, Any]:
    known = oracle.load("nas-bench-macro")
    macs = by_count(known.space, "macs", None).terms
    start = time.process_time()
    row: dict[str, Any] = {"method": name, "budget_macs": budget, "seed": seed}
    try:
        found = SEARCHES[name](
            known.space, lambda g: known.accuracy(g) / 100, macs, target_ms=budget, budget=NETWORKS, seed=seed
        )  # fmt: skip
    except ConfigError:  # nothing that was drawn keeps the budget
        return {**row, "regret": None, "evaluated": NETWORKS, "cpu_s": round(time.process_time() - start, 2)}
    row |= {"regret": round(known.regret(found.best.genotype, budget, "macs"), 4), "evaluated": len(found.evaluated)}
    return {**row, "cpu_s": round(time.process_time() - start, 2), "genotype": list(found.best.genotype)}


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation (n - 1) of the regret by method and budget."""
    found = []
    for name, budget in itertools.product(SEARCHES, BUDGETS):
        values = [r["regret"] for r in rows if (r["method"], r["budget_macs"]) == (name, budget)]
        kept = [v for v in values if v is not None]
        if len(kept) > 1:
            figures = {"mean": round(statistics.fmean(kept), 4), "sd": round(statistics.stdev(kept), 4), "max": max(kept)}
            counts = {"n": len(values), "none_within": len(values) - len(kept)}
            found.append({"method": name, "budget_macs": budget, **counts, **figures})
    return found


def main() -> None:
    body: dict[str, Any] = {"machine": machine(), "networks": NETWORKS, "rows": []}
    if RESULT.exists():
        body = json.loads(RESULT.read_text())
    done = {(r["method"], r["budget_macs"], r["seed"]) for r in body["rows"]}
    for seed, name, budget in itertools.product(SEEDS, SEARCHES, BUDGETS):
        if (name, budget, seed) not in done:
            body["rows"].append(one(name, budget, seed))
            body["summary"] = summary(body["rows"])
            write_text(RESULT, json.dumps(body, indent=1) + "\n")
    for line in body["summary"]:
        print(json.dumps(line))


if __name__ == "__main__":
    main()
