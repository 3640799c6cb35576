"""The trainings that are done, one line each; the first line says what they were made with."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.oracle.trainer import Recipe, Trainer
from benchmarks.rows import Rows
from dnas.errors import RunError
from dnas.space import Space

RUNS = Path(__file__).parents[1] / "results" / "oracle_runs.jsonl"


class Run(NamedTuple):
    """One training: ``hits`` of the test images; CPU and wall seconds, and those of compiling the program before (CPU), where
    it was the first of its process. ``machine``: in what it differs from that of the first line."""

    code: str
    seed: int
    hits: int
    test_loss: float
    train_loss: float
    cpu_s: float
    wall_s: float
    compile_s: float | None = None
    machine: dict[str, Any] | None = None


def header(space: Space, fingerprint: str, recipe: Recipe) -> dict[str, Any]:
    """What a training depends on."""
    return {"space_sha256": space.fingerprint, "data_sha256": fingerprint, "recipe": dataclasses.asdict(recipe)}


class Results:
    """The trainings of the file ``path``; ``made_with``: of ``header``, for writing. Errors: RunError."""

    def __init__(self, path: Path, made_with: dict[str, Any] | None = None):
        self.file = Rows(path, ("code", "seed"), made_with)
        try:
            self.runs = [Run(**row) for row in self.file.rows]
        except TypeError as problem:
            raise RunError(f"{path}: not a file of trainings ({problem})") from None

    @property
    def about(self) -> dict[str, Any]:
        return self.file.about

    @property
    def done(self) -> set[tuple[str, int]]:
        return {(r.code, r.seed) for r in self.runs}

    def on(self, processor: str) -> list[Run]:
        """The trainings on such a machine."""
        first = self.about["machine"]
        return [r for r in self.runs if (first | (r.machine or {}))["processor"] == processor]

    def by_code(self) -> dict[str, list[int]]:
        """Hits per network, in the order of seeds."""
        found: dict[str, list[int]] = defaultdict(list)
        for run in sorted(self.runs, key=lambda r: r.seed):
            found[run.code].append(run.hits)
        return dict(found)

    def add(self, run: Run) -> None:
        """Append one training."""
        self.runs.append(run)
        self.file.add({k: v for k, v in run._asdict().items() if k != "machine"})


def of_trainer(trainer: Trainer, path: Path = RUNS) -> Results:
    return Results(path, header(trainer.space, trainer.data.fingerprint, trainer.recipe))
