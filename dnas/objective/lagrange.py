"""A target and no coefficient: the multiplier of each cost is found while the search runs.

For cost k with expectation E_k under softmax(theta) and target T_k, the violation is g_k = (E_k - T_k) / T_k. An architecture
step takes the optimiser's step for the task alone, and then moves theta to the minimum over theta' of

    KL(softmax(theta') || softmax(theta)) + sum over k of rho / 2 * g_k(theta')^2:

the smallest change of the distribution that keeps the target, with an augmented quadratic term in the place of equality. The
minimum lies at theta' = theta - sum of mu_k * t_k, with t_k = dE_k / dp by T_k (what each option adds to cost k) and
mu_k = rho * g_k(theta'), one number for each cost, found by bisection. The multiplier lambda_k <- lambda_k + mu_k is then the
method of multipliers', and all that the costs have done to theta is -sum of lambda_k * t_k: theta + lambda_k * t_k is what the
task alone has gathered, from which derivation chooses. lambda is in nats: the log-odds that an option loses for a cost of 1 T.

Why not a gradient: Adam scales it by what came before, its momentum carries theta past the target, and the gradient of E in
theta vanishes with p where theta has decided; a search whose first steps overshoot does not come back. A move along t does not
vanish. The expectation is exact: latencies of drawn gates lag behind theta while the temperature is high.

lambda stays 0 until the first architecture step. Against winding up, it stays where it is if a move would change nothing, where
theta can give no more, and within 10,000.
Of several costs, targets are bounds, and lambda_k is at least 0. With one, lambda falls below 0 where the task alone would end
below the target: latency that is left over is accuracy given away, and with supernet weights the small network is often ahead
only because its weights learn sooner (TuNAS, arXiv:2008.06120, has an absolute value for this).

In the last fifth of the architecture steps the constraint follows the network that would be derived now. Where that is the
likeliest one, g_k is taken of it. Within a budget it is below the target already, by up to 2 % and by whatever the table leaves
over: its cost then takes the place of T_k, but no less than 99 % of T_k, so that the mixture ends where the network is.

Augmented Lagrangian: Bertsekas, "Constrained Optimization and Lagrange Multiplier Methods", 1982.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dnas import gates
from dnas.gates import Logits
from dnas.objective.base import Form, Objective, Price, Pull, Seen, Settings

QUADRATIC = 1e4  # rho: a step that moves lambda by 10 leaves 0.1 % of the target
LARGEST = 1e4  # of |lambda|
LATE = 0.8  # share of the architecture steps after which the derived network is followed
LEAST = 0.99  # of the target, that is followed
ROUNDS = 8  # over several costs
HALVINGS = 40


class Memory(NamedTuple):
    multiplier: jax.Array  # f32[costs], lambda
    derived: jax.Array  # f32[costs], of the network that would be derived, by target; 1 while it is not known
    steps: jax.Array  # i32[], architecture steps so far


def lagrange(settings: Settings) -> Objective:
    """One multiplier for each of ``settings.targets``; nothing moves before the first architecture step."""
    costs = len(settings.targets)
    lowest = 0.0 if costs > 1 else -LARGEST

    def init() -> Memory:
        return Memory(jnp.zeros(costs), jnp.ones(costs), jnp.zeros((), jnp.int32))

    def pull(memory: Memory, seen: Seen) -> tuple[Pull, Memory]:
        return Pull(seen.task, jnp.float32(1), jnp.float32(0)), memory

    def hold(memory: Memory, logits: Logits, price: Price) -> tuple[Logits, Memory]:
        late = memory.steps >= LATE * settings.steps
        wanted = jnp.where(late, jnp.clip(memory.derived, LEAST, 1), 1)
        slopes = {n: t - t.mean(-1, keepdims=True) for n, t in jax.jacrev(price)(gates.softmax(logits).weights).items()}

        def moved(by: jax.Array) -> Logits:
            return {n: v - (by[:, None] * slopes[n]).sum(0) for n, v in logits.items()}

        def violation(by: jax.Array) -> jax.Array:
            found = price(gates.softmax(moved(by)).weights) - wanted
            if settings.follow_argmax:
                picked = {n: jax.nn.one_hot(i, logits[n].shape[0]) for n, i in gates.argmax(moved(by)).items()}
                found = jnp.where(late, price(picked) - 1, found)
            return found

        def one(k: int, by: jax.Array) -> jax.Array:
            def excess(x: jax.Array) -> jax.Array:
                return QUADRATIC * violation(by.at[k].set(x))[k] - x

            found = by.at[k].set(_root(excess, lowest - memory.multiplier[k], LARGEST - memory.multiplier[k]))
            return jnp.where(violation(found)[k] == violation(by)[k], by, found)

        def round_(_: int, by: jax.Array) -> jax.Array:
            for k in range(costs):
                by = one(k, by)
            return by

        by = jax.lax.fori_loop(0, ROUNDS if costs > 1 else 1, round_, jnp.zeros(costs))
        return moved(by), memory._replace(multiplier=memory.multiplier + by, steps=memory.steps + 1)

    def follow(memory: Memory, derived: jax.Array) -> Memory:
        return memory._replace(derived=derived)

    return Objective(init, pull, hold, follow, lambda memory: memory.multiplier)


def _root(falling: Callable[[jax.Array], jax.Array], low: jax.Array, high: jax.Array) -> jax.Array:
    """Where ``falling`` is 0, from above; the nearer end where it is nowhere."""

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        middle = (ends[0] + ends[1]) / 2
        before = falling(middle) > 0
        return jnp.where(before, middle, ends[0]), jnp.where(before, ends[1], middle)

    return jnp.where(falling(low) <= 0, low, jax.lax.fori_loop(0, HALVINGS, halve, (low, high))[1])


LAGRANGE = Form("lagrange", True, True, lagrange)
