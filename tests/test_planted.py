"""benchmarks.planted: which networks keep its target, what its comparison says of rows by hand, and that its file is that."""

from __future__ import annotations

import json
from typing import Any

import pytest

import dnas

pytest.importorskip("benchmarks", reason="the wheel has no benchmarks")
from benchmarks import planted


def test_all_networks_within_the_target_are_known() -> None:
    space = planted.space()
    lut = planted.table(space)
    found = planted.within(space, lut)
    assert len(found) == dnas.derive.banded(space, lut, 0.0, planted.TARGET_MS).count
    assert 0 < sum(ms >= 0.9 * planted.TARGET_MS for ms in found.values()) < len(found)
    assert {planted.code_of(g) for g in found} == set(json.loads(planted.RESULT.read_text())["truth"])


def test_the_comparison_by_hand() -> None:
    """Two seeds; random search affords two networks of the short trainings, one of the long ones."""
    trained = [{"code": c, "selection_top1": v, "selection_loss": 1.0} for c, v in (("b", 0.5), ("c", 0.7), ("a", 0.9))]
    rows: list[dict[str, Any]] = [
        {"method": name, "seed": seed, "cpu_s": 2.5, "images": 10, "code": "ab"[seed], "networks": trained, "cpu_s_each": each}
        for name in planted.OPTIONS for seed in (0, 1) for each in [2.0 if name.endswith("8 epochs each") else 1.0]
    ]  # fmt: skip
    found = planted.summary({"truth": {"a": [0.9, 0.9], "b": [0.8, 0.8], "c": [0.6, 0.7]}, "rows": rows})
    assert (found["best"], found["best_accuracy"], found["networks_within"]) == ("a", 0.9, 3)
    method = found["methods"]["gumbel"]
    assert (method["n"], method["regret"]["mean"]) == (2, 5.0)
    short, long = (method[name] for name in planted.CONTROLS)
    assert (short["networks"], short["regret"]["mean"], short["difference"]) == (2, 25.0, -20.0)
    assert (long["networks"], long["regret"]["mean"], long["difference"]) == (1, 10.0, -5.0)
    assert long["interval95"] == [-10.0, 0.0]


def test_the_published_summary_is_that_of_the_rows() -> None:
    body = json.loads(planted.RESULT.read_text())
    assert planted.summary(body) == body["summary"]
    assert all(figures["n"] == planted.SEEDS for figures in body["summary"]["methods"].values())
