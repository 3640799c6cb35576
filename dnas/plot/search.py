"""The figure of a search: losses, accuracy, latency, and the probability of each candidate over time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dnas.plot.style import COLOURS, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def info(history: list[dict[str, Any]], target_ms: float | None = None) -> SearchInfo:
    """Collect the rows of a search (rows of other phases are left out)."""
    rows = [r for r in history if r["phase"] == "search"]

    def column(name: str) -> np.ndarray:
        return np.array([math.nan if r[name] is None else r[name] for r in rows], float)

    choices = rows[0]["probabilities"] if rows else {}
    return SearchInfo(
        column("epoch"),
        {name: column(f"{field}_loss") for name, field in CURVES.items()},
        {name: column(f"{field}_accuracy") for name, field in CURVES.items()},
        {"expected": column("expected_ms"), "argmax": column("argmax_ms")},
        target_ms,
        {n: np.array([r["probabilities"][n] for r in rows]) for n in choices},
        column("entropy"),
        column("temperature"),
    )  # fmt: skip


def draw(found: SearchInfo, labels: dict[str, tuple[str, ...]] | None = None) -> Figure:
    """Four curves above, one heat map per choice below. ``labels``: names of each choice's options."""
    from matplotlib.figure import Figure

    columns = 4
    rows = max(math.ceil(len(found.probabilities) / columns), 1)
    figure = Figure(figsize=(13, 3.2 + 1.9 * rows), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=[3.2, 1.9 * rows])
    top, bottom = halves
    panels: Any = top.subplots(1, columns)
    for axes, (title, curves) in zip(
        panels,
        (
            ("cross-entropy", found.losses), ("accuracy", found.accuracies), ("latency, ms", found.latencies_ms),
            ("entropy / ln n", {"entropy of the choices": found.entropy}),
        ), strict=True,
    ):  # fmt: skip
        for (name, values), colour, style in zip(curves.items(), COLOURS, ("-", "--", ":", "-."), strict=False):
            axes.plot(found.epochs, values, style, color=colour, label=name, linewidth=1.8)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("epoch", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    if found.target_ms:
        panels[2].axhline(found.target_ms, color="0.4", linewidth=1, label="target")
    panels[0].set_yscale("log")
    panels[0].yaxis.set_major_formatter("{x:g}")
    panels[0].yaxis.set_minor_formatter("{x:g}")
    panels[0].tick_params(which="both", labelsize=8)
    panels[1].set_ylim(0, 1.02)
    panels[3].set_ylim(0, 1.05)
    for axes in panels:
        axes.legend(fontsize=7, frameon=False)
    _heat_maps(bottom, found, labels or {}, rows, columns)
    return figure


def _heat_maps(figure: Any, found: SearchInfo, labels: dict[str, tuple[str, ...]], rows: int, columns: int) -> None:
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    image = None
    for axes, (name, values) in zip(grid.flat, found.probabilities.items(), strict=False):
        extent = (found.epochs[0] - 0.5, found.epochs[-1] + 0.5, values.shape[1] - 0.5, -0.5)
        image = axes.imshow(values.T, aspect="auto", vmin=0, vmax=1, cmap="cividis", extent=extent, interpolation="nearest")
        names = [plain(label) for label in labels.get(name, tuple(str(i) for i in range(values.shape[1])))]
        axes.set_yticks(range(len(names)), names, fontsize=6)
        axes.tick_params(labelsize=7)
        axes.set_title(plain(name), fontsize=9, loc="left")
    for axes in list(grid.flat)[len(found.probabilities) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("epoch", fontsize=8)
    if image is not None:
        figure.colorbar(image, ax=list(grid.flat), label="probability", shrink=0.8)
