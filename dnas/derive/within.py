"""The best networks within a budget: exact, and never above it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dnas.arch import Architecture
from dnas.derive.likely import checked, log_probabilities, log_probability
from dnas.derive.paths import LARGEST, Band, Found, best_paths, size_of, steps_of
from dnas.derive.programme import best_by_programme
from dnas.errors import ConfigError
from dnas.factors import Factor, extreme
from dnas.latency.peak import Largest
from dnas.latency.table import LatencyTable
from dnas.latency.terms import Terms, price
from dnas.space import Genotype, Space

if TYPE_CHECKING:
    Costs = LatencyTable | Terms | Sequence[LatencyTable | Terms]
    Numbers = float | Sequence[float]

NEAR = 0.98  # of the target: networks below it, which young supernets flatter, are left out while the multiplier is positive
FEWEST_UNITS = 1000  # of the budget, below which dynamic programming is no longer worth its tables


@dataclasses.dataclass(frozen=True)
class Limit:
    """A cost that a network must not exceed. ``target`` in the unit of ``terms`` (ms); ``multiplier``: what one unit of it
    has taken from the logits, from 0."""

    terms: Terms
    target: float
    multiplier: float = 0.0
    name: str = "latency"

    @property
    def adds_up(self) -> bool:
        """Whether a network's cost is the sum of its layers'; otherwise it is the largest of them."""
        return not isinstance(self.terms, Largest)

    def keeps(self, assignment: Mapping[str, int], low: float = -math.inf) -> bool:
        return low <= self.terms.at(assignment) <= self.target


@dataclasses.dataclass(frozen=True)
class Shortlist:
    """The best networks within the limits, best first.

    ``scores``: sum of log p + multiplier * cost. ``log_probabilities`` in nats. ``costs``: one number per limit. ``proven``: no
    network within the limits and ``low`` (the least cost of each that was asked for) that is left out scores above these;
    otherwise the search was cut short, and none scores above ``bound``.
    """

    genotypes: tuple[Genotype, ...]
    scores: tuple[float, ...]
    log_probabilities: tuple[float, ...]
    costs: tuple[tuple[float, ...], ...]
    low: tuple[float, ...]
    bound: float
    proven: bool


def budget(
    space: Space,
    logits: Mapping[str, Any],
    lut: Costs,
    *,
    target_ms: Numbers,
    multiplier: Numbers = 0.0,
    missing: str | None = None,
) -> Architecture:
    """The network with the largest sum of log p + multiplier * latency among those whose table latency is at most the target.

    p = softmax(logits). Logits that were trained against a multiplier already contain -multiplier * latency; adding it again
    leaves what accuracy alone prefers, and the budget then decides about latency. Arguments: ``lut``: a table, the terms of
    one (``dnas.latency.terms.price``), or several of them with as many targets; ``target_ms`` in ms; ``multiplier`` per ms.
    Exact, except where several tables take a minute (``shortlist`` says so). Errors: ConfigError for a target below the fastest
    network, SpaceError for logits of another space, LatencyError for an op that a table lacks.

    >>> import dnas
    >>> space, lut = dnas.load_space("fbnet_mini"), dnas.LatencyTable.load("samsung_s8.json")
    >>> equal = {name: [0.0] * len(choice.options) for name, choice in space.choices.items()}
    >>> lut.latency_ms(budget(space, equal, lut, target_ms=0.6)) <= 0.6
    True
    """
    several = [lut] if isinstance(lut, LatencyTable | Terms) else list(lut)
    targets, multipliers = _as_many(target_ms, several, "target_ms"), _as_many(multiplier, several, "multiplier")
    limits = [
        Limit(c if isinstance(c, Terms) else price(space, c, missing), t, m, getattr(c, "name", "latency"))
        for c, t, m in zip(several, targets, multipliers, strict=True)
    ]
    return space.fix(shortlist(space, logits, limits, k=1).genotypes[0])


def shortlist(
    space: Space,
    logits: Mapping[str, Any],
    limits: Sequence[Limit],
    k: int = 32,
    *,
    near: float | None = None,
    time_limit_s: float = 60.0,
) -> Shortlist:
    """The ``k`` best networks within ``limits``, each network once.

    While a multiplier is positive, networks below ``near`` times its target are left out, unless there are no others; by
    default those below 98 % of it, unless there are fewer than ``k`` others. One cost is solved by dynamic programming (layers
    of their own and chains of coupled choices), several costs and tighter couplings by an integer programme within
    ``time_limit_s`` seconds. A cost that is the largest of its layers' (``Largest``) forbids candidates, at any number of
    other costs; its multiplier is left out, since no sum over layers takes it back. Errors: those of ``budget``.
    """
    checked(space, logits)
    for limit in limits:
        _reachable(space, limit)
    scores = _log_probability(space, logits)
    for limit in limits:
        if limit.adds_up:
            scores += [Factor(f.names, limit.multiplier * np.asarray(f.values, float)) for f in limit.terms.factors]
    share, fewest = (NEAR, k) if near is None else (near, 1)
    low = tuple(
        limit.target - (1 - share) * abs(limit.target) if limit.multiplier > 0 and limit.adds_up else -math.inf
        for limit in limits
    )
    anything = (-math.inf,) * len(limits)
    found = _solve(space, scores, limits, low, k, time_limit_s)
    if len(found.picked) < fewest and low != anything:
        wider = _solve(space, scores, limits, anything, k, time_limit_s)
        low, found = (anything, wider) if wider.picked else (low, found)
    if not found.picked:
        raise ConfigError(
            f"no network of {space.name} within {_words(limits)} was found"
            + ("; raise one of the targets" if found.proven else f" in {time_limit_s:g} s; allow more time, or raise a target")
        )
    genotypes = [tuple(p[n] for n in space.choices) for p in found.picked]
    offset = math.fsum(limit.multiplier * limit.terms.constant_ms for limit in limits if limit.adds_up)
    return Shortlist(
        tuple(genotypes), tuple(s + offset for s in found.scores),
        tuple(log_probability(space, logits, g) for g in genotypes),
        tuple(tuple(limit.terms.at(p) for limit in limits) for p in found.picked), low, found.bound + offset, found.proven,
    )  # fmt: skip


def highest(
    space: Space,
    values: Mapping[str, Any],
    limits: Sequence[Limit],
    k: int = 1,
    *,
    band: float = 0.0,
    known: Iterable[Genotype] = (),
    time_limit_s: float = 60.0,
) -> tuple[Genotype, ...]:
    """The ``k`` networks within ``limits`` with the largest sum of ``values``, f64[options] by choice, over the choices that
    they leave on, best first; none of ``known``, and fewer where no more are left.

    ``band``: of those that cost ``band`` to 1 times the first target of a cost that adds up over layers, where there are any.
    Exact, but for several costs that take longer than ``time_limit_s``; of the codes of one network that with the largest sum
    counts. Errors: those of ``budget``.
    """
    for limit in limits:
        _reachable(space, limit)
    scores, first = _summed(space, checked(space, values)), next((limit for limit in limits if limit.adds_up), None)
    inside = tuple(band * limit.target if band and limit is first else -math.inf for limit in limits)
    found = _solve(space, scores, limits, inside, k, time_limit_s, known)
    if not found.picked and band:
        found = _solve(space, scores, limits, (-math.inf,) * len(limits), k, time_limit_s, known)
    return tuple(space.canonical([p[n] for n in space.choices]) for p in found.picked)


def _solve(
    space: Space, scores: Sequence[Factor], limits: Sequence[Limit], low: Sequence[float], k: int, time_limit_s: float,
    known: Iterable[Genotype] = (),
) -> Found:  # fmt: skip
    """The ``k`` of the largest sum of ``scores``, with costs from ``low`` to the targets; none of ``known``."""
    sizes = {n: len(c.options) for n, c in space.choices.items()}
    seen = {space.canonical(g) for g in known}
    scores = [*scores, *(f for limit in limits if isinstance(limit.terms, Largest) for f in limit.terms.above(limit.target))]

    def accept(picked: dict[str, int]) -> bool:
        same = space.canonical([picked[n] for n in space.choices])
        new = same not in seen and all(limit.keeps(picked, least) for limit, least in zip(limits, low, strict=True))
        if new:
            seen.add(same)
        return new

    bands: list[Band] = []
    for limit, least in zip(limits, low, strict=True):
        if limit.adds_up:
            constant = limit.terms.constant_ms
            bands.append(Band(limit.terms.factors, least - constant, limit.target - constant))
    one = bands[0] if bands else Band((), 0.0, 0.0)
    if len(bands) < 2 and size_of(sizes, steps_of(sizes, scores, one.factors)) * FEWEST_UNITS <= LARGEST:
        return best_paths(sizes, scores, one, k, accept)
    fastest = [extreme(b.factors, 1)[0] for b in bands]  # an integer programme wants finite edges
    bands = [Band(b.factors, max(b.low, least), b.high) for b, least in zip(bands, fastest, strict=True)]
    return best_by_programme(sizes, scores, bands, k, accept, time_limit_s)


def _log_probability(space: Space, logits: Mapping[str, Any]) -> list[Factor]:
    """log p of a network as a sum of factors."""
    return _summed(space, {name: log_probabilities(values) for name, values in checked(space, logits).items()})


def _summed(space: Space, values: Mapping[str, Any]) -> list[Factor]:
    """The sum of ``values`` over the choices that are on; options of those that are switched off are all forbidden but the
    first."""
    factors = []
    for name in space.choices:
        names, matters = space.matters(name)
        alone = np.asarray(values[name], float).reshape([-1] + [1] * (len(names) - 1))
        off = np.where(np.arange(len(alone)) == 0, 0.0, -np.inf).reshape(alone.shape)
        factors.append(Factor(names, np.where(matters, alone, off)))
    return factors


def _reachable(space: Space, limit: Limit) -> None:
    for name, value, least in (("target", limit.target, -math.inf), ("multiplier", limit.multiplier, 0.0)):
        if not math.isfinite(value) or value < least:
            from_zero = "" if name == "target" else " from 0"
            raise ConfigError(f"the {name} of {limit.name} is {value!r}; expected a finite number{from_zero}")
    fastest = limit.terms.extreme(1)[0]
    if limit.target < fastest:
        raise ConfigError(
            f"the target {limit.target:g} is out of reach: by {limit.name}, the least that a network of {space.name} takes is "
            f"{fastest:.6g}"
        )


def _as_many(given: Any, several: Sequence[Any], name: str) -> list[float]:
    alone = [given] * (len(several) if name == "multiplier" else 1)
    values = list(given) if isinstance(given, Sequence | np.ndarray) else alone
    if len(values) != len(several):
        raise ConfigError(f"{name} has {len(values)} numbers for {len(several)} tables; expected one for each table")
    return [float(v) for v in values]


def _words(limits: Sequence[Limit]) -> str:
    return " and ".join(f"{limit.target:g} by {limit.name}" for limit in limits)
