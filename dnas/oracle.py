"""Benchmarks that have trained every network of a space: the true answer that a search can be measured by.

NumPy only.

>>> oracle = load("nas-bench-macro")
>>> round(oracle.accuracy("22212220"), 2), oracle.seeds("22212220")
(93.13, (93.28, 93.33, 92.77))
>>> best = oracle.best(100e6, "macs")  # the most accurate network of at most 100 million MACs
>>> oracle.regret("11111111", 100e6, "macs") == best.accuracy - oracle.accuracy("11111111")
True
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from dnas.arch import Architecture
from dnas.errors import ConfigError, SpaceError, nearest
from dnas.files import kind, shipped, shown
from dnas.latency.table import LatencyTable
from dnas.ops import Op, Shape
from dnas.space import Genotype, Space, load_space

Code = str | Sequence[int] | Architecture
Cost = str | LatencyTable | Callable[[Architecture], float]


class Source(NamedTuple):
    """A benchmark: its space (and file in oracles/), the images that its accuracies were measured on, and what it is."""

    space: str
    images: int
    about: str


SOURCES = {
    "nas-bench-macro": Source("nas_bench_macro", 10_000, "CIFAR-10, 6,561 codes, three trainings each (arXiv:2103.11922)"),
    "fashion-mnist": Source(
        "oracle", 30_000, "turned Fashion-MNIST, 108 networks, this project's own (python -m benchmarks.oracle)"
    ),
}


class Point(NamedTuple):
    """A network of a benchmark: its code, accuracy in percent, cost in the unit that was asked for."""

    code: str
    accuracy: float
    cost: float


@dataclasses.dataclass(frozen=True, eq=False)
class Oracle:
    """Every code of ``space`` with its test accuracies.

    ``runs``: f64[codes, seeds], percent, as published; codes that build the same network share theirs.
    """

    name: str
    space: Space
    runs: np.ndarray

    @cached_property
    def genotypes(self) -> np.ndarray:
        """i64[codes, choices]: option per choice, in the order of ``codes``."""
        sizes = [range(len(c.options)) for c in self.space.choices.values()]
        return np.array(list(itertools.product(*sizes)))

    @cached_property
    def codes(self) -> tuple[str, ...]:
        """All codes: the digits of a genotype."""
        return tuple("".join(map(str, g)) for g in self.genotypes)

    @cached_property
    def networks(self) -> tuple[str, ...]:
        """The canonical codes: one for each different network."""
        return tuple(dict.fromkeys(self.codes[i] for i in self._canonical))

    @cached_property
    def accuracies(self) -> np.ndarray:
        """f64[codes]: mean accuracy of each code in percent."""
        return self.runs.mean(axis=1)

    def accuracy(self, code: Code) -> float:
        """Mean test accuracy in percent. Errors: SpaceError for what is no code, genotype or architecture of the space."""
        return float(self.accuracies[self._index(code)])

    def seeds(self, code: Code) -> tuple[float, ...]:
        """Test accuracy of each training of this code, in percent."""
        return tuple(float(v) for v in self.runs[self._index(code)])

    def canonical(self, code: Code) -> str:
        """The code that stands for all codes of the same network (identities last)."""
        return self.codes[self._canonical[self._index(code)]]

    def costs(self, by: Cost) -> np.ndarray:
        """f64[codes]: "macs", "params", ms on a latency table (or its name), or what a function of the architecture gives."""
        if callable(by) and not isinstance(by, LatencyTable):
            return np.array([by(self.space.fix(g)) for g in self.genotypes], float)
        if by == "macs":
            return self._sum(lambda op, shape: op.macs(shape))
        if by == "params":
            return self._sum(lambda op, shape: op.params)
        table = by if isinstance(by, LatencyTable) else LatencyTable.load(by)
        return table.constant_ms + self._sum(lambda op, shape: table.op_ms(op, shape).ms)

    def pareto(self, by: Cost) -> tuple[Point, ...]:
        """The true front, cheapest first: no other network is at most as costly and at least as accurate."""
        costs, found = self.costs(by), []
        best = -np.inf
        for i in np.lexsort((self._canonical != np.arange(len(costs)), -self.accuracies, costs)):
            if self.accuracies[i] > best:
                best = self.accuracies[i]
                found.append(Point(self.codes[i], float(best), float(costs[i])))
        return tuple(found)

    def best(self, budget: float, by: Cost) -> Point:
        """The most accurate network whose cost is at most ``budget``. Errors: ConfigError where there is none."""
        front = self.pareto(by)
        inside = [p for p in front if p.cost <= budget]
        if not inside:
            raise ConfigError(f"no network of {self.name} costs at most {budget:g}; the cheapest costs {front[0].cost:g}")
        return inside[-1]

    def regret(self, code: Code, budget: float, by: Cost) -> float:
        """Percentage points by which the best network within ``budget`` is more accurate than ``code``.

        Errors: ConfigError where ``code`` itself is over the budget.
        """
        cost = self.costs(by)[self._index(code)]
        if cost > budget:
            raise ConfigError(f"the choice costs {cost:g}, more than the budget of {budget:g}; expected one within it")
        return self.best(budget, by).accuracy - self.accuracy(code)

    @cached_property
    def _canonical(self) -> np.ndarray:
        """i64[codes]: index of each code's canonical code."""
        return np.array([self._place(self.space.canonical(g)) for g in self.genotypes])

    def _place(self, genotype: Genotype) -> int:
        sizes = tuple(len(c.options) for c in self.space.choices.values())
        return int(np.ravel_multi_index(genotype, sizes))

    def _index(self, code: Code) -> int:
        if isinstance(code, Architecture):
            return self._place(self.space.encode(code))
        if isinstance(code, str) and not (code.isascii() and code.isdecimal()):
            raise SpaceError(f"{self.name}: code {shown(code)}; expected {len(self.space.choices)} digits")
        return self._place(tuple(self.space.assignment(list(map(int, code)) if isinstance(code, str) else code).values()))

    def _sum(self, price: Callable[[Op, Shape], float]) -> np.ndarray:
        """The price of every layer's candidate, summed over layers, per code."""
        columns = dict(zip(self.space.choices, self.genotypes.T, strict=True))
        total = np.zeros(len(self.genotypes))
        for slot in self.space.slots:
            prices = np.array([price(c.op, slot.shape_of(c)) for c in slot.candidates], float)
            total += prices[slot.table[tuple(columns[n] for n in slot.choices)]]
        return total


def load(name: str) -> Oracle:
    """A benchmark by name.

    ====================  ==============================================================================
    ``nas-bench-macro``   CIFAR-10, 6,561 codes, three trainings each; Su et al. 2021, arXiv:2103.11922
    ``fashion-mnist``     Fashion-MNIST, turned and half inverted; the 108 networks of the space ``oracle``; this project's own
    ====================  ==============================================================================

    Errors: ConfigError for an unknown name, and for one whose trainings are not all done.
    """
    if name not in SOURCES:
        raise ConfigError(f"unknown oracle {shown(name)}{nearest(str(name), SOURCES)}")
    source = SOURCES[name]
    path = shipped("oracles") / f"{source.space}.npz"
    if not kind(path):
        raise ConfigError(
            f"{name} ({source.about}) has no {path.name} in this version: not all of its networks are trained yet; available: "
            f"{', '.join(available())}"
        )
    with np.load(path) as file:
        return Oracle(name, load_space(source.space), file["hits"].astype(float) / (source.images / 100))


def available() -> tuple[str, ...]:
    """Names of the benchmarks that ship."""
    return tuple(n for n, s in SOURCES.items() if kind(shipped("oracles") / f"{s.space}.npz"))
