"""What a person sees of a run while it goes on: a progress bar per phase, and one line per epoch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from rich import progress as bars
from rich.console import Console as RichConsole

from dnas import notebook

Columns = tuple[tuple[str, str, str], ...]  # heading, field of a history row, format


class Watcher:
    """Progress bars, and a line with ``columns`` for each row of ``phase``; says nothing if ``console`` is None."""

    def __init__(self, console: RichConsole | None, phase: str, columns: Columns):
        self._console = console
        self._phase, self._columns = phase, columns
        self._tasks: dict[str, bars.TaskID] = {}
        self._headed = False
        parts = (
            bars.TextColumn("{task.description:<9}"), bars.BarColumn(), bars.TaskProgressColumn(),
            bars.MofNCompleteColumn(), bars.TimeElapsedColumn(), bars.TextColumn("left"), bars.TimeRemainingColumn(),
        )  # fmt: skip
        self.bars = progress(*parts, console=console, speed_estimate_period=120)

    def begin(self, phase: str, total: int, done: int) -> None:
        self._tasks[phase] = self.bars.add_task(phase, total=total, completed=done)

    def advance(self, phase: str) -> None:
        self.bars.advance(self._tasks[phase])

    def row(self, row: dict[str, Any]) -> None:
        """One line; of a family of searches, one for each member."""
        if self._console is None:
            return
        if "members" in row:
            for member in row["members"]:
                self.row({k: v for k, v in row.items() if k != "members"} | member)
            return
        if row["phase"] != self._phase:
            self.bars.update(self._tasks[row["phase"]], description=f"{row['phase']} {row['train_accuracy']:.1%}")
            return
        if not self._headed:
            self._headed = True
            heads = "  ".join(f"{h:>{_width(f)}}" for h, _, f in self._columns)
            self.bars.console.print(heads, style="bold", highlight=False, markup=False)
        cells = (f"{'-':>{_width(f)}}" if row.get(k) is None else format(row[k], f) for _, k, f in self._columns)
        self.bars.console.print("  ".join(cells), highlight=False, markup=False)


class Talker:
    """Prints to the terminal; nothing at all if ``talk`` is False. ``phase`` and ``columns``: as for ``Watcher``."""

    phase = ""
    columns: Columns = ()

    def __init__(self, talk: bool):
        self._rich = screen() if talk else None

    def note(self, text: str) -> None:
        if self._rich:
            self._rich.print(text, highlight=False, markup=False)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Watcher]:
        watcher = Watcher(self._rich, self.phase, self.columns)
        with watcher.bars:
            yield watcher


def screen() -> RichConsole:
    """Where a person reads: the terminal, or the cell of a notebook that runs."""
    return notebook.console() if notebook.running() else RichConsole(soft_wrap=True)


def progress(*columns: bars.ProgressColumn, console: RichConsole | None, **options: Any) -> bars.Progress:
    """rich's progress bars; none at all if ``console`` is None."""
    if console is not None and console.is_terminal and not console.file.isatty():  # FORCE_COLOR, which notebooks set
        console = RichConsole(file=console.file, force_terminal=False, soft_wrap=True)
    found = bars.Progress(*columns, console=console, disable=console is None, **options)
    if console is not None and isinstance(console.file, notebook.Pane):
        notebook.follow(found, console.file)
    return found


def _width(spec: str) -> int:
    return max(int(spec.split(".")[0].rstrip("d%")), 0)
