"""Results that come one by one: JSON lines, one appended after each; the first line says what they were made with."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from dnas.errors import RunError
from dnas.files import write_text


class Rows:
    """The file ``path``. ``key``: fields that name a row, of which the first is kept where two processes did it at once.

    ``made_with``: what the rows depend on, for writing. The first line also says on what machine, and rows from another say in
    what it differs. A line that a power cut broke off is dropped. Errors: RunError for what was made with something else, and
    for what is no such file.
    """

    def __init__(self, path: Path, key: Sequence[str], made_with: dict[str, Any] | None = None):
        self.path, self.key = path, tuple(key)
        self.about, self.rows = self._read()
        self.elsewhere: dict[str, Any] = {}
        if made_with is None:
            return
        here = machine()
        if self.about:
            changed = [k for k, v in made_with.items() if self.about.get(k) != v]
            if changed:
                raise RunError(f"{path} was made with another {', '.join(changed)}; move it away to start over")
        else:
            self.about = {**made_with, "machine": here}
        differs = {k: v for k, v in here.items() if self.about.get("machine", here).get(k) != v}
        self.elsewhere = {"machine": differs} if differs else {}
        write_text(path, "".join(json.dumps(line) + "\n" for line in (self.about, *self.rows)))

    @property
    def done(self) -> set[tuple[Any, ...]]:
        """The keys of all rows."""
        return {tuple(row[k] for k in self.key) for row in self.rows}

    def add(self, row: dict[str, Any]) -> None:
        """Append one line with one write, and wait until it is on the disk."""
        row = row | self.elsewhere
        self.rows.append(row)
        with open(self.path, "ab", buffering=0) as file:
            file.write((json.dumps(row) + "\n").encode())
            os.fsync(file.fileno())

    def _read(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        if not self.path.exists():
            return {}, []
        whole, _, _ = self.path.read_text(encoding="utf-8").rpartition("\n")
        try:
            about, *rows = [json.loads(line) for line in whole.splitlines()] or [{}]
            kept = {tuple(row[k] for k in self.key): row for row in reversed(rows)}
        except (ValueError, TypeError, KeyError) as problem:
            raise RunError(f"{self.path}: not a file of results with {', '.join(self.key)} ({problem})") from None
        return about, list(kept.values())[::-1]
