"""What all figures share: colours that colour-blind people and a grey print tell apart, markers, spines, plain text."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's colours: told apart by colour-blind people, and in grey
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", ":", "-.")
HATCHES = ("", "//", "..", "\\\\", "xx", "++", "oo", "--")


def colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def marker(index: int) -> str:
    """Changes with every series: where colours repeat or are not seen, shapes differ."""
    return MARKERS[index % len(MARKERS)]


def new_figure(width: float = 7.5, height: float = 5.0) -> Figure:
    """A figure that belongs to no window, and shows itself at the end of a notebook's cell; inches."""
    return _figure()(figsize=(width, height), layout="constrained")


@cache
def _figure() -> type[Figure]:
    from matplotlib.figure import Figure

    class Shown(Figure):
        """Matplotlib's figure; notebooks show those of pyplot only, unless they are told how."""

        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png", dpi=90)
            return file.getvalue()

    return Shown


def tidy(axes: Axes, title: str = "", x: str = "", y: str = "") -> None:
    """Title at the left, labels, no box."""
    axes.set_title(plain(title), fontsize=10, loc="left")
    axes.set_xlabel(plain(x), fontsize=9)
    axes.set_ylabel(plain(y), fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def legend(axes: Axes, **options: Any) -> None:
    """Without a frame; none where nothing has a label."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(**{"fontsize": 8, "frameon": False, **options})


def plain(text: str) -> str:
    """``text`` as it is: Matplotlib would read dollar signs as formulas."""
    return text.replace("$", r"\$")
