"""Where a network's latency goes: ms of each layer, and of each kind of op, on one or several tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dnas.arch import Architecture
from dnas.latency.table import LatencyTable
from dnas.ops import Op
from dnas.plot.style import colour, new_figure, plain, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONSTANT = "once per network"
USUAL = ("conv 3x3", "ir 3x3", "ir 5x5", "ir 7x7", "conv 1x1", "ds_conv 3x3", "linear")  # the same colours in every figure


class BreakdownInfo(NamedTuple):
    """What is drawn. Per table: ``layers_ms`` f64[layers], ``modelled`` bool[layers] (no entry: from the cost model),
    ``kinds_ms`` kind -> ms, largest first, with ``constant_ms``, which belongs to no layer; they sum to ``total_ms``."""

    name: str
    labels: tuple[str, ...]
    kinds: tuple[str, ...]
    layers_ms: dict[str, np.ndarray]
    modelled: dict[str, np.ndarray]
    kinds_ms: dict[str, dict[str, float]]
    constant_ms: dict[str, float]
    total_ms: dict[str, float]
    about: dict[str, str]  # device and status


def kind(op: Op) -> str:
    """Op type, and kernel where it has one: "ir 5x5"."""
    kernel = getattr(op, "kernel", None)
    return op.op + (f" {kernel}x{kernel}" if isinstance(kernel, int) else "")


def info(network: Architecture, tables: LatencyTable | Sequence[LatencyTable], missing: str | None = None) -> BreakdownInfo:
    """Price ``network`` on each table. Errors: LatencyError (``missing`` as in ``LatencyTable.op_ms``)."""
    tables = [tables] if isinstance(tables, LatencyTable) else list(tables)
    kinds = tuple(kind(op) for op in network.layers)
    found = BreakdownInfo(network.name, tuple(map(str, network.layers)), kinds, {}, {}, {}, {}, {}, {})
    for table in tables:
        report = table.report(network, missing)
        ms = np.array(report.layers_ms)
        sums = {k: float(ms[[k == other for other in kinds]].sum()) for k in dict.fromkeys(kinds)}
        if report.constant_ms:
            sums[CONSTANT] = report.constant_ms
        found.layers_ms[table.name] = ms
        found.modelled[table.name] = np.array([s == "cost-model" for s in report.sources])
        found.kinds_ms[table.name] = dict(sorted(((k, v) for k, v in sums.items() if v), key=lambda kv: -kv[1]))
        found.constant_ms[table.name] = report.constant_ms
        found.total_ms[table.name] = report.total_ms
        found.about[table.name] = f"{table.device}: {report.total_ms:.4g} ms, {table.status}"
    return found


def draw(found: BreakdownInfo) -> Figure:
    """Per table a bar for each layer (hatched: from the cost model) and, below, one for each kind of op."""
    every = dict.fromkeys((*USUAL, *found.kinds, CONSTANT))
    colours = {k: colour(i) for i, k in enumerate(every)}
    rows, most = len(found.labels), max(len(v) for v in found.kinds_ms.values())
    figure = new_figure(1.8 + 4.2 * len(found.layers_ms), 1.6 + 0.17 * rows + 0.22 * most)
    grid: Any = figure.subplots(2, len(found.layers_ms), squeeze=False, height_ratios=[0.17 * rows + 0.2, 0.22 * most + 0.2])
    for column, (name, ms) in enumerate(found.layers_ms.items()):
        upper, lower = grid[0, column], grid[1, column]
        bars = upper.barh(range(rows), ms, color=[colours[k] for k in found.kinds], height=0.8)
        for bar, modelled in zip(bars, found.modelled[name], strict=True):
            bar.set(hatch="////" if modelled else "", edgecolor="white", linewidth=0)
        names = found.labels if column == 0 else [""] * rows
        upper.set_yticks(range(rows), [plain(f"{label}  {i}" if label else "") for i, label in enumerate(names)])
        upper.invert_yaxis()
        tidy(upper, found.about[name], "ms of the layer")
        upper.tick_params(axis="y", labelsize=6.5)
        sums = found.kinds_ms[name]
        lower.barh(range(len(sums)), list(sums.values()), color=[colours[k] for k in sums], height=0.75)
        for place, value in enumerate(sums.values()):
            share = f" {value:.3g} ms, {value / found.total_ms[name]:.0%}"
            lower.annotate(share, (max(value, 0), place), va="center", fontsize=7)
        lower.set_yticks(range(len(sums)), [plain(k) for k in sums])
        lower.invert_yaxis()
        lower.margins(x=0.25)
        tidy(lower, "", "ms of all layers of a kind")
    figure.suptitle(plain(found.name), fontsize=11, x=0.01, ha="left")
    if any(m.any() for m in found.modelled.values()):
        from matplotlib.patches import Patch

        grid[0, -1].legend(handles=[Patch(facecolor="0.6", hatch="////", edgecolor="white", label="from the cost model")],
                           fontsize=7, frameon=False, loc="lower right")  # fmt: skip
    return figure
