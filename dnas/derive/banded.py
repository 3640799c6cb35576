"""Networks whose latency lies in a band: how many there are, and uniform random ones, without rejection.

Choices are taken in turn. For every position, and every setting of the choices before it that later tables still
need, dynamic programming counts in how many ways the rest adds up to each whole number of units of cost. A draw takes
the total cost first, then one option after another, each with the share of the ways that it leaves. Each network counts once:
choices that are switched off are 0, and among interchangeable neighbours identities go last (``Space.canonical``).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from dnas.derive.paths import steps_of
from dnas.errors import ConfigError, SpaceError
from dnas.factors import Factor, count
from dnas.latency.peak import Largest
from dnas.latency.table import LatencyTable
from dnas.latency.terms import Terms, price
from dnas.ops import SkipOp
from dnas.space import Genotype, Space

FINEST = 1e-7  # ms: units are powers of ten of a microsecond, down to a tenth of a nanosecond
MOST_SUMS = 4e8  # of a table's rows, that counting may take
MOST_CELLS = 2.5e7  # of all tables
WHOLE = 1e-6  # of a unit, that a whole number may be off


def banded(space: Space, lut: LatencyTable | Terms, low_ms: float, high_ms: float, missing: str | None = None) -> Banded:
    """The networks of ``space`` that take ``low_ms`` to ``high_ms``, both included, on a table (or by the terms of one).

    Errors: ConfigError where there are none; LatencyError for an op that the table lacks.

    >>> import dnas
    >>> space, lut = dnas.load_space("fbnet_mini"), dnas.LatencyTable.load("samsung_s8.json")
    >>> band = banded(space, lut, 0.5, 0.6)
    >>> all(0.5 <= lut.latency_ms(space.fix(g)) <= 0.6 for g in band.sample(0, 3))
    True
    """
    terms = lut if isinstance(lut, Terms) else price(space, lut, missing)
    if isinstance(terms, Largest):
        raise ConfigError("a band of networks is counted by a cost that adds up over layers, such as latency, not by a peak")
    if not low_ms <= high_ms:
        raise ConfigError(f"a band from {low_ms:g} to {high_ms:g} ms; expected the smaller number first")
    found = Banded(space, terms, float(low_ms), float(high_ms))
    if not found.count_between[1]:
        fastest, slowest = terms.extreme(1)[0], terms.extreme(-1)[0]
        raise ConfigError(
            f"no network of {space.name} takes {low_ms:g} to {high_ms:g} ms; they take {fastest:.6g} to {slowest:.6g} ms"
        )
    return found


@dataclasses.dataclass(frozen=True)
class Banded:
    """The networks of ``space`` within a band, each once; made by ``banded``."""

    space: Space
    terms: Terms
    low_ms: float
    high_ms: float

    @property
    def count(self) -> int:
        """How many there are. Errors: ConfigError where prices are no whole numbers of the unit (``count_between``)."""
        least, most = self.count_between
        if least != most:
            raise ConfigError(
                f"the prices of {self.space.name} are no multiples of {self.unit_ms * 1e3:g} us, so the band is known to hold "
                f"{least} to {most} networks; see count_between"
            )
        return most

    @cached_property
    def count_between(self) -> tuple[int, int]:
        """Bounds of the count; equal where all prices are whole numbers of units, and then exact."""
        most = self._exactly(self._edges)
        if self.exact:
            return most, most
        low, high = self._edges
        slack = len(self._steps)
        return (self._exactly((low + slack, high - slack)) if low + slack <= high - slack else 0), most

    @property
    def unit_ms(self) -> float:
        """Of the dynamic programme: the largest power of ten of which all prices are multiples, where tables permit it."""
        return self._scale[0]

    @property
    def exact(self) -> bool:
        """Whether all prices are multiples of the unit."""
        return self._scale[1]

    def sample(self, rng: np.random.Generator | int, count: int = 1) -> list[Genotype]:
        """``count`` networks, each drawn uniformly from the band. ``rng``: a generator or a seed.

        Where prices had to be rounded, a draw that is outside by less than the rounding is drawn again: still uniform.
        """
        generator = np.random.default_rng(rng)
        ways = self._tables
        low, high = self._edges
        totals = ways[0][low : high + 1].ravel()
        chances = totals / totals.sum()
        found: list[Genotype] = []
        barren = 0
        while len(found) < count:
            genotype = self._draw(generator, ways, low + int(generator.choice(len(chances), p=chances)))
            if self.low_ms <= self.terms.at(dict(zip(self.space.choices, genotype, strict=True))) <= self.high_ms or self.exact:
                found.append(genotype)
                barren = 0
            elif (barren := barren + 1) > 10_000:
                raise ConfigError(f"the band of {self.low_ms:g} to {self.high_ms:g} ms is narrower than prices are rounded")
        return found

    def _draw(self, generator: np.random.Generator, ways: Sequence[np.ndarray], left: int) -> Genotype:
        codes: list[int] = []
        for at, step in enumerate(self._steps):
            here = tuple(codes[i] for i in step.before)
            shares = np.zeros(step.cost.shape[-1])
            for option in range(len(shares)):
                rest = left - int(self._whole[at][(*here, option)])
                if rest >= 0 and step.score[(*here, option)] == 0:
                    shares[option] = ways[at + 1][tuple((*codes, option)[i] for i in step.after)][rest]
            codes.append(int(generator.choice(len(shares), p=shares / shares.sum())))
            left -= int(self._whole[at][(*here, codes[-1])])
        return tuple(codes)

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return {n: len(c.options) for n, c in self.space.choices.items()}

    @cached_property
    def _steps(self) -> list[Any]:
        return steps_of(self._sizes, each_once(self.space), self.terms.factors)

    @cached_property
    def _whole(self) -> list[np.ndarray]:
        """What each step adds, in units."""
        return [np.rint(s.cost / self.unit_ms).astype(np.int64) for s in self._steps]

    @cached_property
    def _offset(self) -> float:
        return self.terms.constant_ms + math.fsum(s.least for s in self._steps)

    @cached_property
    def _edges(self) -> tuple[int, int]:
        """The band in units, widened by what rounding may have moved."""
        slack = 0 if self.exact else len(self._steps) / 2
        low = max(math.ceil((self.low_ms - self._offset) / self.unit_ms - slack - WHOLE), 0)
        high = math.floor((self.high_ms - self._offset) / self.unit_ms + slack + WHOLE)
        return low, min(high, sum(int(w.max()) for w in self._whole))

    @cached_property
    def _scale(self) -> tuple[float, bool]:
        """A microsecond: finer where that makes all prices whole, coarser where tables would grow too large."""
        reach = max(min(self.high_ms - self._offset, math.fsum(float(s.cost.max()) for s in self._steps)), FINEST)
        cells = sum(s.score.size for s in self._steps)
        rows = sum(s.score.size // s.score.shape[-1] for s in self._steps)
        finest = _power(math.ceil(math.log10(max(reach * max(cells / MOST_SUMS, rows / MOST_CELLS), FINEST))))
        costs = np.concatenate([s.cost.ravel() for s in self._steps])
        for exponent in range(-3, -8, -1):
            whole = (np.abs(costs / _power(exponent) - np.rint(costs / _power(exponent))) <= WHOLE).all()
            if whole and _power(exponent) >= finest:
                return _power(exponent), True
        return max(finest, 1e-3), False

    @cached_property
    def _tables(self) -> list[np.ndarray]:
        return self._count(self._edges[1], np.float64, None)

    def _exactly(self, edges: tuple[int, int]) -> int:
        """The number of ways whose cost is within ``edges``, from its remainders by several primes."""
        if edges[0] > edges[1]:
            return 0
        bound, value, modulus = max(count(each_once(self.space, ones=True)), 1), 0, 1
        for prime in _primes():
            ways = self._count(edges[1], np.int64, prime)[0][edges[0] :]
            rest = sum(int(v) for v in ways.ravel()) % prime
            value += modulus * ((rest - value) * pow(modulus, -1, prime) % prime)
            modulus *= prime
            if modulus > bound:
                return value
        raise AssertionError("there are always more primes")

    def _count(self, units: int, dtype: Any, prime: int | None) -> list[np.ndarray]:
        """[settings.., units]: in how many ways the steps from each on add up to exactly that (modulo ``prime``)."""
        every = list(self._sizes.values())
        last = np.zeros(max(units, 0) + 1, dtype)
        last[0] = units >= 0
        found = [last]
        for at, step in reversed(list(enumerate(self._steps))):
            following = found[-1]
            table = np.zeros([*(every[i] for i in step.before), len(last)], dtype)
            for codes in itertools.product(*(range(n) for n in step.score.shape)):
                shift = int(self._whole[at][codes])
                if step.score[codes] != 0 or shift >= len(last):
                    continue
                settings = dict(zip((*step.before, at), codes, strict=True))
                table[codes[:-1]][shift:] += following[tuple(settings[i] for i in step.after)][: len(last) - shift]
            found.append(table % prime if prime else table)
        return found[::-1]


def each_once(space: Space, ones: bool = False) -> list[Factor]:
    """Tables over choices that are 0 for the canonical genotype of each network and -inf for all others (``ones``: 1 and 0)."""
    allowed = []
    for name, choice in space.choices.items():
        names, matters = space.matters(name)
        off = (np.arange(len(choice.options)) == 0).reshape([-1] + [1] * (len(names) - 1))
        allowed.append(Factor(names, matters | off))
    for run in space.interchangeable:
        skips = np.array([isinstance(c.op, SkipOp) for c in space.slots[run[0]].candidates])
        for first, second in itertools.pairwise(run):
            (slot_a, slot_b) = (space.slots[i] for i in (first, second))
            a, b = skips[slot_a.table], skips[slot_b.table]
            allowed.append(Factor((slot_a.choices[0], slot_b.choices[0]), ~(a[:, None] & ~b[None, :])))
    if any(not f.values.any() for f in allowed):
        raise SpaceError(f"{space.name}: no network is left")
    return [Factor(f.names, f.values.astype(int) if ones else np.where(f.values, 0.0, -np.inf)) for f in allowed]


def _power(exponent: int) -> float:
    return float(f"1e{exponent}")


def _primes() -> Any:
    """Primes below 2^31, from the largest on."""
    for number in itertools.count(2**31 - 1, -2):
        if all(number % d for d in range(3, math.isqrt(number) + 1, 2)):
            yield number
