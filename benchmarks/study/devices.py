"""Does the device matter? At one accuracy, the fastest network of an oracle by one table and by another."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dnas.latency import LatencyTable
from dnas.latency.calibrate import Form, Row, baseline, choose, fit, leave_one_family_out
from dnas.ops import InvertedResidualOp
from dnas.oracle import Oracle
from dnas.space import Space

_MACS = {"dense": {"dense_macs": 1.0}, "depthwise": {"depthwise_macs": 1.0}}
FORMS = [
    Form("macs", _MACS),
    *(Form(f"macs, {f}", _MACS | {f: {f: 1.0}}) for f in ("operators", "elements", "positions")),
    *(Form(f"macs, operators, {f}", _MACS | {"operators": {"operators": 1.0}, f: {f: 1.0}}) for f in ("elements", "positions")),
]


def accuracies_within(oracle: Oracle, table: LatencyTable, shares: Sequence[float]) -> list[float]:
    """Accuracy, percent, of the best network within ``shares`` of the way from the table's fastest to its slowest one."""
    costs = oracle.costs(table)
    least, most = costs.min(), costs.max()
    return [float(oracle.accuracies[costs <= least + share * (most - least)].max()) for share in shares]


def chosen(oracle: Oracle, tables: Sequence[LatencyTable], accuracies: Sequence[float]) -> list[dict[str, Any]]:
    """For each accuracy (percent, means of all trainings), and each table: the fastest network that reaches it, and its ms by
    every table."""
    costs, found = [oracle.costs(t) for t in tables], []
    for wanted in accuracies:
        enough = np.flatnonzero(oracle.accuracies >= wanted)
        networks = {}
        for table, own in zip(tables, costs, strict=True):
            best = int(enough[own[enough].argmin()])
            networks[table.name] = {
                "code": oracle.codes[best], "accuracy": float(oracle.accuracies[best]),
                "ms": {t.name: float(c[best]) for t, c in zip(tables, costs, strict=True)},
            }  # fmt: skip
        found.append({"accuracy": wanted, "fastest_by": networks})
    return found


def penalties(choices: Sequence[dict[str, Any]], errors: Mapping[str, float], canonical: Callable[[str], str]) -> list[Any]:
    """Of ``chosen``: how much longer, on device ``on``, the network takes that was chosen for another one. Shares are of the
    accuracies; ``beyond``: where that is more than the mean error (a share) of the table of ``on``."""
    found = []
    for chosen_for, on in itertools.permutations(choices[0]["fastest_by"], 2):
        pairs = [(c["fastest_by"][chosen_for], c["fastest_by"][on]) for c in choices]
        longer = np.array([other["ms"][on] / own["ms"][on] - 1 for other, own in pairs])
        same = [canonical(other["code"]) == canonical(own["code"]) for other, own in pairs]
        found.append({
            "chosen_for": chosen_for, "on": on, "same_network": float(np.mean(same)), "longer": float(longer.mean()),
            "largest": float(longer.max()), "beyond": float((longer > errors[on]).mean()),
        })  # fmt: skip
    return found


def changes(choices: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """``chosen`` where it is not as at the accuracy before: the code by each table."""
    codes = [{t: v["code"] for t, v in c["fastest_by"].items()} for c in choices]
    return [
        {"from": choices[i]["accuracy"], **own} for i, own in enumerate(codes) if i == 0 or own != codes[i - 1]
    ]  # fmt: skip


def error_of(table: LatencyTable) -> float:
    """Mean relative error of what the table's fit had not seen: the largest that it states."""
    error = table.error
    if "leave_one_stage_out" in error:
        return float(error["leave_one_stage_out"])
    how = ("leave_one_out", "leave_one_family_out")
    if "calibration" in error:
        return float(max(error["calibration"][k][error["calibration"]["form"]]["mean"] for k in how))
    return float(max(error["model"][k]["mean"] for k in how))


def table(found: Sequence[dict[str, Any]]) -> str:
    """``penalties`` as Markdown: rows are what networks were chosen for, columns where they run."""
    names = list(dict.fromkeys(p["on"] for p in found))
    cell = {
        (p["chosen_for"], p["on"]): f"{p['longer']:.1%} ({p['largest']:.1%}), {p['same_network']:.0%}, {p['beyond']:.0%}"
        for p in found
    }
    lines = [f"| chosen for | {' | '.join(names)} |", "| --- " * (len(names) + 1) + "|"]
    return "\n".join([*lines, *(f"| {a} | {' | '.join(cell.get((a, b), '') for b in names)} |" for a in names)])


def regression(table: LatencyTable, space: Space) -> LatencyTable:
    """A cost model, fitted to a table of ``space`` that prices blocks relative to skip: to those with a skip of no cost, the
    inverted residual blocks without groups that keep their shape. Its error is that of the blocks of one stage (width and map),
    by a model fitted to the others."""
    rows = {}
    for slot in space.slots:
        for candidate in slot.candidates:
            op, shape = candidate.op, slot.shape_of(candidate)
            if isinstance(op, InvertedResidualOp) and op.residual and op.expand_groups == 1:
                key, stage = op.price_fields(shape), f"{op.in_} channels, {shape.height} px"
                rows[key] = Row(str(dict(key)), stage, table.op_ms(op, shape).ms, ((op, shape),))
    blocks = list(rows.values())
    form = choose(blocks, FORMS)
    assert isinstance(form, Form)
    held, by_macs = leave_one_family_out(blocks, form), leave_one_family_out(blocks, baseline())
    figures = f"leave-one-stage-out error {held.mean:.1%}, {by_macs.mean:.1%} for a + b x MACs"
    error = {
        "summary": f"fitted to {len(blocks)} blocks; {figures}",
        "form": form.name, "blocks": len(blocks), "stages": held.families, "leave_one_stage_out": held.mean,
        "worst": held.worst, "macs_leave_one_stage_out": by_macs.mean,
    }  # fmt: skip
    return dataclasses.replace(
        table, name=f"model of {table.name}", status="estimated", meaning="absolute", entries={}, constant_ms=0.0,
        constant_covers=(), error=error, cost_model=fit(blocks, form)[0],
    )  # fmt: skip
