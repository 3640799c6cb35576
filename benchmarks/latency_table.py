"""How long a latency table of 100,000 entries takes to load, and FBNet to price: ``python -m benchmarks.latency_table``.

Writes ``benchmarks/results/latency_table.json``: median and quartiles over ``n`` runs, each load in a process of its own for
the first figure, repeated in one process for the others; the file is in the page cache.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.machine import machine
from dnas.files import dump_json
from dnas.latency import LatencyTable
from dnas.latency.terms import price
from dnas.space import load_space

RESULT = Path(__file__).parent / "results" / "latency_table.json"
ENTRIES, RUNS = 100_000, 15
FRESH = (
    "import sys, time; from dnas.latency import LatencyTable; start = time.perf_counter(); LatencyTable.load(sys.argv[1]); "
    "print(time.perf_counter() - start)"
)


def large_table(path: Path) -> None:
    """``samsung_s8.json`` with further entries, of inverted residuals of many widths and sizes, up to 100,000."""
    body = LatencyTable.load("samsung_s8").to_dict()
    rows = body["entries"]
    block = {"op": "ir", "out": 32, "kernel": 5, "stride": 2, "act": "relu6"}
    sizes = ((i, m, p) for p in (7, 14, 28, 56, 112) for i in range(8, 208) for m in range(8, 1608, 8))
    for in_, mid, px in sizes:
        if len(rows) == ENTRIES:
            break
        rows.append(block | {"in": in_, "mid": mid, "height": px, "width": px, "ms": round(1e-6 * in_ * mid * px, 6)})
    path.write_text(dump_json(body, rows="entries"), encoding="utf-8")


def seconds(action: Callable[[], object], runs: int = RUNS) -> dict[str, object]:
    """Median, quartiles and n of ``action``, in seconds."""
    found = []
    for _ in range(runs):
        start = time.perf_counter()
        action()
        found.append(time.perf_counter() - start)
    return spread(found)


def spread(found: list[float]) -> dict[str, object]:
    low, middle, high = statistics.quantiles(found, n=4)
    return {"median_s": round(middle, 6), "quartiles_s": [round(low, 6), round(high, 6)], "n": len(found)}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.json"
        large_table(path)
        fresh = [float(subprocess.check_output([sys.executable, "-c", FRESH, str(path)])) for _ in range(RUNS)]
        lut, space = LatencyTable.load(path), load_space("fbnet")
        assert len(lut.entries) == ENTRIES
        network = space.fix(space.sample(0))
        result = {
            "command": "python -m benchmarks.latency_table", "entries": ENTRIES, "bytes": path.stat().st_size,
            "load_in_a_new_process": spread(fresh),
            "load_again": seconds(lambda: LatencyTable.load(path)),
            "price_the_fbnet_space": seconds(lambda: price(space, lut)),
            "price_one_fbnet": seconds(lambda: lut.latency_ms(network)),
            "machine": machine(),
        }  # fmt: skip
    RESULT.write_text(dump_json(result), encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
