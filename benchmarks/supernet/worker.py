"""One case in a process of its own. Reads ``step N`` or ``end`` line by line, answers each with a line of JSON.

python -m benchmarks.supernet.worker CASE_AS_JSON
"""

from __future__ import annotations

import contextlib
import importlib
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.supernet.case import Case


def peak_bytes() -> int:
    """Largest resident size since the start, or since ``reset_peak``."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak() -> None:
    """Forget the peak of the compilation (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    case = Case(**json.loads(sys.argv[1]))
    answer = sys.stdout
    sys.stdout = sys.stderr

    def say(**values: Any) -> None:
        print(json.dumps(values), file=answer, flush=True)

    start = time.perf_counter()
    side: Any = importlib.import_module(f"benchmarks.supernet.{case.side}_side").Side(case)
    built = time.perf_counter()
    compiled = side.prepare()
    ready = time.perf_counter()
    losses = [side.step()]
    say(
        build_s=built - start, prepare_s=ready - built, first_step_s=time.perf_counter() - ready, parameters=side.parameters,
        peak_bytes_with_compilation=peak_bytes(), **compiled,
    )  # fmt: skip
    losses.append(side.step())
    reset_peak()
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "end":
            break
        seconds, cpu_seconds = [], []
        for _ in range(int(rest[0])):
            start, cpu = time.perf_counter(), time.process_time()
            losses.append(side.step())
            seconds.append(time.perf_counter() - start)
            cpu_seconds.append(time.process_time() - cpu)
        say(seconds=seconds, cpu_seconds=cpu_seconds)
    say(peak_bytes=peak_bytes(), device_peak_bytes=side.device_peak(), losses=[losses[0], losses[-1]])


if __name__ == "__main__":
    main()
