"""The latency of a space as a function of gates: a constant and one small table per layer, weighted by the gates."""

from __future__ import annotations

import dataclasses
import math
import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dnas.factors import Factor, extreme
from dnas.ops import SkipOp

if TYPE_CHECKING:
    import jax

    from dnas.gates import Gates
    from dnas.latency.table import LatencyTable
    from dnas.space import Space


@dataclasses.dataclass(frozen=True)
class Terms:
    """E[latency] = constant + sum over terms of sum over options of ms * product of their weights.

    ``constant_ms``: table constant and layers without a choice. ``factors``: per set of choices, ms by option indices.
    ``candidates_ms``: per slot, the ms of each candidate (for display). ``warnings`` hold for the whole space,
    ``slowest_warnings`` are the table's about its slowest network. ``parts``: what ``constant_ms`` and ``factors`` are sums of,
    one by one, so that the latency of a network is the table's to the last bit.
    """

    constant_ms: float
    factors: tuple[Factor, ...]
    candidates_ms: tuple[tuple[float, ...], ...]
    warnings: tuple[str, ...] = ()
    slowest_warnings: tuple[str, ...] = ()
    parts: tuple[Factor, ...] = dataclasses.field(default=(), repr=False)

    @classmethod
    def of(cls, parts: Sequence[Factor], candidates_ms: Sequence[tuple[float, ...]]) -> Terms:
        """From ``parts``, such as one table per layer, and ``candidates_ms``."""
        return cls(*summed(parts), tuple(candidates_ms), parts=tuple(parts))

    def at(self, assignment: Mapping[str, int]) -> float:
        """Latency in ms of one network, given its option index per choice."""
        parts = self.parts or (Factor((), np.array(self.constant_ms)), *self.factors)
        return math.fsum(float(f.at(assignment)) for f in parts)

    def mean(self, chances: Mapping[str, np.ndarray]) -> float:
        """Expected latency in ms where each choice is taken with its own probabilities, in float64."""
        total = self.constant_ms
        for factor in self.factors:
            part = factor.values
            for name in factor.names:
                part = np.tensordot(chances[name], part, axes=(0, 0))
            total += float(part)
        return total

    def extreme(self, sign: int) -> tuple[float, dict[str, int]]:
        """(ms, assignment) of the fastest (``sign`` 1) or slowest (-1) network, exactly."""
        _, assignment = extreme(self.factors, sign)
        return self.at(assignment), assignment

    def expected(self, weights: Mapping[str, Any]) -> jax.Array:
        """``latency_ms``, for the weights of each choice."""
        import jax.numpy as jnp

        total = jnp.asarray(self.constant_ms)
        for factor in self.factors:
            part = jnp.asarray(factor.values, weights[factor.names[0]].dtype)
            part = _weigh(part, [weights[n] for n in factor.names])
            total = total.astype(part.dtype) + part
        return total


def price(space: Space, lut: LatencyTable, missing: str | None = None) -> Terms:
    """Price every candidate of ``space``. Errors: LatencyError for an op that ``lut`` lacks, as ``missing`` says."""
    parts = [Factor((), np.array(lut.constant_ms))]
    candidates_ms = []
    alike = []
    for slot in space.slots:
        ms = tuple(0.0 if c.off else lut.op_ms(c.op, slot.shape_of(c), missing).ms for c in slot.candidates)
        candidates_ms.append(ms)
        parts.append(Factor(slot.choices, np.array(ms)[slot.table]))
        real = [m for m, c in zip(ms, slot.candidates, strict=True) if not isinstance(c.op, SkipOp)]
        if len(real) > 1 and max(real) < 2 * min(real):
            alike.append(slot)
    terms = Terms.of(parts, candidates_ms)
    picked = terms.extreme(-1)[1]
    slowest = lut.report(space.fix([picked.get(n, 0) for n in space.choices]), missing)
    warnings = []
    if alike:
        names = ", ".join(" ".join(s.choices) for s in alike)
        warnings.append(
            f"In {len(alike)} of {sum(len(s.candidates) > 1 for s in space.slots)} layers ({names}) the candidates other than "
            f"skip differ less than twofold in latency: {lut.name} can hardly tell them apart."
        )
    return dataclasses.replace(terms, warnings=tuple(warnings), slowest_warnings=slowest.warnings)


def summed(parts: Sequence[Factor]) -> tuple[float, tuple[Factor, ...]]:
    """The constant parts as one number, and the others as one factor for each set of choices."""
    tables: dict[tuple[str, ...], np.ndarray] = {}
    for part in parts:
        if part.names:
            tables[part.names] = tables.get(part.names, 0.0) + part.values
    constant = math.fsum(float(p.values) for p in parts if not p.names)
    return constant, tuple(Factor(names, values) for names, values in tables.items())


def latency_ms(terms: Terms, gates: Gates | Mapping[str, Any]) -> jax.Array:
    """Expected latency in ms, f32[] (f32[batch] for per-sample gates): differentiable, exact on one-hot gates."""
    return terms.expected(gates if isinstance(gates, Mapping) else gates.weights)


def _weigh(table: jax.Array, weights: Sequence[jax.Array]) -> jax.Array:
    """sum_ij.. table[i, j, ..] w0[.., i] w1[.., j] .."""
    import jax.numpy as jnp

    axes = string.ascii_letters[: len(weights)]
    operands = ",".join(f"...{a}" for a in axes)
    # GPUs and TPUs would round the factors of a matrix product to 10 or 7 bits
    return jnp.einsum(f"{axes},{operands}->...", table, *weights, precision="highest")
