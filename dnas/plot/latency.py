"""The figure of a latency table: ms against multiply-accumulates, one point per entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dnas.errors import ArchitectureError
from dnas.latency.keys import key_op
from dnas.latency.table import LatencyTable
from dnas.plot.style import COLOURS, MARKERS, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class LatencyInfo(NamedTuple):
    """What is drawn. ``points``: group -> f64[entries, 2], MACs and ms; ``title``; ``absolute``: whether ms can be compared
    across layers, and both axes are logarithmic; ``left_out``: entries without MACs, or of ops that are not possible."""

    points: dict[str, np.ndarray]
    title: str
    absolute: bool
    left_out: int


def info(table: LatencyTable) -> LatencyInfo:
    """Group the entries by op type and, where it has one, kernel size."""
    groups: dict[str, list[tuple[float, float]]] = {}
    left_out = 0
    for key, entry in table.entries.items():
        fields = dict(key)
        try:
            op, shape = key_op(key)
            macs = op.macs(shape)
        except ArchitectureError:
            macs = 0
        if not macs or (table.meaning == "absolute" and not entry.ms):
            left_out += 1
            continue
        kernel = getattr(op, "kernel", None)
        name = fields["op"] + (f" {kernel}x{kernel}" if isinstance(kernel, int) else "")
        groups.setdefault(name, []).append((float(macs), entry.ms))
    points = {name: np.array(sorted(groups[name])) for name in sorted(groups)}
    return LatencyInfo(
        points, f"{table.device}\n{table.runtime}, {table.precision}: {table.status}", table.meaning == "absolute", left_out
    )


def draw(found: LatencyInfo) -> Figure:
    """One scatter plot. Lines of equal speed are drawn where ms are absolute."""
    figure = new_figure()
    axes = figure.subplots()
    for index, (name, values) in enumerate(found.points.items()):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index // len(COLOURS) % len(MARKERS)]
        axes.plot(
            values[:, 0], values[:, 1], linestyle="none", marker=marker, markersize=5, color=colour, markeredgewidth=0,
            alpha=0.75, label=f"{name} ({len(values)})",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("multiply-accumulates of the op")
    axes.set_ylabel("ms" if found.absolute else "ms, relative: only differences inside a layer mean anything")
    if found.absolute and found.points:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        _speeds(axes, found)
    axes.set_title(plain(found.title), fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    if found.points:
        axes.legend(fontsize=8, frameon=False, loc="upper left")
    if found.left_out:
        axes.annotate(f"not drawn, without MACs: {found.left_out}", (1, 0.01), xycoords="axes fraction", ha="right", fontsize=7)
    return figure


def _speeds(axes: object, found: LatencyInfo) -> None:
    """Grey lines of 1, 10, 100, ... GMAC/s across the points."""
    every = np.concatenate(list(found.points.values()))
    macs = np.array([every[:, 0].min() / 1.5, every[:, 0].max() * 1.5])
    low, high = every[:, 1].min() / 1.5, every[:, 1].max() * 1.5
    for power in range(-3, 6):
        ms = macs / (10.0**power * 1e6)
        if ms[1] < low or ms[0] > high:
            continue
        axes.plot(macs, ms, color="0.8", linewidth=0.8, zorder=0)  # type: ignore[attr-defined]
        right = min(macs[1], high * 10.0**power * 1e6)
        axes.annotate(  # type: ignore[attr-defined]
            f"{10.0**power:g} GMAC/s", (right, right / (10.0**power * 1e6)), fontsize=7, color="0.5", ha="right", va="top"
        )
    axes.set_xlim(*macs)  # type: ignore[attr-defined]
    axes.set_ylim(low, high)  # type: ignore[attr-defined]
