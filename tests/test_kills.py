"""Runs that are killed at random moments and resumed end in the bytes of a run that was left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("benchmarks", reason="the wheel has no benchmarks")
from benchmarks import kills


@pytest.mark.slow
def test_killed_and_resumed_it_is_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three here; ``python -m benchmarks.kills`` kills twenty."""
    monkeypatch.setattr(kills, "RESULT", tmp_path / "kills.json")
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # the simulated devices of the other tests
    assert kills.main(kills.Options(kills=3, seed=1)) == 0
    body = json.loads((tmp_path / "kills.json").read_text())
    assert body["same_bytes"] == body["kills"] == 3 and {r["case"] for r in body["rows"]} == {"gumbel", "family"}


def test_what_differs_is_found(tmp_path: Path) -> None:
    """The comparison sees other bytes, missing files, and other figures in a checkpoint."""
    import numpy as np

    from dnas.runs import Journal

    for name, figure, text in (("a", 1.0, "x"), ("b", 2.0, "y")):
        journal = Journal.create(str(tmp_path / name), "", 1.0)
        journal.record({"phase": "search", "epoch": 1})
        journal.save("search", 1, 0, 5, {"w": np.float32(figure)}, {})
        (tmp_path / name / "architecture.json").write_text(text)
    (tmp_path / "b" / "more.txt").write_text("")
    a, b = (kills.contents(tmp_path / name) for name in ("a", "b"))
    assert {k for k in a.keys() | b.keys() if a.get(k) != b.get(k)} == {"architecture.json", "checkpoint", "more.txt"}
    assert a["history.jsonl"] == b["history.jsonl"] and kills.steps_done(tmp_path / "a") == 5
