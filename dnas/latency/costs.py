"""What a search can hold to a target: latency by a table, and what is counted on the network itself, all as ``Terms``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dnas.errors import ConfigError, nearest
from dnas.factors import Factor
from dnas.latency.table import LatencyTable
from dnas.latency.terms import Terms, price, summed
from dnas.ops import Op, Shape

if TYPE_CHECKING:
    from dnas.space import Space


class Count(NamedTuple):
    """A cost that needs no table: its unit, and what one op on an input of a shape adds to it."""

    unit: str
    of: Callable[[Op, Shape], float]


COUNTS: dict[str, Count] = {
    "macs": Count("MACs", lambda op, shape: float(op.macs(shape))),
    "params": Count("parameters", lambda op, shape: float(op.params)),
}


@dataclasses.dataclass(frozen=True)
class Cost:
    """A cost of a space's networks. ``terms`` and ``target`` in ``unit``; ``target`` None: reported, not held; ``lut``: the
    table of a latency."""

    name: str
    unit: str
    terms: Terms
    target: float | None = None
    lut: LatencyTable | None = None

    def check(self, space: Space, flag: str) -> None:
        """Errors: ConfigError for a target that no network of ``space`` has."""
        low, high = self.terms.extreme(1)[0], self.terms.extreme(-1)[0]
        edge = 1e-3 * max(abs(low), abs(high))
        if self.target is not None and not low - edge <= self.target <= high + edge:
            where = f"on {self.lut.device} " if self.lut else ""
            raise ConfigError(
                f"{flag} {self.target:g} is out of reach: {where}the networks of {space.name} take {low:.4g} to {high:.4g} "
                f"{self.unit}"
            )


def by_table(space: Space, lut: LatencyTable, target_ms: float | None, missing: str | None = None) -> Cost:
    """Latency by ``lut``. Errors: LatencyError for an op that it lacks."""
    return Cost(lut.name, "ms", price(space, lut, missing), target_ms, lut)


def by_count(space: Space, name: str, target: float | None) -> Cost:
    """``macs`` or ``params``. Errors: ConfigError with the nearest names."""
    if name not in COUNTS:
        raise ConfigError(f"unknown cost {name!r}{nearest(name, COUNTS)}")
    unit, of = COUNTS[name]
    parts, rows = [], []
    for slot in space.slots:
        values = tuple(0.0 if c.off else of(c.op, slot.shape_of(c)) for c in slot.candidates)
        rows.append(values)
        parts.append(Factor(slot.choices, np.array(values)[slot.table]))
    return Cost(name, unit, Terms(*summed(parts), tuple(rows), parts=tuple(parts)), target)


def read(space: Space, text: str, missing: str | None = None) -> Cost:
    """A cost as the command names it: ``TABLE.json=MS``, ``macs=N`` or ``params=N``. Errors: ConfigError, LatencyError."""
    name, _, number = text.rpartition("=")
    try:
        target = float(number)
    except ValueError:
        target = float("nan")
    if not name or not 0 < target < float("inf"):
        raise ConfigError(
            f"--also {text}: expected TABLE.json=MS, {' or '.join(f'{c}=N' for c in COUNTS)}, with a positive number"
        )
    if name in COUNTS:
        return by_count(space, name, target)
    if not name.endswith(".json") and "/" not in name:
        raise ConfigError(f"--also {text}: unknown cost {name!r}{nearest(name, COUNTS)}; a latency table ends in .json")
    return by_table(space, LatencyTable.load(name), target, missing)
