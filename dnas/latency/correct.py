"""A table whose scale and offset are corrected by a few whole networks: ``calibrate`` without ``--fit``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dnas.errors import LatencyError
from dnas.latency import calibrate
from dnas.latency.calibrate import Model, Row, significant
from dnas.latency.cost_model import CostModel
from dnas.latency.fitted import residuals
from dnas.latency.keys import Entry
from dnas.latency.table import LatencyTable


@dataclasses.dataclass(frozen=True)
class Scaled:
    """measured = scale x (sum of the table) + offset, or without one of them, or the sum as it is.

    Arguments: ``terms``, those of ``scale`` and ``offset`` that are fitted; ``sums_ms``, what the table says, by row name.
    """

    name: str
    terms: Mapping[str, str] = dataclasses.field(hash=False)
    sums_ms: Mapping[str, float] = dataclasses.field(hash=False)

    def matrix(self, rows: Sequence[Row]) -> np.ndarray:
        """X, f64[rows, terms]."""
        columns = {"scale": [self.sums_ms[row.name] for row in rows], "offset": [1.0] * len(rows)}
        return np.array([columns[t] for t in self.terms]).T

    def estimate(self, rows: Sequence[Row], coefficients: Sequence[float]) -> list[float]:
        """Latency of each row in ms."""
        scale, offset = self.split(coefficients)
        return [scale * self.sums_ms[row.name] + offset for row in rows]

    def split(self, coefficients: Sequence[float]) -> tuple[float, float]:
        """(scale, offset in ms); 1 and 0 where they are not fitted."""
        found = dict(zip(self.terms, coefficients, strict=True))
        return found.get("scale", 1.0), found.get("offset", 0.0)


def correct(
    table: LatencyTable, rows: Sequence[Row], missing: str | None = None, about: Mapping[str, Any] | None = None
) -> LatencyTable:
    """``table`` with its entries, constant and cost model multiplied by a scale, and an offset added once per network.

    The table as it is, scale alone, and scale and offset are compared by leave-one-out, with a + b x MACs beside them; the best
    is taken (the simpler one where they tie). Both are fitted by non-negative least squares on relative errors; where the
    networks' latencies do not rise with their sums, so that an offset alone explains them best, it is not given.
    ``about``: device, runtime, precision or threads that ``rows`` were measured on, where the table's differ; the result is
    then ``estimated``, because its single entries were never measured there. ``missing`` as in ``LatencyTable.op_ms``.
    Errors: LatencyError for a network that the table cannot price, or fewer than three networks.
    """
    if len(rows) < 3:
        raise LatencyError(f"{len(rows)} networks; a correction that can be checked needs three or more")
    sums = {}
    for row in rows:
        try:
            parts = [table.op_ms(op, shape, missing).ms for op, shape in row.layers]
        except LatencyError as problem:
            raise LatencyError(f"{row.name}: {problem}") from None
        sums[row.name] = math.fsum([table.constant_ms, *parts])
        if sums[row.name] <= 0:
            raise LatencyError(f"{row.name}: {table.name} sums to {sums[row.name]:g} ms; only positive sums can be scaled")
    forms = [Scaled("as it is", {}, sums), Scaled("scale", {"scale": "1"}, sums)]
    forms.append(Scaled("scale + offset", {"scale": "1", "offset": "ms"}, sums))
    used, values = _best(rows, forms)
    scale, offset = used.split(values)
    constant = table.constant_ms if (scale, offset) == (1, 0) else significant(scale * table.constant_ms + offset)
    other = {k: v for k, v in (about or {}).items() if v is not None and v != getattr(table, k)}
    result = dataclasses.replace(
        table, entries={k: _scaled(e, scale) for k, e in table.entries.items()},
        constant_ms=constant, cost_model=_scaled_model(table.cost_model, scale),
        error=_error(table, rows, used, values, forms), status="estimated" if other else table.status,
    )  # fmt: skip
    return LatencyTable.from_dict(dataclasses.replace(result, **other).to_dict(), table.name)


def _best(rows: Sequence[Row], forms: Sequence[Scaled]) -> tuple[Scaled, list[float]]:
    """The form that explains ``rows`` best with a scale above 0 (with 0 every op would be free), and its coefficients."""
    used = calibrate.choose(rows, forms)
    assert isinstance(used, Scaled)
    values = calibrate.coefficients(rows, used)
    return (used, values) if used.split(values)[0] > 0 else _best(rows, [form for form in forms if form is not used])


def _error(
    table: LatencyTable, rows: Sequence[Row], used: Scaled, values: Sequence[float], forms: Sequence[Scaled]
) -> dict[str, Any]:
    """The ``error`` object of the corrected table; what the table said before stands under ``before``."""
    simple, held = calibrate.baseline(), calibrate.leave_one_out(rows, used)
    families = calibrate.leave_one_family_out(rows, used)
    scale, offset = used.split(values)
    shown: tuple[Model, ...] = (*forms, simple)
    alone = calibrate.leave_one_out(rows, simple).to_dict()["mean"]
    base = "not determined" if alone is None else f"{alone:.1%}"
    as_it_is = calibrate.leave_one_out(rows, forms[0])
    worse = max((e for e in (held, families) if math.isfinite(e.mean)), key=lambda e: e.mean)
    return {
        "summary": f"{used.name} by {len(rows)} whole networks (x {scale:.4g}, + {offset:.3g} ms); leave-one-out error "
        f"{held.mean:.1%}, {as_it_is.mean:.1%} as it was, {base} for a + b x MACs",
        "rows": len(rows),
        "measure": "relative error, estimated / measured - 1; mean and worst of its absolute value",
        "bias": calibrate.errors_of(rows, forms[0], []).bias, "kendall_tau_b": calibrate.rank_agreement(rows, forms[0], []),
        "calibration": {
            "form": used.name, "scale": scale, "offset_ms": offset,
            "networks": {row.name: {"measured_ms": row.ms, "sum_ms": significant(used.sums_ms[row.name])} for row in rows},
            "leave_one_out": {form.name: calibrate.leave_one_out(rows, form).to_dict() for form in shown},
            "leave_one_family_out": {form.name: calibrate.leave_one_family_out(rows, form).to_dict() for form in shown},
        },
        "residuals": residuals(worse).to_dict(),
        "warnings": [*(calibrate.unidentified(rows, used) if used.terms else []), *_never_given(rows, forms[-1])],
        "before": dict(table.error) | {"device": table.device, "runtime": table.runtime, "status": table.status},
    }  # fmt: skip


def _never_given(rows: Sequence[Row], form: Scaled) -> list[str]:
    """A sentence where the networks ask for what is never given: a negative offset, which would price small ones below 0, or
    an offset and no rise with the sums, which would price every op at 0."""
    ms = np.array([row.ms for row in rows])
    found, _, rank, _ = np.linalg.lstsq(form.matrix(rows) / ms[:, None], np.ones(len(rows)), rcond=None)
    scale, offset = form.split(found)
    if rank < len(found):
        return []
    if scale <= 0:
        return ["Networks of a larger sum did not take longer, so they say nothing of the ops: measure more, further apart."]
    if offset > -0.01 * ms.min():
        return []
    return [f"The offset that fits best is {offset:.3g} ms; it is held at 0, so that no network is priced below 0."]


def validated(table: LatencyTable, rows: Sequence[Row], missing: str | None = None) -> LatencyTable:
    """``table`` with its error on whole networks written into ``error``; entries stay as they are.

    Networks that it cannot price are listed there. Errors: LatencyError if it can price none.
    """
    sums, unpriced = {}, {}
    for row in rows:
        try:
            parts = [table.op_ms(op, shape, missing).ms for op, shape in row.layers]
            sums[row.name] = math.fsum([table.constant_ms, *parts])
        except LatencyError as problem:
            unpriced[row.name] = str(problem)
    priced = [row for row in rows if row.name in sums]
    if not priced:
        raise LatencyError(f"{table.name} can price none of {len(rows)} networks; {next(iter(unpriced.values()), '')}")
    errors = calibrate.errors_of(priced, Scaled("as it is", {}, sums), [])
    words = ", ".join(f"{r.name} {sums[r.name]:.1f} ms ({r.ms:g} ms measured)" for r in priced[:3])
    more = f" and {len(priced) - 3} more" if len(priced) > 3 else ""
    body: dict[str, Any] = {
        "summary": f"{len(priced)} whole network{'s' if len(priced) > 1 else ''}: {words}{more}; mean error {errors.mean:.1%}",
        "rows": len(priced),
        "measure": "relative error, estimated / measured - 1; mean and worst of its absolute value",
        "networks": {r.name: {"measured_ms": r.ms, "sum_ms": significant(sums[r.name])} for r in priced},
        "mean": round(errors.mean, 4), "worst": round(errors.worst, 4), "not_priced": unpriced,
    }  # fmt: skip
    if len(priced) > 2:
        body["residuals"] = residuals(errors).to_dict()
    return LatencyTable.from_dict(dataclasses.replace(table, error=dict(table.error) | body).to_dict(), table.name)


def _scaled(entry: Entry, scale: float) -> Entry:
    if scale == 1:
        return entry
    low, high = (None if v is None else significant(v * scale) for v in (entry.ms_p10, entry.ms_p90))
    return dataclasses.replace(entry, ms=significant(entry.ms * scale), ms_p10=low, ms_p90=high)


def _scaled_model(model: CostModel | None, scale: float) -> CostModel | None:
    if model is None or scale == 1:
        return model
    return CostModel(model.formula, {f: significant(v * scale) for f, v in model.coefficients.items()})
