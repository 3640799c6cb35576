"""Is the space worth training? Spread between networks of nearly equal latency against spread between seeds.

Three bands of the table, each 10 % wide, eight networks each. Between networks: the standard deviation of their true
accuracies, s^2(means) - s^2(seeds) / n, so that noise does not count as difference. Where it is less than ``NEEDED`` times the
spread between seeds, the mean of several trainings has the noise that one should have: ``Band.trainings`` of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dnas.latency import LatencyTable
from dnas.latency.terms import price
from dnas.space import Genotype, Space

BANDS, PER_BAND, SEEDS, WIDTH = 3, 8, 3, 1.1
NEEDED = 3.0  # spread between networks over spread between seeds


class Band(NamedTuple):
    """``ms``: from, to; ``networks``, ``seeds`` (the fewest of a network); spreads in percentage points of accuracy."""

    ms: tuple[float, float]
    networks: int
    seeds: int
    between_networks: float
    between_seeds: float

    @property
    def ratio(self) -> float:
        return self.between_networks / self.between_seeds if self.between_seeds else math.inf

    @property
    def trainings(self) -> float:
        """Per network, whose mean has a standard error that is ``NEEDED`` times smaller than the spread between networks."""
        return (NEEDED / self.ratio) ** 2 if self.ratio else math.inf

    def __str__(self) -> str:
        return (
            f"{self.ms[0]:.4g} to {self.ms[1]:.4g} ms, {self.networks} networks of at least {self.seeds} seeds: sd between "
            f"networks {self.between_networks:.2f}, between seeds {self.between_seeds:.2f} points, ratio {self.ratio:.1f}, "
            f"{self.trainings:.1f} trainings of each are enough"
        )


def choose(space: Space, table: LatencyTable, genotypes: Sequence[Genotype]) -> list[tuple[float, list[Genotype]]]:
    """(lowest ms, networks) of each band: around the quartiles of all latencies, networks drawn by a fixed seed."""
    terms = price(space, table, None)
    ms = np.array([terms.at(space.assignment(g)) for g in genotypes])
    rng, found = np.random.default_rng(0), []
    for share in (np.arange(BANDS) + 1) / (BANDS + 1):
        low = float(np.quantile(ms, share)) / math.sqrt(WIDTH)
        inside = np.flatnonzero((ms >= low) & (ms < low * WIDTH))
        found.append((low, [genotypes[i] for i in rng.permutation(inside)[:PER_BAND]]))
    return found


def spread(ms: tuple[float, float], runs: Sequence[Sequence[float]]) -> Band:
    """``runs``: accuracies in percent, one sequence of seeds (at least two) per network (at least two)."""
    within = float(np.mean([np.var(r, ddof=1) for r in runs]))
    noise = float(np.mean([np.var(r, ddof=1) / len(r) for r in runs]))
    between = max(float(np.var([np.mean(r) for r in runs], ddof=1)) - noise, 0.0)
    return Band(ms, len(runs), min(map(len, runs)), math.sqrt(between), math.sqrt(within))
