"""Several searches in one figure: what they found, and how they went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dnas.plot import pareto
from dnas.plot.style import LINES, colour, new_figure, plain, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dnas.compare import Run

CURVES = {"argmax_accuracy": "accuracy of the likeliest network", "expected_ms": "expected latency, ms"}


class CompareInfo(NamedTuple):
    """What is drawn. ``found``: one series per run; ``curves``: column -> run -> f64[epochs, 2], epoch and value."""

    found: pareto.ParetoInfo
    curves: dict[str, dict[str, np.ndarray]]
    targets: dict[str, float | None]


def info(runs: Sequence[Run]) -> CompareInfo:
    """Collect the networks and the histories; a run's epochs without a figure are left out."""
    found = pareto.info({run.name: [pareto.of(run.architecture)] for run in runs})
    curves = {
        column: {
            run.name: np.array(
                [[r["epoch"], r[column]] for r in run.history if r["phase"] == "search" and r[column] is not None]
            )
            for run in runs
        }
        for column in CURVES
    }
    return CompareInfo(found, curves, {run.name: run.architecture.provenance.get("target_ms") for run in runs})


def draw(found: CompareInfo) -> Figure:
    """Left: accuracy against latency with intervals; then the curves, in the same colours; targets dotted."""
    figure = new_figure(13, 4.2)
    axes: Any = figure.subplots(1, 1 + len(found.curves))
    pareto.on(axes[0], found.found)
    for panel, (column, curves) in zip(axes[1:], found.curves.items(), strict=True):
        for index, (name, values) in enumerate(curves.items()):
            if len(values):
                panel.plot(*values.T, LINES[index % len(LINES)], color=colour(index), linewidth=1.6, label=plain(name))
        tidy(panel, CURVES[column], "epoch")
    for index, target in enumerate(found.targets.values()):
        if target:
            axes[-1].axhline(target, color=colour(index), linestyle=":", linewidth=0.9)
    return figure
