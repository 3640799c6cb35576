"""One measurement in a process of its own, whose peak memory is then the network's: ``python -m dnas.bench.worker``.

Arguments: runtime, threads, repeats, file of the model, shape and type of its input (JSON). Prints JSON.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from dnas.latency.timing import pinned, take_turns, timings

STATUS = Path("/proc/self/status")


def measure(runtime: str, threads: int, repeats: int, file: str, shape: list[int], dtype: str) -> dict[str, Any]:
    """Timing, and peak memory in MB above that of the runtime before it opens the model (None where unknown)."""
    with pinned(threads) as cores:  # before XLA starts, which takes the cores that it finds
        from dnas.latency.build import clock_for
        from dnas.runtimes import runtime as find

        found = find(runtime)
        images = np.random.default_rng(0).normal(size=shape)
        images = (images * 40 if dtype == "int8" else images).clip(-128, 127).astype(dtype)
        model = Path(file).read_bytes()
        before = forget_peak()
        runner = found.open(model, threads)
        call = runner.bind(images)
        rounds = take_turns({"network": lambda: call}, repeats, warm_up=5, clock=clock_for(found, threads))
        after = peak_mb()
    return {
        "timing": timings(rounds)["network"].to_dict(), "version": found.version(), "pinned_cores": list(cores),
        "kernels_left": list(runner.kernels_left),
        "peak_mb": None if before is None or after is None else round(after - before, 3),
    }  # fmt: skip


def forget_peak() -> float | None:
    """Resident size of this process now, in MB (1e6 bytes), from which ``peak_mb`` counts on; None where no system says it.

    Linux keeps the peak of a parent in its child's ``ru_maxrss``, so it is not used there.
    """
    if not STATUS.exists():
        return peak_mb()
    with contextlib.suppress(OSError):  # otherwise the peak is that since the start
        Path("/proc/self/clear_refs").write_text("5")
        return _status_mb("VmRSS")
    return _status_mb("VmHWM")


def peak_mb() -> float | None:
    """Largest resident size since ``forget_peak``, in MB; None where the system does not count it (Windows)."""
    if STATUS.exists():
        return _status_mb("VmHWM")
    try:
        import resource
    except ImportError:
        return None
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / 1e6 if sys.platform == "darwin" else size * 1024 / 1e6


def _status_mb(field: str) -> float:
    (line,) = (text for text in STATUS.read_text().splitlines() if text.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    name, threads, repeats, file, given = sys.argv[1:]
    print(json.dumps(measure(name, int(threads), int(repeats), file, *json.loads(given))))
