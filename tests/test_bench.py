"""What a benchmark reports: measured in a process of its own, and predictions marked where they are for something else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from dnas.bench import __main__ as bench
from dnas.bench import whole
from dnas.bench.config import BenchConfig
from dnas.bench.whole import predict, run
from dnas.cli import command
from dnas.errors import LatencyError
from dnas.export.trained import fresh

ENV = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


def test_a_prediction_for_something_else_is_marked() -> None:
    space = tiny.plain_space()
    table = replace(tiny.table_for(space), device="this", runtime="XLA 1", threads=1)
    report = table.report(space.fix((0, 0)))
    assert predict(report, "XLA 1", "float32", 1, "this").differs == ()
    assert predict(report, "XLA 1", "float32", 1, "this").ms == pytest.approx(table.latency_ms(space.fix((0, 0))))
    found = predict(report, "XLA 2", "int8", 2, "that").differs
    assert found == (
        "device this, not that", "runtime XLA 1, not XLA 2", "precision float32, not int8", "1 threads, not 2",
    )  # fmt: skip


def test_memory_is_that_of_the_process_since_it_was_asked_for() -> None:
    """100 MB that were there before do not count, 50 MB that came after do; also in the child of a large process."""
    code = (
        "import numpy as np; from dnas.bench import worker as w; old = np.ones(100_000_000, np.uint8); del old; "
        "before = w.forget_peak(); new = np.ones(50_000_000, np.uint8); del new; print(w.peak_mb() - before)"
    )
    ballast = np.ones(200_000_000, np.uint8)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENV)
    assert ballast.any() and 45 < float(done.stdout) < 60


@pytest.mark.slow
def test_measured_beside_predicted(in_tmp: Path, capsys: Any) -> None:
    space = tiny.plain_space()
    table, network = tiny.table_for(space), space.fix((0, 0))
    try:
        found = run(fresh(network), runtime="xla", lut=[table], repeats=3)
    except LatencyError as problem:
        if "disturbed by other jobs" in str(problem):
            pytest.skip(str(problem))  # it refuses to give a figure, as it should
        raise
    (row,) = found.rows
    assert row.timing.count >= 3 and 0 < row.timing.p10_ms <= row.timing.median_ms <= row.timing.p90_ms
    assert row.version.startswith("XLA of jax") and row.file_mb > 0 and row.peak_mb is not None and row.peak_mb > 1
    assert row.predictions[0].ms == pytest.approx(table.latency_ms(network)) and row.predictions[0].differs
    bench.show(found)
    assert "was made for device toy phone, not" in capsys.readouterr().out
    json.dumps(found.to_dict(), allow_nan=False)


def test_what_cannot_be_timed_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two combinations is disturbed: the first one's row is kept, and the second is named."""
    body = {
        "version": "XLA", "peak_mb": 1.0, "kernels_left": [],
        "timing": {"median_ms": 2.0, "p10_ms": 1.0, "p90_ms": 3.0, "least_ms": 1.0, "count": 3},
    }  # fmt: skip

    def measure(name: str, threads: int, *_: Any) -> dict[str, Any]:
        if threads in broken:
            raise LatencyError(f"{threads} threads: disturbed")
        return body

    monkeypatch.setattr(whole, "_measure", measure)
    monkeypatch.setattr(whole, "cores", lambda: 2)
    network = fresh(tiny.plain_space().fix((0, 0)))
    broken = {2}
    found = run(network, runtime="xla", threads=(1, 2))
    assert [row.threads for row in found.rows] == [1] and found.refused == ("2 threads: disturbed",)
    assert found.to_dict()["refused"] == ["2 threads: disturbed"]
    broken = {1, 2}
    with pytest.raises(LatencyError, match="1 threads: disturbed; 2 threads: disturbed"):
        run(network, runtime="xla", threads=(1, 2))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["fbnet_c", "--runtime", "litertt"], "--runtime 'litertt'; did you mean 'litert'?"),
        (["fbnet_c", "--runtime", "xla", "--threads", "0"], "--threads '0': expected whole numbers from 1 to"),
        (["fbnet_c", "--runtime", "xla", "--precision", "int8"], "--precision int8: xla has float32 only"),
        (["fbnet_c", "--runtime", "xla", "--repeats", "1"], "--repeats is 1"),
        (["no_such_network", "--runtime", "xla"], "no_such_network"),
    ],
)
def test_mistakes_are_one_line(args: list[str], words: str, capsys: Any) -> None:
    assert command("python -m dnas.bench", BenchConfig, bench.main, args) == 2
    text = capsys.readouterr().err
    assert words in text and "Traceback" not in text
