"""Figures of the searches on CIFAR-10."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.macro.ranking import Ranking
from benchmarks.macro.verdict import TRAINING_IMAGES, TRIES
from benchmarks.study.verdict import BY_ACCURACY, BY_TRAINING, DEFAULT
from dnas.plot.style import colour, legend, marker, new_figure, tidy


def verdict(body: dict[str, Any]) -> Any:
    """Left: regret against training images, methods after each epoch beside random search. Right: regret by target, ablations
    too."""
    cases = shown(body["regret"])
    figure = new_figure(12, max(5.5, 0.29 * (len(cases) + len(body["baselines"]))))
    axes: Any = figure.subplots(1, 2, width_ratios=[1, 1.1])
    methods = [c for c in cases if not c.startswith(f"{DEFAULT}, ")]
    for place, name in enumerate(methods):
        if path := body["anytime"].get(name):
            each = np.array(path["regret"])
            axes[0].plot(path["images"], each.T, "-", color=colour(place), linewidth=0.6, alpha=0.5)
            axes[0].plot(path["images"], each.mean(0), "-" + marker(place), color=colour(place), markersize=4)
        end = body["regret"][name].get("all")
        if end and name in body["cost"]:
            axes[0].plot(body["cost"][name]["images"], end["mean"], marker(place), color=colour(place), markersize=10,
                         markerfacecolor="none", label=f"{name}: {'epochs, and ' * bool(path)}its choice")  # fmt: skip
    for index, way in enumerate(BY_TRAINING):
        tries = [t for t in TRIES if f"{way}, {t}" in body["baselines"]]
        every = [body["baselines"][f"{way}, {t}"]["all"] for t in tries]
        axes[0].plot([t * TRAINING_IMAGES for t in tries], every, "--" + marker(len(methods) + index), markersize=4,
                     color=colour(len(methods) + index), label=f"{way}: {tries[0]} to {tries[-1]} trainings")  # fmt: skip
    axes[0].set_xscale("log")
    axes[0].set_ylim(bottom=0)
    tidy(axes[0], "what would be found if stopped here", "training images", "regret, points; mean over targets")
    legend(axes[0], fontsize=7, loc="upper center", bbox_to_anchor=(0.6, -0.08), ncols=2)
    shares = [str(t["share"]) for t in body["targets"]]
    rows = {c: body["regret"][c]["by_target"] for c in cases}
    for name, found in body["baselines"].items():
        if name != "best uniform op":  # far off, and it would squeeze all others
            rows[name] = {s: {"mean": v} for s, v in found["by_target"].items()}
    names = list(rows)[::-1]
    for place, name in enumerate(names):
        if place % 2:
            axes[1].axhspan(place - 0.5, place + 0.5, color="0.95", linewidth=0, zorder=0)
        for index, share in enumerate(shares):
            at = place + 0.28 * (1 - index)
            found = [r["regret"] for r in body["searches"] if r["case"] == name and str(r["share"]) == share]
            axes[1].plot(found, [at] * len(found), marker(index), color=colour(index), markersize=3, alpha=0.6)
            if share in rows[name]:
                label = f"{body['targets'][index]['target_ms']:.2f} ms" if place == 0 else None
                mean = rows[name][share]["mean"]
                axes[1].plot(mean, at, "|", color=colour(index), markersize=7, markeredgewidth=2.5, label=label)
    axes[1].axvline(0, color="0.4", linewidth=0.6)
    axes[1].set_ylim(-0.6, len(names) - 0.4)
    axes[1].set_yticks(range(len(names)), names)
    tidy(axes[1], "by target: seeds, and their mean (bar)", "regret, points")
    legend(axes[1])
    return figure


def shown(cases: Iterable[str]) -> list[str]:
    """Without those that compare by accuracy what others compare by loss."""
    every = list(cases)
    return [c for c in every if BY_ACCURACY not in c or c.partition(BY_ACCURACY)[0] not in every]


def ranking(found: list[Ranking], learnt: Sequence[dict[str, Any]] = ()) -> Any:
    """Left: networks, by the first supernet of each case. Right: tau-b in bands of every supernet, of MACs and of what has
    ``learnt`` from trainings, and its ceiling."""
    names = list(dict.fromkeys(r.case for r in found))
    figure = new_figure(12, max(4.5, 0.33 * (len(names) + len(learnt)) + 1))
    axes: Any = figure.subplots(1, 2)
    for place, name in enumerate(n for n in names if n != "MACs"):
        one = next(r for r in found if r.case == name)
        info = one.by_accuracy
        axes[0].plot(info.truth, 100 * info.proxy / one.images, marker(place), markersize=4, alpha=0.6, markeredgewidth=0,
                     color=colour(place), label=f"{name}, seed {one.seed}: tau-b {info.global_tau:.2f}")  # fmt: skip
    tidy(axes[0], "all networks", "trained alone, %", "with the supernet's weights, %")
    legend(axes[0], fontsize=7)
    for place, name in enumerate(names):
        own = [r for r in found if r.case == name]
        for which, at in (("by_accuracy", -0.25), ("by_loss", 0), ("by_model", 0.25)):
            taus = [getattr(r, which).tau for r in own if getattr(r, which)]
            if taus:
                face = {"by_accuracy": colour(place), "by_loss": "none", "by_model": "0.7"}[which]
                axes[1].plot(
                    taus, [place + at] * len(taus), marker(place), color=colour(place), markersize=5, markerfacecolor=face
                )
                axes[1].plot([np.mean(taus)] * 2, [place + at - 0.13, place + at + 0.13], color="black", linewidth=1.5)
    labels = [*names, *(f"linear model of {each['trainings']} trainings" for each in learnt)]
    for place, each in enumerate(learnt, len(names)):
        axes[1].errorbar(each["tau"], place, xerr=each["sd"], color="0.3", marker="|", markersize=9, capsize=3, linewidth=1)
    ceiling = np.mean([r.by_accuracy.ceiling for r in found])
    axes[1].axvline(ceiling, color="0.4", linestyle="--", linewidth=1, label=f"between trainings of the truth: {ceiling:.2f}")
    axes[1].axvline(0, color="0.4", linewidth=0.6)
    axes[1].set_yticks(range(len(labels)), labels, fontsize=8)
    axes[1].set_ylim(len(labels) - 0.5, -0.5)
    axes[1].set_xlim(-0.2, 1)
    tidy(axes[1], "in bands of 10 %", "tau-b: by accuracy (full), by loss (open), by a linear model of the losses (grey)", "")
    legend(axes[1], loc="lower left", fontsize=7)
    return figure
