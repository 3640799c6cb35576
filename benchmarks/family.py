"""What a family costs beside separate searches: CPU time, distance from the targets, accuracy with inherited weights.

    python -m benchmarks.family

``fbnet_mini`` on the digits, three targets. ``separate``: a search for each; ``family``: one search for all, each with a third
of the architecture steps; ``family, all steps``: with as many as a search of its own has; ``from supernet``: each target on the
frozen weights of the first family. No training after the searches: accuracies (test images) are those of inherited weights. CPU
seconds of the process, tracing included, with compiled programs in a persistent cache (set JAX_COMPILATION_CACHE_DIR, run it
once to fill that, delete the result and run it again). Results: benchmarks/results/family.json, written after each way; what is
there is not run again.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import dnas
from benchmarks.machine import machine

RESULT = Path(__file__).parent / "results" / "family.json"
TABLE, SPACE, DATA = "samsung_s8.json", "fbnet_mini", "digits"
TARGETS = [0.5, 0.65, 0.85]
EPOCHS, SEED = 10, 0
OPTIONS: dict[str, Any] = {"train_epochs": 0, "derive_samples": 8, "devices": 1, "progress": False}
FAMILY = "family"
WAYS = ("separate", FAMILY, "family, all steps", "from supernet")


def searches(way: str, folder: Path) -> list[dict[str, Any]]:
    """Arguments of each search of ``way``."""
    common = {"space": SPACE, "lut": TABLE, "data": DATA, "seed": SEED, "epochs": EPOCHS, **OPTIONS}
    if way == "separate":
        return [{**common, "target_ms": t} for t in TARGETS]
    if way == "from supernet":
        return [{**OPTIONS, "from_supernet": folder, "target_ms": t} for t in TARGETS]
    return [{**common, "target_ms": TARGETS, "theta_passes": 1 if way == FAMILY else len(TARGETS)}]


def measured(way: str, folder: Path) -> dict[str, Any]:
    """CPU seconds of every search of ``way``, and what it found. The first family is kept in ``folder``."""
    seconds, rows = [], []
    for given in searches(way, folder):
        start = time.process_time()
        result = dnas.search.run(**given, out=folder if way == FAMILY else None)
        seconds.append(round(time.process_time() - start, 2))
        for found in result.results:
            figures = found.figures()
            kept = ("target_ms", "expected_ms", "latency_ms", "test_top1", "interval95", "n_test", "entropy", "genotype")
            rows.append({k: figures[k] for k in kept})
    return {
        "cpu_s": seconds, "cpu_s_total": round(sum(seconds), 2), "steps": found.architecture.provenance["step"],
        "expected_off": [r["expected_ms"] / r["target_ms"] - 1 for r in rows], "networks": rows,
    }  # fmt: skip


def main() -> None:
    body: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {
        "command": "python -m benchmarks.family", "machine": machine(), "dnas": dnas.__version__, "targets_ms": TARGETS,
        "epochs": EPOCHS, "seed": SEED, "ways": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "family"
        for way in WAYS:
            if way in body["ways"] and not (way == FAMILY and "from supernet" not in body["ways"]):
                continue
            body["ways"][way] = measured(way, folder)
            print(way, body["ways"][way], flush=True)
            RESULT.write_text(json.dumps(body, indent=1) + "\n")


if __name__ == "__main__":
    main()
