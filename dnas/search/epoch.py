"""What a search tells its caller at the end of each epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from dnas import loop
from dnas.arch import Architecture
from dnas.search.family import rows_of
from dnas.space import Space

if TYPE_CHECKING:
    from dnas.runs import Journal
    from dnas.search.engine import Setup


@dataclasses.dataclass(frozen=True)
class Epoch(loop.Epoch):
    """What ``on_epoch`` of a search is told: of a family each member by itself, which ``target_ms`` names.

    ``space``: with the data's classes. A plain value: keeping it, or drawing it later, changes nothing.
    """

    target_ms: float | None
    seed: int
    space: Space = dataclasses.field(repr=False)

    @property
    def probabilities(self) -> dict[str, dict[str, float]]:
        """By choice and candidate, after the last epoch of the search."""
        return {n: dict(zip(self.space.choices[n].labels, v, strict=True)) for n, v in self._last["probabilities"].items()}

    @property
    def likeliest(self) -> Architecture:
        """The network of the likeliest candidates; the one that the search ends with also keeps the target."""
        return self.space.fix(self._last["genotype"])

    def plot(self) -> Any:
        """Figure of the search so far: accuracy, latency, and the probability of each candidate now; quick to draw."""
        from dnas.plot.search import draw_now, info

        labels = {name: choice.labels for name, choice in self.space.choices.items()}
        return draw_now(info(list(self.history), self.target_ms), labels)

    @property
    def _last(self) -> dict[str, Any]:
        return next(row for row in reversed(self.history) if row["phase"] == "search")


OnEpoch = Callable[[Epoch], object]


def telling(setup: Setup, phase: loop.Phase, journal: Journal) -> Callable[[int], None] | None:
    """What ``loop.run`` calls after each epoch of ``phase``; None where nobody listens."""
    return None if setup.on_epoch is None else partial(_tell, setup, phase, journal)


def _tell(setup: Setup, phase: loop.Phase, journal: Journal, epoch: int) -> None:
    assert setup.on_epoch is not None
    for index, member in enumerate(setup.members):
        rows, config = tuple(rows_of(journal.history, index)), member.config
        setup.on_epoch(Epoch(phase.name, epoch, phase.epochs, rows, config.target_ms, config.seed, member.space))
