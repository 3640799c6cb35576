"""Evolution over networks of known value, always within the budget: regularised evolution and NSGA-II.

Regularised evolution (Real et al. 2019, arXiv:1802.01548): the best of a random tournament has a child that differs in one
choice; the child joins the population and the oldest member leaves it. NSGA-II (Deb et al. 2002): parents win binary
tournaments by rank of non-domination and crowding, in value and in every cost; uniform crossover, mutation of each choice with
chance 1 / n; of parents and children the better half stays.

>>> import dnas
>>> oracle, lut = dnas.oracle.load("nas-bench-macro"), dnas.LatencyTable.load("samsung_s8.json")
>>> found = search(oracle.space, oracle.accuracy, lut, target_ms=2.5, budget=100, missing="cost-model")
>>> found.best.costs[0] <= 2.5 and len(found.evaluated) <= 100
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dnas.errors import ConfigError, nearest
from dnas.methods.selection import Evaluate, Outcome, Problem, Proposals, drive, limits_of
from dnas.space import Genotype, Space

if TYPE_CHECKING:
    from dnas.derive.within import Costs, Numbers

POPULATION = 50
TOURNAMENT = 0.25  # of the population, in regularised evolution
ALGORITHMS = ("regularised", "nsga2")


def search(
    space: Space,
    evaluate: Evaluate,
    lut: Costs,
    *,
    target_ms: Numbers,
    budget: int = 1000,
    algorithm: str = "regularised",
    population: int | None = None,
    seed: int = 0,
    missing: str | None = None,
) -> Outcome:
    """Find the network of the largest ``evaluate(genotype)`` whose table latency is at most ``target_ms``.

    Arguments: ``lut``: a table, its terms (``dnas.latency.terms.price``), or several with as many targets, each kept;
    ``budget``: different networks to evaluate; ``algorithm``: regularised or nsga2; ``population``: networks, default 50, and
    at most a quarter of the budget. Errors: ConfigError for a target that no network keeps, LatencyError.
    """
    rng = np.random.default_rng(seed)
    problem = Problem(space, limits_of(space, lut, target_ms, missing), rng)
    size = population or max(min(POPULATION, budget // 4), 2)
    return drive(problem, proposals(problem, algorithm, size), evaluate, budget)


def proposals(problem: Problem, algorithm: str, size: int) -> Proposals:
    """Networks to evaluate, without end. Errors: ConfigError for an unknown algorithm, or a population below two."""
    if algorithm not in ALGORITHMS:
        raise ConfigError(f"unknown evolution {algorithm!r}{nearest(algorithm, ALGORITHMS)}")
    if size < 2:
        raise ConfigError(f"a population of {size}; expected at least two networks")
    return regularised(problem, size) if algorithm == "regularised" else nsga2(problem, size)


def regularised(problem: Problem, size: int) -> Proposals:
    """Ageing evolution with tournaments of a quarter of the population."""
    alive: list[tuple[Genotype, float]] = []
    while len(alive) < size:
        genotype = problem.random()
        alive.append((genotype, (yield genotype)))
    while True:
        rivals = problem.rng.choice(size, max(round(TOURNAMENT * size), 2), replace=False)
        parent, _ = max((alive[i] for i in rivals), key=lambda one: one[1])
        child = problem.mutated(parent)
        alive = [*alive[1:], (child, (yield child))]


def nsga2(problem: Problem, size: int) -> Proposals:
    """Values and all costs; networks are compared once each."""
    parents: dict[Genotype, float] = {}
    for _ in range(4 * size):
        if len(parents) == size:
            break
        genotype = problem.random()
        parents[genotype] = yield genotype
    while True:
        order, (rank, crowding) = list(parents), ranked(problem, parents)
        standing = dict(zip(order, zip(rank, -crowding, strict=True), strict=True))
        children: dict[Genotype, float] = {}
        for _ in range(size):
            rivals = problem.rng.integers(len(order), size=(2, 2)).tolist()
            one, other = (min((order[a], order[b]), key=standing.__getitem__) for a, b in rivals)
            child = problem.mutated(problem.crossed(one, other), 1 / len(problem.sizes))
            children[child] = yield child
        pool = parents | children
        rank, crowding = ranked(problem, pool)
        kept = np.lexsort((-crowding, rank))[:size]
        parents = {g: v for i, (g, v) in enumerate(pool.items()) if i in kept}


def ranked(problem: Problem, pool: dict[Genotype, float]) -> tuple[np.ndarray, np.ndarray]:
    """Front of each network (0: beaten by none) and its crowding distance in that front, both by -value and costs."""
    points = np.array([(-v, *problem.costs(g)) for g, v in pool.items()])
    no_worse = (points[:, None] <= points[None]).all(-1)
    beats = no_worse & (points[:, None] < points[None]).any(-1)
    rank, left, front = np.full(len(points), -1), np.ones(len(points), bool), 0
    while left.any():
        best = left & ~(beats & left[:, None]).any(0)
        rank[best], left[best] = front, False
        front += 1
    crowding = np.zeros(len(points))
    for number in range(front):
        inside = np.flatnonzero(rank == number)
        for k in range(points.shape[1]):
            order = inside[np.argsort(points[inside, k], kind="stable")]
            values = points[order, k]
            crowding[order[[0, -1]]] = np.inf
            crowding[order[1:-1]] += (values[2:] - values[:-2]) / (float(np.ptp(values)) or 1.0)
    return rank, crowding
