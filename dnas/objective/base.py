"""The contract of an objective: from what an architecture step has seen to the gradient of the logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    follow_argmax: bool = False  # the network that would be derived is the likeliest


class Seen(NamedTuple):
    """One architecture step. ``task``: cross-entropy, f32[]; ``drawn_ms``: latency of the drawn gates, f32[]; ``d_``: their
    gradients in the logits."""

    task: jax.Array
    drawn_ms: jax.Array
    d_task: Logits
    d_drawn: Logits


class Pull(NamedTuple):
    """What is minimised, f32[], and the factors of the gradients in ``Seen``."""

    loss: jax.Array
    task: jax.Array
    drawn: jax.Array


Price = Callable[[Mapping[str, jax.Array]], jax.Array]  # weights of every option -> each cost by its target, f32[costs]


class Objective(NamedTuple):
    """``init()``: what it remembers, a pytree. ``pull(memory, seen)``: factors, and the memory after the step.

    An objective that holds costs to their targets has three more. ``hold(memory, logits, price)``: logits after the optimiser
    to logits that keep the targets, and the memory. ``follow(memory, derived)``: the memory, once the network that would be
    derived now is known; its costs by their targets, f32[costs]. ``multipliers(memory)``: the log-odds
    that an option has lost so far for each cost, in nats for a cost as large as the target, f32[costs].
    """

    init: Callable[[], Any]
    pull: Callable[[Any, Seen], tuple[Pull, Any]]
    hold: Callable[[Any, Logits, Price], tuple[Logits, Any]] | None = None
    follow: Callable[[Any, jax.Array], Any] | None = None
    multipliers: Callable[[Any], jax.Array] | None = None


class Form(NamedTuple):
    """An objective by name: whether it has a target, how many costs it can hold to theirs, and how it is made."""

    name: str
    has_target: bool
    several: bool
    make: Callable[[Settings], Objective]


class Averages(NamedTuple):
    """Averaged gradients in the logits, of the task and of the costs, as the objective weighs them; where it holds the costs
    itself, the averaged moves of the logits by the optimiser and by it."""

    task: Logits
    costs: Logits

    def share(self) -> jax.Array:
        """The part that comes from the costs: |costs| / (|costs| + |task|), f32[]."""
        costs, task = optax.tree.norm(self.costs), optax.tree.norm(self.task)
        return costs / jnp.maximum(costs + task, 1e-30)

    def after(self, task: Logits, costs: Logits) -> Averages:
        """With one more of each."""
        new = Averages(task, costs)
        return jax.tree.map(lambda o, n: MEMORY * o + (1 - MEMORY) * n, self, new)


class Total(NamedTuple):
    """What ``State.objective_state`` holds: the objective's memory, and the averages."""

    memory: Any
    averages: Averages


def begin(objective: Objective, logits: Logits) -> Total:
    """Before the first architecture step."""
    task, costs = (jax.tree.map(jnp.zeros_like, logits) for _ in range(2))  # a buffer each: states are donated
    return Total(objective.init(), Averages(task, costs))


def combine(objective: Objective, state: Total, seen: Seen) -> tuple[jax.Array, Logits, Total]:
    """Loss and gradient of the logits of one architecture step, and the state after it."""
    pull, memory = objective.pull(state.memory, seen)
    task, costs = (jax.tree.map(lambda g, f=f: f * g, d) for f, d in ((pull.task, seen.d_task), (pull.drawn, seen.d_drawn)))
    averages = state.averages if objective.hold else state.averages.after(task, costs)
    return pull.loss, jax.tree.map(jnp.add, task, costs), Total(memory, averages)


def hold(objective: Objective, state: Total, before: Logits, after: Logits, price: Price) -> tuple[Logits, Total]:
    """The logits that an architecture step ends with, ``before`` it and ``after`` the optimiser, and the state after it."""
    if objective.hold is None:
        return after, state
    held, memory = objective.hold(state.memory, after, price)
    moves = (jax.tree.map(jnp.subtract, *two) for two in ((after, before), (held, after)))
    return held, Total(memory, state.averages.after(*moves))
