"""Figures of the study."""

from __future__ import annotations

from typing import Any

import numpy as np

from dnas.plot.style import colour, marker, new_figure, tidy


def ideal(body: dict[str, Any]) -> Any:
    """Regret of each method per target: every seed a dot, the mean a bar."""
    figure = new_figure(11, 3.6)
    panels: Any = figure.subplots(1, len(body["targets"]), sharey=True)
    for axes, target in zip(panels, body["targets"], strict=True):
        names = list(target["methods"])[::-1]
        for place, name in enumerate(names):
            regrets = np.array(target["methods"][name]["regret"])
            spread = np.linspace(-0.25, 0.25, len(regrets)) if len(regrets) > 1 else np.zeros(1)
            axes.plot(
                regrets, place + spread, linestyle="none", marker=marker(place), markersize=3, alpha=0.6, color=colour(place)
            )
            axes.plot([regrets.mean()] * 2, [place - 0.35, place + 0.35], color="black", linewidth=1.6)
        axes.set_yticks(range(len(names)), names)
        axes.set_xscale("symlog", linthresh=0.1)
        axes.set_xlim(left=-0.01)
        axes.xaxis.set_major_formatter("{x:g}")
        tidy(axes, f"{target['target_ms']:.2f} ms, best {target['best_accuracy']:.2f} %", "regret, points")
    return figure


def verdict(body: dict[str, Any]) -> Any:
    """Left: regret against CPU time, mean over seeds and targets. Right: regret of what each case ends with."""
    figure = new_figure(11, 4)
    axes: Any = figure.subplots(1, 2, width_ratios=[1.2, 1])
    for place, (name, curve) in enumerate(body["anytime"].items()):
        dashed = "--" if curve["trains"] else "-"
        axes[0].plot(curve["cpu_s"], curve["regret"], dashed, color=colour(place), linewidth=1.4, label=name)
    tidy(axes[0], "what would be found if stopped here", "CPU seconds", "regret, points")
    axes[0].legend(fontsize=7)
    names = list(body["regret"])[::-1]
    for place, name in enumerate(names):
        found = body["regret"][name]
        each = [r["regret"] for r in body["searches"] if r["case"] == name]
        axes[1].plot(each, [place] * len(each), marker(place), markersize=3, alpha=0.5, color=colour(place))
        axes[1].plot([found["low"], found["high"]], [place] * 2, color="black", linewidth=1)
        axes[1].plot([found["mean"]] * 2, [place - 0.3, place + 0.3], color="black", linewidth=2)
    axes[1].axvline(0, color="0.4", linewidth=0.6)
    axes[1].set_yticks(range(len(names)), names)
    tidy(axes[1], "bar: mean over seeds, with its 95 % interval", "regret, points")
    return figure
