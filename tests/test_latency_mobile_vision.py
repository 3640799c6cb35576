"""The importer of mobile-vision's tables: layers are sums of primitive operators, in microseconds."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from test_latency_import import accounted, records_for

from dnas.errors import LatencyError
from dnas.latency.importers import Imported, Wanted, import_table
from dnas.latency.importers.mobile_vision import _needs
from dnas.space import load_space


@pytest.mark.parametrize("int8", [True, False])
def test_mobile_vision_layers_are_sums_of_operators_in_microseconds(tmp_path: Path, int8: bool) -> None:
    rows = records_for("fbnet_mini", int8)
    lines = "".join(json.dumps(r) + "\n" for r in rows)
    (tmp_path / "lut.json").write_text(lines)
    (tmp_path / "list.json").write_text(json.dumps(rows))
    with zipfile.ZipFile(tmp_path / "lut.zip", "w") as archive:
        archive.writestr("lut.json", lines)
    wanted = Wanted(spaces=("fbnet_mini",))
    found = import_table(tmp_path / "lut.json", "mobile-vision", wanted)
    accounted(found)
    lut, space = found.table, load_space("fbnet_mini")
    assert not found.left and lut.precision == ("int8" if int8 else "float32") and lut.device == "SM-G950U-7.0-24"
    assert lut.source["licence"] == "CC BY-NC 4.0"
    times = {json.dumps([r["op_type"], r["input_shapes"], r["op_args"][:2]]): r["runtime_us_p50"] for r in rows}
    slot = space.slots[2]
    op = slot.candidates[2].op
    total = 0.0
    for options in _needs(op, slot.in_shape, int8):
        kind, source, weights, stride, group = options[0]
        shapes = [list(source), list(weights), [weights[0]]] if weights else [list(source)]
        total += times[json.dumps([kind, shapes, [f'name: "stride"\ni: {stride}\n', f'name: "group"\ni: {group}\n']])]
    assert lut.op_ms(op, slot.in_shape).ms == pytest.approx(total / 1000, rel=1e-12)
    for name in ("list.json", "lut.zip"):
        assert import_table(tmp_path / name, "mobile-vision", wanted).table.entries == lut.entries


def test_mobile_vision_averages_falls_back_and_lists(tmp_path: Path) -> None:
    rows = records_for("fbnet_mini")
    plain = next(r for r in rows if r["op_type"] == "Int8Conv")
    fallback = dict(plain, op_type="Int8ConvRelu", runtime_us_p50=plain["runtime_us_p50"])
    double = dict(rows[0], runtime_us_p50=rows[0]["runtime_us_p50"] + 500.0)
    foreign = dict(rows[0], op_type="Int8MaxPool")
    wanted = Wanted(spaces=("fbnet_mini",))

    def table(changed: list[dict[str, Any]]) -> Imported:
        (tmp_path / "lut.json").write_text("".join(json.dumps(r) + "\n" for r in changed))
        return import_table(tmp_path / "lut.json", "mobile-vision", wanted)

    whole = table(rows).table
    replaced = table([fallback if r is plain else r for r in rows])
    assert replaced.table.entries == whole.entries and not replaced.left
    raised = table([*rows, double]).table
    stem = load_space("fbnet_mini").slots[0]
    first = [t.op_ms(stem.candidates[0].op, stem.in_shape).ms for t in (raised, whole)]
    assert first[0] - first[1] == pytest.approx(0.25)
    extra = table([*rows, foreign])
    assert len(extra.left) == 1 and "Int8MaxPool" in extra.left[0].name
    fewer = table([r for r in rows if r["op_type"] != "Int8ChannelShuffle"])
    assert fewer.left and all("no record of Int8ChannelShuffle" in left.why for left in fewer.left)
    with pytest.raises(LatencyError, match="give --spaces"):
        import_table(tmp_path / "lut.json", "mobile-vision")
