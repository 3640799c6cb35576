"""Tables corrected by whole networks, networks.csv, and intervals from end-to-end residuals."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnas.errors import LatencyError
from dnas.files import dump_json
from dnas.latency import CostModel, LatencyTable
from dnas.latency.calibrate import Row
from dnas.latency.correct import correct, validated
from dnas.latency.fitted import fit_table
from dnas.latency.forms import form
from dnas.latency.intervals import Residuals
from dnas.latency.keys import Entry
from dnas.latency.measured import read_networks
from dnas.space import load_space

SPACE = load_space("fbnet_mini")


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    rng = np.random.default_rng(0)
    pairs = [(c.op, s.in_shape) for s in SPACE.slots for c in s.candidates if c.op.primitives()]
    entries = {op.price_fields(shape): Entry(float(rng.uniform(0.1, 1)), 0.05, 1.5, 9) for op, shape in pairs}
    lut = LatencyTable(
        device="toy phone", runtime="none", precision="float32", status="measured", meaning="absolute", entries=entries,
        source={"who": "random numbers", "licence": "none"}, constant_ms=0.5, error={"summary": "none"},
        cost_model=CostModel("primitives/1", {"operators": 0.1}),
    )  # fmt: skip
    return LatencyTable.from_dict(lut.to_dict(), "toy.json")


def rows(table: LatencyTable, n: int, scale: float, offset: float, noise: float = 0.0) -> list[Row]:
    rng = np.random.default_rng(1)
    found = []
    for index in range(n):
        network = SPACE.fix(SPACE.sample(index))
        ms = (scale * table.latency_ms(network) + offset) * math.exp(noise * rng.normal())
        found.append(Row.of(f"n{index}", f"f{index % 3}", ms, network))
    return found


# -- scale and offset ---------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.floats(0.2, 5), st.floats(0.05, 20))
def test_a_planted_scale_and_offset_are_recovered(table: LatencyTable, scale: float, offset: float) -> None:
    measured = rows(table, 12, scale, offset)
    found = correct(table, measured)
    given_scale, given_offset = (found.error["calibration"][k] for k in ("scale", "offset_ms"))
    assert given_scale == pytest.approx(scale, rel=1e-2) and given_offset == pytest.approx(offset, rel=0.05, abs=0.05)
    for index, row in enumerate(measured):
        assert found.latency_ms(SPACE.fix(SPACE.sample(index))) == pytest.approx(row.ms, rel=1e-3)
    key, entry = next(iter(table.entries.items()))
    now = found.entries[key]
    assert now.ms == pytest.approx(given_scale * entry.ms, rel=1e-5) and now.count == entry.count
    assert now.ms_p90 == pytest.approx(given_scale * 1.5, rel=1e-5)
    assert found.cost_model is not None
    assert found.cost_model.coefficients["operators"] == pytest.approx(given_scale * 0.1, rel=1e-5)


def test_the_simplest_form_that_explains_the_networks_is_taken(table: LatencyTable) -> None:
    assert correct(table, rows(table, 9, 1.0, 0.0)).error["calibration"]["form"] == "as it is"
    assert correct(table, rows(table, 9, 1.0, 0.0)).entries == table.entries
    assert correct(table, rows(table, 9, 1.5, 0.0)).error["calibration"]["form"] == "scale"
    assert correct(table, rows(table, 9, 1.5, 3.0)).error["calibration"]["form"] == "scale + offset"


def test_no_network_is_priced_below_zero(table: LatencyTable) -> None:
    """Networks that ask for a negative offset get none, and a sentence says so."""
    found = correct(table, rows(table, 12, 1.5, -0.6))
    assert found.constant_ms >= 0 and all(e.ms >= 0 for e in found.entries.values())
    assert found.error["calibration"]["offset_ms"] == 0
    said = [w for w in found.error["warnings"] if "is held at 0" in w]
    assert len(said) == 1 and said[0].startswith("The offset that fits best is -0.6 ms")
    fine = correct(table, rows(table, 12, 1.5, 3.0)).error["warnings"]
    assert not [w for w in fine if "is held at 0" in w]


def test_networks_that_do_not_follow_their_sums_price_no_op_at_zero(table: LatencyTable) -> None:
    """An offset alone would explain such latencies best; ops keep their prices, and a sentence says what is wrong."""
    found = correct(table, rows(table, 12, -0.01, 9.0))
    assert found.error["calibration"]["form"] == "scale" and all(e.ms > 0 for e in found.entries.values())
    assert "did not take longer" in " ".join(found.error["warnings"])


def test_the_held_out_error_is_compared_with_macs_and_stored(table: LatencyTable) -> None:
    found = correct(table, rows(table, 15, 1.4, 1.0, noise=0.02))
    held = found.error["calibration"]["leave_one_out"]
    assert held["scale + offset"]["mean"] < held["as it is"]["mean"] and "a + b x MACs" in held
    assert found.error["before"]["summary"] == "none" and "15 whole networks" in found.summary()
    assert found.interval(10.0) is not None and found.sha256 == LatencyTable.from_dict(found.to_dict()).sha256


def test_entries_of_another_device_are_no_longer_measured(table: LatencyTable) -> None:
    measured = rows(table, 9, 1.5, 0.0)
    assert correct(table, measured, about={"device": "toy phone", "threads": None}).status == "measured"
    other = correct(table, measured, about={"device": "another phone"})
    assert (other.status, other.device, other.error["before"]["device"]) == ("estimated", "another phone", "toy phone")


def test_what_cannot_be_corrected_is_said(table: LatencyTable) -> None:
    with pytest.raises(LatencyError, match="needs three or more"):
        correct(table, rows(table, 2, 1.0, 0.0))
    fewer = dataclasses.replace(table, entries=dict(list(table.entries.items())[5:]), cost_model=None)
    with pytest.raises(LatencyError, match=r"n0: toy\.json .* has no entry for"):
        correct(fewer, rows(table, 5, 1.0, 0.0))


def test_validation_leaves_prices_alone_and_counts_what_it_cannot_price(table: LatencyTable) -> None:
    measured = rows(table, 6, 1.1, 0.0)
    found = validated(table, measured)
    assert found.entries == table.entries and found.error["mean"] == pytest.approx(1 - 1 / 1.1, abs=1e-3)
    assert found.error["residuals"]["bias"] == pytest.approx(1.1, rel=1e-4) and found.error["not_priced"] == {}
    fewer = dataclasses.replace(table, entries=dict(list(table.entries.items())[12:]), cost_model=None)
    with pytest.raises(LatencyError, match="can price none of 6 networks"):
        validated(fewer, measured)


# -- a fit from scratch -------------------------------------------------------------------------------------------


def test_a_fit_recovers_a_planted_model_and_prices_the_space(table: LatencyTable) -> None:
    planted = CostModel("primitives/1", {"dense_macs": 2e-6, "depthwise_macs": 6e-6, "operators": 0.05})
    header = dataclasses.replace(table, entries={}, cost_model=None, constant_ms=0.0, error={"warnings": ["ours"]})
    measured = []
    for index in range(20):
        network = SPACE.at(16 + 8 * (index % 3)).fix(SPACE.sample(index))
        row = Row.of(f"n{index}", f"f{index % 3}", 1.0, network)
        measured.append(dataclasses.replace(row, ms=math.fsum(planted.op_ms(op, shape) for op, shape in row.layers)))
    names = ("MACs + operators", "dense + depthwise + operators")
    found = fit_table(header, measured, [form(n) for n in names], ("fbnet_mini",))
    assert found.cost_model is not None and dict(found.cost_model.coefficients) == pytest.approx(planted.coefficients, rel=1e-4)
    assert found.status == "estimated" and found.resolutions == (16, 32) and found.error["warnings"] == ["ours"]
    assert found.error["model"]["form"] == names[1] and found.error["improvement"] > 0.9
    for slot in SPACE.slots:
        for c in slot.candidates:
            price = found.op_ms(c.op, slot.in_shape, missing="error")
            assert price.ms == pytest.approx(planted.op_ms(c.op, slot.in_shape), rel=1e-3)
    with pytest.raises(LatencyError, match="a fit from scratch starts from a header"):
        fit_table(table, measured, [form(n) for n in names])
    with pytest.raises(LatencyError, match="determine none of 2 forms"):
        fit_table(header, measured[:2], [form(n) for n in names])


# -- networks.csv -------------------------------------------------------------------------------------------------


def test_networks_are_read_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "archs").mkdir()
    SPACE.fix([0] * 6).save(tmp_path / "archs" / "a.json")
    (tmp_path / "n.csv").write_text(
        '# a comment\nname,architecture,ms,resolution,family\none,archs/a.json,1.5,,x\n\n"two, b",archs/a.json, 2 ,32,\n'
    )
    one, two = read_networks(tmp_path / "n.csv")
    assert (one.name, one.family, one.ms, one.layers[0][1].height) == ("one", "x", 1.5, 16)
    assert (two.name, two.family, two.ms, two.layers[0][1].height) == ("two, b", "two, b", 2.0, 32)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"), ("architecture,ms\n", "no network"), ("architecture\na.json\n", "no column 'ms'"),
        ("architecture,us\na.json,3\n", "column 'us' is unknown or there twice"), ("architecture,ms,ms\n", "column 'ms'"),
        ("architecture,ms\na.json\n", "line 2 has 1 cells; expected 2"), ("architecture,ms\na.json,x\n", "line 2: ms is 'x'"),
        ("architecture,ms\na.json,0\n", "ms is '0'"), ("architecture,ms\na.json,nan\n", "ms is 'nan'"),
        ("architecture,ms\na.json,inf\n", "ms is 'inf'"), ("architecture,ms\nb.json,1\n", "line 2: .*b.json: no such file"),
        ("architecture,ms,resolution\na.json,1,big\n", "resolution is 'big'"),
        ("architecture,ms,resolution\na.json,1,0\n", "resolution is 0"),
        ("architecture,ms\na.json,1\na.json,2\n", "line 3: the name 'a' is there twice"),
        ('architecture,ms\n"a,1\n', "not CSV"),
    ],
)  # fmt: skip
def test_wrong_networks_are_named(tmp_path: Path, text: str, message: str) -> None:
    SPACE.fix([0] * 6).save(tmp_path / "a.json")
    (tmp_path / "n.csv").write_text(text)
    with pytest.raises(LatencyError, match=message) as caught:
        read_networks(tmp_path / "n.csv")
    assert "n.csv" in str(caught.value)
    with pytest.raises(LatencyError, match="cannot be read"):
        read_networks(tmp_path / "none.csv")


# -- intervals ----------------------------------------------------------------------------------------------------


def test_an_interval_covers_new_networks_as_often_as_it_says() -> None:
    """Simulated: 12 residuals of 4 families, then a network of a fifth; 90 % intervals must hold about 90 %."""
    rng = np.random.default_rng(0)
    for tau, sigma in ((0.0, 0.05), (0.05, 0.03)):
        inside = 0
        for _ in range(400):
            shared = rng.normal(0, tau, 5)
            ratios = np.exp(0.1 + np.repeat(shared[:4], 3) + rng.normal(0, sigma, 12))
            found = Residuals.of(ratios.tolist(), [f"f{i // 3}" for i in range(12)])
            low, high = found.interval(20.0)
            inside += low <= 20 * math.exp(0.1 + shared[4] + rng.normal(0, sigma)) <= high
        assert 0.84 <= inside / 400 <= 0.97


def test_systematic_and_independent_parts_are_told_apart() -> None:
    families = ["a", "a", "b", "b"]
    between = Residuals.of([1.1, 1.1, 0.9, 0.9], families)
    assert between.independent == pytest.approx(0, abs=1e-12) and between.systematic > 0.1
    within = Residuals.of([1.1, 0.9, 1.1, 0.9], families)
    assert within.independent > 0.1 and within.systematic == pytest.approx(within.independent / 2)
    low, high = between.ratio_interval(1.25)  # two networks of one family: what they share cancels
    assert low == pytest.approx(1.25) == high
    assert between.interval(10.0)[0] < 9 < 11 < between.interval(10.0)[1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.5, 2), min_size=2, max_size=9), st.floats(0.1, 10), st.floats(0.01, 0.98))
def test_identities_of_intervals(ratios: list[float], scale: float, level: float) -> None:
    found = Residuals.of(ratios)
    low, high = found.interval(7.0, level)
    assert math.sqrt(low * high) == pytest.approx(7 * found.bias) and low <= high
    wider = found.interval(7.0, level + 0.01)
    assert wider[0] <= low and high <= wider[1]
    scaled = Residuals.of([r * scale for r in ratios])  # a table that is wrong by a factor only moves
    assert scaled.bias == pytest.approx(scale * found.bias)
    assert scaled.interval(7.0 / scale, level) == pytest.approx((low, high))
    again = Residuals.from_dict(found.to_dict())
    assert again.interval(7.0, level) == pytest.approx((low, high), rel=1e-3)


def test_wrong_residuals_are_named(table: LatencyTable) -> None:
    good = Residuals.of([1.0, 1.1, 0.9]).to_dict()
    lut = dataclasses.replace(table, error={"residuals": good, "measured_over_estimated": [0.1, 9.0]})
    assert lut.interval(5.0) == Residuals.from_dict(good).interval(5.0)  # residuals say more than a range does
    for field, value in (
        ("bias", 0), ("systematic", -1), ("independent", 11), ("networks", 2.5), ("families", True),
        ("degrees_of_freedom", 0.5), ("independent", 10**400), ("systematic", "0"),
    ):  # fmt: skip
        with pytest.raises(LatencyError, match=rf"error\.residuals\.{field} is"):
            dataclasses.replace(table, error={"residuals": good | {field: value}})
    for wrong in ({}, [], None, {**good, "more": 1}):
        with pytest.raises(LatencyError, match=r"error\.residuals is"):
            dataclasses.replace(table, error={"residuals": wrong})
    for ratios in ([1.0], [1.0, 0.0], [1.0, math.inf]):
        with pytest.raises(LatencyError):
            Residuals.of(ratios)
    with pytest.raises(LatencyError, match="level is 1; expected a probability"):
        lut.interval(5.0, 1)


def test_a_table_without_residuals_gives_no_interval(table: LatencyTable) -> None:
    assert dataclasses.replace(table, error={}).interval(5.0) is None
    dump_json(table.report(SPACE.fix([0] * 6)).to_dict())
