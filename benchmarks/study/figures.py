"""Figures of the study."""

from __future__ import annotations

from typing import Any

import numpy as np

from dnas.plot.style import colour, legend, marker, new_figure, tidy


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
    """Left: regret of methods against CPU time, mean over seeds and targets. Right: regret of what each case ends with."""
    figure = new_figure(11, 5)
    axes: Any = figure.subplots(1, 2, width_ratios=[1.1, 1])
    curves = {name: curve for name, curve in body["anytime"].items() if ", " not in name}  # no ablations
    for place, (name, curve) in enumerate(curves.items()):
        line, mark = "--" if curve["trains"] else "-", marker(place)
        label = None if "choice" in curve else f"{name}: trainings"
        axes[0].plot(curve["cpu_s"], curve["regret"], line + mark, color=colour(place), markersize=4, label=label)
        if "choice" in curve:
            words = ": epochs, and its choice" if curve["regret"] else ": its choice"
            look = {"markersize": 10, "markerfacecolor": "none", "linestyle": "none"}
            axes[0].plot(*curve["choice"], mark, color=colour(place), label=name + words, **look)
    axes[0].set_ylim(bottom=0)
    tidy(axes[0], "what would be found if stopped here", "CPU seconds", "regret, points; mean over targets")
    legend(axes[0], fontsize=7, loc="upper center", bbox_to_anchor=(0.45, -0.14), ncols=2)
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
