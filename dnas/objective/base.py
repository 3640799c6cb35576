"""The contract of an objective: from what an architecture step has seen to the gradient of the logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dnas.gates import Logits

MEMORY = 0.9  # of the averaged gradients, per step


class Settings(NamedTuple):
    """What the resolved configuration says to an objective. ``targets``: one for each cost, in its unit; the first in ms."""

    targets: tuple[float, ...]
    strength: float = 4.0
    alpha: float = 0.2
    beta: float = 0.6
    reference_ms: float | None = None
    steps: int = 100  # architecture steps of the whole search
    follow_argmax: bool = False  # the network that would be derived is the likeliest, which may miss the target


class Seen(NamedTuple):
    """One architecture step. ``task``: cross-entropy, f32[]; ``drawn_ms``: latency of the drawn gates, f32[]; ``expected`` and
    ``likeliest``: each cost under softmax(theta), and of the likeliest network, f32[costs]; ``d_``: gradients in the logits, of
    ``expected`` as fractions of the target."""

    task: jax.Array
    drawn_ms: jax.Array
    expected: jax.Array
    likeliest: jax.Array
    d_task: Logits
    d_drawn: Logits
    d_expected: tuple[Logits, ...]


class Pull(NamedTuple):
    """What is minimised, f32[], and the factors of the gradients in ``Seen``."""

    loss: jax.Array
    task: jax.Array
    drawn: jax.Array
    expected: jax.Array  # f32[costs]


class Objective(NamedTuple):
    """``init()``: what it remembers, a pytree. ``pull(memory, seen, averages)``: factors, and the memory after the step.
    ``multipliers(memory)``: what a fraction 1 above each target costs now, f32[costs]; None where there are none."""

    init: Callable[[], Any]
    pull: Callable[[Any, Seen, Averages], tuple[Pull, Any]]
    multipliers: Callable[[Any], jax.Array] | None = None


class Form(NamedTuple):
    """An objective by name: whether it has a target, how many costs it can hold to theirs, and how it is made."""

    name: str
    has_target: bool
    several: bool
    make: Callable[[Settings], Objective]


class Averages(NamedTuple):
    """Averaged gradients in the logits: of task and of each cost, and of both as the objective weighs them."""

    task: Logits
    costs: tuple[Logits, ...]
    weighed_task: Logits
    weighed_costs: Logits

    def share(self) -> jax.Array:
        """Of theta's gradient, the part that comes from the costs: |costs| / (|costs| + |task|), f32[]."""
        costs, task = optax.tree.norm(self.weighed_costs), optax.tree.norm(self.weighed_task)
        return costs / jnp.maximum(costs + task, 1e-30)


class Total(NamedTuple):
    """What ``State.objective_state`` holds: the objective's memory, and the averaged gradients."""

    memory: Any
    averages: Averages


def begin(objective: Objective, logits: Logits, costs: int) -> Total:
    """Before the first architecture step."""
    zeros = [jax.tree.map(jnp.zeros_like, logits) for _ in range(costs + 3)]  # a buffer each: states are donated
    return Total(objective.init(), Averages(zeros[0], tuple(zeros[3:]), zeros[1], zeros[2]))


def combine(objective: Objective, state: Total, seen: Seen) -> tuple[jax.Array, Logits, Total]:
    """Loss, gradient of the logits, and state after one architecture step."""

    def average(old: Logits, new: Logits) -> Logits:
        return jax.tree.map(lambda o, n: MEMORY * o + (1 - MEMORY) * n, old, new)

    averages = state.averages._replace(
        task=average(state.averages.task, seen.d_task),
        costs=tuple(average(o, n) for o, n in zip(state.averages.costs, seen.d_expected, strict=True)),
    )
    pull, memory = objective.pull(state.memory, seen, averages)
    costs = jax.tree.map(lambda drawn: pull.drawn * drawn, seen.d_drawn)
    for factor, gradient in zip(pull.expected, seen.d_expected, strict=True):
        costs = jax.tree.map(lambda c, g, factor=factor: c + factor * g, costs, gradient)
    task = jax.tree.map(lambda t: pull.task * t, seen.d_task)
    averages = averages._replace(
        weighed_task=average(averages.weighed_task, task), weighed_costs=average(averages.weighed_costs, costs)
    )
    return pull.loss, jax.tree.map(jnp.add, task, costs), Total(memory, averages)
