"""Statistics of the study: the search seed is the unit, methods are compared by the same seeds and targets.

A reference that is the maximum of noisy means is inflated; ``reference`` chooses it on some trainings and scores it on others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

RESAMPLES = 9_999


class Difference(NamedTuple):
    """Mean of a - b over ``n`` seeds, its 95 % bootstrap interval, and p (two-sided) that the sign of each is a coin's."""

    mean: float
    low: float
    high: float
    p: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ({self.low:+.2f} to {self.high:+.2f}, p = {self.p:.3g}, n = {self.n})"


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % bootstrap interval (percentile) of the mean; the value itself where all are equal."""
    from scipy.stats import bootstrap

    found = np.asarray(values, float)
    if len(found) < 2 or np.ptp(found) == 0:
        return (float(found.mean()),) * 2 if len(found) > 1 else (-np.inf, np.inf)
    both = bootstrap((found,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0))
    return float(both.confidence_interval.low), float(both.confidence_interval.high)


def paired(a: Sequence[float], b: Sequence[float]) -> Difference:
    """``a``, ``b``: one value per seed, in the same order. p is exact up to 13 seeds: all 2^n signs."""
    from scipy.stats import permutation_test

    both = np.asarray(a, float), np.asarray(b, float)
    assert both[0].shape == both[1].shape and both[0].ndim == 1
    gaps = both[0] - both[1]
    p = 1.0
    if gaps.any():
        found = permutation_test(
            both, lambda x, y, axis: (x - y).mean(axis), permutation_type="samples", vectorized=True, n_resamples=RESAMPLES,
            rng=np.random.default_rng(0),
        )  # fmt: skip
        p = float(found.pvalue)
    return Difference(float(gaps.mean()), *interval(gaps), p, len(gaps))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """p-values adjusted for their number (Holm 1979): the k-th smallest of n times n - k, never falling, at most 1."""
    found, least = {}, 0.0
    for rank, name in enumerate(sorted(p, key=p.__getitem__)):
        least = max(least, min((len(p) - rank) * p[name], 1.0))
        found[name] = least
    return {name: found[name] for name in p}


class Reference(NamedTuple):
    """Best within a budget, in percent: ``accuracy`` by trainings that did not choose it, ``naive`` by those that did."""

    accuracy: float
    naive: float


def reference(runs: Float[np.ndarray, "networks seeds"], inside: Bool[np.ndarray, " networks"]) -> Reference:
    """``runs``: accuracies in percent. Each training scores, in turn, the network that the others choose; the mean of these.

    With one training nothing is left to score with, and both figures are the maximum.
    """
    within = runs[inside]
    naive = float(within.mean(1).max())
    seeds = within.shape[1]
    if seeds == 1:
        return Reference(naive, naive)
    scores = [within[np.delete(within, s, axis=1).mean(1).argmax(), s] for s in range(seeds)]
    return Reference(float(np.mean(scores)), naive)
