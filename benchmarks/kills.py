"""Is a run that was killed and resumed the run that was left alone, byte for byte.

    python -m benchmarks.kills --kills 20

A search in a tiny space, with a checkpoint after every step, is run once undisturbed; then again and again, each time killed
(SIGKILL) at a random moment and resumed by ``python -m dnas.search --resume``. Moments are drawn over the steps of the run,
with a random delay after the step, so that many fall into the writing of a checkpoint. Compared are all files of the run
folder, and the checksums of all figures in its checkpoints. Results: benchmarks/results/kills.json, written after every kill;
what it has of other cases is kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.machine import machine
from dnas import __version__, checkpoint
from dnas.files import sha256
from dnas.latency import LatencyTable
from dnas.latency.keys import Entry
from dnas.ops import ConvOp, GlobalPoolOp, InvertedResidualOp, LinearOp, SkipOp
from dnas.recipes import TRAITS
from dnas.space import OneOf, Space

RESULT = Path(__file__).parent / "results" / "kills.json"
WRITING = "orbax-checkpoint-tmp"  # in the name of a checkpoint that is being written
LONGEST_S = 1800  # that a run may take on a busy machine
CASES: dict[str, list[str]] = {"gumbel": [], "family": ["--target-ms", "0.8,0.95", "--train-epochs", "1"]}


@dataclasses.dataclass(frozen=True)
class Options:
    """Kill and resume searches."""

    kills: int = 20
    """Runs that are killed, the cases in turn."""
    cases: tuple[str, ...] = tuple(CASES)
    """What is run: gumbel or any other method; family (two targets)."""
    seed: int = 0
    """Of the moments."""


def inputs(folder: Path) -> list[str]:
    """A space, a table and images in ``folder``; the command that searches them, without ``--out``."""
    blocks = [InvertedResidualOp(in_=4, mid=4 * e, out=4, kernel=k, residual=True) for k, e in ((3, 1), (5, 2))]
    choices = [OneOf(f"l{i}", (*blocks, SkipOp(in_=4, out=4))) for i in (1, 2)]
    layers: tuple[Any, ...] = (ConvOp(in_=3, out=4, kernel=3, stride=2), *choices, GlobalPoolOp(), LinearOp(in_=4, out=3))
    space = Space("killed", layers, resolution=8, num_classes=3)
    space.save(folder / "space.json")
    ops = {c.op.price_fields(s.shape_of(c)): c.op for s in space.slots for c in s.candidates if c.op.primitives()}
    entries = {key: Entry(ms=0.1 + 0.05 * i) for i, key in enumerate(ops)}
    LatencyTable(
        device="none", runtime="none", precision="float32", status="estimated", meaning="absolute", entries=entries,
        source={"who": "made up for benchmarks/kills.py"},
    ).save(folder / "lut.json")  # fmt: skip
    rng, labels = np.random.default_rng(0), np.arange(96) % 3
    np.savez(folder / "data.npz", images=rng.integers(0, 255, (96, 8, 8, 3)).astype(np.uint8), labels=labels)
    files = ["--space", f"{folder}/space.json", "--lut", f"{folder}/lut.json", "--data", f"npz:{folder}/data.npz"]
    sizes = ["--epochs", "3", "--batch-size", "8", "--train-epochs", "2"]
    return [*files, *sizes, "--checkpoint-s", "0", "--devices", "1"]


def options_of(case: str) -> list[str]:
    """What names the case, and sizes of what its method has: architecture steps, or networks to compare."""
    lacks = TRAITS["gumbel" if case in CASES else case].lacks
    learns = [] if "warm_up" in lacks else ["--warm-up", "0.34", "--derive-samples", "4"]
    compares = [] if "evaluations" in lacks else ["--evaluations", "2"]
    return [*learns, *compares, *CASES.get(case, ["--method", case])]


def started(folder: Path, words: list[str]) -> subprocess.Popen[bytes]:
    """The command in a process of its own, with compiled programs kept in ``folder``."""
    cache = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    environment = {**os.environ, **cache, "DNAS_PROCESS_SETUP": "0"}
    with open(folder / "log.txt", "ab") as log:  # the process has its own handle
        return subprocess.Popen(
            [sys.executable, "-m", "dnas.search", *words], stdout=log, stderr=log, env=environment, start_new_session=True
        )


def finished(folder: Path, words: list[str]) -> float:
    """Run to the end; seconds. Errors: RuntimeError with the end of what it printed."""
    start = time.perf_counter()
    if started(folder, words).wait(LONGEST_S):
        raise RuntimeError(f"{' '.join(words)}: {(folder / 'log.txt').read_text()[-3000:]}")
    return time.perf_counter() - start


def checkpoints(run: Path) -> list[Path]:
    """Folders of checkpoints, and what is being written, below ``run``."""
    found: list[Path] = []
    for folder in (run / "checkpoint", *run.glob("*ms/checkpoint")):
        with contextlib.suppress(FileNotFoundError):  # not there yet; files come and go while the run runs
            found += folder.iterdir()
    return found


def steps_done(run: Path) -> int:
    """Steps of the newest whole checkpoint below ``run``."""
    return max((int(p.name) for p in checkpoints(run) if p.name.isdigit()), default=0)


def contents(run: Path) -> dict[str, str]:
    """sha256 of every file by its path; of checkpoints, that of their figures."""
    found = {}
    for path in sorted(run.rglob("*")):
        if path.name in ("checkpoint", "supernet") and path.is_dir():
            kept = checkpoint.newest(path)
            found[str(path.relative_to(run))] = kept.sha256 if kept else ""
        elif path.is_file() and not {"checkpoint", "supernet"} & set(path.relative_to(run).parts):
            found[str(path.relative_to(run))] = sha256(path.read_bytes())
    return found


def killed(folder: Path, run: Path, words: list[str], after_step: int, delay_s: float) -> dict[str, Any]:
    """Start a run and kill it ``delay_s`` after its checkpoint of ``after_step`` (0: after its config.json); what it left."""
    process, start = started(folder, [*words, "--out", str(run)]), time.monotonic()
    while process.poll() is None and time.monotonic() - start < LONGEST_S:
        if (run / "config.json").exists() and steps_done(run) >= after_step:
            time.sleep(delay_s)
            break
        time.sleep(0.002)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    writing = any(WRITING in p.name for p in checkpoints(run))
    return {"steps": steps_done(run), "while_writing": writing, "was_finished": process.returncode == 0}


def one(folder: Path, words: list[str], wanted: dict[str, str], total: int, rng: random.Random) -> dict[str, Any]:
    """One kill, one resume, and what differs."""
    run = Path(tempfile.mkdtemp(dir=folder)) / "run"
    moment, delay_s = rng.randrange(total + 1), rng.uniform(0, 0.15)
    row = {"after_step": moment, "delay_s": round(delay_s, 4)} | killed(folder, run, words, moment, delay_s)
    if not row["was_finished"]:
        finished(folder, ["--resume", str(run)])
    found = contents(run)
    return row | {"different": sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))}


def main(options: Options) -> int:
    rng, earlier = random.Random(options.seed), json.loads(RESULT.read_text()) if RESULT.exists() else {}
    rows = [row for row in earlier.get("rows", []) if row["case"] not in options.cases]
    command = f"python -m benchmarks.kills --kills {options.kills} --cases {' '.join(options.cases)}"
    commands = [c for c in earlier.get("commands", []) if c != command] + [command]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        common, wanted = inputs(folder), {}
        for case in options.cases:
            finished(folder, [*common, *options_of(case), "--out", f"{folder}/{case}"])
            wanted[case] = contents(folder / case)
        for number in range(options.kills):
            case = options.cases[number % len(options.cases)]
            words = [*common, *options_of(case)]
            rows.append({"case": case} | one(folder, words, wanted[case], steps_done(folder / case), rng))
            print(rows[-1], flush=True)
            body = {
                "commands": commands,
                "dnas": __version__, "machine": machine(), "kills": len(rows),
                "while_writing": sum(r["while_writing"] for r in rows),
                "same_bytes": sum(not r["different"] for r in rows), "rows": rows,
            }  # fmt: skip
            RESULT.write_text(json.dumps(body, indent=1) + "\n")
    return int(any(r["different"] for r in rows))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
