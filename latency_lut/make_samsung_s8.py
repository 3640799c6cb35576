"""Makes samsung_s8.json from published whole-network latencies: ``python latency_lut/make_samsung_s8.py [--check]``.

The same bytes each time; ``--check`` writes nothing and exits with 1 if the file differs. Reads ``sources/`` beside
this script and the published architectures in ``tests/published/archs``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from dnas.arch import Architecture  # noqa: E402
from dnas.files import write_text  # noqa: E402
from dnas.latency import calibrate  # noqa: E402
from dnas.latency.calibrate import Errors, Form, Row, significant  # noqa: E402
from dnas.latency.cost_model import CostModel  # noqa: E402
from dnas.latency.keys import Entry, Key  # noqa: E402
from dnas.latency.table import LatencyTable  # noqa: E402
from dnas.ops import InvertedResidualOp, Shape  # noqa: E402
from dnas.space import load_space  # noqa: E402

TARGET = HERE / "samsung_s8.json"
FAMILIES = {"mobilenetv2": "MobileNetV2", "mnasnet": "MnasNet", "fbnet": "FBNet"}
SPACES = tuple(f"{n}:expand1={e}" for n in ("fbnet", "fbnet_cifar", "fbnet_mini") for e in ("false", "true"))
# Every form that was looked at while this was made, those kept in ``forms`` and the baseline included; 32 of them also
# with unweighted least squares, and a few with operators counted without additions.
FORMS_TRIED = 57


def published() -> list[Row]:
    """The rows of the FBNet paper whose architecture is public."""
    given = json.loads((HERE / "sources" / "samsung_s8_published.json").read_text(encoding="utf-8"))
    rows = []
    for row in given["rows"]:
        if row["arch"]:
            network = Architecture.load(ROOT / "tests" / "published" / "archs" / f"{row['arch']}.json")
            family = FAMILIES[row["arch"].split("_")[0]]
            rows.append(Row.of(row["model"], family, row["latency_ms"], network.at(row["resolution"])))
    return rows


def pixel1_blocks() -> list[Row]:
    """Single blocks that were measured on a Pixel 1: the searchable layers of Single-Path NAS."""
    given = json.loads((HERE / "sources" / "pixel1_single_path_nas.json").read_text(encoding="utf-8"))
    rows = []
    for layer in given["layers"]:
        if not layer["searchable"]:
            continue
        shape = Shape(layer["h_in"], layer["h_in"], layer["c_in"])
        same = layer["stride"] == 1 and layer["c_in"] == layer["c_out"]
        for kernel in (3, 5):
            for ratio in (3, 6):
                block = InvertedResidualOp(
                    in_=layer["c_in"], mid=ratio * layer["c_in"], out=layer["c_out"], kernel=kernel,
                    stride=layer["stride"], residual=same,
                )  # fmt: skip
                label = f"k{kernel}_e{ratio}"
                rows.append(Row(f"{layer['layer']}_{label}", f"{layer['layer']}", layer[label], ((block, shape),)))
    return rows


def depthwise_ratio() -> float:
    """How many dense multiply-accumulates one depthwise one costs, from the Pixel 1 blocks (3 digits)."""
    form = Form("", {"dense": {"dense_macs": 1.0}, "depthwise": {"depthwise_macs": 1.0}})
    model, _, _ = calibrate.fit(pixel1_blocks(), form)
    return significant(model.coefficients["depthwise_macs"] / model.coefficients["dense_macs"], 3)


def forms(ratio: float) -> list[Form]:
    """The forms that are compared in the file, the one that is used first."""
    terms: dict[str, dict[str, float]] = {
        "MACs": {"dense_macs": 1.0, "depthwise_macs": 1.0}, "dense": {"dense_macs": 1.0},
        "depthwise": {"depthwise_macs": 1.0}, "tiled": {"tiled_macs": 1.0, "depthwise_macs": ratio},
        "image": {"image_pixels": 1.0}, "operators": {"operators": 1.0}, "elements": {"elements": 1.0},
        "positions": {"positions": 1.0}, "network": {"network": 1.0},
    } | {f"weighted({r:g})": {"dense_macs": 1.0, "depthwise_macs": r} for r in (ratio, 1.5, 4.0)}  # fmt: skip
    used = f"weighted({ratio:g})"
    kept = [
        f"{used} + image + operators", f"{used} + image + network", f"{used} + elements + image + operators",
        f"{used} + positions + operators", "weighted(1.5) + image + operators", "weighted(4) + image + operators",
        "tiled + image + operators", "MACs + image + operators", "dense + depthwise + image + operators",
        "MACs + operators", "MACs + elements", "MACs + elements + operators", "MACs + positions + operators",
        "dense + depthwise + operators", "dense + depthwise + elements + operators",
    ]  # fmt: skip
    return [Form(name, {t: terms[t] for t in name.split(" + ")}) for name in kept]


def report(form: Form, rows: list[Row]) -> dict[str, Any]:
    """Errors of one form, as they stand in the file."""
    _, _, own = calibrate.fit(rows, form)
    held = calibrate.leave_one_family_out(rows, form)
    return {
        "on_the_rows_themselves": own.to_dict(),
        "leave_one_out": calibrate.leave_one_out(rows, form).to_dict(rows=True),
        "leave_one_family_out": held.to_dict(rows=True),
    }


def check(rows: list[Row], compared: list[Form], ratio: float) -> dict[str, Any]:
    """The ``error`` object of the table."""
    used, simple = compared[0], calibrate.baseline()
    held, other = (calibrate.leave_one_family_out(rows, form) for form in (used, simple))
    single = calibrate.leave_one_out(rows, used)
    return {
        "summary": f"fitted to {len(rows)} whole-network latencies; leave-one-family-out error {held.mean:.1%}, "
        f"{other.mean:.1%} for a + b x MACs; single ops unvalidated",
        "rows": len(rows),
        "measure": "relative error, estimated / measured - 1; mean and worst of its absolute value",
        "model": {"form": used.name} | report(used, rows),
        "baseline": {"form": simple.name} | report(simple, rows),
        "improvement": round(1 - held.mean / other.mean, 4),
        "measured_over_estimated": _range(held, single),
        "forms_compared": {form.name: _figures(form, rows) for form in compared},
        "forms_tried": FORMS_TRIED,
        "leave_one_out_with_the_form_chosen_inside": calibrate.chosen_inside(rows, compared).to_dict(),
        "single_ops": single_ops(rows, compared),
        "depthwise_ratio": ratio,
        "warnings": [
            "Network totals do not validate single ops: single_ops shows how far equally good forms differ on them.",
            "Leave-one-family-out is below leave-one-out partly by luck: count on 6 to 7 % for a network of another "
            "family, and on 10 to 20 % below 6 ms.",
            "The fitted networks hold depthwise and 1x1 convolutions besides the first: dense 3x3 convolutions, "
            "squeeze-excite, swish-like activations and shuffles are priced by MACs and number of operators alone.",
            "The form was chosen with these rows in view: see leave_one_out_with_the_form_chosen_inside.",
            "With MobileNetV2 held out, 3 rows at 224 px determine 3 coefficients: that fold has nothing to spare.",
            "Fitted from 96 to 224 px: entries for 32 and 16 px are extrapolated.",
        ],
    }


def single_ops(rows: list[Row], compared: list[Form]) -> dict[str, Any]:
    """By how much forms that are about as good (leave-one-out within 10 % of the best) disagree on FBNet's blocks."""
    errors = {form.name: calibrate.leave_one_out(rows, form).mean for form in compared}
    per_op = [form for form in compared if "network" not in form.terms]  # a constant per network prices no op
    good = [form for form in per_op if errors[form.name] <= 1.1 * min(errors.values())]
    models = [calibrate.fit(rows, form)[0] for form in good]
    slots = load_space("fbnet").slots
    blocks = [(c.op, s.in_shape) for s in slots for c in s.candidates if isinstance(c.op, InvertedResidualOp)]
    prices = [[model.op_ms(op, shape) for model in models] for op, shape in blocks]
    spread = sorted(max(p) / min(p) - 1 for p in prices)
    return {
        "forms": [form.name for form in good],
        "blocks": len(blocks),
        "median_spread": round(spread[len(spread) // 2], 3),
        "largest_spread": round(spread[-1], 3),
    }


def table() -> LatencyTable:
    """The table, computed from the sources."""
    rows, ratio = published(), depthwise_ratio()
    compared = forms(ratio)
    model, _, _ = calibrate.fit(rows, compared[0])
    sizes = sorted({row.layers[0][1].height for row in rows})
    return LatencyTable(
        device="Samsung Galaxy S8 (Snapdragon 835 CPU)",
        runtime="Caffe2, generation of 2018",
        precision="int8",
        status="estimated",
        meaning="absolute",
        source={
            "who": "dnas: a cost model fitted to whole-network latencies published by Wu et al. (FBNet, CVPR 2019)",
            "where": "arXiv:1812.03443, Tables 3 and 4; sources/samsung_s8_published.json says how each was read",
            "how": "make_samsung_s8.py: non-negative least squares on relative errors, depthwise MACs weighted "
            f"{ratio:g} times dense ones as measured on a Pixel 1 (sources/pixel1_single_path_nas.json)",
            "licence": "published figures (facts); Pixel 1 data and this file: Apache-2.0",
            "date": "2018-12 (figures)",
        },
        error=check(rows, compared, ratio),
        resolutions=(sizes[0], sizes[-1]),
        cost_model=model,
        entries=entries(model),
    )


def entries(model: CostModel) -> dict[Key, Entry]:
    """Every candidate of every layer of the shipped spaces."""
    found: dict[Key, Entry] = {}
    for name in SPACES:
        for slot in load_space(name).slots:
            for candidate in slot.candidates:
                entry = Entry(significant(model.op_ms(candidate.op, slot.in_shape)))
                key = candidate.op.price_fields(slot.in_shape)
                if found.setdefault(key, entry) != entry:
                    raise SystemExit(f"{name}: two prices for one key: {key}")
    return found


def _range(*errors: Errors) -> list[float]:
    """Smallest and largest measured / estimated among held-out rows."""
    ratios = [1 / (1 + e) for each in errors for e in each.relative.values()]
    return [round(min(ratios), 4), round(max(ratios), 4)]


def _figures(form: Form, rows: list[Row]) -> dict[str, Any]:
    held = calibrate.leave_one_family_out(rows, form)
    mean, families = held.to_dict()["mean"], held.to_dict()["families"]
    single = round(calibrate.leave_one_out(rows, form).mean, 4)
    figures = {"leave_one_out": single, "leave_one_family_out": mean, "families": families}
    return {"coefficients": len(form.terms)} | figures


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="compare only; exit with 1 if samsung_s8.json differs")
    text = table().to_json()
    if parser.parse_args(arguments).check:
        same = TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text
        print(f"{TARGET.name}: {'the same' if same else 'differs from what this script makes'}")
        return 0 if same else 1
    write_text(TARGET, text)
    print(f"{TARGET.name}: {LatencyTable.load(TARGET)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
