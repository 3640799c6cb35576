"""What the searches over evaluated networks share: feasible random networks, mutation, what was found, the Pareto front.

No JAX: a network is a genotype, an evaluator any function of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dnas.derive.within import Limit, shortlist
from dnas.errors import ConfigError
from dnas.latency.table import LatencyTable
from dnas.latency.terms import Terms, price
from dnas.space import Genotype, Space

if TYPE_CHECKING:
    from dnas.derive.within import Costs, Numbers

Evaluate = Callable[[Genotype], float]  # the larger the better; accuracy from 0 to 1, say
Proposals = Generator[Genotype, float, None]  # yields a network, is sent its value
TRIES = 100  # of a random draw or a mutation, to keep the budget, before it is made to
STALE = 500  # proposals in a row of networks that are known


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """A network with its value and its costs, one for each table."""

    genotype: Genotype
    value: float
    costs: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """``best``: the network of the largest value within the budget (of equals the first). ``evaluated``: all, in order, each
    network once. ``pareto``: those that no other beats in value and all costs, the cheapest first."""

    best: Evaluated
    evaluated: tuple[Evaluated, ...]

    @property
    def pareto(self) -> tuple[Evaluated, ...]:
        found = [e for e in self.evaluated if not any(_beats(other, e) for other in self.evaluated)]
        return tuple(sorted(found, key=lambda e: (e.costs, -e.value)))


class Problem:
    """A space and the budgets that a network must keep. ``rng``: all that is random comes from it."""

    def __init__(self, space: Space, limits: Sequence[Limit], rng: np.random.Generator):
        self.space, self.limits, self.rng = space, tuple(limits), rng
        self.sizes = [len(c.options) for c in space.choices.values()]

    def costs(self, genotype: Genotype) -> tuple[float, ...]:
        assignment = self.space.assignment(genotype)
        return tuple(limit.terms.at(assignment) for limit in self.limits)

    def keeps(self, genotype: Genotype) -> bool:
        return all(c <= limit.target for c, limit in zip(self.costs(genotype), self.limits, strict=True))

    def random(self) -> Genotype:
        """A network within the budget: uniform over options, drawn again while it is above (EEEA-Net's early exit,
        arXiv:2108.06156), at most ``TRIES`` times; then the most probable one within it for random logits."""
        for _ in range(TRIES):
            genotype = self.space.canonical(self.space.sample(self.rng))
            if self.keeps(genotype):
                return genotype
        logits = {n: self.rng.gumbel(size=len(c.options)) for n, c in self.space.choices.items()}
        return self.space.canonical(shortlist(self.space, logits, self.limits, 1).genotypes[0])

    def mutated(self, genotype: Genotype, rate: float | None = None) -> Genotype:
        """Another network within the budget: one choice that is on takes another option, or with ``rate`` each does with that
        chance; drawn again while nothing changes or it is above the budget, at most ``TRIES`` times; then a random one."""
        names = list(self.space.choices)
        active = self.space.active(genotype)
        able = [i for i, n in enumerate(names) if n in active and self.sizes[i] > 1]
        for _ in range(TRIES):
            child = list(genotype)
            moved = [i for i in able if self.rng.random() < rate] if rate is not None else [int(self.rng.choice(able))]
            for i in moved:
                child[i] = int((child[i] + self.rng.integers(1, self.sizes[i])) % self.sizes[i])
            found = self.space.canonical(child)
            if found != genotype and self.keeps(found):
                return found
        return self.random()

    def crossed(self, one: Genotype, other: Genotype) -> Genotype:
        """Each option from either parent; the first one where that breaks the budget ``TRIES`` times."""
        for _ in range(TRIES):
            mask = self.rng.random(len(one)) < 0.5
            child = self.space.canonical([a if m else b for a, b, m in zip(one, other, mask, strict=True)])
            if self.keeps(child):
                return child
        return one


def limits_of(space: Space, lut: Costs, target_ms: Numbers, missing: str | None = None) -> list[Limit]:
    """The budgets of a table (or its terms), or of several with as many targets. Errors: ConfigError, LatencyError."""
    several: list[Any] = [lut] if isinstance(lut, LatencyTable | Terms) else list(lut)
    targets = list(target_ms) if isinstance(target_ms, Sequence | np.ndarray) else [target_ms]
    if len(several) != len(targets):
        raise ConfigError(f"target_ms has {len(targets)} numbers for {len(several)} tables; expected one for each table")
    limits = []
    for table, target in zip(several, targets, strict=True):
        terms = table if isinstance(table, Terms) else price(space, table, missing)
        limits.append(Limit(terms, float(target), 0.0, getattr(table, "name", "latency")))
    for limit in limits:
        if limit.target < (fastest := limit.terms.extreme(1)[0]):
            raise ConfigError(
                f"target_ms {limit.target:g} is out of reach: by {limit.name}, the least that a network of {space.name} takes "
                f"is {fastest:.6g}"
            )
    return limits


def drive(problem: Problem, proposals: Proposals, evaluate: Evaluate, budget: int) -> Outcome:
    """Evaluate what is proposed until ``budget`` different networks are, or nothing new comes.

    A network that comes again takes its value from the first time, and costs nothing.
    """
    if budget < 1:
        raise ConfigError(f"budget {budget}; expected at least one network to evaluate")
    cache: dict[Genotype, float] = {}
    stale = 0
    genotype = next(proposals, None)
    while genotype is not None:
        if genotype in cache:
            stale += 1
        else:
            cache[genotype], stale = float(evaluate(genotype)), 0
        if len(cache) >= budget or stale > STALE:
            break
        try:
            genotype = proposals.send(cache[genotype])
        except StopIteration:
            break
    found = tuple(Evaluated(g, v, problem.costs(g)) for g, v in cache.items())
    inside = [e for e in found if all(c <= limit.target for c, limit in zip(e.costs, problem.limits, strict=True))]
    if not inside:
        raise ConfigError(f"none of {len(found)} networks that were evaluated keeps the target; evaluate more, or raise it")
    if all(math.isnan(e.value) for e in inside):
        raise ConfigError(f"evaluate gave no number for any of {len(inside)} networks; expected a value, the larger the better")
    return Outcome(max(inside, key=lambda e: -math.inf if math.isnan(e.value) else e.value), found)


def _beats(one: Evaluated, other: Evaluated) -> bool:
    mine, its = (-one.value, *one.costs), (-other.value, *other.costs)
    return mine != its and all(a <= b for a, b in zip(mine, its, strict=True))
