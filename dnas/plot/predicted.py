"""Predicted against measured latency: one point per network, and how far off the predictions are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dnas.errors import ConfigError
from dnas.plot.style import colour, legend, marker, new_figure, plain, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class PredictedInfo(NamedTuple):
    """What is drawn. ``groups``: group -> f64[networks, 2], predicted and measured ms. ``mean_error``: mean of
    |predicted / measured - 1|; ``bias``: geometric mean of predicted / measured; ``tau``: Kendall's tau-b (None below two)."""

    groups: dict[str, np.ndarray]
    n: int
    mean_error: float
    worst_error: float
    worst: str
    bias: float
    tau: float | None
    title: str


def info(
    predicted_ms: Sequence[float],
    measured_ms: Sequence[float],
    names: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    title: str = "",
) -> PredictedInfo:
    """One entry of each sequence per network. Errors: ConfigError for lengths that differ, and what is not above 0 ms."""
    from scipy.stats import kendalltau

    pairs = np.array([predicted_ms, measured_ms], float).T if len(predicted_ms) == len(measured_ms) else np.zeros((0, 2))
    names = [str(i) for i in range(len(pairs))] if names is None else names
    groups = ["networks"] * len(pairs) if groups is None else groups
    lengths = (len(predicted_ms), len(measured_ms), len(names), len(groups))
    if len(set(lengths)) != 1 or not lengths[0] or not (np.isfinite(pairs) & (pairs > 0)).all():
        raise ConfigError(f"predicted, measured, names, groups of lengths {lengths}; expected as many of each, all above 0 ms")
    ratio = pairs[:, 0] / pairs[:, 1]
    error = np.abs(ratio - 1)
    split = {g: pairs[[g == other for other in groups]] for g in dict.fromkeys(groups)}
    tau = float(kendalltau(pairs[:, 0], pairs[:, 1]).statistic) if len(pairs) > 1 else None
    worst = int(error.argmax())
    return PredictedInfo(
        split, len(pairs), float(error.mean()), float(error[worst]), str(names[worst]), float(np.exp(np.log(ratio).mean())),
        tau, title,
    )  # fmt: skip


def draw(found: PredictedInfo) -> Figure:
    """Both axes logarithmic; the line of equality, and the band of 10 % around it."""
    figure = new_figure(5.5, 5.2)
    axes = figure.subplots()
    every = np.concatenate(list(found.groups.values()))
    ends = np.array([every.min() / 1.2, every.max() * 1.2])
    axes.fill_between(ends, ends / 1.1, ends * 1.1, color="0.92", linewidth=0, label="within 10 %", zorder=0)
    axes.plot(ends, ends, color="0.6", linewidth=0.9, zorder=0)
    for index, (name, pairs) in enumerate(found.groups.items()):
        axes.plot(pairs[:, 1], pairs[:, 0], linestyle="none", marker=marker(index), markersize=5, color=colour(index),
                  alpha=0.8, label=plain(f"{name} ({len(pairs)})"))  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:g}" if ends[1] / ends[0] < 10 else "")
    figures = f"n = {found.n}, mean error {found.mean_error:.1%}, worst {found.worst_error:.1%} ({found.worst})"
    tidy(axes, f"{found.title}\n{figures}".lstrip(), "measured, ms", "predicted, ms")
    axes.tick_params(which="minor", labelsize=6)
    legend(axes, loc="upper left")
    return figure
