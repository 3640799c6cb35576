"""Latency tables: keys, sums, constants, missing entries, the cost model."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnas.arch import Architecture
from dnas.errors import LatencyError
from dnas.latency import CostModel, LatencyTable
from dnas.latency.keys import Entry, describe_key, nearest_keys, read_key, write_key
from dnas.latency.table import Price
from dnas.ops import (
    SE,
    ConvOp,
    DsConvOp,
    GlobalPoolOp,
    InvertedResidualOp,
    LinearOp,
    Op,
    Shape,
    SkipOp,
)

ARCHS = sorted((Path(__file__).parent / "published" / "archs").glob("*.json"))
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


def body(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(BODY) | changes


def table(**changes: Any) -> LatencyTable:
    return LatencyTable.from_dict(body(**changes), "toy.json")


# -- keys ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ARCHS, ids=lambda p: p.stem)
def test_an_entry_written_like_a_layer_has_the_key_of_its_op(path: Path) -> None:
    network = Architecture.load(path)
    for op, shape in zip(network.layers, network.shapes, strict=False):
        size = {"height": shape.height, "width": shape.width}
        size |= {} if op.in_channels is not None else {"channels": shape.channels}
        assert read_key(json.loads(json.dumps(op.to_dict() | size))) == op.price_fields(shape)
        assert read_key(json.loads(json.dumps(write_key(op.price_fields(shape))))) == op.price_fields(shape)


@pytest.mark.parametrize(
    "op", [DsConvOp(in_=8, out=16, se=SE(4, "swish", "sigmoid")), DsConvOp(in_=8, out=16, se=SE(4)), BLOCK, STEM]
)
def test_squeeze_excite_counts_by_width_and_gate(op: Op) -> None:
    key = op.price_fields(Shape(16, 16, 8))
    assert read_key(write_key(key)) == key
    assert read_key(op.to_dict() | {"height": 16, "width": 16, "part": "a label"}) == key


def test_bias_and_norm_are_not_in_the_key_but_activation_is() -> None:
    given = {"op": "conv", "in": 3, "out": 8, "height": 4, "width": 4}
    assert read_key(given | {"bias": True, "norm": None, "kernel": 1}) == read_key(given)
    assert read_key(given | {"act": "hswish"}) != read_key(given)


def test_nearest_keys_are_those_of_the_same_op_with_the_closest_sizes() -> None:
    keys = list(table().entries)
    wanted = InvertedResidualOp(in_=8, mid=48, out=8, kernel=3, residual=True).price_fields(Shape(16, 16, 8))
    assert next(describe_key(k).split("(")[0] for k in nearest_keys(wanted, keys)) == "ir"
    sizes = [LinearOp(in_=n, out=10).price_fields(Shape(1, 1, n)) for n in (500, 90, 110, 10)]
    assert nearest_keys(LinearOp(in_=100, out=10).price_fields(Shape(1, 1, 100)), sizes, 2) == [sizes[2], sizes[1]]


# -- prices -------------------------------------------------------------------------------------------------------


def test_latency_is_the_sum_of_the_entries_and_the_identity_is_free() -> None:
    lut = table()
    assert lut.latency_ms(NETWORK) == 1.5 + 2.25 + 0.125 + 0.0625
    assert lut.op_ms(SkipOp(in_=8, out=8), Shape(16, 16, 8)) == Price(0.0, "free")
    assert lut.op_ms(STEM, Shape(32, 32, 3)) == Price(1.5, "entry")
    report = lut.report(NETWORK)
    assert report.layers_ms == (1.5, 2.25, 0.0, 0.125, 0.0625)
    assert report.sources == ("entry", "entry", "free", "entry", "entry")
    assert (report.total_ms, report.modelled_ms, report.warnings) == (lut.latency_ms(NETWORK), 0.0, ())


def test_an_entry_of_a_skip_is_used() -> None:
    skip = {"op": "skip", "in": 8, "out": 8, "height": 16, "width": 16, "ms": 0.5}
    assert table(entries=[*BODY["entries"], skip]).latency_ms(NETWORK) == 1.5 + 2.25 + 0.5 + 0.125 + 0.0625


def test_a_constant_is_added_once_and_what_it_covers_is_not_added_again() -> None:
    covers = [{k: v for k, v in e.items() if k != "ms"} for e in (BODY["entries"][0], BODY["entries"][3])]
    lut = table(constant_ms=10.0, constant_covers=covers)
    assert lut.latency_ms(NETWORK) == 10.0 + 2.25 + 0.125
    assert lut.report(NETWORK).sources[0] == "constant"
    without = table(constant_ms=10.0, constant_covers=covers, entries=BODY["entries"][1:3])
    assert without.latency_ms(NETWORK) == lut.latency_ms(NETWORK)
    assert table(constant_ms=10.0).latency_ms(NETWORK) == 10.0 + table().latency_ms(NETWORK)
    other = Architecture((BLOCK,), input_channels=8, resolution=16, num_classes=0)
    assert "layers that this one lacks" in " ".join(lut.report(other).warnings)


def test_a_missing_key_names_the_op_the_device_and_the_nearest_keys() -> None:
    wide = Architecture((STEM, InvertedResidualOp(in_=8, mid=48, out=8)), resolution=32, num_classes=0)
    with pytest.raises(LatencyError) as caught:
        table().latency_ms(wide)
    text = str(caught.value)
    start = "toy.json (Toy phone) has no entry for ir(in=8, mid=48, out=8) on 16x16; nearest: ir(in=8, mid=24, out=8, "
    assert text.startswith(start)
    assert text.count(" on ") == 4 and "add the entry" in text and "\n" not in text
    with pytest.raises(LatencyError, match="has no cost model"):
        table().latency_ms(wide, missing="cost-model")
    with pytest.raises(LatencyError, match="'error', 'cost-model' or None"):
        table().latency_ms(wide, missing="zero")


MODEL = {"formula": "primitives/1", "coefficients": {"dense_macs": 1e-6, "operators": 0.5}}


def test_the_cost_model_prices_only_what_was_asked_for_or_is_the_nature_of_the_table() -> None:
    few = BODY["entries"][:1] + BODY["entries"][2:]
    by_hand = 16 * 16 * 2 * 24 * 8 * 1e-6 + (3 + 1) * 0.5  # two 1x1 convolutions; three convolutions and an addition
    measured, estimated = (table(entries=few, cost_model=MODEL, status=s) for s in ("measured", "estimated"))
    with pytest.raises(LatencyError, match="pass missing='cost-model'"):
        measured.latency_ms(NETWORK)
    for lut, missing in ((measured, "cost-model"), (estimated, None), (estimated, "cost-model")):
        report = lut.report(NETWORK, missing)
        assert report.total_ms == pytest.approx(1.5 + 0.125 + 0.0625 + by_hand, rel=1e-12)
        assert report.modelled_ms == pytest.approx(by_hand, rel=1e-12)
        assert report.sources[1] == "cost-model"
        assert any("cost model of toy.json" in w for w in report.warnings)
    with pytest.raises(LatencyError, match="no entry for ir"):
        estimated.latency_ms(NETWORK, missing="error")


def test_other_resolutions_are_announced_as_extrapolated() -> None:
    lut = table(cost_model=MODEL, status="estimated")
    report = lut.report(NETWORK.at(96))
    assert report.extrapolated and "96 px is outside the 32 to 64 px" in " ".join(report.warnings)
    assert not lut.report(NETWORK.at(64)).extrapolated
    assert not table(resolutions=None, cost_model=MODEL, status="estimated").report(NETWORK.at(96)).extrapolated


def test_intervals_come_from_the_check_with_whole_networks_and_nothing_else() -> None:
    single = Architecture((BLOCK,), input_channels=8, resolution=16, num_classes=0)
    assert table(constant_ms=1.0, resolutions=None).report(single).interval_ms is None  # sums of percentiles are none
    whole = table(error={"measured_over_estimated": [0.5, 2]})
    assert whole.report(NETWORK).interval_ms == (0.5 * whole.latency_ms(NETWORK), 2 * whole.latency_ms(NETWORK))
    for ratios in ([2.0, 0.5], [0, 1], [-1.0, 1.0], [0.9], 2.0, None, ["a", "b"], [True, 2], [0.5, 10**400]):
        with pytest.raises(LatencyError, match=r"error\.measured_over_estimated is .*; expected \[low, high\]"):
            table(error={"measured_over_estimated": ratios})
    checked = table(error={"measured_over_estimated": [0.5, 2.0]})
    assert checked.report(NETWORK).interval_ms == (checked.latency_ms(NETWORK) / 2, checked.latency_ms(NETWORK) * 2)
    assert checked.report(single).interval_ms is None  # 16 px: outside what was checked


def test_relative_tables_may_be_negative_and_say_what_they_are() -> None:
    entries = [dict(e, ms=-e["ms"], ms_p10=None, ms_p90=None) for e in BODY["entries"]]
    lut = table(entries=entries, meaning="relative_to_skip")
    assert lut.latency_ms(NETWORK) == -table().latency_ms(NETWORK)
    assert "only differences" in " ".join(lut.report(NETWORK).warnings)


def _op(inverted: bool, n: int, ratio: int, kernel: int, stride: int, act: str) -> Op:
    if inverted:
        return InvertedResidualOp(in_=n, mid=n * ratio, out=n, kernel=kernel, stride=stride, act=act)
    return ConvOp(in_=n, out=n * ratio, kernel=kernel, stride=stride, act=act)


OPS = st.builds(
    _op, st.booleans(), st.integers(1, 64), st.integers(1, 6), st.sampled_from([1, 3, 5]), st.integers(1, 2),
    st.sampled_from(["relu", "hswish"]),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(OPS, st.floats(0, 1e6), max_size=8), st.integers(1, 64))
def test_json_keeps_every_price(prices: dict[Op, float], px: int) -> None:
    entries = {op.price_fields(Shape(px, px, op.in_channels or 1)): Entry(ms) for op, ms in prices.items()}
    lut = LatencyTable(
        device="d", runtime="r", precision="p", status="measured", meaning="absolute", source={}, entries=entries
    )
    again = LatencyTable.from_dict(json.loads(lut.to_json()))
    for op, ms in prices.items():
        assert again.op_ms(op, Shape(px, px, op.in_channels or 1)) == Price(ms, "entry")


def test_a_cost_model_is_a_sum_of_coefficients_times_features() -> None:
    model = CostModel("primitives/1", {"dense_macs": 2.0, "depthwise_macs": 3.0, "image_pixels": 5.0, "operators": 7.0})
    assert model.op_ms(STEM, Shape(4, 4, 3)) == 2.0 * 4 * 9 * 3 * 8 + 5.0 * 16 + 7.0
    assert model.op_ms(BLOCK, Shape(2, 2, 8)) == 2.0 * 4 * 2 * 8 * 24 + 3.0 * 4 * 25 * 24 + 7.0 * 4
    se = DsConvOp(in_=8, out=8, act="hswish", se=SE(2))
    assert model.op_ms(se, Shape(2, 2, 8)) == 2.0 * (4 * 64 + 2 * 8 * 2) + 3.0 * 4 * 9 * 8 + 7.0 * (2 + 1 + 5)
    assert CostModel.from_dict(model.to_dict()) == model
