"""What compilation costs a whole search: tracing, lowering and compiling (or loading) every program of it, cold and warm.

    python -m benchmarks.compilation                       fbnet_mini and fbnet_cifar
    python -m benchmarks.compilation fbnet_mini

One search of two epochs over 1,000 random images (warm-up, theta steps, derivation within a budget, one epoch of training,
the test), as ``python -m dnas.search`` runs it, in a process of its own: first with an empty compilation cache,
then again with what the first left there. Every split has a batch: a smaller one would be a program of its own. Seconds are
those of JAX's own events, so steps, start and imports are not in them. Results are written to
benchmarks/results/compilation.json after every space; spaces that are there are not run again.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.machine import machine
from dnas.files import write_text
from dnas.process import in_line, settings

RESULT = Path(__file__).parent / "results" / "compilation.json"
SPACES = ("fbnet_mini", "fbnet_cifar")
EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "trace_s",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower_s",
    "/jax/core/compile/backend_compile_duration": "compile_s",
}


def covered(spans: list[tuple[float, float]]) -> float:
    """Seconds that lie in any of ``spans`` (start, end): traces lie within each other."""
    total, reached = 0.0, -math.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def search(space: str, out: str) -> dict[str, float]:
    """Seconds per kind of event of a search in this process, of all together, and programs compiled or loaded."""
    spans: dict[str, list[tuple[float, float]]] = {name: [] for name in EVENTS.values()}

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event in EVENTS:
            spans[EVENTS[event]].append((time.perf_counter() - duration_secs, time.perf_counter()))

    in_line()
    jax.monitoring.register_event_duration_secs_listener(listen)
    import dnas
    from dnas.data import Dataset

    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(1000, 32, 32, 3), dtype=np.uint8)
    data = Dataset.from_arrays(images, np.arange(len(images)) % 10, classes=[str(i) for i in range(10)])
    dnas.search.run(space, "samsung_s8.json", data, epochs=2, train_epochs=1, batch_size=32, derive_samples=2, out=out)
    found = {name: covered(own) for name, own in spans.items()}
    return found | {"total_s": covered([span for own in spans.values() for span in own]), "programs": len(spans["compile_s"])}


def measure(space: str) -> dict[str, Any]:
    """A search from an empty cache, and the same again."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        cache = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        for name in ("cold", "warm"):
            start, load = time.perf_counter(), os.getloadavg()[0]
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.compilation", "--one", space, f"{folder}/{name}"], check=True, text=True,
                stdout=subprocess.PIPE, env=os.environ | settings() | cache,
            )  # fmt: skip
            seconds = json.loads(done.stdout.splitlines()[-1])
            rows[name] = seconds | {"process_s": time.perf_counter() - start, "load_before": load}
            print(space, name, {k: round(v, 1) for k, v in rows[name].items()}, flush=True)
    return rows | {"date": time.strftime("%Y-%m-%d"), "machine": machine()}


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        answer, sys.stdout = sys.stdout, sys.stderr
        print(json.dumps(search(*sys.argv[2:4])), file=answer)
        return
    body: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {"spaces": {}}
    for space in sys.argv[1:] or SPACES:
        if space not in body["spaces"]:
            body["spaces"][space] = measure(space)
            write_text(RESULT, json.dumps(body, indent=1) + "\n")


if __name__ == "__main__":
    main()
