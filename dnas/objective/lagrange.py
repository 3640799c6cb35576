"""A target and no coefficient: the multiplier of each cost is found while the search runs.

For cost k with expectation E_k under softmax(theta) and target T_k, the violation is g_k = (E_k - T_k) / T_k. The loss is

    CE + s_k * [max(0, lambda_k + rho * g_k)^2 - lambda_k^2] / (2 rho),

the augmented Lagrangian of an inequality, with lambda_k <- clip(lambda_k + eta * clip(g_k, -0.2, 0.2), 0, 100) after each
architecture step. The unit s_k is the ratio of the averaged gradients of CE and of g_k: lambda_k = 1 pulls as much as the task
does, whatever the size of the task's loss, so that rho and eta need no tuning. The gradient is divided by 1 + the sum of the
factors max(0, lambda_k + rho * g_k): Adam would remember the size of the first large violations, and barely move for the task
after them. Both clips are against winding up: lambda stays
where latency outweighs everything, and a search that begins far from its target does not learn that distance as a multiplier.
The expectation is exact: latencies of drawn gates lag behind theta while the temperature is high.

Where the network that will be derived is the likeliest one, g_k is taken of it in the last fifth of the architecture steps
(its gradient is that of E_k). Within a budget derivation itself keeps the target, and g_k stays the expectation's.

Augmented Lagrangian: Bertsekas, "Constrained Optimization and Lagrange Multiplier Methods", 1982; proportional and integral
parts of such a multiplier: Stooke et al. 2020, arXiv:2007.03964.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dnas.objective.base import Averages, Form, Objective, Pull, Seen, Settings

PROPORTIONAL = 50.0  # rho
INTEGRAL = 50.0  # eta times the architecture steps of the search
LARGEST = 100.0
FARTHEST = 0.2
LATE = 0.8  # share of the architecture steps after which the derived network is followed


class Memory(NamedTuple):
    multiplier: jax.Array  # f32[costs], lambda
    unit: jax.Array  # f32[costs], s
    steps: jax.Array  # i32[], architecture steps so far


def lagrange(settings: Settings) -> Objective:
    """One multiplier for each of ``settings.targets``; nothing moves before the first architecture step."""
    targets = jnp.asarray(settings.targets, jnp.float32)
    eta = INTEGRAL / max(settings.steps, 1)

    def init() -> Memory:
        return Memory(jnp.zeros(len(settings.targets)), jnp.zeros(len(settings.targets)), jnp.zeros((), jnp.int32))

    def pull(memory: Memory, seen: Seen, averages: Averages) -> tuple[Pull, Memory]:
        violation = seen.expected / targets - 1
        if settings.follow_argmax:
            late = memory.steps >= LATE * settings.steps
            violation = jnp.where(late, seen.likeliest / targets - 1, violation)
        task = optax.tree.norm(averages.task)
        unit = jnp.stack([task / jnp.maximum(optax.tree.norm(c), 1e-12) for c in averages.costs])
        effective = jax.nn.relu(memory.multiplier + PROPORTIONAL * violation)
        loss = seen.task + (unit * (effective**2 - memory.multiplier**2)).sum() / (2 * PROPORTIONAL)
        step = eta * jnp.clip(violation, -FARTHEST, FARTHEST)
        after = Memory(jnp.clip(memory.multiplier + step, 0, LARGEST), unit, memory.steps + 1)
        share = 1 / (1 + effective.sum())
        return Pull(loss, share, jnp.float32(0), share * unit * effective), after

    return Objective(init, pull, lambda memory: memory.multiplier * memory.unit)


LAGRANGE = Form("lagrange", True, True, lagrange)
