"""Importers: files of each format's real shape, units as found; nothing is dropped silently, nothing mangled gets through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dnas.arch import Architecture
from dnas.errors import LatencyError
from dnas.files import sha256
from dnas.latency import LatencyTable
from dnas.latency.importers import FORMATS, Imported, Wanted, import_table
from dnas.latency.importers.common import Record, merged, read, spellings
from dnas.latency.importers.mobile_vision import _needs
from dnas.latency.importers.ofa import se_width
from dnas.ops import SE, ConvOp, GlobalPoolOp, InvertedResidualOp, LinearOp, Op, Shape
from dnas.space import load_space

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "latency_lut" / "sources"
LUTS = ROOT / "tests" / "published" / "luts"
ABOUT = {"device": "A phone", "runtime": "TFLite 2.1", "precision": "float32", "threads": 1}

PROXYLESS = """\
Conv-input:224x224x3-output:112x112x32: {count: 50, mean: 5.25, var: 0.01}
expanded_conv-input:112x112x32-output:112x112x16-expand:1-kernel:3-stride:1-idskip:0: {count: 50, mean: 4.5, var: 0.02}
expanded_conv-input:112x112x16-output:56x56x24-expand:6-kernel:3-stride:2-idskip:0:
  count: 40
  mean: 9.75
  var: 0.3
? expanded_conv-input:56x56x24-output:56x56x24-expand:3-kernel:7-stride:1-idskip:1
: {count: 50, mean: 3.125,
  var: 0.02}
Conv_1-input:7x7x320-output:7x7x1280: {count: 50, mean: 2.5, var: 0.01}
Logits-input:7x7x1280-output:1000: {count: 50, mean: 1.25, var: 0.01}
Squeeze-input:7x7x320-output:7x7x320: {count: 50, mean: 9.0, var: 0.01}
expanded_conv-input:56x56x24-output:28x28x24-expand:3-kernel:7-stride:1-idskip:0: {count: 50, mean: 1.0, var: 0.02}
"""


def ms(table: LatencyTable, op: Op, px: int, channels: int | None = None) -> float:
    return table.op_ms(op, Shape(px, px, channels or op.in_channels or 1), missing="error").ms


def accounted(found: Imported) -> None:
    """Every record of the source is an entry, part of an average, or listed with its reason."""
    assert found.table.source["imported"]["records"] == found.total
    assert sum(r["count"] for r in found.table.source["imported"]["not_mapped"]) == len(found.left)
    assert all(name and why for name, why in found.left)
    again = LatencyTable.from_dict(json.loads(found.table.to_json()))
    assert again == found.table and again.to_json() == found.table.to_json()


def test_proxylessnas_keys_hold_ratios_and_milliseconds(tmp_path: Path) -> None:
    (tmp_path / "mobile.yaml").write_text(PROXYLESS)
    found = import_table(tmp_path / "mobile.yaml", "proxylessnas", given=ABOUT)
    accounted(found)
    lut, act = found.table, {"act": "relu6"}
    assert (lut.status, lut.meaning, lut.resolutions, lut.threads) == ("measured", "absolute", (224, 224), 1)
    assert ms(lut, ConvOp(in_=3, out=32, kernel=3, stride=2, **act), 224) == 5.25
    first = InvertedResidualOp(in_=32, mid=32, out=16, expand=False, **act)
    assert [ms(lut, op, 112) for op in spellings(first)] == [4.5, 4.5]
    assert ms(lut, InvertedResidualOp(in_=16, mid=96, out=24, stride=2, **act), 112) == 9.75
    assert ms(lut, InvertedResidualOp(in_=24, mid=72, out=24, kernel=7, residual=True, **act), 56) == 3.125
    assert ms(lut, GlobalPoolOp(), 7, 1280) + ms(lut, LinearOp(in_=1280, out=1000), 1) == 1.25
    assert [left.name.split("-")[0] for left in found.left] == ["Squeeze", "expanded_conv"]
    assert "gives 56x56x24, not 28x28x24" in found.left[1].why
    entry = lut.entries[InvertedResidualOp(in_=16, mid=96, out=24, stride=2, **act).price_fields(Shape(112, 112, 16))]
    assert entry.count == 40 and entry.ms_p90 is None
    assert lut.source["licence"] == "MIT" and lut.source["imported"]["sha256"] == sha256(PROXYLESS)


def test_ofa_keys_hold_middle_channels_and_squeeze_excite() -> None:
    found = import_table(LUTS / "ofa_note10_160.yaml", "ofa", given=ABOUT | {"device": "Samsung Galaxy Note 10"})
    accounted(found)
    lut = found.table
    assert not found.left and lut.resolutions == (160, 160)
    assert ms(lut, ConvOp(in_=3, out=24, kernel=3, stride=2, act="hswish"), 160) == 0.495562248995984
    wide = InvertedResidualOp(in_=136, mid=816, out=192, kernel=7, stride=2, act="hswish", se=SE(se_width(816)))
    assert ms(lut, wide, 10) == 1.43675
    assert ms(lut, InvertedResidualOp(in_=24, mid=24, out=24, expand=False, residual=True), 80) == 0.8487194388777555
    assert ms(lut, GlobalPoolOp(), 5, 1152) == 0.008482688391038698
    assert ms(lut, ConvOp(in_=1152, out=1536, norm=None, act="hswish"), 1) == 0.7474116465863454


def test_ofa_keys_may_have_their_flags_anywhere(tmp_path: Path) -> None:
    key = "expanded_conv-input:10x10x96-output:10x10x96-se:1-hs:0-expand:288-kernel:3-stride:1-idskip:1"
    (tmp_path / "a.yaml").write_text(f"{key}: {{count: 3, mean: 0.5, std: 0.1}}\n")
    lut = import_table(tmp_path / "a.yaml", "ofa", given=ABOUT).table
    assert ms(lut, InvertedResidualOp(in_=96, mid=288, out=96, residual=True, se=SE(72)), 10) == 0.5


def test_se_widths_are_those_of_the_published_networks() -> None:
    seen = 0
    for path in sorted((ROOT / "tests" / "published" / "archs").glob("ofa_note10_*.json")):
        for op in Architecture.load(path).layers:
            if isinstance(op, InvertedResidualOp) and op.se:
                assert se_width(op.mid) == op.se.reduce
                seen += 1
    assert seen > 20


def test_single_path_nas_in_both_shapes_and_the_published_networks(tmp_path: Path) -> None:
    copy = json.loads((SOURCES / "pixel1_single_path_nas.json").read_text(encoding="utf-8"))
    labels = ("k3_e3", "k3_e6", "k5_e3", "k5_e6")
    own = {str(n): {str(i): layer[k] for i, k in enumerate(labels)} for n, layer in enumerate(copy["layers"])}
    (tmp_path / "pixel1_runtime_model.json").write_text(json.dumps(own))
    (tmp_path / "lists.json").write_text(json.dumps({n: list(times.values()) for n, times in own.items()}))
    found = import_table(SOURCES / "pixel1_single_path_nas.json", "single-path-nas")
    accounted(found)
    for name in ("pixel1_runtime_model.json", "lists.json"):
        same = import_table(tmp_path / name, "single-path-nas").table
        assert same.entries == found.table.entries and same.constant_covers == found.table.constant_covers
        assert same.constant_ms == found.table.constant_ms
    assert found.averaged == 20 and [left.name.split(":")[0] for left in found.left] == ["0"] * 4 + ["21"] * 4
    entry = found.table.entries[InvertedResidualOp(in_=24, mid=72, out=24, residual=True).price_fields(Shape(56, 56, 24))]
    assert entry.ms == pytest.approx((3.4111 + 3.4223 + 3.4216) / 3) and entry.count == 150


def test_mnasnet_on_the_pixel_1_comes_to_the_published_76_ms() -> None:
    lut = LatencyTable.load("pixel1")
    network = Architecture.load(ROOT / "tests" / "published" / "archs" / "mnasnet_100.json")
    assert lut.latency_ms(network) == pytest.approx(76, abs=0.5)
    assert lut.report(network).sources.count("constant") == len(lut.constant_covers)  # nothing that it holds is added twice
    assert lut.error["networks"]["MnasNet-B1"]["sum_ms"] == pytest.approx(lut.latency_ms(network), rel=1e-5)


@pytest.mark.parametrize("device", ["pixel3", "raspi4"])
def test_hw_nas_bench_sums_are_the_published_ones(device: str) -> None:
    lut, space = LatencyTable.load(f"{device}_fbnet_cifar"), load_space("fbnet_cifar")
    assert (lut.status, lut.meaning) == ("recovered", "relative_to_skip")
    source = json.loads((SOURCES / "fbnet_cifar100_hw_nas_bench.json").read_text(encoding="utf-8"))["devices"][device]
    published = source["check_against_hw_nas_bench_example_notebook"]
    for name, codes in (("0*22", [0] * 22), ("0*21+1", [0] * 21 + [1]), ("0*20+1*2", [0] * 20 + [1] * 2)):
        assert lut.latency_ms(space.fix(codes)) == pytest.approx(published[name]["hwnasbench_notebook"], rel=1e-12)
    low, high = space.latency_range(lut)
    assert source["constant_ms"] < low < high
    with pytest.raises(LatencyError, match="no entry for linear"):  # other classes are another network
        lut.latency_ms(space.at(num_classes=10).fix([0] * 22))


def test_accelerator_models_are_not_called_measured() -> None:
    for device in ("eyeriss", "fpga"):
        lut = import_table(SOURCES / "fbnet_cifar100_hw_nas_bench.json", "hw-nas-bench", Wanted(part=device)).table
        assert lut.status == "estimated" and "model" in lut.device


TABLE = {
    "ConvNorm_H32_W32_Cin3_Cout16_kernel3_stride1_group1": 0.5,
    "ConvBlock_H32_W32_Cin16_Cout24_exp3_kernel5_stride1_group2": 0.75,
    "Skip_H32_W32_Cin24_Cout24_stride1": 0.125, "Skip_H32_W32_Cin24_Cout32_stride2": 0.25,
    "AvgP_H4_W4_Cin1504_Cout1504_kernel4_stride1": 0.0625, "FC_Cin1504_Cout100": 0.3, "Pool_H4_W4_Cin8_Cout8_kernel2": 0.1,
}  # fmt: skip


def test_hw_nas_bench_tables_of_text_keys(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(TABLE))
    both = {"pixel3_latency": TABLE, "eyeriss_latency": TABLE, "eyeriss_energy": TABLE}
    (tmp_path / "all.json").write_text(json.dumps(both))
    one = import_table(tmp_path / "one.json", "hw-nas-bench", given=ABOUT)
    accounted(one)
    assert [left.name.split("_")[0] for left in one.left] == ["Skip", "Pool"] and one.table.status == "measured"
    assert ms(one.table, GlobalPoolOp(), 4, 1504) == 0.0625
    block = InvertedResidualOp(
        in_=16, mid=48, out=24, kernel=5, expand_groups=2, project_groups=2, shuffle=2
    )  # fmt: skip
    assert ms(one.table, block, 32) == 0.75
    assert import_table(tmp_path / "all.json", "hw-nas-bench", Wanted(part="pixel3")).table.entries == one.table.entries
    assert import_table(tmp_path / "all.json", "hw-nas-bench", Wanted(part="eyeriss")).table.status == "estimated"
    for part, text in (
        (None, "give --part: one of eyeriss, pixel3"),
        ("pixel4", "did you mean 'pixel3'"),
        ("eyeriss_energy", "is an energy"),
    ):
        with pytest.raises(LatencyError, match=text):
            import_table(tmp_path / "all.json", "hw-nas-bench", Wanted(part=part))


def test_tunas_in_both_shapes(tmp_path: Path) -> None:
    copy = json.loads((LUTS / "tunas_pixel1.json").read_text(encoding="utf-8"))
    text = "# coding=utf-8\n\n" + "".join(
        f'_PROXYLESSNAS_SEARCH_{name} = b"""\n{copy[field]}\n"""\n\n'
        for name, field in (("KERNEL", "raw_base64_big_endian_float32"), ("BIAS", "raw_bias_base64"))
    )
    (tmp_path / "cost_model_data.py").write_text(text)
    found = import_table(LUTS / "tunas_pixel1.json", "tunas")
    accounted(found)
    own = import_table(tmp_path / "cost_model_data.py", "tunas").table
    assert own.entries == found.table.entries and own.constant_ms == found.table.constant_ms
    assert (own.status, own.meaning) == ("regression", "regression") and min(e.ms for e in own.entries.values()) < 0
    network = Architecture.load(ROOT / "tests" / "published" / "archs" / "proxyless_mobile.json")
    assert (
        70 < found.table.latency_ms(network) < 90
    )  # the device's published class; the sum is a regression's, not a measurement
    (tmp_path / "cost_model_data.py").write_text(text.replace("+", "*"))
    with pytest.raises(LatencyError, match="_PROXYLESSNAS_SEARCH_KERNEL in base64"):
        import_table(tmp_path / "cost_model_data.py", "tunas")


def records_for(space: str, int8: bool = True) -> list[dict[str, Any]]:
    """One record in microseconds for every operator of a space, 1,000 us for the first, 2,000 for the next, ..."""
    queries = {}
    for slot in load_space(space).slots:
        for candidate in slot.candidates:
            for options in _needs(candidate.op, slot.in_shape, int8):
                queries.setdefault(options[0], 1000.0 * (1 + len(queries)))
    return [
        {
            "op_type": kind, "input_shapes": [list(source), list(weights), [weights[0]]] if weights else [list(source)],
            "op_args": [f'name: "stride"\ni: {stride}\n', f'name: "group"\ni: {group}\n', 'name: "order"\ns: "NHWC"\n'],
            "input_dtypes": [1], "device": "SM-G950U-7.0-24", "runtime_us_p50": us,
            **{f"runtime_us_p{p}": us for p in (0, 10, 90, 100)},
        }
        for (kind, source, weights, stride, group), us in queries.items()
    ]  # fmt: skip


# -- what is refused ----------------------------------------------------------------------------------------------


def test_what_a_format_cannot_say_must_be_given(tmp_path: Path) -> None:
    (tmp_path / "mobile.yaml").write_text(PROXYLESS)
    with pytest.raises(LatencyError, match="does not say device and runtime and precision; give --device"):
        import_table(tmp_path / "mobile.yaml", "proxylessnas")
    with pytest.raises(LatencyError, match="unknown format 'proxyles'; did you mean 'proxylessnas'"):
        import_table(tmp_path / "mobile.yaml", "proxyles")
    own = import_table(tmp_path / "mobile.yaml", "proxylessnas", Wanted(act="hswish"), ABOUT | {"licence": "CC0"}).table
    assert own.source["licence"] == "CC0" and ms(own, ConvOp(in_=3, out=32, kernel=3, stride=2, act="hswish"), 224) == 5.25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Conv-input:8x8x3-output:4x4x4: {count: 1, mean: .nan}", "mean' is nan"),
        ("Conv-input:8x8x3-output:4x4x4: {count: 1, mean: -1}", "mean' is -1"),
        ("Conv-input:8x8x3-output:4x4x4: {count: 0, mean: 1}", "count is 0"),
        ("Conv-input:8x8x3-output:4x4x4: {count: 1}", "expected an object with count and mean"),
        ("Conv-input:8x8x3-output:4x4x4: 7", "is 7; expected an object"),
        ("a: {mean: 1}\na: {mean: 2}", "'a' appears twice"),
        ("a: &x {mean: 1}\nb: *x", "anchors and aliases"),
        ("[1, 2]", "holds list"),
        ("a: [", "not YAML"),
        ("\x00", "not YAML"),
        ("a: {mean: 1}", "none of its 1 records could be mapped; first: a: a is no layer"),
        ("Conv-input:8x8-output:4x4x4: {mean: 1}", "is no height x width x channels"),
        ("Conv-input:0x8x3-output:4x4x4: {mean: 1}", "is no height x width x channels"),
        ("expanded_conv-input:8x8x3: {mean: 1}", "lacks 'expand'"),
    ],
)
def test_mangled_yaml_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(LatencyError, match=message) as caught:
        import_table(tmp_path / "t.yaml", "proxylessnas", given=ABOUT)
    assert "t.yaml" in str(caught.value) and "\n" not in str(caught.value)


def _files(folder: Path) -> dict[str, Path]:
    (folder / "proxylessnas").write_text(PROXYLESS)
    (folder / "hw-nas-bench").write_text(json.dumps(TABLE))
    (folder / "mobile-vision").write_text("".join(json.dumps(r) + "\n" for r in records_for("fbnet_mini")[:20]))
    given = {"single-path-nas": SOURCES / "pixel1_single_path_nas.json", "ofa": LUTS / "ofa_note10_160.yaml"}
    return (
        {n: folder / n for n in ("proxylessnas", "hw-nas-bench", "mobile-vision")}
        | given
        | {"tunas": LUTS / "tunas_pixel1.json"}
    )


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    cut=st.tuples(st.floats(0, 1), st.floats(0, 0.05)),
    put=st.sampled_from(["", "NaN", "-1", "1e999", '"', "{", "[]", "null", "9" * 5000]),
)
def test_no_mangled_file_breaks_an_importer(tmp_path: Path, form: str, cut: tuple[float, float], put: str) -> None:
    """A stretch of the file is replaced: a table with finite figures comes out, or one error that names the file."""
    text = _files(tmp_path)[form].read_text(encoding="utf-8")
    at, length = int(cut[0] * len(text)), int(cut[1] * len(text) * 0.2)
    (tmp_path / "mangled").write_text(text[:at] + put + text[at + length :], encoding="utf-8")
    try:
        found = import_table(tmp_path / "mangled", form, Wanted(spaces=("fbnet_mini",)), ABOUT)
    except LatencyError as problem:
        assert "mangled" in str(problem)
        return
    accounted(found)


def test_averages_keep_no_percentiles_and_add_counts() -> None:
    op, shape = ConvOp(in_=3, out=8), Shape(4, 4, 3)
    two = [Record("a", op, shape, 1.0, 0.5, 2.0, 10), Record("b", op, shape, 3.0, 2.5, 4.0, 20)]
    (entry,), averaged = (f(v) if callable(f) else v for f, v in zip((lambda d: d.values(), None), merged(two), strict=True))
    assert (entry.ms, entry.ms_p10, entry.ms_p90, entry.count, averaged) == (2.0, None, None, 30, 1)
    (single,) = merged(two[:1])[0].values()
    assert (single.ms, single.ms_p10, single.ms_p90, single.count) == (1.0, 0.5, 2.0, 10)


def test_records_are_read_before_they_are_averaged() -> None:
    found = read(SOURCES / "pixel1_single_path_nas.json", "single-path-nas")
    assert len(found.records) == 80 and len(found.left) == 8 and found.total == 88
