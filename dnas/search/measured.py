"""Networks measured with a supernet's weights: which is better, and the file from which a resumed run takes them."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

from dnas.devices import on_first
from dnas.errors import RunError
from dnas.evaluate import Accuracy
from dnas.files import kind, write_text
from dnas.search.engine import Setup, State
from dnas.search.phase import measure
from dnas.space import Genotype

FILE = "measured.jsonl"  # in a run folder


def value(found: Accuracy) -> float:
    """What networks with a supernet's weights are compared by: the smaller loss is better.

    On as few images as a selection split has, it ranks somewhat better than accuracy (docs/study.md).
    """
    return -found.loss if found.finite else -math.inf


class Measured(dict[Genotype, Accuracy]):
    """Those asked for so far, in order; each is measured once, after recalibration, and written to the file ``path``."""

    def __init__(self, setup: Setup, state: State, path: Path | None):
        super().__init__()
        self._setup, self._state, self._path = setup, state, path
        self._known = _resumed(path) if path else {}

    def of(self, genotype: Genotype) -> Accuracy:
        """Accuracy on the selection split. Errors: RunError where the file cannot be written."""
        if genotype not in self:
            self[genotype] = self._known.get(genotype) or measure(self._setup, self._state, genotype)
            if self._path and genotype not in self._known:
                on_first(partial(_append, self._path, genotype, self[genotype]))
        return self[genotype]


def read(path: Path) -> dict[Genotype, Accuracy]:
    """What the file ``path`` holds, if it is there, in order; a line that is none is left out."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if kind(path) else ():
        try:
            row = json.loads(line)
            found[tuple(row["genotype"])] = Accuracy(row["hits"], row["n"], row["loss"])
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _resumed(path: Path) -> dict[Genotype, Accuracy]:
    """What the file holds, before more is written to it: a last line that was cut off is taken away."""
    on_first(partial(_mend, path))
    return read(path)


def _mend(path: Path) -> None:
    text = path.read_text(encoding="utf-8") if kind(path) else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write_text(path, whole)


def _append(path: Path, genotype: Genotype, accuracy: Accuracy) -> None:
    row = {"genotype": list(genotype), "hits": accuracy.hits, "n": accuracy.n, "loss": accuracy.loss}
    try:
        with open(path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")
    except OSError as problem:
        raise RunError(f"{path}: cannot be written ({problem.strerror})") from None
