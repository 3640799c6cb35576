"""The forms of cost model that ``calibrate`` compares, by name: ``weighted(2.43) + image + operators``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dnas.errors import LatencyError, nearest
from dnas.files import shown
from dnas.latency import calibrate
from dnas.latency.calibrate import Form, Row, significant

if TYPE_CHECKING:
    from dnas.latency.importers import Record

TERMS: dict[str, dict[str, float]] = {
    "MACs": {"dense_macs": 1.0, "depthwise_macs": 1.0}, "dense": {"dense_macs": 1.0},
    "depthwise": {"depthwise_macs": 1.0}, "image": {"image_pixels": 1.0}, "operators": {"operators": 1.0},
    "elements": {"elements": 1.0}, "positions": {"positions": 1.0}, "network": {"network": 1.0},
}  # fmt: skip
"""Name of a term -> the features that it weighs. ``weighted(r)`` and ``tiled(r)`` weigh depthwise MACs r-fold."""


def form(name: str) -> Form:
    """The form that a sum of terms names. Errors: LatencyError with the nearest terms.

    >>> form("weighted(2) + operators").terms["weighted(2)"]
    {'dense_macs': 1.0, 'depthwise_macs': 2.0}
    """
    return Form(name, {t: _term(t, name) for t in name.split(" + ")})


def compared(ratio: float | None) -> list[Form]:
    """The forms that are compared where none is asked for. ``ratio``: what depthwise MACs cost in units of dense ones, where
    it is known from blocks (None: forms with a weight of 1.5 and 4 are among them)."""
    names = [
        "weighted(1.5) + image + operators", "weighted(4) + image + operators", "MACs + image + operators",
        "dense + depthwise + image + operators", "MACs + operators", "MACs + elements", "MACs + elements + operators",
        "MACs + positions + operators", "dense + depthwise + operators", "dense + depthwise + elements + operators",
    ]  # fmt: skip
    if ratio is not None:
        used = f"weighted({ratio:g})"
        names = [
            f"{used} + image + operators", f"{used} + image + network", f"{used} + elements + image + operators",
            f"{used} + positions + operators", *names[:2], f"tiled({ratio:g}) + image + operators", *names[2:],
        ]  # fmt: skip
    return [form(name) for name in names]


def depthwise_ratio(records: Sequence[Record]) -> float:
    """How many dense multiply-accumulates one depthwise one costs, fitted to the times of single blocks (3 digits).

    Errors: LatencyError if the blocks do not tell the two apart.
    """
    rows = [Row(f"{n}", r.name, r.ms, ((r.op, r.shape),)) for n, r in enumerate(records)]
    model, _, _ = calibrate.fit(rows, Form("dense + depthwise", {"dense": TERMS["dense"], "depthwise": TERMS["depthwise"]}))
    dense, depthwise = (model.coefficients[f] for f in ("dense_macs", "depthwise_macs"))
    if not dense or not depthwise:
        raise LatencyError(f"the blocks give {dense:g} ms per dense and {depthwise:g} per depthwise MAC: no ratio")
    return significant(depthwise / dense, 3)


def _term(name: str, whole: str) -> dict[str, float]:
    weighted = re.fullmatch(r"(weighted|tiled)\((\d{1,6}(?:\.\d{1,6})?)\)", name)
    if weighted:
        dense = "dense_macs" if weighted[1] == "weighted" else "tiled_macs"
        return {dense: 1.0, "depthwise_macs": float(weighted[2])}
    if name not in TERMS:
        raise LatencyError(
            f"form {shown(whole)}: unknown term {shown(name)}{nearest(name, [*TERMS, 'weighted(2)', 'tiled(2)'])}"
        )
    return TERMS[name]
