"""A run folder: configuration, history, checkpoints and results, each written whole."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from dnas import checkpoint
from dnas.devices import on_first
from dnas.errors import DataError, LatencyError, RunError, SpaceError
from dnas.files import dump_json, kind, one_line, read_json, remove_leftovers, shipped, shown, write_text


class Journal:
    """What a run remembers: in memory, and in ``folder`` unless that is None.

    All of several processes remember and read, and call the methods at the same points; the first of them writes.
    ``history``: one dict per epoch. Files: ``config.json``, ``history.jsonl``, ``checkpoint/``. ``command``: what continues it;
    ``objects``: which of its inputs have no name that a command could give.
    """

    command = "dnas.search"
    objects: tuple[str, ...] = ()

    def __init__(self, folder: Path | None, checkpoint_s: float = 20.0):
        self.folder = folder
        self.history: list[dict[str, Any]] = []
        self.whole: Path | None = None  # the folder to resume, where this one is a part of it
        self.checkpoint_s = checkpoint_s
        self._saved_at = time.monotonic()
        self._kept: checkpoint.Kept | None = None  # what ``resume`` found
        self.has_checkpoint = False

    @classmethod
    def create(cls, out: str | None, name: str, checkpoint_s: float) -> Journal:
        """A new run folder: ``out``, or ``runs/NAME-DATE-TIME``. Errors: RunError if it is not empty, or not writable."""
        return cls(Path(on_first(partial(_new_folder, out, name))), checkpoint_s)

    @classmethod
    def resume(cls, folder: Path, checkpoint_s: float) -> Journal:
        """Continue ``folder``: its history is cut back to its newest checkpoint that is not damaged. Errors: RunError."""
        journal = cls(folder, checkpoint_s)
        on_first(partial(remove_leftovers, folder))
        journal._kept = checkpoint.newest(folder / "checkpoint")
        journal.has_checkpoint = journal._kept is not None
        about = journal.about() or {"rows": 0}
        journal.history = read_history(folder, about["rows"])
        on_first(journal._write_history)
        return journal

    @property
    def remarks(self) -> tuple[str, ...]:
        """What has to be said of the checkpoints that ``resume`` found."""
        kept = self._kept
        return tuple(f"{text}; {kept.path.name} is used instead" for text in kept.passed_over) if kept else ()

    def about(self) -> dict[str, Any] | None:
        """Phase, position and notes of the checkpoint that ``resume`` found; None if there was none."""
        return self._kept.about if self._kept else None

    def load(self, like: Any) -> Any:
        """Its state, in the structure of ``like``. Errors: RunError."""
        assert self._kept is not None
        return checkpoint.load(self._kept, like)

    def save(self, phase: str, epoch: int, step: int, number: int, state: Any, notes: dict[str, Any]) -> None:
        """Checkpoint ``number`` (steps so far, over all phases). Errors: RunError."""
        self._saved_at = time.monotonic()
        if self.folder:
            about = {"phase": phase, "epoch": epoch, "step": step, "rows": len(self.history), "notes": notes}
            checkpoint.save(self.folder / "checkpoint", number, state, about)
            self.has_checkpoint = True

    @property
    def save_is_due(self) -> bool:
        return time.monotonic() - self._saved_at >= self.checkpoint_s

    def begin_with(self, rows: list[dict[str, Any]]) -> None:
        """Take ``rows`` as the history so far. Errors: RunError."""
        self.history = list(rows)
        if self.folder:
            on_first(partial(write_text, self.folder / "history.jsonl", _lines(self.history)))

    def record(self, row: dict[str, Any]) -> None:
        """Append one row to the history. Errors: RunError."""
        self.history.append(row)
        if self.folder:
            on_first(partial(_append, self.folder / "history.jsonl", row))

    def write_json(self, name: str, value: Any) -> None:
        if self.folder:
            on_first(partial(write_text, self.folder / name, dump_json(value)))

    def _write_history(self) -> None:
        if self.folder and kind(self.folder / "history.jsonl"):
            write_text(self.folder / "history.jsonl", _lines(self.history))


def _lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(r, allow_nan=False) + "\n" for r in rows)


def _new_folder(out: str | None, name: str) -> str:
    """The path of a new run folder, as ``Journal.create`` has it."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:100]  # whatever the name holds, the folder stays below runs/
    folder = Path(out) if out else Path("runs") / f"{plain}-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        if not out:
            return str(_made(folder))
        if kind(folder) in ("file", "other"):
            raise RunError(f"--out {folder} is a file; expected a folder that is new or empty: choose another name")
        if kind(folder) and any(folder.iterdir()):
            raise RunError(f"--out {folder} exists and is not empty; choose a new folder, or continue it by --resume {folder}")
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as problem:  # ValueError: a null character
        reason = getattr(problem, "strerror", None) or one_line(problem)
        raise RunError(f"--out {folder}: cannot be made ({reason}); choose another folder") from None
    return str(folder)


def _append(path: Path, row: dict[str, Any]) -> None:
    """One more line of a JSON Lines file. Errors: RunError."""
    try:
        with open(path, "a", encoding="utf-8") as handle:
            handle.write(_lines([row]))
    except OSError as problem:
        raise RunError(f"{path}: cannot be written ({problem.strerror})") from None


def read_history(folder: Path, rows: int | None = None) -> list[dict[str, Any]]:
    """The first ``rows`` rows of a run's ``history.jsonl``; None: all. Errors: RunError."""
    path, advice = folder / "history.jsonl", "restore the file, or start a new run"
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if kind(path) else []
        history = [json.loads(line) for line in lines[:rows]]
    except (OSError, ValueError, RecursionError) as problem:  # ValueError: neither JSON nor UTF-8
        raise RunError(f"{path}: cannot be read ({one_line(problem)}); {advice}") from None
    if rows is not None and len(history) < rows:
        raise RunError(f"{path} has {len(lines)} rows; its checkpoint was written after {rows}; {advice}")
    for number, row in enumerate(history, 1):
        if not isinstance(row, dict) or not isinstance(row.get("phase"), str):
            raise RunError(f"{path}: row {number} is {shown(row)}; expected an object with a text field 'phase'; {advice}")
    return history


def read_config(folder: str, option: str = "--resume ", fields: str = "search") -> dict[str, Any]:
    """``config.json`` of a run folder; ``option``: what named it, for the error; ``fields``: where its command's options stand.

    Errors: RunError.
    """
    path = Path(folder)
    if kind(path) != "folder":
        raise RunError(f"{option}{folder}: no such run folder")
    if kind(path / "config.json") != "file":
        raise RunError(f"{option}{folder}: it has no config.json, so it is not a run folder")
    body = read_json(path / "config.json", RunError)
    for field in (fields, "inputs"):
        if not isinstance(body, dict) or not isinstance(body.get(field), dict):
            found = shown(body.get(field)) if isinstance(body, dict) else shown(body)
            raise RunError(
                f"{path / 'config.json'}: {found}; expected an object with a field {field!r} that is an object; start a new run"
            )
    return body


@contextlib.contextmanager
def begun_in(where: str, names: Iterable[str | None]) -> Iterator[None]:
    """What inputs cannot be read here, said with where they can; ``names``: of inputs, of which some are paths.

    Errors: RunError in the place of one about such an input that names a relative path that does not exist.
    """
    try:
        yield
    except (SpaceError, LatencyError, DataError) as problem:
        lost = next((n for n in names if n and n in str(problem) and _elsewhere(n)), None)
        if lost is None:
            raise
        raise RunError(
            f"{where}: {problem}; the run has {lost} as a path from the folder in which it was begun: go there first"
        ) from None


def _elsewhere(name: str) -> bool:
    """Whether ``name`` is that of a file or folder which is neither here nor shipped."""
    path = Path(name)
    ships = any(kind(shipped(folder) / path) for folder in ("latency_lut", "spaces"))
    return not path.is_absolute() and bool(path.suffix or path.parts[1:]) and not kind(path) and not ships


def _made(path: Path) -> Path:
    """A new folder: ``path``, or ``path-2`` and so on where another run was faster. Errors: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        with contextlib.suppress(FileExistsError):
            candidate.mkdir()
            break
    return candidate
