"""Mangled table files: an error that names file and field, or a table whose every price is the file's."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_latency_files import BODY, MODEL, NETWORK, body

from dnas.errors import LatencyError
from dnas.files import dump_json
from dnas.latency import LatencyTable
from dnas.latency.check import check
from dnas.latency.keys import read_key
from dnas.latency.terms import price
from dnas.space import load_space

TEXT = dump_json(
    body(cost_model=MODEL, status="estimated", error={"summary": "none", "measured_over_estimated": [0.5, 2.0]}), rows="entries"
)
PUT = [
    "",
    "NaN",
    "Infinity",
    "-1",
    "1e999",
    "-0.0",
    "9" * 5000,
    '"',
    "{",
    "}",
    "[]",
    "null",
    "true",
    '"ms": 3,',
    "\\ud800",
    "\x00",
]


def prices_are_those_of_the_file(lut: LatencyTable, text: str) -> None:
    """Every entry's figure, and a network's sum, computed again from the plain JSON."""
    given_rows = json.loads(text)["entries"]
    assert [e.ms for e in lut.entries.values()] == [float(row["ms"]) for row in given_rows]
    figures = ("ms", "ms_p10", "ms_p90", "count", "mj")
    by_key = {read_key({k: v for k, v in row.items() if k not in figures}): row["ms"] for row in given_rows}
    assert len(by_key) == len(lut.entries)
    for op, shape in zip(NETWORK.layers, NETWORK.shapes, strict=False):
        key = op.price_fields(shape)
        try:
            found = lut.op_ms(op, shape, missing="error")
        except LatencyError as problem:
            assert key not in by_key and "no entry for" in str(problem)
            continue
        expected = {"entry": by_key.get(key), "free": 0.0, "constant": 0.0}
        assert found.ms == expected[found.source] and math.isfinite(found.ms)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, len(TEXT)), st.integers(0, 30), st.sampled_from(PUT)), min_size=1, max_size=3))
@example([(TEXT.index('"operators"') + 1, 0, "9" * 5000)])  # a name of 5,000 digits is cut in the message
def test_no_mangled_text_breaks_a_table(tmp_path: Path, cuts: list[tuple[int, int, str]]) -> None:
    text = TEXT
    for at, length, put in cuts:
        text = text[:at] + put + text[at + length :]
    (tmp_path / "mangled.json").write_text(text, encoding="utf-8")
    try:
        lut = LatencyTable.load(tmp_path / "mangled.json")
    except LatencyError as problem:
        assert "mangled.json" in str(problem) and "\n" not in str(problem) and len(str(problem)) < 2000
        return
    prices_are_those_of_the_file(lut, text)
    dump_json(check(lut).facts)


NUMBERS = st.one_of(
    st.floats(), st.integers(), st.sampled_from([1e308, 5e-324, 10**400, -0.0, True, None, "1", [], {}, 2**63])
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 3), st.sampled_from(["ms", "ms_p10", "ms_p90", "count", "mj", "in", "mid", "kernel", "height"]), NUMBERS)
def test_a_wrong_figure_is_named(index: int, field: str, value: Any) -> None:
    mutated = body()
    mutated["entries"][index][field] = value
    try:
        lut = LatencyTable.from_dict(mutated, "toy.json")
    except LatencyError as problem:
        assert f"entries[{index}]" in str(problem) and field in str(problem)
        return
    prices_are_those_of_the_file(lut, json.dumps(mutated))
    assert math.isfinite(sum(e.ms for e in lut.entries.values()))


@pytest.mark.parametrize("field", [*BODY["entries"][1], "device", "entries"])
def test_a_repeated_field_is_named(tmp_path: Path, field: str) -> None:
    text = dump_json(body(), rows="entries")
    at = text.index(f'"{field}":', text.index('"entries"') if field in BODY["entries"][1] else 0)
    (tmp_path / "t.json").write_text(text[:at] + f'"{field}": 1, ' + text[at:])
    with pytest.raises(LatencyError, match=f"field '{field}' appears twice"):
        LatencyTable.load(tmp_path / "t.json")


def test_a_space_is_never_priced_by_what_is_not_there() -> None:
    """Every candidate of a space has the figure of its own entry, or pricing the space is an error."""
    space, whole = load_space("fbnet_mini"), LatencyTable.load("samsung_s8").to_dict()
    keys = list(dict.fromkeys(c.op.price_fields(s.in_shape) for s in space.slots for c in s.candidates if c.op.primitives()))
    rows = [row for row in whole["entries"] if read_key({k: v for k, v in row.items() if k != "ms"}) in keys]
    for dropped in range(0, len(rows), 7):
        fewer = whole | {"entries": rows[:dropped] + rows[dropped + 1 :], "cost_model": None, "status": "measured"}
        with pytest.raises(LatencyError, match="no entry for"):
            price(space, LatencyTable.from_dict(fewer))
    numbered = [row | {"ms": float(n)} for n, row in enumerate(rows)]
    terms = price(space, LatencyTable.from_dict(whole | {"entries": numbered, "cost_model": None, "status": "measured"}))
    by_key = {read_key({k: v for k, v in row.items() if k != "ms"}): row["ms"] for row in numbered}
    for slot, ms in zip(space.slots, terms.candidates_ms, strict=True):
        assert list(ms) == [by_key.get(c.op.price_fields(slot.in_shape), 0.0) for c in slot.candidates]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["entries", "name", "nesting", "number"])
def test_files_of_50_megabytes_are_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    row = dump_json({k: v for k, v in BODY["entries"][1].items()}).replace("\n", "")
    size = 50_000_000
    big = {
        "entries": TEXT.replace('"entries": [', '"entries": [' + (row + ",") * (size // (len(row) + 1))),
        "name": TEXT.replace('"op": "linear"', f'"{"x" * size}": 1, "op": "linear"'),
        "nesting": TEXT.replace('"who": "us"', '"who": ' + "[" * size),
        "number": TEXT.replace('"batch": 1', '"batch": ' + "9" * size),
    }[kind]
    assert len(big) >= size * 0.99
    (tmp_path / "big.json").write_text(big, encoding="utf-8")
    with pytest.raises(LatencyError) as caught:
        LatencyTable.load(tmp_path / "big.json")
    assert "big.json" in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 2000
    if kind in ("entries", "name"):
        assert "entries[" in str(caught.value)
