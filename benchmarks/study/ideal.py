"""Search methods on the true accuracies: what they would find if the supernet were a perfect proxy.

With product probabilities p_1, ..., p_8 the expected accuracy of a network drawn from them is the multilinear form

    E[accuracy] = sum over codes of accuracy(code) * p_1[code_1] * ... * p_8[code_8],

exact, differentiable, and equal to the table on one-hot gates. It takes the place of the supernet's loss; gates, latency,
multiplier and derivation are those of the toolkit. So only what a method does with its gradients is measured, not the noise of
shared weights: a bound from above on what the same method can find with a supernet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dnas import derive, gates
from dnas.gates import Gates, Logits
from dnas.latency import LatencyTable
from dnas.latency.terms import Terms, latency_ms, price
from dnas.objective import Seen, Settings, begin, combine, hold, objective
from dnas.oracle import Oracle

Draw = Callable[[jax.Array, Logits, Any], Gates]  # key, logits, temperature
DRAWS: dict[str, Draw] = {
    "softmax": lambda key, logits, temperature: gates.softmax(logits),
    "gumbel": gates.gumbel_softmax,
    "straight-through": gates.straight_through,
}


class Setting(NamedTuple):
    """Steps of Adam, its learning rate (linear to a tenth over the last fifth), temperatures from and to (exponential)."""

    steps: int = 300
    lr: float = 0.05
    hot: float = 5.0
    cold: float = 0.1


class Problem(NamedTuple):
    """``accuracy``: f32[options, ...], percent, one axis per choice; ``costs``: f64[codes], ms."""

    oracle: Oracle
    table: LatencyTable
    terms: Terms
    accuracy: jax.Array
    costs: np.ndarray
    target_ms: float

    @classmethod
    def of(cls, oracle: Oracle, table: LatencyTable, share: float) -> Problem:
        """``share``: where the target lies between the fastest (0) and the slowest (1) network."""
        costs = oracle.costs(table)
        target = float(costs.min() + share * (costs.max() - costs.min()))
        sizes = [len(c.options) for c in oracle.space.choices.values()]
        accuracy = jnp.asarray(oracle.accuracies.reshape(sizes), jnp.float32)
        return cls(oracle, table, price(oracle.space, table, None), accuracy, costs, target)

    @property
    def best(self) -> float:
        return float(self.oracle.accuracies[self.costs <= self.target_ms].max())

    def regret(self, genotype: tuple[int, ...]) -> float:
        """Percentage points behind the best network within the target. Errors: ConfigError where it is over the target."""
        return self.oracle.regret(genotype, self.target_ms, self.table)


def expected(accuracy: jax.Array, weights: dict[str, jax.Array]) -> jax.Array:
    """The multilinear form: ``accuracy`` contracted with the weights of each choice, in order."""
    value = accuracy
    for weight in weights.values():
        value = jnp.tensordot(weight, value, axes=1)
    return value


class Found(NamedTuple):
    """Of one search: logits f64[options] of each choice, and the multiplier per ms that they were trained against."""

    logits: Sequence[np.ndarray]
    multiplier: float


def search(problem: Problem, draw: Draw, seeds: int, setting: Setting | None = None) -> list[Found]:
    """Adam on (100 - E[accuracy]) / 100 with the objective ``lagrange``, whose target is the problem's."""
    setting = setting or Setting()
    space, target = problem.oracle.space, problem.target_ms
    goal = objective("lagrange").make(Settings((target,), steps=setting.steps))
    rate = optax.linear_schedule(setting.lr, setting.lr / 10, setting.steps // 5, setting.steps * 4 // 5)
    optimiser = optax.adam(rate)

    def task(logits: Logits, key: jax.Array, temperature: jax.Array) -> jax.Array:
        return 1 - expected(problem.accuracy, draw(key, logits, temperature).weights) / 100

    def of_target(weights: Any) -> jax.Array:
        return latency_ms(problem.terms, weights)[None] / target

    def step(carry: Any, at: Any) -> Any:
        logits, memory, state = carry
        loss, d_task = jax.value_and_grad(task)(logits, *at)
        _, total, state = combine(goal, state, Seen(loss, jnp.zeros(()), d_task, jax.tree.map(jnp.zeros_like, logits)))
        updates, memory = optimiser.update(total, memory)
        held, state = hold(goal, state, logits, optax.apply_updates(logits, updates), of_target)
        return (held, memory, state), None

    temperatures = jnp.geomspace(setting.hot, setting.cold, setting.steps)

    def one(key: jax.Array) -> tuple[Logits, jax.Array]:
        logits = gates.zeros(space)
        carry = (logits, optimiser.init(logits), begin(goal, logits))
        (logits, _, state), _ = jax.lax.scan(step, carry, (jax.random.split(key, setting.steps), temperatures))
        assert goal.multipliers is not None
        return logits, goal.multipliers(state.memory)[0]

    logits, multipliers = jax.device_get(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), seeds)))
    every = np.stack([np.asarray(logits[n], np.float64) for n in space.choices], axis=1)
    return [Found(list(v), float(m) / target) for v, m in zip(every, multipliers, strict=True)]


def derived(problem: Problem, found: Found, best_of: int = 1) -> tuple[int, ...]:
    """As ``--derive budget``: of the ``best_of`` most probable networks within the target, the one that did best in its first
    training (the search command: on the selection images)."""
    space, runs = problem.oracle.space, problem.oracle.runs
    named = dict(zip(space.choices, found.logits, strict=True))
    limit = derive.Limit(problem.terms, problem.target_ms, found.multiplier, "latency")
    likely = derive.shortlist(space, named, [limit], best_of).genotypes
    return max(likely, key=lambda g: runs[np.ravel_multi_index(g, problem.accuracy.shape), 0])


def likeliest(problem: Problem, found: Found) -> tuple[int, ...]:
    """The likeliest option of every choice, whatever it costs."""
    return derive.argmax_genotype(problem.oracle.space, dict(zip(problem.oracle.space.choices, found.logits, strict=True)))
