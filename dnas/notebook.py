"""Progress in a notebook: one output that is rewritten in place, plain text that is kept when the notebook is saved."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress

WIDTH = 1000  # columns: tables are not cut, and the browser has a scroll bar
REFRESHES = 2  # of the bars, per second


def running() -> bool:
    """Whether this process is a Jupyter kernel."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None


class Pane(io.StringIO):
    """A text file that a cell shows, all in one output; what is ``below`` is rewritten as often as it changes.

    rich's own notebook mode makes an output of every line, and bars that need ipywidgets and are gone in a saved notebook.
    """

    def __init__(self) -> None:
        super().__init__()
        self._below, self._seen = "", ""
        self._handle: Any = None

    def flush(self) -> None:
        """Show what was written since."""
        text = (self.getvalue() + self._below).rstrip("\n")
        if text == self._seen or not text:
            return
        self._seen, body = text, {"text/plain": text}
        if self._handle is None:
            from IPython.display import display

            self._handle = display(body, raw=True, display_id=True)
        else:
            self._handle.update(body, raw=True)

    def below(self, shown: RenderableType | None) -> None:
        """Put ``shown`` under the lines in place of what was there; None: nothing."""
        self._below = "" if shown is None else as_text(shown)
        self.flush()


def console() -> Console:
    """A rich console that writes into a ``Pane`` of the cell that runs."""
    from rich.console import Console

    return Console(file=Pane(), force_jupyter=False, force_terminal=False, soft_wrap=True, width=WIDTH)


def follow(progress: Progress, pane: Pane) -> Progress:
    """``progress`` with bars that move in ``pane`` (rich moves those of terminals only)."""
    from rich.live import Live

    class Below(Live):
        def refresh(self) -> None:
            super().refresh()
            pane.below(self.renderable if self.is_started else None)  # at the end rich prints the bars as lines

    progress.live = Below(console=progress.console, refresh_per_second=REFRESHES, get_renderable=progress.get_renderable)
    return progress


def as_text(shown: RenderableType) -> str:
    """What rich would print, without colours."""
    from rich.console import Console

    file = io.StringIO()
    Console(file=file, force_jupyter=False, force_terminal=False, width=WIDTH).print(shown)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"
