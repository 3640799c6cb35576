"""The figure of a search: losses, accuracy, latency, and the probability of each candidate over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dnas.plot.style import COLOURS, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 4  # panels beside each other
MOST_COLUMNS = 16  # of a heat map of layer x candidate
# what is measured: split, and network
CURVES = {"weights, mixture": "train", "architecture, mixture": "mixture", "selection, argmax": "argmax"}


class SearchInfo(NamedTuple):
    """What is drawn. Arrays over epochs; NaN where a figure was not measured (the mixture during warm-up)."""

    epochs: np.ndarray
    losses: dict[str, np.ndarray]
    accuracies: dict[str, np.ndarray]
    latencies_ms: dict[str, np.ndarray]
    target_ms: float | None
    probabilities: dict[str, np.ndarray]  # choice -> [epochs, options]
    entropy: np.ndarray
    temperature: np.ndarray
    skip_share: np.ndarray
    cost_share: np.ndarray  # of theta's gradient, what comes from the costs
    multipliers: dict[str, np.ndarray]  # by cost; empty where the objective has none


def info(history: list[dict[str, Any]], target_ms: float | None = None) -> SearchInfo:
    """Collect the rows of a search (rows of other phases are left out)."""
    rows = [r for r in history if r["phase"] == "search"]

    def column(name: str) -> np.ndarray:
        return np.array([math.nan if r.get(name) is None else r[name] for r in rows], float)

    choices = rows[0]["probabilities"] if rows else {}
    several = rows[0].get("multipliers") or () if rows else ()
    costs = ("latency", *rows[0].get("others", ())) if rows else ()
    return SearchInfo(
        column("epoch"),
        {name: column(f"{field}_loss") for name, field in CURVES.items()},
        {name: column(f"{field}_accuracy") for name, field in CURVES.items()},
        {"expected": column("expected_ms"), "argmax": column("argmax_ms"), "within the target": column("derived_ms")},
        target_ms,
        {n: np.array([r["probabilities"][n] for r in rows]) for n in choices},
        column("entropy"),
        column("temperature"),
        column("skip_share"),
        column("cost_share"),
        {costs[i]: np.array([r["multipliers"][i] for r in rows]) for i in range(len(several))},
    )  # fmt: skip


def draw(found: SearchInfo, labels: dict[str, tuple[str, ...]] | None = None) -> Figure:
    """Curves above, one heat map per choice below. ``labels``: names of each choice's options."""
    rows = max(math.ceil(len(found.probabilities) / COLUMNS), 1)
    figure = new_figure(13, 5.6 + 1.9 * rows)
    halves: Any = figure.subfigures(2, 1, height_ratios=[5.6, 1.9 * rows])
    _curves(halves[0], found)
    _heat_maps(halves[1], found, labels or {}, rows, COLUMNS)
    return figure


def draw_curves(found: SearchInfo) -> Figure:
    """The curves alone."""
    figure = new_figure(13, 5.6)
    _curves(figure, found)
    return figure


def draw_probabilities(found: SearchInfo, labels: dict[str, tuple[str, ...]] | None = None) -> Figure:
    """The heat maps alone."""
    rows = max(math.ceil(len(found.probabilities) / COLUMNS), 1)
    figure = new_figure(13, 1.9 * rows)
    _heat_maps(figure, found, labels or {}, rows, COLUMNS)
    return figure


def draw_now(found: SearchInfo, labels: dict[str, tuple[str, ...]] | None = None) -> Figure:
    """The search so far in one row, quick to draw: accuracy, latency, and layer x candidate after the last epoch."""
    figure = new_figure(13, 3.4)
    panels: Any = figure.subplots(1, 3, width_ratios=[1, 1, 1.4])
    _panel(panels[0], found, "accuracy", found.accuracies)
    _panel(panels[1], found, "latency, ms", found.latencies_ms)
    if len(found.epochs):
        figure.colorbar(_layers(panels[2], found, labels or {}, -1), ax=panels[2], label="probability")
    return figure


def draw_layers(found: SearchInfo, labels: dict[str, tuple[str, ...]] | None = None, epochs: Sequence[int] = ()) -> Figure:
    """Layer x candidate as small multiples over time. ``epochs``: which (from 1); default: four, from the first to the last."""
    shown = [list(found.epochs).index(e) for e in epochs] or list(
        dict.fromkeys(np.linspace(0, len(found.epochs) - 1, 4).round())
    )
    figure = new_figure(3.2 * len(shown) + 1, 1.6 + 0.22 * len(found.probabilities))
    panels: Any = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for axes, index in zip(panels, shown, strict=True):
        image = _layers(axes, found, labels or {}, int(index))
    figure.colorbar(image, ax=list(panels), label="probability")
    return figure


def _layers(axes: Any, found: SearchInfo, labels: dict[str, tuple[str, ...]], index: int) -> Any:
    """One heat map: a row for each choice, a column for each candidate; hatched where a choice lacks the candidate."""
    names = {n: labels.get(n, tuple(str(i) for i in range(v.shape[1]))) for n, v in found.probabilities.items()}
    columns = list(dict.fromkeys(label for each in names.values() for label in each))
    if len(columns) > MOST_COLUMNS:  # options of different kinds: by their place
        columns = [str(i) for i in range(max(map(len, names.values())))]
        names = {n: tuple(columns[: len(each)]) for n, each in names.items()}
    chances = np.full((len(names), len(columns)), math.nan)
    for row, (name, each) in enumerate(names.items()):
        chances[row, [columns.index(label) for label in each]] = found.probabilities[name][index]
    axes.set_facecolor("0.93")
    axes.patch.set(hatch="///", edgecolor="0.8")
    image = axes.imshow(chances, aspect="auto", vmin=0, vmax=1, cmap="cividis", interpolation="nearest")
    axes.set_xticks(
        range(len(columns)), [plain(c) for c in columns], rotation=60, ha="right", rotation_mode="anchor", fontsize=7
    )
    axes.set_yticks(range(len(names)), [plain(n) for n in names], fontsize=7 if len(names) < 16 else 5)
    axes.set_title(f"probability after epoch {found.epochs[index]:g}", fontsize=10, loc="left")
    return image


def _curves(figure: Any, found: SearchInfo) -> None:
    panels = list(figure.subplots(2, COLUMNS).flat)
    shares = {"entropy / ln n": found.entropy, "mean P(skip)": found.skip_share}
    for axes, (title, curves) in zip(
        panels,
        (
            ("cross-entropy", found.losses), ("accuracy", found.accuracies), ("latency, ms", found.latencies_ms),
            ("how decided the choices are", shares), ("temperature", {"": found.temperature}),
            ("multiplier, nats per target", found.multipliers),
            ("share of theta's gradient from the costs", {"": found.cost_share}),
        ), strict=False,
    ):  # fmt: skip
        _panel(axes, found, title, curves)
    panels[-1].set_visible(False)  # nothing left to draw


def _panel(axes: Any, found: SearchInfo, title: str, curves: dict[str, np.ndarray]) -> None:
    """Curves over epochs; hidden where none was measured."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    measured = {n: v for n, v in curves.items() if np.isfinite(v).any()}
    for (name, values), colour, style in zip(measured.items(), COLOURS, ("-", "--", ":", "-."), strict=False):
        marker = "o" if np.isfinite(values).sum() == 1 else None  # one value is no line
        axes.plot(found.epochs, values, style, color=colour, label=plain(name), linewidth=1.8, marker=marker, markersize=4)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("epoch", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    if found.target_ms and title.startswith("latency"):
        axes.axhline(found.target_ms, color="0.4", linewidth=1, label="target")
    if title in ("cross-entropy", "temperature") and measured:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    if title in ("accuracy", "how decided the choices are") or title.startswith("share"):
        axes.set_ylim(0, 1.04)
    if any(measured):
        axes.legend(fontsize=7, frameon=False)
    axes.set_visible(bool(measured))


def _heat_maps(figure: Any, found: SearchInfo, labels: dict[str, tuple[str, ...]], rows: int, columns: int) -> None:
    from matplotlib.ticker import MaxNLocator

    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    image = None
    for axes, (name, values) in zip(grid.flat, found.probabilities.items(), strict=False):
        extent = (found.epochs[0] - 0.5, found.epochs[-1] + 0.5, values.shape[1] - 0.5, -0.5)
        image = axes.imshow(values.T, aspect="auto", vmin=0, vmax=1, cmap="cividis", extent=extent, interpolation="nearest")
        names = [plain(label) for label in labels.get(name, tuple(str(i) for i in range(values.shape[1])))]
        axes.set_yticks(range(len(names)), names, fontsize=6)
        axes.tick_params(labelsize=7)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(plain(name), fontsize=9, loc="left")
    for axes in list(grid.flat)[len(found.probabilities) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("epoch", fontsize=8)
    if image is not None:
        figure.colorbar(image, ax=list(grid.flat), label="probability", shrink=0.8)
