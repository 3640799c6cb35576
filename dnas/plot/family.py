"""The figure of a family: accuracy against latency, one point for each target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dnas.latency.table import LatencyTable
from dnas.plot.search import COLOURS, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class FamilyInfo(NamedTuple):
    """What is drawn. Arrays over members: ms, accuracy (0 to 1) with its 95 % interval [members, 2], target in ms (NaN for
    none), and whether another member is as fast and as accurate; ``title``; ``images``: on which accuracy was measured."""

    latency_ms: np.ndarray
    accuracy: np.ndarray
    interval: np.ndarray
    target_ms: np.ndarray
    beaten: np.ndarray
    title: str
    images: int


def info(members: list[dict[str, Any]], table: LatencyTable) -> FamilyInfo:
    """Collect the members' figures (``SearchResult.figures``)."""
    ms, top1 = (np.array([m[k] for m in members], float) for k in ("latency_ms", "test_top1"))
    as_good = (ms[None] <= ms[:, None]) & (top1[None] >= top1[:, None])
    better: np.ndarray = as_good & ((ms[None] < ms[:, None]) | (top1[None] > top1[:, None]))
    return FamilyInfo(
        ms, top1, np.array([m["interval95"] for m in members]),
        np.array([np.nan if m["target_ms"] is None else m["target_ms"] for m in members], float), np.asarray(better.any(1)),
        f"{table.device}, {table.status}", members[0]["n_test"],
    )  # fmt: skip


def draw(found: FamilyInfo) -> Figure:
    """Points with their intervals and targets; the front of those that no other one beats is a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    order = np.argsort(found.latency_ms)
    front = [i for i in order if not found.beaten[i]]
    axes.plot(
        found.latency_ms[front],
        100 * found.accuracy[front],
        "-",
        drawstyle="steps-post",
        color=COLOURS[0],
        linewidth=1.4,
        zorder=1,
    )
    for index in order:
        ms, top1, colour = found.latency_ms[index], 100 * found.accuracy[index], COLOURS[0]
        spread = np.abs(100 * found.interval[index] - top1)[:, None]
        face = "white" if found.beaten[index] else colour
        axes.errorbar(
            ms, top1, yerr=spread, fmt="o", color=colour, markerfacecolor=face, markersize=7, capsize=3, linewidth=1, zorder=2
        )
        if np.isfinite(found.target_ms[index]):
            axes.axvline(found.target_ms[index], color="0.75", linewidth=0.9, linestyle=":", zorder=0)
            axes.annotate(
                f"{found.target_ms[index]:g}", (found.target_ms[index], 1), xycoords=("data", "axes fraction"), ha="center",
                va="bottom", fontsize=8, color="0.35",
            )  # fmt: skip
    axes.set_xlabel("latency of the network, ms (dotted: targets)")
    axes.set_ylabel(f"test accuracy, % (95 % interval, n = {found.images})")
    axes.set_title(plain(found.title), fontsize=10, loc="left", pad=16)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
