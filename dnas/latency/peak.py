"""Costs of which a network has the largest of its layers, not their sum: the memory of feature maps."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from dnas.errors import SpaceError
from dnas.factors import LARGEST_TABLE, Factor, essential, extreme
from dnas.latency.terms import Terms

if TYPE_CHECKING:
    import jax


@dataclasses.dataclass(frozen=True)
class Largest(Terms):
    """``Terms`` whose cost is the largest of its parts: ``constant_ms``, and one cell of each of ``factors``.

    Where every choice is taken by its own probabilities, P(cost <= t) is the sum over networks of p(network) [all parts <= t]:
    the product of the parts' distributions where no two share a choice, and a contraction of their tables in any case. With
    the levels v0 < .. < vm that a cost can have, E[cost] = v0 + sum over k of (v(k+1) - vk) (1 - P(cost <= vk)): exact, a
    polynomial in the probabilities, and the cost itself on one-hot weights.
    """

    @classmethod
    def of(cls, parts: Sequence[Factor], candidates_ms: Sequence[tuple[float, ...]]) -> Largest:
        tables: dict[tuple[str, ...], np.ndarray] = {}
        for part in map(essential, parts):
            tables[part.names] = np.maximum(tables.get(part.names, -math.inf), part.values)
        constant = float(tables.pop((), np.array(-math.inf)))
        factors = tuple(Factor(names, values) for names, values in tables.items())
        return cls(constant, factors, tuple(candidates_ms), parts=tuple(parts))

    def at(self, assignment: Mapping[str, int]) -> float:
        return max([self.constant_ms, *(float(f.at(assignment)) for f in self.factors)])

    def extreme(self, sign: int) -> tuple[float, dict[str, int]]:
        tables = [*self.factors, Factor((), np.array(self.constant_ms))]
        _, assignment = extreme(tables, sign, np.maximum if sign == 1 else np.minimum)
        return self.at(assignment), assignment

    def mean(self, chances: Mapping[str, np.ndarray]) -> float:
        from opt_einsum import contract

        return float(self._expected(chances, contract))

    def expected(self, weights: Mapping[str, Any]) -> jax.Array:
        import jax.numpy as jnp

        # GPUs and TPUs would round the factors of a product to 10 or 7 bits
        return jnp.asarray(self._expected(weights, partial(jnp.einsum, precision="highest", optimize="auto")))

    def above(self, target: float) -> list[Factor]:
        """What a network of at most ``target`` may not choose: tables of 0 where it may and -inf where not."""
        tables = [Factor(f.names, np.where(f.values > target, -math.inf, 0.0)) for f in self.factors]
        return [t for t in tables if (t.values < 0).any()]

    @cached_property
    def _levels(self) -> np.ndarray:
        """All costs that a network can have, from the least; some of those between may be no network's."""
        least = self.extreme(1)[0]
        values = np.unique(np.concatenate([[least], *(f.values.ravel() for f in self.factors)]))
        return values[values >= least]

    @cached_property
    def _within(self) -> list[tuple[tuple[str, ...], np.ndarray]]:
        """Of each table that matters, [level, options..]: whether a cell is at most that level (all but the highest)."""
        levels = self._levels[:-1]
        if len(levels) * sum(f.values.size for f in self.factors) > LARGEST_TABLE:
            most = max(f.values.size for f in self.factors)
            raise SpaceError(
                f"a peak with {len(levels)} levels over layers of up to {most} combinations of options: its expectation is too "
                "large to be computed; expected fewer choices in one layer"
            )
        tables = [(f.names, f.values <= levels.reshape(-1, *[1] * f.values.ndim)) for f in self.factors]
        return [(names, within) for names, within in tables if not within.all()]

    def _expected(self, weights: Mapping[str, Any], contract: Callable[..., Any]) -> Any:
        if not self._within:
            return np.asarray(self._levels[0], next(iter(weights.values())).dtype)
        kind = weights[self._within[0][0][0]].dtype
        steps = np.diff(self._levels).astype(kind)
        chance = reduce(operator.mul, (self._chance(group, weights, contract) for group in _connected(self._within)))
        return self._levels[0].astype(kind) + (steps * (1 - chance)).sum(-1)

    def _chance(self, group: Sequence[tuple[tuple[str, ...], np.ndarray]], weights: Mapping[str, Any], contract: Any) -> Any:
        """P(no part of ``group`` is above each level), [levels]."""
        axes: dict[str, int] = {}
        operands: list[Any] = []
        for names, within in group:
            operands += [within.astype(weights[names[0]].dtype), [0, *(axes.setdefault(n, len(axes) + 1) for n in names)]]
        for name, axis in axes.items():
            operands += [weights[name], [axis]]
        return contract(*operands, [0])


def _connected(tables: Sequence[tuple[tuple[str, ...], np.ndarray]]) -> list[list[tuple[tuple[str, ...], np.ndarray]]]:
    """``tables`` in groups that share no choice."""
    groups: list[tuple[set[str], list[Any]]] = []
    for table in tables:
        names, members = set(table[0]), [table]
        for group in [g for g in groups if g[0] & names]:
            groups.remove(group)
            names, members = names | group[0], [*group[1], *members]
        groups.append((names, members))
    return [members for _, members in groups]
