"""A run folder: configuration, history, checkpoints and results, each written whole."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from dnas import checkpoint
from dnas.errors import RunError
from dnas.files import dump_json, read_json, write_text


class Journal:
    """What a run remembers: in memory, and in ``folder`` unless that is None.

    ``history``: one dict per epoch. Files: ``config.json``, ``history.jsonl``, ``checkpoint/``.
    """

    def __init__(self, folder: Path | None, checkpoint_s: float = 20.0):
        self.folder = folder
        self.history: list[dict[str, Any]] = []
        self.checkpoint_s = checkpoint_s
        self._saved_at = time.monotonic()

    @classmethod
    def create(cls, out: str | None, name: str, checkpoint_s: float) -> Journal:
        """A new run folder: ``out``, or ``runs/NAME-DATE-TIME``. Errors: RunError if it is not empty, or not writable."""
        folder = Path(out) if out else _unused(Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
        try:
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise RunError(
                    f"--out {folder} exists and is not empty; choose a new folder, or continue it by --resume {folder}"
                )
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise RunError(f"--out {folder}: cannot be made ({problem.strerror}); choose another folder") from None
        return cls(folder, checkpoint_s)

    @classmethod
    def resume(cls, folder: Path, checkpoint_s: float) -> Journal:
        """Continue ``folder``: its history is cut back to its newest checkpoint. Errors: RunError."""
        journal = cls(folder, checkpoint_s)
        about = journal.about() or {"rows": 0}
        try:
            lines = (folder / "history.jsonl").read_text().splitlines() if (folder / "history.jsonl").exists() else []
            journal.history = [json.loads(line) for line in lines[: about["rows"]]]
        except (OSError, json.JSONDecodeError) as problem:
            raise RunError(f"{folder / 'history.jsonl'}: cannot be read ({problem})") from None
        if len(journal.history) < about["rows"]:
            raise RunError(
                f"{folder / 'history.jsonl'} has {len(lines)} rows; its checkpoint was written after {about['rows']}"
            )
        journal._write_history()
        return journal

    def about(self) -> dict[str, Any] | None:
        """Phase, position and notes of the newest checkpoint; None if there is none."""
        return checkpoint.about(self.folder / "checkpoint") if self.folder else None

    def load(self, like: Any) -> Any:
        assert self.folder is not None
        return checkpoint.load(self.folder / "checkpoint", like)

    def save(self, phase: str, epoch: int, step: int, number: int, state: Any, notes: dict[str, Any]) -> None:
        """Checkpoint ``number`` (steps so far, over all phases). Errors: RunError."""
        self._saved_at = time.monotonic()
        if self.folder:
            about = {"phase": phase, "epoch": epoch, "step": step, "rows": len(self.history), "notes": notes}
            checkpoint.save(self.folder / "checkpoint", number, state, about)

    @property
    def save_is_due(self) -> bool:
        return time.monotonic() - self._saved_at >= self.checkpoint_s

    def record(self, row: dict[str, Any]) -> None:
        """Append one row to the history. Errors: RunError."""
        self.history.append(row)
        if self.folder:
            try:
                with open(self.folder / "history.jsonl", "a", encoding="utf-8") as handle:
                    handle.write(json.dumps(row, allow_nan=False) + "\n")
            except OSError as problem:
                raise RunError(f"{self.folder / 'history.jsonl'}: cannot be written ({problem.strerror})") from None

    def write_json(self, name: str, value: Any) -> None:
        if self.folder:
            write_text(self.folder / name, dump_json(value))

    def _write_history(self) -> None:
        if self.folder and (self.folder / "history.jsonl").exists():
            write_text(self.folder / "history.jsonl", "".join(json.dumps(r, allow_nan=False) + "\n" for r in self.history))


def read_config(folder: str) -> dict[str, Any]:
    """``config.json`` of a run folder. Errors: RunError."""
    path = Path(folder)
    if not path.is_dir():
        raise RunError(f"--resume {folder}: no such run folder")
    if not (path / "config.json").is_file():
        raise RunError(f"--resume {folder}: it has no config.json, so it is not a run folder")
    body = read_json(path / "config.json", RunError)
    if not isinstance(body, dict) or not isinstance(body.get("search"), dict):
        raise RunError(f"{path / 'config.json'}: expected an object with a field 'search'")
    return body


def _unused(path: Path) -> Path:
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate
