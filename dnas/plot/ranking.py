"""Does a cheap accuracy rank networks as the true one does? Kendall's tau-b inside bands of nearly equal cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dnas.errors import ConfigError
from dnas.plot.style import colour, legend, marker, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Band(NamedTuple):
    """Networks whose cost is from ``low`` to ``high``: their indices, tau-b, and its ceiling (None where it is not known)."""

    low: float
    high: float
    members: np.ndarray
    tau: float
    ceiling: float | None


class RankingInfo(NamedTuple):
    """What is drawn. ``tau``, ``ceiling``: means over the bands, weighted by pairs of networks; ``global_tau``: over all,
    where cost alone already ranks well."""

    proxy: np.ndarray
    truth: np.ndarray
    bands: tuple[Band, ...]
    tau: float
    ceiling: float | None
    global_tau: float
    cost: str


def info(
    proxy: Sequence[float], runs: Any, costs: Sequence[float], width: float = 1.1, least: int = 5, cost: str = "ms"
) -> RankingInfo:
    """Arguments: ``proxy`` f64[n]; ``runs`` f64[n] or f64[n, seeds], true accuracies in percent; ``costs`` f64[n], above 0.

    Bands are cut from the cheapest upwards, each ``width`` times as wide; those of fewer than ``least`` networks are left out.
    The ceiling is what the truth itself reaches: mean tau-b between two halves of its seeds, over ways to halve them (a
    lower bound, since halves are noisier than the mean). Errors: ConfigError for shapes that do not fit, or no band.
    """
    from scipy.stats import kendalltau

    found, truth, price = np.asarray(proxy, float), np.asarray(runs, float), np.asarray(costs, float)
    truth = truth[:, None] if truth.ndim == 1 else truth
    if not len(found) == len(truth) == len(price) or not (price > 0).all() or width <= 1:
        raise ConfigError(
            f"{len(found)} proxies, {len(truth)} networks with true accuracies, {len(price)} costs, width {width:g}; expected "
            "as many of each, costs above 0, and a width above 1"
        )
    mean, bands = truth.mean(axis=1), []
    number = np.floor(np.log(price / price.min()) / np.log(width) + 1e-9).astype(int)
    for band in np.unique(number):
        members = np.flatnonzero(number == band)
        tau = kendalltau(found[members], mean[members]).statistic if len(members) >= least else np.nan
        if np.isfinite(tau):  # not where all are equal
            low = float(price.min() * width**band)
            bands.append(Band(low, low * width, members, float(tau), _ceiling(truth[members])))
    if not bands:
        raise ConfigError(f"no band of costs {width:g} times as wide has {least} networks that differ; give more networks")
    pairs = np.array([len(b.members) * (len(b.members) - 1) / 2 for b in bands])
    known = [b.ceiling for b in bands if b.ceiling is not None]
    ceiling = float(np.average(known, weights=pairs)) if len(known) == len(bands) else None
    whole = float(kendalltau(found, mean).statistic)
    return RankingInfo(
        found, mean, tuple(bands), float(np.average([b.tau for b in bands], weights=pairs)), ceiling, whole, cost
    )


def draw(found: RankingInfo) -> Figure:
    """Left: proxy against truth, a colour and a shape per band. Right: tau-b of each band, and its ceiling."""
    figure = new_figure(10.5, 4.4)
    axes: Any = figure.subplots(1, 2, width_ratios=[1.2, 1])
    for index, band in enumerate(found.bands):
        axes[0].plot(found.truth[band.members], found.proxy[band.members], linestyle="none", marker=marker(index),
                     markersize=4, color=colour(index), alpha=0.75, markeredgewidth=0,
                     label=f"{band.low:.3g} to {band.high:.3g} {found.cost}")  # fmt: skip
    tidy(axes[0], f"all networks: tau-b {found.global_tau:.2f}", "true accuracy, %", "proxy")
    if len(found.bands) <= 12:
        legend(axes[0], fontsize=6.5, loc="upper left")
    middle = [np.sqrt(b.low * b.high) for b in found.bands]
    wide = [0.8 * (b.high - b.low) for b in found.bands]
    axes[1].bar(middle, [b.tau for b in found.bands], wide, color=[colour(i) for i in range(len(found.bands))], label="proxy")
    for x, band in zip(middle, found.bands, strict=True):
        axes[1].annotate(str(len(band.members)), (x, 0.01), ha="center", fontsize=6.5, rotation=90, color="white")
    if found.ceiling is not None:
        axes[1].plot(middle, [b.ceiling for b in found.bands], "_", color="black", markersize=12, label="between seeds")
    axes[1].axhline(found.tau, color="0.4", linewidth=1, linestyle="--", label=f"mean {found.tau:.2f}")
    axes[1].axhline(0, color="0.4", linewidth=0.6)
    if max(middle) / min(middle) > 3:
        axes[1].set_xscale("log")
        axes[1].xaxis.set_major_formatter("{x:g}")
        axes[1].xaxis.set_minor_formatter("{x:g}")
        axes[1].tick_params(which="minor", labelsize=6)
    axes[1].set_ylim(min(0.0, *(b.tau for b in found.bands)) - 0.02, 1.02)
    tidy(axes[1], "inside bands of nearly equal cost (white: networks)", found.cost, "tau-b")
    legend(axes[1], loc="lower right")
    return figure


def _ceiling(runs: np.ndarray) -> float | None:
    """Mean tau-b between the means of two halves of the seeds (all halvings, at most 20); None for one seed."""
    from itertools import combinations, islice

    from scipy.stats import kendalltau

    seeds = runs.shape[1]
    if seeds < 2:
        return None
    taus = []
    for half in islice(combinations(range(seeds), seeds // 2), 20):
        other = [s for s in range(seeds) if s not in half]
        taus.append(kendalltau(runs[:, list(half)].mean(1), runs[:, other].mean(1)).statistic)
    return float(np.nanmean(taus)) if np.isfinite(taus).any() else None
