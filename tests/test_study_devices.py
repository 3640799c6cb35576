"""benchmarks.study.devices: the fastest network of each device by brute force, and a cost model found again in a table."""

from __future__ import annotations

import dataclasses

import pytest

from dnas.latency import LatencyTable
from dnas.latency.cost_model import CostModel
from dnas.latency.keys import Entry
from dnas.oracle import load
from dnas.space import load_space

pytest.importorskip("benchmarks", reason="the wheel has no benchmarks")
from benchmarks.study.devices import accuracies_within, changes, chosen, error_of, penalties, regression, table


def test_the_fastest_network_of_each_device_reaches_the_accuracy_and_none_is_faster() -> None:
    oracle, tables = load("nas-bench-macro"), [LatencyTable.load(n) for n in ("samsung_s8", "xeon_nas_bench_macro")]
    levels = [*accuracies_within(oracle, tables[0], (0.25, 0.5)), 85.0]
    choices = chosen(oracle, tables, levels)
    for wanted, found in zip(levels, choices, strict=True):
        for lut in tables:
            own, costs = found["fastest_by"][lut.name], oracle.costs(lut)
            assert own["accuracy"] == oracle.accuracy(own["code"]) >= wanted
            assert own["ms"][lut.name] == pytest.approx(lut.latency_ms(oracle.space.fix(tuple(map(int, own["code"])))))
            assert not (costs[oracle.accuracies >= wanted] < own["ms"][lut.name]).any()
    for level, share in zip(levels, (0.25, 0.5), strict=False):
        costs = oracle.costs(tables[0])
        budget = float(costs.min() + share * (costs.max() - costs.min()))
        assert level == oracle.best(budget, tables[0]).accuracy


def test_a_network_that_was_chosen_for_another_device_takes_longer_or_is_the_same() -> None:
    oracle = load("nas-bench-macro")
    choices = chosen(oracle, [LatencyTable.load(n) for n in ("samsung_s8", "xeon_nas_bench_macro")], (85.5, 90.5))
    there, back = penalties(choices, {"samsung_s8.json": 1.0, "xeon_nas_bench_macro.json": 0.0}, oracle.canonical)
    assert (
        (there["chosen_for"], there["on"])
        == (back["on"], back["chosen_for"])
        == ("samsung_s8.json", "xeon_nas_bench_macro.json")
    )
    codes = [{v["code"] for v in c["fastest_by"].values()} for c in choices]
    assert [len(c) for c in codes] == [1, 2]
    for found in (there, back):
        assert found["same_network"] == 0.5 and found["largest"] > 0
        assert found["longer"] == pytest.approx(found["largest"] / 2)
    assert (there["beyond"], back["beyond"]) == (0.5, 0.0)  # of the table where it runs
    assert "| samsung_s8.json | 4.5% (8.9%), 50%, 50% |  |" in table([there, back])
    again = changes([choices[0], choices[0], choices[1]])
    assert [c["from"] for c in again] == [85.5, 90.5] and set(again[1].values()) > codes[1]
    first, second = (
        choices[1]["fastest_by"][n]["ms"]["samsung_s8.json"] for n in ("xeon_nas_bench_macro.json", "samsung_s8.json")
    )
    assert back["largest"] == pytest.approx(first / second - 1)


def test_a_cost_model_is_found_again_in_the_blocks_that_it_priced() -> None:
    space = load_space("fbnet_cifar").at(num_classes=100)
    model = CostModel("primitives/1", {"dense_macs": 2e-7, "depthwise_macs": 9e-7, "operators": 0.02})
    pixel3 = LatencyTable.load("pixel3_fbnet_cifar")
    priced = {
        c.op.price_fields(s.shape_of(c)): Entry(model.op_ms(c.op, s.shape_of(c))) for s in space.slots for c in s.candidates
    }
    made = dataclasses.replace(pixel3, entries={k: v for k, v in priced.items() if k in pixel3.entries})
    found = regression(made, space)
    assert error_of(found) == found.error["leave_one_stage_out"] and found.name == f"model of {made.name}"
    assert error_of(LatencyTable.load("samsung_s8")) == 0.0593 and error_of(LatencyTable.load("xeon_nas_bench_macro")) < 0.05
    assert found.cost_model is not None and found.error["leave_one_stage_out"] == pytest.approx(0, abs=1e-4)
    for feature, value in model.coefficients.items():
        assert found.cost_model.coefficients[feature] == pytest.approx(value, rel=1e-3)
    own, other = (load("nas-bench-macro").costs(t) for t in (found, dataclasses.replace(found, cost_model=model)))
    assert own == pytest.approx(other, rel=1e-3)
