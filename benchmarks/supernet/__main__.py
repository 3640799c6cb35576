"""Step time, memory and compilation of supernet and networks, side by side, each case in a process of its own.

    python -m benchmarks.supernet                    every workload of this machine; an hour or more on two cores
    python -m benchmarks.supernet soft paths         some of them (see WORKLOADS)
    python -m benchmarks.supernet --cache=FOLDER paths   programs that an earlier call compiled are loaded from FOLDER; results
                                                     say so, and their compile_s are seconds of loading

Sides of one workload take turns, so that a busy machine slows all of them: the slowest takes a step, the others as many as
last about as long (a process that waits longer than it works finds its memory cold). Medians over the steps, with the
interquartile range. All processes have the settings of dnas' commands (malloc, and on a CPU XLA's). ``peak`` is a
process's largest resident size after the compilation, ``temp`` what XLA reserves for one step beside parameters. Results
are written to benchmarks/results/supernet-PLATFORM.json after every workload; one that is there is not run again.
PyTorch is needed for its side only: pip install torch.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.supernet.case import Case
from dnas.process import settings

RESULTS = Path(__file__).parents[1] / "results"
SETTINGS = settings()
SOFT, SAMPLED, FIXED = Case(), Case(mode="sampled", batch=128), Case(mode="fixed", batch=128)
TORCH = dataclasses.replace(SOFT, side="torch")


def _with(case: Case, **changes: Any) -> Case:
    return dataclasses.replace(case, **changes)


# name: (turns, cases); the first case is what the others are compared with
WORKLOADS: dict[str, tuple[int, tuple[Case, ...]]] = {
    "alone": (9, (SOFT,)),
    "soft": (21, (SOFT, TORCH)),
    "soft-devices": (9, (SOFT, _with(SOFT, devices=2), TORCH)),
    "flags": (
        9,
        (SOFT, _with(SOFT, xla="--xla_cpu_use_fusion_emitters=false"), _with(SOFT, xla="--xla_backend_optimization_level=3")),
    ),
    "layouts": (5, (TORCH, _with(TORCH, layout="nchw"))),
    "soft-options": (7, (SOFT, TORCH, _with(SOFT, remat=True), _with(SOFT, compute="bfloat16"))),
    "paths": (9, (SAMPLED, FIXED, _with(SAMPLED, side="torch"), _with(FIXED, side="torch"))),
    "two-paths": (9, (SAMPLED, _with(SAMPLED, paths=2))),
    "candidates": (9, (_with(SAMPLED, candidates=18), _with(SAMPLED, candidates=3))),
    "large": (5, tuple(_with(c, space="fbnet", batch=8) for c in (SAMPLED, FIXED, _with(SAMPLED, side="torch")))),
    "soft-large": (7, tuple(_with(c, space="fbnet", batch=4) for c in (SOFT, _with(SOFT, remat=True), TORCH))),
    "idiomatic": (5, (SOFT, Case(side="flax"))),
    "torch-compile": (5, (SOFT, TORCH, _with(TORCH, compiler="compile"))),
}


class Worker:
    """A process that runs one case."""

    def __init__(self, case: Case, cache: str):
        environment = os.environ | settings(case.devices, case.xla) | {"JAX_COMPILATION_CACHE_DIR": cache}
        self.case = case
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.supernet.worker", case.to_json()], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.start = self._answer()
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []

    def _answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.case} ({self.case.workload}) ended with code {self.process.wait()}")
        return json.loads(line)

    def _tell(self, words: str) -> Any:
        assert self.process.stdin
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()
        return self._answer()

    def turn(self, steps: int) -> None:
        found = self._tell(f"step {steps}")
        self.seconds += found["seconds"]
        self.cpu_seconds += found["cpu_seconds"]

    def result(self) -> dict[str, Any]:
        end = self._tell("end")
        self.process.wait()
        low, middle, high = statistics.quantiles(self.seconds, n=4) if len(self.seconds) > 1 else self.seconds * 3
        return {
            "case": dataclasses.asdict(self.case), "name": str(self.case), "steps": len(self.seconds),
            "step_s": middle, "step_s_quartiles": [low, high], "step_s_least": min(self.seconds),
            "cpu_s": statistics.median(self.cpu_seconds),
            "images_per_s": self.case.batch / middle, **self.start, **end,
        }  # fmt: skip


def steps_of(seconds: Sequence[float]) -> list[int]:
    """How many steps each side takes in a turn, by the seconds of one: the slowest takes one."""
    return [round(max(seconds) / own) for own in seconds]


@contextmanager
def workers(cases: tuple[Case, ...], cache: str) -> Iterator[list[Worker]]:
    """One process per case, started one after the other; none outlives the block."""
    started: list[Worker] = []
    try:
        for case in cases:
            print(f"  starting {case}", flush=True)
            started.append(Worker(case, cache))
        yield started
    finally:
        for worker in started:
            worker.process.kill()


def measure(turns: int, cases: tuple[Case, ...], kept: str | None = None) -> dict[str, Any]:
    """Rows for ``cases``, in turns. Cold and warm start of the first case's programs come with its row.

    ``kept``: a compilation cache that stays; starts are then as warm as it is.
    """
    with tempfile.TemporaryDirectory() if kept is None else nullcontext(kept) as cache:
        load = os.getloadavg()[0]
        with workers(cases, cache) as running:
            for worker in running:
                worker.turn(1)
            for _ in range(turns - 1):
                for worker, steps in zip(running, steps_of([min(w.seconds) for w in running]), strict=True):
                    worker.turn(steps)
            rows = [w.result() for w in running]
        if kept is None:
            with workers(cases[:1], cache) as again:
                rows[0]["warm_prepare_s"] = again[0].start["prepare_s"]
    ratios = {r["name"]: r["step_s"] / rows[0]["step_s"] for r in rows[1:]}
    return {
        "workload": cases[0].workload, "turns": turns, "load_before": load, "programs": "loaded" if kept else "compiled",
        "rows": rows, "time_of_first_times": ratios,
    }  # fmt: skip


def table(body: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| workload | case | step (quartiles) | CPU time | images/s | temp | process peak | n |",
        "|" + " --- |" * 8,
    ]
    for found in body["workloads"].values():
        for row in found["rows"]:
            low, high = row["step_s_quartiles"]
            temp = f"{row['temp_bytes'] / 1e9:.2f} GB" if "temp_bytes" in row else "-"
            lines.append(
                f"| {found['workload']} | {row['name']} | {row['step_s']:.3f} s ({low:.3f}-{high:.3f}) | "
                f"{row['cpu_s']:.2f} s | {row['images_per_s']:.0f} | {temp} | "
                f"{row['peak_bytes'] / 1e9:.2f} GB | {row['steps']} |"
            )
    return "\n".join(lines)


def main() -> None:
    kept = next((a.removeprefix("--cache=") for a in sys.argv[1:] if a.startswith("--cache=")), None)
    names = [a for a in sys.argv[1:] if not a.startswith("--cache=")] or list(WORKLOADS)
    if unknown := [n for n in names if n not in WORKLOADS]:
        print(f"unknown workload {unknown[0]!r}; expected some of: {', '.join(WORKLOADS)}", file=sys.stderr)
        raise SystemExit(2)
    if not find_spec("torch") and any(c.side == "torch" for n in names for c in WORKLOADS[n][1]):
        print(
            "PyTorch is not installed; expected it for the workloads that compare with it: pip install torch", file=sys.stderr
        )
        raise SystemExit(2)
    platform = "gpu" if Path("/dev/nvidia0").exists() else "cpu"
    path = RESULTS / f"supernet-{platform}.json"
    body: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"workloads": {}}
    torch = next((d.version for d in metadata.distributions() if d.metadata["Name"] == "torch"), None)
    here = machine() | {"torch": torch, "settings": SETTINGS, "in_line": True}  # dispatch: see dnas.process
    for name in names:
        if name in body["workloads"]:
            continue
        print(name, flush=True)
        body["workloads"][name] = measure(*WORKLOADS[name], kept) | {"date": time.strftime("%Y-%m-%d"), "machine": here}
        path.write_text(json.dumps(body, indent=1) + "\n")
    print(table(body))


if __name__ == "__main__":
    main()
