"""The trainings that are done: JSON lines, one appended after each; the first line says what they were made with."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.machine import machine
from benchmarks.oracle.trainer import Recipe, Trainer
from dnas.errors import RunError
from dnas.files import write_text
from dnas.space import Space

RUNS = Path(__file__).parents[1] / "results" / "oracle_runs.jsonl"


class Run(NamedTuple):
    """One training: ``hits`` of the 10,000 test images; CPU and wall seconds on the machine of the first line."""

    code: str
    seed: int
    hits: int
    test_loss: float
    train_loss: float
    cpu_s: float
    wall_s: float


def header(space: Space, fingerprint: str, recipe: Recipe) -> dict[str, Any]:
    """What a training depends on."""
    return {"space_sha256": space.fingerprint, "data_sha256": fingerprint, "recipe": dataclasses.asdict(recipe)}


class Results:
    """The file ``path``. A line that a power cut broke off is dropped; what another recipe made is refused (RunError)."""

    def __init__(self, path: Path, made_with: dict[str, Any] | None = None):
        self.path = path
        self.about, self.runs = read(path)
        if made_with is None:
            return
        if self.about:
            changed = [k for k, v in made_with.items() if self.about.get(k) != v]
            if changed:
                raise RunError(f"{path} was made with another {', '.join(changed)}; move it away to start over")
        else:
            self.about = {**made_with, "machine": machine()}
        lines = [self.about, *(r._asdict() for r in self.runs)]
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))

    @property
    def done(self) -> set[tuple[str, int]]:
        return {(r.code, r.seed) for r in self.runs}

    def by_code(self) -> dict[str, list[int]]:
        """Hits per network, in the order of seeds."""
        found: dict[str, list[int]] = defaultdict(list)
        for run in sorted(self.runs, key=lambda r: r.seed):
            found[run.code].append(run.hits)
        return dict(found)

    def add(self, run: Run) -> None:
        """Append one line with one write, and wait until it is on the disk."""
        self.runs.append(run)
        with open(self.path, "ab", buffering=0) as file:
            file.write((json.dumps(run._asdict()) + "\n").encode())
            os.fsync(file.fileno())


def read(path: Path) -> tuple[dict[str, Any], list[Run]]:
    """The first line, and the trainings (the first of those that two processes did at once); nothing where there is no file."""
    if not path.exists():
        return {}, []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    try:
        about, *rows = [json.loads(line) for line in whole.splitlines()] or [{}]
        runs = list({(row["code"], row["seed"]): Run(**row) for row in reversed(rows)}.values())[::-1]
    except (ValueError, TypeError, KeyError) as problem:
        raise RunError(f"{path}: not a file of trainings ({problem})") from None
    return about, runs


def of_trainer(trainer: Trainer, path: Path = RUNS) -> Results:
    return Results(path, header(trainer.space, trainer.data.fingerprint, trainer.recipe))
