"""What a search can hold to a target: latency by a table, and what is counted on the network itself, all as ``Terms``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dnas.errors import ConfigError, nearest
from dnas.factors import Factor
from dnas.latency.peak import Largest
from dnas.latency.table import LatencyTable
from dnas.latency.terms import Terms, price
from dnas.ops import Op, Shape

if TYPE_CHECKING:
    from dnas.space import Space


class Count(NamedTuple):
    """A cost that needs no table: its unit, what one op on an input of a shape takes of it, and how a network's comes from
    these: their sum (``Terms``), or the largest (``Largest``)."""

    unit: str
    of: Callable[[Op, Shape], float]
    combine: type[Terms] = Terms


COUNTS: dict[str, Count] = {
    "macs": Count("MACs", lambda op, shape: float(op.macs(shape))),
    "params": Count("parameters", lambda op, shape: float(op.params)),
    "peak-activation-bytes": Count("bytes", lambda op, shape: float(op.peak_activation_bytes(shape)), Largest),
}
ENERGY = "energy"
"""The cost that a table's entries state in millijoules."""


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
    """One of ``COUNTS``. Errors: ConfigError with the nearest names."""
    if name not in COUNTS:
        raise ConfigError(f"unknown cost {name!r}{nearest(name, COUNTS)}")
    unit, of, combine = COUNTS[name]
    return Cost(name, unit, combine.of(*_layers(space, of)), target)


def by_energy(space: Space, lut: LatencyTable, target: float | None) -> Cost:
    """Millijoules by the entries of ``lut``. Errors: ConfigError for a table without any, LatencyError for an op without."""
    if not lut.has_energies:
        raise ConfigError(f"--cost energy: {lut.name} states no energies; expected a --lut whose entries have mj (millijoules)")
    parts, rows = _layers(space, lut.op_mj)
    return Cost(ENERGY, "mJ", Terms.of([Factor((), np.array(lut.constant_mj)), *parts], rows), target)


def read(space: Space, lut: LatencyTable, text: str, missing: str | None = None) -> Cost:
    """A cost as the command names it: ``TABLE.json=MS``, or a name and a number, as ``macs=N``; energies are those of ``lut``.

    Errors: ConfigError, LatencyError.
    """
    name, _, number = text.rpartition("=")
    names = (*COUNTS, ENERGY)
    if not name:
        words = ", ".join(f"{c}=N" for c in names[:-1])
        raise ConfigError(f"--also {text}: expected TABLE.json=MS, {words} or {names[-1]}=N, with a positive number")
    if name not in names and not name.endswith(".json") and "/" not in name:
        raise ConfigError(f"unknown cost {name!r}{nearest(name, names)} (a latency table ends in .json)")
    flags = ("--cost", "--target") if name in names else ("--lut", "--target-ms")
    if not number:
        raise ConfigError(f"{flags[0]} {name}: no target; expected {flags[1]} and a positive number after it")
    try:
        target = float(number)
    except ValueError:
        target = float("nan")
    if not 0 < target < float("inf"):
        raise ConfigError(f"{flags[0]} {name} {flags[1]} {number}: expected a positive number")
    if name == ENERGY:
        return by_energy(space, lut, target)
    if name in COUNTS:
        return by_count(space, name, target)
    return by_table(space, LatencyTable.load(name), target, missing)


def _layers(space: Space, of: Callable[[Op, Shape], float]) -> tuple[list[Factor], list[tuple[float, ...]]]:
    """What each layer of ``space`` costs, as a table over its choices, and by candidate."""
    parts, rows = [], []
    for slot in space.slots:
        values = tuple(0.0 if c.off else of(c.op, slot.shape_of(c)) for c in slot.candidates)
        rows.append(values)
        parts.append(Factor(slot.choices, np.array(values)[slot.table]))
    return parts, rows
