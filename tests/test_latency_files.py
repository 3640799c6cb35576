"""Latency table files: round trips, look-up by name, malformed and mutated JSON, large tables."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dnas.arch import Architecture
from dnas.errors import LatencyError
from dnas.files import dump_json, sha256
from dnas.latency import LatencyTable
from dnas.latency.keys import Entry, read_key
from dnas.ops import ConvOp, GlobalPoolOp, InvertedResidualOp, LinearOp, SkipOp

# -- files --------------------------------------------------------------------------------------------------------

STEM = ConvOp(in_=3, out=8, kernel=3, stride=2)
BLOCK = InvertedResidualOp(in_=8, mid=24, out=8, kernel=5, residual=True)
NETWORK = Architecture(
    (STEM, BLOCK, SkipOp(in_=8, out=8), GlobalPoolOp(), LinearOp(in_=8, out=10)), resolution=32, num_classes=10
)
BODY: dict[str, Any] = {
    "format": "dnas-lut/1", "device": "Toy phone", "runtime": "TFLite 2.1", "precision": "float32", "batch": 1,
    "unit": "ms", "status": "measured", "meaning": "absolute", "source": {"who": "us"}, "threads": 1,
    "resolutions": [32, 64],
    "entries": [
        {"op": "conv", "in": 3, "out": 8, "kernel": 3, "stride": 2, "height": 32, "width": 32, "ms": 1.5},
        {"op": "ir", "in": 8, "mid": 24, "out": 8, "kernel": 5, "residual": True, "height": 16, "width": 16,
         "ms": 2.25, "ms_p10": 2.0, "ms_p90": 3.0, "count": 50},
        {"op": "global_pool", "channels": 8, "height": 16, "width": 16, "ms": 0.125},
        {"op": "linear", "in": 8, "out": 10, "height": 1, "width": 1, "ms": 0.0625},
    ],
}  # fmt: skip

MODEL = {"formula": "primitives/1", "coefficients": {"dense_macs": 1e-6, "operators": 0.5}}


def body(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(BODY) | changes


def table(**changes: Any) -> LatencyTable:
    return LatencyTable.from_dict(body(**changes), "toy.json")


def test_round_trip(tmp_path: Path) -> None:
    lut = table(
        cost_model=MODEL, constant_ms=0.5, constant_covers=[{"op": "global_pool", "channels": 8, "height": 1, "width": 1}]
    )
    lut.save(tmp_path / "toy.json")
    again = LatencyTable.load(tmp_path / "toy.json")
    assert again == lut and again.to_json() == lut.to_json() and again.path == tmp_path / "toy.json"
    assert again.sha256 == sha256((tmp_path / "toy.json").read_bytes()) == lut.sha256
    assert list(again.entries.values())[1] == Entry(2.25, 2.0, 3.0, 50)
    assert again.report(NETWORK).to_dict()["sha256"] == lut.sha256
    json.dumps(again.report(NETWORK).to_dict(), allow_nan=False)
    assert "Toy phone, TFLite 2.1, float32, 1 thread: measured" in str(again)


def test_names_mean_the_shipped_table_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("samsung_s8", "samsung_s8.json"):
        shipped = LatencyTable.load(name)
        assert shipped.status == "estimated" and shipped.notice is None and shipped.name == "samsung_s8.json"
    table().save("samsung_s8.json")
    table().save("own.json")
    both = LatencyTable.load("samsung_s8")
    assert both.device == shipped.device and both.notice is not None and "./samsung_s8.json" in both.notice
    for path in ("./samsung_s8.json", Path("samsung_s8.json"), tmp_path / "samsung_s8.json", "own", "own.json"):
        assert LatencyTable.load(path).device == "Toy phone"
    with pytest.raises(LatencyError, match=r"unknown latency table 'samsung_s9'; did you mean 'samsung_s8.json'\?"):
        LatencyTable.load("samsung_s9")
    for wrong in ("", "a\0b", "./none.json", tmp_path):
        with pytest.raises(LatencyError):
            LatencyTable.load(wrong)


def test_a_large_table_loads(tmp_path: Path) -> None:
    row = dict(BODY["entries"][1])
    rows = [row | {"in": 1 + i % 100, "mid": 1 + i // 100, "ms": 1.0 + i} for i in range(100_000)]
    (tmp_path / "large.json").write_text(dump_json(body(entries=rows), rows="entries"), encoding="utf-8")
    start = time.perf_counter()
    lut = LatencyTable.load(tmp_path / "large.json")
    print(f"100,000 entries in {time.perf_counter() - start:.2f} s")
    assert len(lut.entries) == 100_000
    assert lut.entries[read_key(row | {"in": 8, "mid": 25}, frozenset(row))].ms == 1.0 + 2407


def _entry(index: int, **changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda b: b["entries"][index].update(changes)


MUTATIONS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "format": (lambda b: b.update(format="dnas-lut/2"), "format is 'dnas-lut/2'; expected 'dnas-lut/1'"),
    "no device": (lambda b: b.pop("device"), "missing field 'device'"),
    "device": (lambda b: b.update(device=3), "device is 3; expected text"),
    "unit": (lambda b: b.update(unit="us"), "unit is 'us'; expected 'ms'"),
    "status": (lambda b: b.update(status="guessed"), "status is 'guessed'; expected one of measured, recovered"),
    "meaning": (lambda b: b.update(meaning=["absolute"]), "expected one of absolute, relative_to_skip"),
    "threads": (lambda b: b.update(threads=0), "threads is 0; expected a whole number from 1"),
    "batch": (lambda b: b.update(batch=True), "batch is True; expected a whole number"),
    "source": (lambda b: b.update(source="us"), "source is 'us'; expected an object"),
    "resolutions": (lambda b: b.update(resolutions=[64, 32]), "expected the lowest first"),
    "resolution": (lambda b: b.update(resolutions=[64]), "resolutions is (64,); expected [lowest, highest]"),
    "unknown field": (lambda b: b.update(devise="x"), "unknown field 'devise'; did you mean 'device'?"),
    "constant": (lambda b: b.update(constant_ms=-1), "constant_ms is -1; expected a number that is not negative"),
    "covers": (lambda b: b.update(constant_covers=[{"op": "conv"}]), "constant_covers[0]: conv: missing field 'in'"),
    "formula": (lambda b: b.update(cost_model={"formula": "x", "coefficients": {"a": 1}}), "cost_model.formula is 'x'"),
    "feature": (lambda b: b.update(cost_model=MODEL | {"coefficients": {"mac": 1}}), "unknown feature 'mac'"),
    "coefficient": (lambda b: b.update(cost_model=MODEL | {"coefficients": {"operators": -1}}), "operators is -1"),
    "model of a relative table": (lambda b: b.update(cost_model=MODEL, meaning="relative_to_skip"), "only its own"),
    "entries": (lambda b: b.update(entries={}), "entries is {}; expected a list of objects"),
    "entry": (lambda b: b.update(entries=[7]), "entries[0] is 7; expected an object"),
    "op": (_entry(0, op="convv"), "entries[0]: op is 'convv'; expected an op type; did you mean 'conv'"),
    "op type": (_entry(0, op=[]), "entries[0]: op is []; expected an op type"),
    "no op field": (lambda b: b["entries"][1].pop("mid"), "entries[1]: ir: missing field 'mid'; expected a whole"),
    "no height": (lambda b: b["entries"][1].pop("height"), "entries[1]: ir: missing field 'height'"),
    "no ms": (lambda b: b["entries"][2].pop("ms"), "entries[2]: global_pool(channels=8) on 16x16: missing field 'ms'"),
    "unknown key": (_entry(1, kernal=3), "entries[1]: ir: unknown field 'kernal'; did you mean 'kernel'?"),
    "text for a number": (_entry(1, mid="24"), "entries[1]: ir: mid is '24'; expected a whole number"),
    "fraction": (_entry(1, kernel=2.5), "entries[1]: ir: kernel is 2.5; expected a whole number"),
    "truth": (_entry(1, residual=1), "entries[1]: ir: residual is 1; expected true or false"),
    "zero": (_entry(1, stride=0), "entries[1]: ir: stride is 0; expected 1 to"),
    "huge": (_entry(1, mid=10**5000), "entries[1]: ir: mid is int too large to print"),
    "activation": (_entry(1, act="rely"), "entries[1]: ir: act is 'rely'; did you mean 'relu'"),
    "not JSON": (_entry(1, mid={1}), "entries[1]: ir: mid is {1}; expected a whole number"),
    "se": (_entry(1, se={"reduce": 0}), "entries[1]: ir: se.reduce is 0"),
    "se gate": (_entry(1, se={"reduce": 4, "gate": "soft"}), "expected fields reduce, act, gate, bias"),
    "negative": (_entry(0, ms=-0.1), "ms is -0.1; expected a number that is not negative"),
    "not a number": (_entry(0, ms=float("nan")), "ms is nan; expected a number"),
    "infinite": (_entry(0, ms=1e999), "ms is inf; expected a number"),
    "text ms": (_entry(0, ms="1.5"), "ms is '1.5'; expected a number"),
    "huge ms": (_entry(0, ms=10**400), "expected a number that is not negative, at most 1e+09 ms"),
    "percentiles": (_entry(1, ms_p10=4.0), "ms_p10 is 4.0 and ms_p90 is 3.0"),
    "count": (_entry(1, count=0), "count is 0; expected a whole number from 1"),
    "twice": (lambda b: b["entries"].append(dict(b["entries"][0], bias=True)), "given before, as entries[0]"),
}  # fmt: skip


@pytest.mark.parametrize("case", MUTATIONS)
def test_malformed_tables_name_the_place(case: str) -> None:
    change, text = MUTATIONS[case]
    given = body()
    change(given)
    with pytest.raises(LatencyError) as caught:
        LatencyTable.from_dict(given)
    assert text in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "not JSON"), ("[]", "expected an object"), ('{"a": NaN}', "NaN"), ('{"a": 1, "a": 2}', "twice"),
     ("{" * 5000, "not"), (json.dumps(body(batch=0)), "batch is 0")],
)  # fmt: skip
def test_malformed_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.json").write_text(text, encoding="utf-8")
    with pytest.raises(LatencyError, match=message) as caught:
        LatencyTable.load(tmp_path / "bad.json")
    assert "bad.json" in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["ir", "relu"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PLACES = st.sampled_from([("entries", i, f) for i, e in enumerate(BODY["entries"]) for f in (*e, "se", "act", "x")]) | (
    st.sampled_from([(f,) for f in (*BODY, "error", "constant_ms", "constant_covers", "cost_model", "y")])
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(PLACES, JSON), min_size=1, max_size=3))
def test_any_other_json_is_a_table_or_a_latency_error(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    mutated = body()
    for place, value in changes:
        target: Any = mutated
        for step in place[:-1]:  # an earlier change may have taken the place away
            reachable = isinstance(target, list) and len(target) > step if type(step) is int else step in target
            target = target[step] if reachable else None
        if isinstance(target, dict):
            target[place[-1]] = value
    try:
        lut = LatencyTable.from_dict(mutated)
    except LatencyError as problem:
        assert str(problem)
        return
    again = LatencyTable.from_dict(json.loads(lut.to_json()))
    assert again == lut and again.to_json() == lut.to_json()
