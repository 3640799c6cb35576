"""The log of a measurement: every round as it ended, so that a measurement that was stopped goes on."""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dnas.errors import RunError
from dnas.files import shown
from dnas.latency.keys import LARGEST_MS
from dnas.latency.timing import Round, Sample
from dnas.space import Genotype

FORMAT = "dnas-samples/1"


class Log:
    """``rounds``, ``networks`` (genotypes, None until chosen), ``conditions`` (each that rounds were measured under) and
    ``plain`` (of each probe that the runtime's accelerator did not take whole, the operators left), on disk as one JSON
    object per line.

    The first line says what is measured: a log that says something else is refused. A last line without its end (the machine
    went down) is dropped. Errors: RunError.
    """

    def __init__(self, path: str | os.PathLike[str], about: Mapping[str, Any]):
        self.path = Path(path)
        self.rounds: list[Round] = []
        self.networks: list[Genotype] | None = None
        self.conditions: list[dict[str, Any]] = []
        self.plain: dict[str, list[str]] = {}
        about = json.loads(json.dumps({"format": FORMAT, **about}))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
            whole, _, cut = text.rpartition("\n")
            lines = whole.splitlines()
            if not lines:
                self.path.write_text(json.dumps(about) + "\n", encoding="utf-8")
            elif cut:
                self.path.write_text(whole + "\n", encoding="utf-8")
        except (OSError, ValueError) as problem:
            raise RunError(f"{self.path}: cannot be used ({getattr(problem, 'strerror', None) or problem})") from None
        for number, line in enumerate(lines, 1):
            try:
                self._read(json.loads(line), about if number == 1 else None)
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
                raise RunError(f"{self.path}: line {number} is no line of a log: {shown(line[:80])}; delete the file") from None

    def add(self, found: Round) -> None:
        """Keep one round."""
        self.rounds.append(found)
        self._append({"round": {name: [round(s.ms, 6), int(s.disturbed)] for name, s in found.items()}})

    def choose(self, networks: Sequence[Genotype]) -> None:
        """Keep which whole networks are measured."""
        self.networks = list(networks)
        self._append({"networks": [list(g) for g in networks]})

    def note(self, conditions: Mapping[str, Any]) -> None:
        """Keep what holds for the rounds that follow."""
        if dict(conditions) not in self.conditions:
            self.conditions.append(dict(conditions))
            self._append({"conditions": dict(conditions)})

    def name_plain(self, found: Mapping[str, Sequence[str]]) -> None:
        """Keep the operators of probes that plain kernels run, where they are new."""
        new = {name: list(dict.fromkeys(left)) for name, left in found.items() if left and name not in self.plain}
        if new:
            self.plain |= new
            self._append({"plain": new})

    def _append(self, line: Mapping[str, Any]) -> None:
        try:
            with open(self.path, "a", encoding="utf-8") as handle:
                handle.write(json.dumps(line) + "\n")
        except OSError as problem:
            raise RunError(f"{self.path}: cannot be written ({problem.strerror})") from None

    def _read(self, line: Any, about: Mapping[str, Any] | None) -> None:
        if about is not None:
            for field in {**line, **about}:
                if line.get(field) != about.get(field):
                    raise RunError(
                        f"{self.path} is of another measurement: its {field} is {shown(line.get(field))}, now "
                        f"{shown(about.get(field))}; delete it, or take another --out"
                    )
        elif "round" in line:
            self.rounds.append({n: _sample(*found) for n, found in line["round"].items()})
        elif "conditions" in line:
            self.conditions.append(dict(line["conditions"]))
        elif "plain" in line:
            self.plain |= {name: list(map(str, left)) for name, left in line["plain"].items()}
        else:
            self.networks = [tuple(map(operator.index, codes)) for codes in line["networks"]]


def _sample(ms: float, disturbed: int) -> Sample:
    """Errors: ValueError."""
    if not 0 <= ms < LARGEST_MS or disturbed not in (0, 1):
        raise ValueError(ms)
    return Sample(float(ms), bool(disturbed))
