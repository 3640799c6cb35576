"""Epochs of steps that can be interrupted and resumed; search and training both run in it."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shlex
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import jax

from dnas import notebook
from dnas.devices import agree
from dnas.errors import Interrupted, NotFiniteError
from dnas.runs import Journal

RUN_AHEAD = 2  # steps that may be under way on the device while the host prepares the next
GO_ON, SAVE, STOP = 0, 1, 2  # what a process wishes after a step; the largest wish of all is done


class Info(NamedTuple):
    """What one step measured, still on the device. ``loss`` is what the step minimised."""

    loss: jax.Array
    accuracy: jax.Array


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What ``on_epoch`` is told at the end of each epoch.

    ``phase`` (search or training), ``epoch`` (from 1) of its ``epochs``, and the ``history`` of the run so far, one dict per
    epoch of all phases, as in ``history.jsonl``.
    """

    phase: str
    epoch: int
    epochs: int
    history: tuple[dict[str, Any], ...] = dataclasses.field(repr=False)

    @property
    def row(self) -> dict[str, Any]:
        """The figures of this epoch."""
        return self.history[-1]


class Phase(Protocol):
    """One part of a run. States are pytrees; rows are JSON objects."""

    @property
    def name(self) -> str: ...
    @property
    def epochs(self) -> int: ...
    @property
    def first_number(self) -> int: ...  # steps of all phases before this one
    @property
    def lr(self) -> float: ...
    def steps(self, epoch: int) -> int: ...
    def before(self, epoch: int) -> int: ...
    def step(self, state: Any, epoch: int, step: int) -> tuple[Any, Info]: ...
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
    on_epoch: Callable[[int], object] | None = None,
) -> Any:
    """Run ``phase`` from (epoch, step) to its end and return its last state.

    A state is saved only once the losses of all its steps were seen to be finite. ``on_epoch`` is called with the number of
    epochs that are done, when the row of the last one is recorded.
    Errors: Interrupted after Ctrl-C (the state is saved); what ``on_epoch`` raises (the state is saved, too, and a note says
    how to go on); NotFiniteError (the last good checkpoint is kept); RunError.
    """
    watcher.begin(phase.name, phase.before(phase.epochs), phase.before(epoch) + step)
    under_way: deque[tuple[int, Info]] = deque()
    wishes: deque[Any] = deque()  # of several processes, known when the step after which they were made is
    late = RUN_AHEAD if jax.process_count() > 1 else 0

    def settle(at_most: int) -> None:
        while len(under_way) > at_most:
            number, info = under_way.popleft()
            if not math.isfinite(float(jax.block_until_ready(info.loss))):
                raise not_finite(phase.name, f"at step {number}", phase.lr, journal)

    def save(epoch: int, step: int) -> None:
        settle(0)
        journal.save(phase.name, epoch, step, phase.first_number + phase.before(epoch) + step, state, notes or {})

    with interruptible() as interrupted:
        while epoch < phase.epochs:
            for number in range(step, phase.steps(epoch)):
                state, info = phase.step(state, epoch, number)
                under_way.append((phase.before(epoch) + number, info))
                settle(RUN_AHEAD)
                watcher.advance(phase.name)
                wishes.append(agree(STOP if interrupted() else SAVE if journal.save_is_due else GO_ON))
                wish = int(wishes.popleft()) if len(wishes) > late else GO_ON
                if wish != GO_ON:
                    wishes.clear()
                    save(epoch, number + 1)
                if wish == STOP:
                    raise Interrupted(how_to_resume(journal, f"in epoch {epoch + 1} of the {phase.name}"))
            settle(0)
            state, row = phase.end_epoch(state, epoch)
            if not _finite(row):
                raise not_finite(phase.name, f"at the end of epoch {epoch + 1}", phase.lr, journal)
            journal.record(row)
            watcher.row(row)
            epoch, step = epoch + 1, 0
            wishes.clear()
            problem = None if on_epoch is None else _raised(on_epoch, epoch)
            wish = int(agree(STOP if problem or interrupted() else GO_ON))
            if epoch == phase.epochs or wish == STOP:
                save(epoch, 0)
            if wish == STOP:
                words = how_to_resume(journal, f"after epoch {epoch} of the {phase.name}")
                if problem is None:
                    raise Interrupted(words)
                problem.add_note(words)
                raise problem
    return state


def _raised(call: Callable[[int], object], epoch: int) -> Exception | None:
    """What a user's function raises, if it does."""
    try:
        call(epoch)
    except Exception as problem:
        return problem
    return None


def _finite(row: Any) -> bool:
    """Whether all numbers in a JSON value are."""
    parts = row.values() if isinstance(row, dict) else row if isinstance(row, list) else ()
    return all(_finite(v) for v in parts) and not (isinstance(row, float) and not math.isfinite(row))


def not_finite(what: str, where: str, lr: float, journal: Journal) -> NotFiniteError:
    """The error of a loss that is NaN or infinite."""
    kept = "there is no checkpoint before it"
    if journal.folder and journal.has_checkpoint:
        kept = f"the last good checkpoint is kept in {journal.folder / 'checkpoint'}"
    return NotFiniteError(
        f"the loss of the {what} became NaN or infinite {where}; {kept}; "
        f"start again with a smaller --lr than {lr:g}, or other data"
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
    """What Ctrl-C prints: the command, or the call where only Python has all that the run was given, or is in a notebook."""
    if journal.folder is None:
        return f"interrupted {where}; nothing was saved, because the run has no folder (give out=...)"
    whole = str(journal.whole or journal.folder)
    if journal.objects or notebook.running():
        given = "".join(f", {name}={name}" for name in journal.objects)
        return f"interrupted {where}; {saved}: {journal.command}.resume({whole!r}{given})"
    return f"interrupted {where}; {saved}: python -m {journal.command} --resume {shlex.quote(whole)}"
