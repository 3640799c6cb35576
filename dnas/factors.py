"""Sums of small tables over named choices: exact minimum, maximum and counts by variable elimination."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dnas.errors import SpaceError

LARGEST_TABLE = 20_000_000


class Factor(NamedTuple):
    """A table over choices: ``values[i, j, ...]`` belongs to option i of ``names[0]``, j of ``names[1]``, ..."""

    names: tuple[str, ...]
    values: np.ndarray

    def at(self, assignment: Mapping[str, int]) -> Any:
        return self.values[tuple(assignment[n] for n in self.names)]


def essential(factor: Factor) -> Factor:
    """``factor`` without the choices that make no difference to it."""
    names, values = list(factor.names), factor.values
    for axis in reversed(range(len(names))):
        if (values == values.take([0], axis)).all():
            values = values.take(0, axis)
            del names[axis]
    return Factor(tuple(names), values)


def extreme(factors: Sequence[Factor], sign: int, combine: Callable[..., Any] = operator.add) -> tuple[float, dict[str, int]]:
    """Smallest (``sign`` 1) or largest (-1) sum of the factors, exactly, and the options that give it. ``combine``: what stands
    in for the sum of two signed tables, such as ``np.maximum``."""
    signed = [Factor(f.names, sign * np.asarray(f.values, float)) for f in factors]
    steps: list[tuple[str, Factor]] = []

    def smallest(name: str, joint: Factor) -> Factor:
        steps.append((name, joint))
        return Factor(joint.names[1:], np.asarray(joint.values.min(axis=0)))

    total = _eliminate(signed, combine, smallest)
    assignment: dict[str, int] = {}
    for name, joint in reversed(steps):
        rest = (slice(None), *(assignment[n] for n in joint.names[1:]))
        assignment[name] = int(np.argmin(joint.values[rest]))
    return sign * float(total), assignment


def count(factors: Sequence[Factor]) -> int:
    """Number of assignments for which all factors (arrays of 0 and 1) are 1, as an exact integer."""
    exact = [Factor(f.names, np.asarray(f.values).astype(object)) for f in factors]

    def add_up(name: str, joint: Factor) -> Factor:
        return Factor(joint.names[1:], np.asarray(joint.values.sum(axis=0), object))

    return int(_eliminate(exact, operator.mul, add_up))


def _eliminate(factors: list[Factor], combine: Callable[..., Any], remove: Callable[[str, Factor], Factor]) -> float | int:
    """Remove one choice after another, the one with the smallest joint table first."""
    sizes = {n: f.values.shape[i] for f in factors for i, n in enumerate(f.names)}
    while sizes:
        scopes = {n: {m for f in factors if n in f.names for m in f.names} for n in sizes}
        name = min(sizes, key=lambda n: math.prod(sizes[m] for m in scopes[n]))
        order = (name, *sorted(scopes[name] - {name}))
        if math.prod(sizes[m] for m in order) > LARGEST_TABLE:
            raise SpaceError(
                f"choices {', '.join(order[:6])}, ... are coupled too tightly to be searched exactly; "
                "give them names of their own, or fewer options"
            )
        inside = [f for f in factors if name in f.names]
        joint: Any = None
        for factor in inside:
            values = aligned(factor, order)
            joint = values if joint is None else combine(joint, values)
        joint = np.broadcast_to(joint, [sizes[m] for m in order])
        factors = [f for f in factors if name not in f.names] + [remove(name, Factor(order, joint))]
        del sizes[name]
    total: Any = None
    for factor in factors:
        total = factor.values[()] if total is None else combine(total, factor.values[()])
    return total


def aligned(factor: Factor, order: tuple[str, ...]) -> np.ndarray:
    """The factor's values with one axis for each choice of ``order``, of length 1 where it does not depend on the choice."""
    axes = sorted(range(len(factor.names)), key=lambda i: order.index(factor.names[i]))
    values = factor.values.transpose(axes)
    shape = iter(values.shape)
    return values.reshape([next(shape) if n in factor.names else 1 for n in order])
