"""Calibration: planted coefficients, held-out errors, and the shipped Samsung S8 table against its own claims."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnas.arch import Architecture
from dnas.errors import LatencyError
from dnas.latency import CostModel, LatencyTable, calibrate, forms
from dnas.latency.calibrate import Form, Row, significant
from dnas.latency.importers import Record
from dnas.latency.intervals import Residuals
from dnas.latency.measured import read_networks
from dnas.ops import InvertedResidualOp, LinearOp, Shape
from dnas.space import load_space

ROOT = Path(__file__).resolve().parent.parent
THREE = Form("three", {f: {f: 1.0} for f in ("dense_macs", "depthwise_macs", "operators")})


@pytest.fixture(scope="module")
def published() -> list[Row]:
    return read_networks(ROOT / "latency_lut" / "sources" / "samsung_s8_networks.csv")


@pytest.fixture(scope="module")
def s8() -> LatencyTable:
    return LatencyTable.load("samsung_s8")


def block_rows(model: CostModel, constant: float = 0.0) -> list[Row]:
    """Single blocks of several sizes, priced by ``model``."""
    rows = []
    for n, (kernel, ratio, px) in enumerate(itertools.product((3, 5), (1, 3, 6), (7, 14, 28))):
        op, shape = InvertedResidualOp(in_=16 + n, mid=ratio * (16 + n), out=24, kernel=kernel), Shape(px, px, 16 + n)
        rows.append(Row(f"row{n}", f"family{n % 4}", constant + model.op_ms(op, shape), ((op, shape),)))
    return rows


# -- fitting ------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.floats(0.1, 10)] * 3))
def test_planted_coefficients_are_recovered(scales: tuple[float, ...]) -> None:
    units = {"dense_macs": 1e-7, "depthwise_macs": 3e-7, "operators": 0.05}
    planted = {f: s * unit for s, (f, unit) in zip(scales, units.items(), strict=True)}
    rows = block_rows(CostModel("primitives/1", planted))
    model, constant, errors = calibrate.fit(rows, THREE)
    assert constant == 0.0
    assert dict(model.coefficients) == pytest.approx(planted, rel=1e-5)
    for held in (errors, calibrate.leave_one_out(rows, THREE), calibrate.leave_one_family_out(rows, THREE)):
        assert held.worst < 1e-4


def test_the_baseline_recovers_a_constant_and_a_slope() -> None:
    rows = block_rows(CostModel("primitives/1", {"dense_macs": 2e-7, "depthwise_macs": 2e-7}), constant=1.5)
    model, constant, errors = calibrate.fit(rows, calibrate.baseline())
    assert constant == pytest.approx(1.5, rel=1e-5)
    assert dict(model.coefficients) == pytest.approx({"dense_macs": 2e-7, "depthwise_macs": 2e-7}, rel=1e-5)
    assert errors.worst < 1e-4


def test_coefficients_are_never_negative_and_have_six_digits() -> None:
    noise = np.random.default_rng(0)
    exact = block_rows(CostModel("primitives/1", {"dense_macs": 1e-7, "operators": 0.01}))
    for _ in range(20):
        rows = [Row(r.name, r.family, r.ms * float(noise.uniform(0.3, 3)), r.layers) for r in exact]
        model, _, _ = calibrate.fit(rows, THREE)
        assert all(v >= 0 and v == significant(v) for v in model.coefficients.values())


def test_the_fit_is_the_minimum_of_the_relative_error() -> None:
    given_ms = {100: 1.0, 200: 3.0, 400: 5.0}
    rows = [Row(str(n), "f", ms, ((LinearOp(in_=n, out=1), Shape(1, 1, n)),)) for n, ms in given_ms.items()]
    x = np.array([100 / 1.0, 200 / 3.0, 400 / 5.0])  # one coefficient: c = sum x / sum x^2 of the weighted feature
    model, _, _ = calibrate.fit(rows, Form("one", {"macs": {"dense_macs": 1.0}}))
    assert model.coefficients["dense_macs"] == significant(float(x.sum() / (x**2).sum()))


def test_a_held_out_row_does_not_reach_its_own_estimate() -> None:
    rows = block_rows(CostModel("primitives/1", {"dense_macs": 1e-7, "depthwise_macs": 2e-7, "operators": 0.02}))
    wrong = [Row(r.name, r.family, r.ms * (3 if i == 4 else 1), r.layers) for i, r in enumerate(rows)]
    assert calibrate.leave_one_out(wrong, THREE).relative["row4"] == pytest.approx(1 / 3 - 1, abs=1e-4)
    family = [Row(r.name, r.family, r.ms * (3 if r.family == "family0" else 1), r.layers) for r in rows]
    held = calibrate.leave_one_family_out(family, THREE)
    assert held.families["family0"] == pytest.approx(2 / 3, abs=1e-4)
    assert held.relative["row1"] != pytest.approx(0.0, abs=1e-2)  # fitted with the wrong rows
    assert calibrate.leave_one_out(family, THREE).families["family0"] < 0.66  # the rest of its family helps


def test_what_the_rows_do_not_determine_is_an_error_or_nan() -> None:
    rows = block_rows(CostModel("primitives/1", {"dense_macs": 1e-7, "depthwise_macs": 2e-7, "operators": 0.02}))
    with pytest.raises(LatencyError, match="2 rows do not determine 3 coefficients"):
        calibrate.fit(rows[:2], THREE)
    held = calibrate.leave_one_family_out([Row(r.name, "all", r.ms, r.layers) for r in rows], THREE)
    assert math.isnan(held.mean) and held.to_dict()["mean"] is None
    with pytest.raises(LatencyError, match="positive ms"):
        calibrate.fit([Row(r.name, r.family, 0.0, r.layers) for r in rows], THREE)
    with pytest.raises(LatencyError, match="expected features of"):
        Form("wrong", {"a": {"macs": 1.0}})


def test_what_the_rows_cannot_identify_is_said() -> None:
    rows = block_rows(CostModel("primitives/1", {"dense_macs": 1e-7, "depthwise_macs": 2e-7, "operators": 0.02}))
    assert calibrate.unidentified(rows, THREE) == []
    few = calibrate.unidentified(rows[:5], THREE)
    assert "5 networks for 3 coefficients" in few[0]
    idle = Form("idle", {f: {f: 1.0} for f in ("dense_macs", "depthwise_macs", "operators", "image_pixels")})
    assert calibrate.choose(rows, [idle, THREE]) is THREE  # no row reads an image, so that idle is not determined
    with pytest.raises(LatencyError, match="determine none of 1 forms"):
        calibrate.choose(rows, [idle])
    no_launch = block_rows(CostModel("primitives/1", {"dense_macs": 1e-7, "depthwise_macs": 2e-7}))
    assert any("give no time to operators" in w for w in calibrate.unidentified(no_launch, THREE))
    noise = np.random.default_rng(1)
    wild = [Row(r.name, r.family, r.ms * float(noise.uniform(0.1, 3)), r.layers) for r in rows[:7]]
    assert any("do not identify the coefficient" in w or "give no time" in w for w in calibrate.unidentified(wild, THREE))


def test_the_planted_form_is_chosen_and_no_choice_sees_its_own_row() -> None:
    rows = block_rows(CostModel("primitives/1", {"dense_macs": 1e-7, "depthwise_macs": 2e-7, "operators": 0.05}))
    wanted = forms.form("weighted(2) + operators")
    others = [forms.form(n) for n in ("MACs + operators", "weighted(4) + operators", "MACs + elements")]
    assert calibrate.choose(rows, [*others, wanted]) is wanted
    assert calibrate.chosen_inside(rows, [*others, wanted]).worst < 1e-4
    assert math.isnan(calibrate.chosen_inside(rows[:2], [THREE]).mean)


def test_forms_are_read_by_name() -> None:
    assert forms.form("tiled(2.5) + network").terms == {
        "tiled(2.5)": {"tiled_macs": 1.0, "depthwise_macs": 2.5}, "network": {"network": 1.0}
    }  # fmt: skip
    names = [f.name for f in forms.compared(2.43)]
    assert names[0] == "weighted(2.43) + image + operators" and len(set(names)) == len(names) == 15
    assert {f.name for f in forms.compared(None)} < set(names)
    for wrong in ("macs", "weighted(x)", "", "MACs+operators"):
        with pytest.raises(LatencyError, match="unknown term"):
            forms.form(wrong)


def test_the_ratio_of_depthwise_macs_is_found_in_blocks() -> None:
    model = CostModel("primitives/1", {"dense_macs": 1e-7, "depthwise_macs": 3.5e-7})
    records = [Record(r.name, *r.layers[0], r.ms) for r in block_rows(model)]
    assert forms.depthwise_ratio(records) == 3.5
    with pytest.raises(LatencyError, match="no ratio"):
        forms.depthwise_ratio([r._replace(ms=THREE.matrix([Row("", "", 1.0, ((r.op, r.shape),))])[0, 0]) for r in records])


@pytest.mark.parametrize(("value", "rounded"), [(1.23456789e-8, 1.23457e-8), (123456.5, 123456.0), (0.0, 0.0)])
def test_six_significant_digits(value: float, rounded: float) -> None:
    assert significant(value) == rounded


# -- samsung_s8.json ----------------------------------------------------------------------------------------------


def test_only_published_rows_with_an_architecture_are_used(published: list[Row]) -> None:
    source = json.loads((ROOT / "latency_lut" / "sources" / "samsung_s8_published.json").read_text(encoding="utf-8"))
    public = {row["model"]: (row["latency_ms"], row["resolution"]) for row in source["rows"] if row["arch"]}
    assert {r.name: (r.ms, r.layers[0][1].height) for r in published} == public
    assert len(published) == 11 and {r.family for r in published} == {"MobileNetV2", "MnasNet", "FBNet"}
    by_name = {r.name: r for r in published}
    assert sum(op.macs(shape) for op, shape in by_name["FBNet-C"].layers) == 378_136_224
    assert by_name["MNV2-96-0.35"].layers[0][1] == Shape(96, 96, 3)


def held_out(rows: list[Row], features: list[dict[str, float]], groups: list[str]) -> list[float]:
    """Held-out relative errors, written out again with numpy's least squares instead of ``calibrate``."""
    errors = [0.0] * len(rows)
    for group in set(groups):
        kept = [i for i, g in enumerate(groups) if g != group]
        weighted = np.array([[v / rows[i].ms for v in features[i].values()] for i in kept])
        scale = weighted.max(axis=0)
        values = np.linalg.lstsq(weighted / scale, np.ones(len(kept)), rcond=None)[0] / scale
        assert (values >= 0).all()  # so that the bound of the non-negative fit does not bind
        for i, g in enumerate(groups):
            if g == group:
                errors[i] = float(np.dot(values, list(features[i].values()))) / rows[i].ms - 1
    return errors


def test_stored_errors_are_those_of_a_second_computation(published: list[Row], s8: LatencyTable) -> None:
    rows, ratio = published, s8.error["depthwise_ratio"]
    model, simple = [], []
    for row in rows:
        dense = depthwise = operators = image = 0.0
        for op, shape in row.layers:
            for primitive, given_shape in op.trace(shape):
                kind = type(primitive).__name__
                conv_depthwise = kind == "Conv" and primitive.groups > 1 and primitive.groups == primitive.in_
                depthwise += primitive.macs(given_shape) * conv_depthwise
                dense += primitive.macs(given_shape) * (not conv_depthwise)
                operators += kind in ("Conv", "Dense", "GlobalPool", "Shuffle")
                image += given_shape.height**2 if kind == "Conv" and primitive.in_ == 3 else 0
            operators += op.has_residual
        model.append({"work": dense + ratio * depthwise, "image": image, "operators": operators})
        simple.append({"network": 1.0, "macs": dense + depthwise})
    for name, features in (("model", model), ("baseline", simple)):
        folds = {"leave_one_out": [r.name for r in rows], "leave_one_family_out": [r.family for r in rows]}
        for kind, groups in folds.items():
            stored, errors = s8.error[name][kind], held_out(rows, features, groups)
            assert list(stored["rows"].values()) == pytest.approx(errors, abs=2e-4)
            assert stored["mean"] == pytest.approx(float(np.mean(np.abs(errors))), abs=2e-4)
            assert stored["worst"] == pytest.approx(float(np.max(np.abs(errors))), abs=2e-4)


def test_the_model_beats_the_baseline_by_at_least_30_percent(s8: LatencyTable) -> None:
    model, simple = s8.error["model"]["leave_one_family_out"], s8.error["baseline"]["leave_one_family_out"]
    assert model["mean"] <= 0.7 * simple["mean"]
    assert all(model["families"][f] <= 0.7 * simple["families"][f] for f in ("MobileNetV2", "MnasNet", "FBNet"))
    assert s8.error["improvement"] == pytest.approx(1 - model["mean"] / simple["mean"], abs=1e-3)
    assert s8.error["model"]["leave_one_out"]["mean"] < s8.error["baseline"]["leave_one_out"]["mean"]


def test_the_table_says_that_it_is_estimated(s8: LatencyTable) -> None:
    assert (s8.status, s8.meaning, s8.precision, s8.resolutions) == ("estimated", "absolute", "int8", (96, 224))
    assert s8.source["licence"] and "single ops unvalidated" in s8.summary()
    assert s8.error["forms_tried"] >= len(s8.error["forms_compared"]) + 1


def test_every_candidate_of_the_shipped_spaces_has_an_entry(s8: LatencyTable) -> None:
    assert s8.cost_model is not None
    for name in (f"{n}:expand1={e}" for n in ("fbnet", "fbnet_cifar", "fbnet_mini") for e in ("false", "true")):
        for slot in load_space(name).slots:
            for candidate in slot.candidates:
                price = s8.op_ms(candidate.op, slot.in_shape, missing="error")
                assert price.source == "entry"
                assert price.ms == pytest.approx(s8.cost_model.op_ms(candidate.op, slot.in_shape), rel=1e-5)


def test_larger_candidates_are_never_cheaper(s8: LatencyTable) -> None:
    """By kernel and by width, among FBNet candidates that otherwise agree."""
    blocks: dict[tuple[Any, ...], float] = {}
    for key, entry in s8.entries.items():
        fields = dict(key)
        assert entry.ms > 0 or fields["op"] == "skip"
        if fields["op"] == "ir":
            kernel, mid = fields.pop("kernel", 3), fields.pop("mid")
            fields.pop("expand", None)
            place = (tuple(fields.items()), kernel, mid)
            blocks[place] = min(entry.ms, blocks.get(place, 1e9))
    pairs = 0
    for (rest, kernel, mid), ms in blocks.items():
        if kernel == 3:
            assert blocks[(rest, 5, mid)] > ms
        for ratio in (3, 6):
            wide = blocks.get((rest, kernel, ratio * dict(rest)["in"]))
            if wide is not None and mid < ratio * dict(rest)["in"]:
                assert wide > ms
                pairs += 1
    assert pairs > 50


def test_the_fitted_networks_are_priced_as_the_check_says(s8: LatencyTable) -> None:
    network = Architecture.load(ROOT / "tests" / "published" / "archs" / "fbnet_c.json")
    report = s8.report(network)
    assert report.total_ms == pytest.approx(28.1, rel=0.03) and not report.extrapolated
    assert report.interval_ms is not None and report.interval_ms[0] < 28.1 < report.interval_ms[1]
    assert (
        report.interval_ms
        == s8.interval(report.total_ms)
        == Residuals.from_dict(s8.error["residuals"]).interval(report.total_ms)
    )
    assert s8.report(network.at(32)).extrapolated
