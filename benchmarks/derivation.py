"""How long the exact derivation within a budget takes: FBNet's 22 layers of 8 or 9 candidates.

    python -m benchmarks.derivation

Random logits (normal, standard deviation 2), budgets drawn over the middle of the reachable range, the best 32 networks, on
``samsung_s8.json``. ``dp``: dynamic programming and best-first search; ``dp_near``: with a multiplier, which asks for 98 to 100
% of the budget; ``milp``: the integer programme, for the best network alone. CPU seconds of this process, which other jobs on
the machine hardly change. Both solvers must find the same score. Results: benchmarks/results/derivation.json.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

import dnas
from benchmarks.machine import machine
from dnas import derive
from dnas.derive.paths import Band
from dnas.derive.programme import best_by_programme
from dnas.factors import Factor, extreme
from dnas.latency.terms import price

RESULT = Path(__file__).parent / "results" / "derivation.json"
PROBLEMS, SMALL = 20, 5  # of which the integer programme solves some


def timed(call: Any) -> tuple[float, Any]:
    start = time.process_time()
    found = call()
    return time.process_time() - start, found


def main() -> None:
    space, lut = dnas.load_space("fbnet"), dnas.LatencyTable.load("samsung_s8.json")
    terms = price(space, lut)
    fastest, slowest = space.latency_range(lut)
    seconds: dict[str, list[float]] = {"dp": [], "dp_near": [], "milp": []}
    unproven, rng = 0, np.random.default_rng(0)
    sizes = {n: len(c.options) for n, c in space.choices.items()}
    for number in range(PROBLEMS):
        logits = {n: 2 * rng.normal(size=k) for n, k in sizes.items()}
        target = float(fastest + rng.uniform(0.2, 0.8) * (slowest - fastest))
        took, best = timed(lambda v=logits, t=target: derive.shortlist(space, v, [derive.Limit(terms, t)], 32))
        seconds["dp"].append(took)
        took, near = timed(lambda v=logits, t=target: derive.shortlist(space, v, [derive.Limit(terms, t, 0.5)], 32))
        seconds["dp_near"].append(took)
        unproven += not near.proven
        if number < SMALL:
            least = extreme(terms.factors, 1)[0]
            band = Band(terms.factors, least, target - terms.constant_ms)
            scores = [Factor((n,), derive.log_probabilities(v)) for n, v in logits.items()]
            took, other = timed(lambda s=scores, b=band: best_by_programme(sizes, s, [b], 1, lambda _: True))
            seconds["milp"].append(took)
            assert abs(other.scores[0] - best.scores[0]) < 1e-6, (other.scores, best.scores)
    found = {
        name: {"n": len(v), "median_s": round(statistics.median(v), 4), "range_s": [round(min(v), 4), round(max(v), 4)]}
        for name, v in seconds.items()
    }
    body = {
        "command": "python -m benchmarks.derivation", "space": "fbnet", "networks": space.size, "machine": machine(),
        "cpu_seconds": found, "dp_near_unproven": unproven,
    }  # fmt: skip
    RESULT.write_text(json.dumps(body, indent=1) + "\n")
    print(json.dumps(body, indent=1))


if __name__ == "__main__":
    main()
