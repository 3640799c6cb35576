"""Epochs of steps that can be interrupted and resumed; search and training both run in it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax

from dnas.errors import Interrupted, NotFiniteError
from dnas.runs import Journal

RUN_AHEAD = 2  # steps that may be under way on the device while the host prepares the next


class Phase(Protocol):
    """One part of a run. States are pytrees; rows are JSON objects."""

    @property
    def name(self) -> str: ...
    @property
    def epochs(self) -> int: ...
    @property
    def first_number(self) -> int: ...  # steps of all phases before this one

    def steps(self, epoch: int) -> int: ...
    def before(self, epoch: int) -> int: ...
    def step(self, state: Any, epoch: int, step: int) -> tuple[Any, Any]: ...
    def end_epoch(self, state: Any, epoch: int) -> tuple[Any, dict[str, Any]]: ...


class Watcher(Protocol):
    """Who is told how far a run is (a progress bar, or nobody)."""

    def begin(self, phase: str, total: int, done: int) -> None: ...
    def advance(self, phase: str) -> None: ...
    def row(self, row: dict[str, Any]) -> None: ...


def run(
    phase: Phase,
    state: Any,
    journal: Journal,
    watcher: Watcher,
    epoch: int = 0,
    step: int = 0,
    notes: dict[str, Any] | None = None,
) -> Any:
    """Run ``phase`` from (epoch, step) to its end and return its last state.

    Errors: Interrupted after Ctrl-C (the state is saved); NotFiniteError (the last good checkpoint is kept); RunError.
    """
    notes = notes or {}
    watcher.begin(phase.name, phase.before(phase.epochs), phase.before(epoch) + step)
    under_way: deque[Any] = deque()
    with interruptible() as interrupted:
        while epoch < phase.epochs:
            for number in range(step, phase.steps(epoch)):
                state, info = phase.step(state, epoch, number)
                under_way.append(info)
                if len(under_way) > RUN_AHEAD:
                    jax.block_until_ready(under_way.popleft())
                watcher.advance(phase.name)
                if interrupted():
                    position = phase.first_number + phase.before(epoch) + number + 1
                    journal.save(phase.name, epoch, number + 1, position, state, notes)
                    raise Interrupted(how_to_resume(journal, f"in epoch {epoch + 1} of the {phase.name}"))
            state, row = phase.end_epoch(state, epoch)
            journal.record(row)
            watcher.row(row)
            epoch, step = epoch + 1, 0
            if journal.save_is_due or epoch == phase.epochs or interrupted():
                journal.save(phase.name, epoch, 0, phase.first_number + phase.before(epoch), state, notes)
            if interrupted():
                raise Interrupted(how_to_resume(journal, f"after epoch {epoch} of the {phase.name}"))
    return state


def check_finite(bad_step: int, what: str, lr: float, journal_hint: str) -> None:
    """Raise NotFiniteError if ``bad_step`` is a step (-1: none)."""
    if bad_step >= 0:
        raise NotFiniteError(
            f"the loss of the {what} became NaN or infinite at step {bad_step} (learning rate {lr:g}); {journal_hint}; "
            "start again with a smaller --lr or other data"
        )


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """A function that says whether Ctrl-C was pressed; a second Ctrl-C stops at once. Main thread only."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    previous = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    for kind in previous:
        signal.signal(kind, ask)
    try:
        yield asked.is_set
    finally:
        for kind, handler in previous.items():
            signal.signal(kind, handler)


def how_to_resume(journal: Journal, where: str, saved: str = "everything is saved") -> str:
    """What Ctrl-C prints."""
    if journal.folder is None:
        return f"interrupted {where}; nothing was saved, because the run has no folder (give out=...)"
    return f"interrupted {where}; {saved}: python -m dnas.search --resume {journal.folder}"
