"""The README's first search, five seeds: wall time from a cold start, test accuracy, distance from the target.

    python -m benchmarks.first_search

Each seed is a process of its own with an empty compilation cache, as on a fresh machine. The linear model is
scikit-learn's logistic regression on the same training and test images. Results are written to
benchmarks/results/first_search.json after every seed; seeds that are there are not run again (delete the file to start over).
A file that another version of the space, the table or dnas made is not continued.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from dnas import __version__
from dnas.config import SearchConfig
from dnas.data import load, split
from dnas.latency import LatencyTable
from dnas.space import load_space

RESULT = Path(__file__).parent / "results" / "first_search.json"
SEEDS = range(5)
TABLE = "samsung_s8.json"


def linear_model() -> float:
    """Test accuracy of logistic regression on raw pixels."""
    from sklearn.linear_model import LogisticRegression

    parts = split(load("digits"), 0)
    (x, y), (test_x, test_y) = ((np.asarray(p.images).reshape(len(p), -1) / 255.0, p.labels) for p in (parts.train, parts.test))
    return float(LogisticRegression(max_iter=2000).fit(x, y).score(test_x, test_y))


def made_with() -> dict[str, str]:
    """What a result depends on."""
    space = load_space(SearchConfig().space).at(num_classes=load("digits").num_classes).fingerprint
    return {"space_sha256": space, "table_sha256": LatencyTable.load(TABLE).sha256, "dnas": __version__}


def refuse_other(then: Any, now: dict[str, str]) -> None:
    """Exit, with code 2 and one line, where what made the result file (``then``) is not what is here."""
    then = then if isinstance(then, dict) else {}
    if changed := [f"{k} {then.get(k, 'unknown')} -> {v}" for k, v in now.items() if then.get(k) != v]:
        print(f"{RESULT} was made with another version ({', '.join(changed)}); delete it to start over", file=sys.stderr)
        raise SystemExit(2)


def one(seed: int) -> dict[str, Any]:
    command = ["-m", "dnas.search", "--lut", TABLE, "--seed", str(seed)]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
        environment["XDG_CACHE_HOME"] = f"{folder}/cache"
        run = [sys.executable, *command, "--out", f"{folder}/run"]
        subprocess.run(run, check=True, env=environment, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        found = json.loads(Path(folder, "run", "architecture.json").read_text())
        rows = [json.loads(line) for line in Path(folder, "run", "history.jsonl").read_text().splitlines()]
    target, last = found["provenance"]["target_ms"], [r for r in rows if r["phase"] == "search"][-1]
    return {
        "seed": seed, "command": " ".join(["python", *command]), "wall_s": round(seconds, 1),
        "test_top1": found["metrics"]["accuracy"]["top1"], "n_test": found["metrics"]["accuracy"]["n"], "target_ms": target,
        "latency_ms": found["metrics"]["latency"][0]["latency_ms"],
        "expected_ms": last["expected_ms"], "entropy": last["entropy"],
        "genotype": found["provenance"]["genotype"], "space_sha256": found["provenance"]["space_sha256"],
        "table_sha256": found["metrics"]["latency"][0]["sha256"], "dnas": __version__,
    }  # fmt: skip


def main() -> None:
    now = made_with()
    if RESULT.exists():
        body: dict[str, Any] = json.loads(RESULT.read_text())
        for row in body["seeds"]:
            refuse_other(row, now)
    else:
        body = {"machine": machine(), "linear_model_top1": linear_model(), "seeds": []}
    for seed in SEEDS:
        if all(r["seed"] != seed for r in body["seeds"]):
            body["seeds"].append(one(seed))
            print(body["seeds"][-1], flush=True)
            runs = body["seeds"]
            body["median"] = {k: statistics.median(r[k] for r in runs) for k in ("wall_s", "test_top1")}
            body["spread"] = {k: [min(r[k] for r in runs), max(r[k] for r in runs)] for k in ("wall_s", "test_top1")}
            RESULT.write_text(json.dumps(body, indent=1) + "\n")
    print(json.dumps({k: body[k] for k in ("linear_model_top1", "median", "spread")}, indent=1))


if __name__ == "__main__":
    main()
