"""A table whose entries are a cost model, fitted to the latencies of whole networks: ``calibrate --fit``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from dnas.errors import LatencyError
from dnas.files import shown
from dnas.latency import calibrate
from dnas.latency.calibrate import Errors, Form, Row, significant
from dnas.latency.cost_model import CostModel
from dnas.latency.intervals import Residuals
from dnas.latency.keys import Entry, Key
from dnas.latency.table import LatencyTable
from dnas.ops import Op, Shape
from dnas.space import load_space

Candidate = tuple[Op, Shape]
CLOSE = 1.1  # forms whose leave-one-out error is within 10 % of the best count as equally good


def fit_table(
    header: LatencyTable, rows: Sequence[Row], forms: Sequence[Form], spaces: Sequence[str] = (), ratio: float | None = None
) -> LatencyTable:
    """``header`` with a cost model fitted to ``rows``, an entry for every candidate of ``spaces``, and its errors.

    The form is the one of ``forms`` with the smallest leave-one-out error; all are compared with a + b x MACs in the table's
    ``error``. ``header`` says what the rows were measured on; its status becomes ``estimated``, its error's ``warnings`` and
    ``forms_tried`` are kept. ``ratio``: what the weights in the forms' names were fitted to, for the record.
    Errors: LatencyError if the rows do not determine a form, or the header has entries or is relative.
    """
    if header.entries or header.meaning != "absolute" or header.constant_covers:
        raise LatencyError(
            f"{header.name} has {len(header.entries)} entries and the meaning {header.meaning}; a fit from scratch starts from "
            'a header: an absolute table with "entries": [] (without --fit, this table\'s scale is corrected)'
        )
    used = calibrate.choose(rows, forms)
    assert isinstance(used, Form)
    model, constant, _ = calibrate.fit(rows, used)
    sizes = sorted({row.layers[0][1].height for row in rows})
    error = _error(header.error, rows, [used, *(f for f in forms if f != used)], spaces, ratio)
    table = dataclasses.replace(
        header, status="estimated", resolutions=(sizes[0], sizes[-1]), cost_model=model, constant_ms=constant,
        entries=_entries(model, spaces), error=error,
    )  # fmt: skip
    return LatencyTable.from_dict(table.to_dict(), header.name)


def _error(
    header: Mapping[str, Any], rows: Sequence[Row], forms: Sequence[Form], spaces: Sequence[str], ratio: float | None
) -> dict[str, Any]:
    """The ``error`` object. The first of ``forms`` is the one that is used."""
    used, simple = forms[0], calibrate.baseline()
    held, other = (calibrate.leave_one_family_out(rows, form) for form in (used, simple))
    single, alone = (calibrate.leave_one_out(rows, form) for form in (used, simple))
    families = len({row.family for row in rows}) < len(rows) and math.isfinite(held.mean) and math.isfinite(other.mean)
    ours, theirs, how = (held, other, "leave-one-family-out") if families else (single, alone, "leave-one-out")
    tried, extra = header.get("forms_tried", len(forms) + 1), header.get("warnings", [])
    if type(tried) is not int or not isinstance(extra, list) or not all(isinstance(w, str) for w in extra):
        raise LatencyError(
            f"error.forms_tried is {shown(tried)}, error.warnings {shown(extra)}; expected a number and sentences"
        )
    worse = max((e for e in (held, single) if math.isfinite(e.mean)), key=lambda e: e.mean)
    body = {
        "summary": f"fitted to {len(rows)} whole-network latencies; {how} error {ours.mean:.1%}, {theirs.mean:.1%} for "
        "a + b x MACs; single ops unvalidated",
        "rows": len(rows),
        "measure": "relative error, estimated / measured - 1; mean and worst of its absolute value",
        "model": {"form": used.name} | _report(used, rows),
        "baseline": {"form": simple.name} | _report(simple, rows),
        "improvement": round(1 - ours.mean / theirs.mean, 4),
        "measured_over_estimated": _range(held, single),
        "residuals": residuals(worse).to_dict(),
        "forms_compared": {form.name: _figures(form, rows) for form in forms},
        "forms_tried": max(tried, len(forms) + 1),
        "leave_one_out_with_the_form_chosen_inside": calibrate.chosen_inside(rows, forms).to_dict(),
        "single_ops": _single_ops(rows, forms, spaces),
        "depthwise_ratio": ratio,
        "warnings": [*extra, *calibrate.unidentified(rows, used)],
    }
    return {k: v for k, v in body.items() if v is not None}


def residuals(errors: Errors) -> Residuals:
    """From held-out relative errors (estimated / measured - 1), those that were determined."""
    known = {n: e for n, e in errors.relative.items() if math.isfinite(e)}
    return Residuals.of([1 / (1 + e) for e in known.values()], [errors.family_of[n] for n in known])


def _entries(model: CostModel, spaces: Sequence[str]) -> dict[Key, Entry]:
    """Every candidate of every layer of ``spaces``."""
    found: dict[Key, Entry] = {}
    for op, shape in _candidates(spaces):
        found[op.price_fields(shape)] = Entry(significant(model.op_ms(op, shape)))
    return found


def _candidates(spaces: Sequence[str]) -> list[Candidate]:
    return [(c.op, slot.shape_of(c)) for spec in spaces for slot in load_space(spec).slots for c in slot.candidates]


def _report(form: Form, rows: Sequence[Row]) -> dict[str, Any]:
    """Errors of one form, as they stand in the file."""
    _, _, own = calibrate.fit(rows, form)
    return {
        "on_the_rows_themselves": own.to_dict(),
        "leave_one_out": calibrate.leave_one_out(rows, form).to_dict(rows=True),
        "leave_one_family_out": calibrate.leave_one_family_out(rows, form).to_dict(rows=True),
    }


def _single_ops(rows: Sequence[Row], forms: Sequence[Form], spaces: Sequence[str]) -> dict[str, Any] | None:
    """By how much forms that are about as good disagree on the candidates of the first space's searchable layers."""
    errors = {form.name: calibrate.leave_one_out(rows, form).mean for form in forms}
    best = min((e for e in errors.values() if math.isfinite(e)), default=math.nan)
    per_op = [form for form in forms if "network" not in form.terms]  # a constant per network prices no op
    good = [form for form in per_op if errors[form.name] <= CLOSE * best]
    slots = [slot for spec in spaces[:1] for slot in load_space(spec).slots if len(slot.candidates) > 1]
    blocks = [(c.op, s.shape_of(c)) for s in slots for c in s.candidates if c.op.primitives()]
    if not good or not blocks:
        return None
    models = [calibrate.fit(rows, form)[0] for form in good]
    prices = [[model.op_ms(op, shape) for model in models] for op, shape in blocks]
    spread = sorted(max(p) / min(p) - 1 if min(p) else math.inf for p in prices)
    middle, largest = (None if math.isinf(s) else round(s, 3) for s in (spread[len(spread) // 2], spread[-1]))
    return {
        "forms": [form.name for form in good], "blocks": len(blocks), "median_spread": middle, "largest_spread": largest
    }  # fmt: skip


def _range(*errors: Errors) -> list[float]:
    """Smallest and largest measured / estimated among held-out rows."""
    ratios = [1 / (1 + e) for each in errors for e in each.relative.values() if math.isfinite(e)]
    return [round(min(ratios), 4), round(max(ratios), 4)]


def _figures(form: Form, rows: Sequence[Row]) -> dict[str, Any]:
    held = calibrate.leave_one_family_out(rows, form).to_dict()
    single = calibrate.leave_one_out(rows, form).to_dict()["mean"]
    figures = {"leave_one_out": single, "leave_one_family_out": held["mean"], "families": held["families"]}
    return {"coefficients": len(form.terms)} | figures
