"""Accuracy against cost: fronts, intervals, and published networks as points of reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dnas import zoo
from dnas.arch import Architecture
from dnas.errors import ConfigError, LatencyError
from dnas.latency.table import LatencyTable
from dnas.plot.style import LINES, colour, legend, marker, new_figure, plain, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Point(NamedTuple):
    """A network: accuracy in percent; cost in any unit; intervals (low, high) where they are known."""

    name: str
    cost: float
    accuracy: float
    cost_interval: tuple[float, float] | None = None
    accuracy_interval: tuple[float, float] | None = None


class ParetoInfo(NamedTuple):
    """What is drawn. ``fronts``: per series, its points that no other of the series beats, cheapest first."""

    series: dict[str, tuple[Point, ...]]
    fronts: dict[str, tuple[Point, ...]]
    references: tuple[Point, ...]
    cost: str
    accuracy: str


def front(points: Iterable[Point]) -> tuple[Point, ...]:
    """The points that no other is at least as cheap and as accurate as, cheapest first (the first of equals)."""
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.accuracy)):
        if not found or point.accuracy > found[-1].accuracy:
            found.append(point)
    return tuple(found)


def info(
    series: Mapping[str, Iterable[Point]],
    references: Iterable[Point] = (),
    cost: str = "latency, ms",
    accuracy: str = "test accuracy, %",
) -> ParetoInfo:
    """``series``: points by legend. Errors: ConfigError for a point that is no number."""
    points = {name: tuple(given) for name, given in series.items()}
    references = tuple(references)
    for point in (p for group in (*points.values(), references) for p in group):
        if not np.isfinite([point.cost, point.accuracy]).all():
            raise ConfigError(f"{point.name}: cost {point.cost}, accuracy {point.accuracy}; expected finite numbers")
    return ParetoInfo(points, {n: front(p) for n, p in points.items()}, references, cost, accuracy)


def published(
    table: LatencyTable | str, names: Sequence[str] | None = None, missing: str | None = None
) -> tuple[tuple[Point, ...], tuple[str, ...]]:
    """Published networks (``names`` of the zoo; default: all) with their published top-1 accuracy, priced on ``table`` or in
    "macs" or "params"; and a sentence for each that cannot be placed."""
    points, left_out = [], []
    for name in zoo.names() if names is None else names:
        network = Architecture.load(name)
        stated = network.provenance.get("published")
        if not isinstance(stated, Mapping) or "top-1" not in str(stated.get("metric")):
            left_out.append(f"{name}: no published top-1 accuracy")
            continue
        try:
            if isinstance(table, LatencyTable):
                report = table.report(network, missing)
                cost, interval = report.total_ms, report.interval_ms
            else:
                cost, interval = float({"macs": network.macs, "params": network.params}[table]), None
        except LatencyError as problem:
            left_out.append(f"{name}: {problem}")
            continue
        points.append(Point(network.name, cost, float(stated["value"]), interval))
    return tuple(points), tuple(left_out)


def of(network: Architecture, table: str | None = None) -> Point:
    """A found network as ``dnas.search`` and ``dnas.train`` saved it: its measured accuracy and its latency, with intervals.

    ``table``: which of its latencies, by the table's name; default: the first. Errors: ConfigError where it has none.
    """
    measured = network.metrics.get("accuracy")
    prices = [p for p in network.metrics.get("latency", ()) if table is None or p["table"] == table]
    if not measured or not prices:
        lacks = "accuracy" if not measured else f"latency{f' on {table}' if table else ''}"
        raise ConfigError(f"{network.name} has no {lacks} in its metrics; expected a network that dnas.search saved")
    ms, top1 = prices[0].get("interval_ms"), measured.get("interval95")
    interval = (100 * top1[0], 100 * top1[1]) if top1 else None
    return Point(network.name, prices[0]["latency_ms"], 100 * measured["top1"], tuple(ms) if ms else None, interval)


def draw(found: ParetoInfo) -> Figure:
    """One panel; see ``on``."""
    figure = new_figure(7, 5)
    on(figure.subplots(), found)
    return figure


def on(axes: Axes, found: ParetoInfo) -> None:
    """Points with their intervals, fronts as steps, references hollow and grey with their names."""
    for index, (name, points) in enumerate(found.series.items()):
        if not points:
            continue
        axes.errorbar(
            [p.cost for p in points], [p.accuracy for p in points], _bars(points, "accuracy"), _bars(points, "cost"),
            linestyle="none", markersize=5, elinewidth=0.9, capsize=2, alpha=0.85, label=plain(name), color=colour(index),
            marker=marker(index),
        )  # fmt: skip
        line = found.fronts[name]
        axes.step([p.cost for p in line], [p.accuracy for p in line], LINES[index % len(LINES)], where="post",
                  color=colour(index), linewidth=1.4)  # fmt: skip
    if found.references:
        axes.errorbar(
            [p.cost for p in found.references], [p.accuracy for p in found.references], _bars(found.references, "accuracy"),
            _bars(found.references, "cost"), linestyle="none", marker="o", markersize=4, markerfacecolor="white", color="0.45",
            ecolor="0.8", elinewidth=0.8, label="published", zorder=1,
        )  # fmt: skip
        for point in found.references:
            axes.annotate(plain(point.name), (point.cost, point.accuracy), (3, 3), textcoords="offset points", fontsize=6,
                          color="0.35")  # fmt: skip
    tidy(axes, "", found.cost, found.accuracy)
    axes.grid(color="0.92", linewidth=0.7)
    axes.set_axisbelow(True)
    legend(axes, loc="lower right")


def _bars(points: Sequence[Point], field: str) -> np.ndarray | None:
    """f64[2, n]: distances from each value to its interval's ends; None where no point has one."""
    intervals = [getattr(p, f"{field}_interval") for p in points]
    if not any(intervals):
        return None
    values = [getattr(p, field) for p in points]
    return np.array([[v - i[0], i[1] - v] if i else [0, 0] for v, i in zip(values, intervals, strict=True)]).T.clip(0)
