"""A whole benchmark: write the network for each runtime and precision, measure each in a process of its own, predict."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnas import fold
from dnas.errors import ConfigError, LatencyError
from dnas.export.formats import PRECISIONS
from dnas.export.trained import Trained, load
from dnas.export.whole import names_of
from dnas.files import kind, one_line
from dnas.latency.table import LatencyReport, LatencyTable
from dnas.latency.timing import Timing
from dnas.machine import cores, device
from dnas.runtimes import RUNTIMES, Runtime
from dnas.runtimes import runtime as _runtime


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a table says. ``differs``: in what it was made for something else than was measured; empty: comparable."""

    report: LatencyReport = dataclasses.field(repr=False)
    ms: float
    interval_ms: tuple[float, float] | None
    differs: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {**self.report.to_dict(), "made_for_something_else": list(self.differs)}


@dataclasses.dataclass(frozen=True)
class Measured:
    """One row. ``peak_mb``: resident memory that model and run added, in MB; ``file_mb``: size of the model, in MB.

    ``kernels_left``: operators that XNNPACK did not take.
    """

    runtime: str
    version: str
    precision: str
    threads: int
    timing: Timing
    peak_mb: float | None
    file_mb: float
    kernels_left: tuple[str, ...]
    predictions: tuple[Prediction, ...]

    def to_dict(self) -> dict[str, Any]:
        body = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        predictions = [p.to_dict() for p in self.predictions]
        return body | {"timing": self.timing.to_dict(), "kernels_left": list(self.kernels_left), "predictions": predictions}


@dataclasses.dataclass(frozen=True)
class Bench:
    """All rows of one network on one machine. ``refused``: combinations that could not be measured, and why."""

    network: Trained = dataclasses.field(repr=False)
    device: str
    rows: tuple[Measured, ...]
    refused: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        network = self.network.architecture
        return {
            "format": "dnas-bench/1", "network": network.name, "resolution": network.resolution,
            "architecture_sha256": network.fingerprint, "weights": self.network.source, "device": self.device, "batch": 1,
            "rows": [row.to_dict() for row in self.rows], "refused": list(self.refused),
        }  # fmt: skip


def run(
    network: Trained | str | os.PathLike[str],
    *,
    runtime: str | Sequence[str] = "litert",
    threads: str | Sequence[int] = "1",
    precision: str | Sequence[str] = "float32",
    lut: Sequence[str | LatencyTable] = (),
    missing: str | None = None,
    resolution: int | None = None,
    repeats: int = 50,
    each: Callable[[str], object] = lambda doing: None,
) -> Bench:
    """Measure ``network``, batch 1, in every combination; arguments as the command's options (``dnas.bench.config``).

    ``each``: told what is measured next. A combination that cannot be timed costs the others nothing. Errors: ConfigError,
    LatencyError where a table lacks an op, or nothing could be timed.
    """
    runtimes = names_of(runtime, tuple(RUNTIMES), "--runtime")
    precisions = names_of(precision, PRECISIONS, "--precision")
    counts = _threads(threads)
    for number in precisions:
        if number != "float32" and "litert" not in runtimes:
            raise ConfigError(f"--precision {number}: {' and '.join(runtimes)} has float32 only; add litert to --runtime")
    if repeats < 3:
        raise ConfigError(f"--repeats is {repeats}; expected a number from 3")
    found = {name: _runtime(name) for name in runtimes}
    tables = [table if isinstance(table, LatencyTable) else LatencyTable.load(table) for table in lut]
    if not isinstance(network, Trained):
        network = load(network) if kind(network) == "folder" else load(network, random=True)
    if resolution is not None:
        network = dataclasses.replace(network, architecture=network.architecture.at(resolution))
    reports = [table.report(network.architecture, missing) for table in tables]  # first: these may refuse
    here, rows, refused = device(), [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in runtimes:
            for number in [p for p in precisions if p == "float32" or name == "litert"]:
                each(f"{name}, {number}: writing")
                path = Path(folder) / f"{name}-{number}"
                path.write_bytes(_model(network, found[name], number))
                for count in counts:
                    each(f"{name}, {number}, {count} thread{'s' if count > 1 else ''}")
                    try:
                        body = _measure(name, count, repeats, path, network, number)
                    except LatencyError as problem:
                        refused.append(str(problem))
                        continue
                    version = body["version"]
                    rows.append(
                        Measured(
                            name,
                            version,
                            number,
                            count,
                            Timing(**body["timing"]),
                            body["peak_mb"],
                            path.stat().st_size / 1e6,
                            tuple(body["kernels_left"]),
                            tuple(predict(r, version, number, count, here) for r in reports),
                        )
                    )
    if not rows:
        raise LatencyError("; ".join(refused))
    return Bench(network, here, tuple(rows), tuple(refused))


def predict(report: LatencyReport, version: str, precision: str, threads: int, device: str) -> Prediction:
    """``report`` beside a measurement with these conditions."""
    table = report.table
    pairs = (("device", table.device, device), ("runtime", table.runtime, version), ("precision", table.precision, precision))
    differs = [f"{what} {then}, not {now}" for what, then, now in pairs if then != now]
    if table.threads not in (None, threads):
        differs.append(f"{table.threads} threads, not {threads}")
    return Prediction(report, report.total_ms, report.interval_ms, tuple(differs))


def _model(network: Trained, found: Runtime, precision: str) -> bytes:
    if precision == "float32":
        return found.write(network.architecture, network.params, network.stats)
    from dnas.export import tflite

    noise = np.random.default_rng(0).normal(size=(20, *network.architecture.shapes[0])).astype(np.float32)
    return tflite.write(fold.fold(network.architecture, network.params, network.stats), None, precision, noise)


def _measure(name: str, threads: int, repeats: int, path: Path, network: Trained, precision: str) -> dict[str, Any]:
    given = json.dumps([[1, *network.architecture.shapes[0]], "int8" if precision == "int8" else "float32"])
    words = [sys.executable, "-m", "dnas.bench.worker", name, str(threads), str(repeats), str(path), given]
    package = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": paths})
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise LatencyError(f"{name}, {precision}, {threads} threads cannot be measured: {last}")
    body: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return body


def _threads(given: str | Sequence[int]) -> tuple[int, ...]:
    parts = given.split(",") if isinstance(given, str) else list(given)
    try:
        counts = tuple(dict.fromkeys(int(part) for part in parts))
    except ValueError as problem:
        raise ConfigError(f"--threads {given!r}: {one_line(problem)}; expected whole numbers such as 1,2") from None
    if not counts or not all(1 <= count <= cores() for count in counts):
        raise ConfigError(f"--threads {given!r}: expected whole numbers from 1 to {cores()}, the cores that there are")
    return counts
