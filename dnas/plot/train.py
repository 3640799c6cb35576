"""The figure of a training: loss, accuracy and learning rate over the epochs, and which classes are confused."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dnas.plot.search import COLOURS, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dnas.metrics import Evaluation


class TrainInfo(NamedTuple):
    """What is drawn. Arrays over epochs; a curve that was not measured is missing."""

    epochs: np.ndarray
    losses: dict[str, np.ndarray]
    accuracies: dict[str, np.ndarray]
    lr: np.ndarray
    test: float | None
    confusion: np.ndarray  # [classes, classes], rows sum to 1 (0 for a class without images)
    classes: tuple[str, ...]


def info(history: list[dict[str, Any]], evaluation: Evaluation | None = None) -> TrainInfo:
    """Collect the rows of a training (rows of other phases are left out)."""
    rows = [r for r in history if r["phase"] == "training"]

    def curves(what: str) -> dict[str, np.ndarray]:
        names = {"training": f"train_{what}", "held out": f"validation_{what}"}
        return {n: np.array([r[k] for r in rows], float) for n, k in names.items() if rows and k in rows[0]}

    counts = np.zeros((0, 0)) if evaluation is None else evaluation.confusion
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return TrainInfo(
        np.array([r["epoch"] for r in rows], float), curves("loss"), curves("accuracy"),
        np.array([r.get("lr", math.nan) for r in rows], float), None if evaluation is None else evaluation.accuracy.top1,
        shares, () if evaluation is None else evaluation.classes,
    )  # fmt: skip


def draw(found: TrainInfo) -> Figure:
    """Three curves and the confusion matrix."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 3.6), layout="constrained")
    panels: Any = figure.subplots(1, 4)
    rate = {"learning rate": found.lr}
    for axes, (title, curves) in zip(
        panels, (("loss", found.losses), ("accuracy", found.accuracies), ("learning rate", rate)), strict=False
    ):
        for (name, values), colour, style in zip(curves.items(), COLOURS, ("-", "--"), strict=False):
            axes.plot(found.epochs, values, style, color=colour, label=name, linewidth=1.8)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("epoch", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    if found.test is not None:
        panels[1].axhline(found.test, color="0.4", linewidth=1, label=f"test, at the end: {found.test:.1%}")
    for axes in panels[:2]:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7, frameon=False)
    _confusion(figure, panels[3], found)
    return figure


def _confusion(figure: Figure, axes: Any, found: TrainInfo) -> None:
    image = axes.imshow(found.confusion if found.classes else np.zeros((1, 1)), vmin=0, vmax=1, cmap="cividis")
    axes.set_title("test images", fontsize=10, loc="left")
    axes.set_xlabel("predicted", fontsize=9)
    axes.set_ylabel("true", fontsize=9)
    if 0 < len(found.classes) <= 20:
        names = [plain(n) if len(n) <= 12 else plain(n[:11]) + "." for n in found.classes]
        axes.set_xticks(range(len(names)), names, fontsize=6, rotation=90)
        axes.set_yticks(range(len(names)), names, fontsize=6)
    figure.colorbar(image, ax=axes, label="share of the class", shrink=0.8)
