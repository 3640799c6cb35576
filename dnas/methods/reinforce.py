"""REINFORCE: theta is a policy that is paid for accuracy and latency of the networks it draws (TuNAS, Bender et al. 2020,
arXiv:2008.06120; Williams 1992).

The gradient of the expected loss is (loss - b) * d log p(network) / d theta, with p = softmax(theta) over the choices that the
network leaves on, and b the moving average of the losses before. The loss is minus the reward: an objective in which the error
rate on an architecture batch stands for the task; with ``absolute`` and strength 0.1 the reward is TuNAS's
accuracy - 0.1 * |LAT / T - 1|.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dnas import gates
from dnas.choices import Width
from dnas.config import SearchConfig
from dnas.gates import Logits
from dnas.masked import masked_update
from dnas.methods.base import Draw, Form, Method, drawn
from dnas.methods.selection import Evaluate, Outcome, Problem, Proposals, drive, limits_of
from dnas.methods.structure import first_path, switched_on, whole
from dnas.objective import Seen, Settings, combine
from dnas.objective import begin as begin_objective
from dnas.objective import objective as objectives
from dnas.space import Space

if TYPE_CHECKING:
    from dnas.derive.within import Costs

MEMORY = 0.95  # of the baseline, per architecture step


class Baseline(NamedTuple):
    mean: jax.Array  # f32[]
    seen: jax.Array  # f32[], losses so far


def begin(*_: Any) -> Baseline:
    return Baseline(jnp.zeros(()), jnp.zeros(()))


def gradient(memory: Baseline, loss: jax.Array, logits: Logits, draw: Draw) -> tuple[Logits, Baseline]:
    """(loss - baseline) * d log p / d theta; the first loss of all is its own baseline."""
    assert draw.moves is not None and draw.gates.active is not None
    mean = jnp.where(memory.seen == 0, loss, memory.mean)
    found = {}
    for name, values in logits.items():
        slope = jax.nn.one_hot(draw.gates.active[name][0], values.shape[0], dtype=values.dtype) - jax.nn.softmax(values)
        found[name] = jnp.where(draw.moves[name], (loss - mean) * slope, 0)
    return found, Baseline(MEMORY * mean + (1 - MEMORY) * loss, memory.seen + 1)


def search(
    space: Space,
    evaluate: Evaluate,
    lut: Costs,
    *,
    target_ms: float,
    budget: int = 1000,
    objective: str = "absolute",
    strength: float = 0.1,
    lr: float = 0.05,
    seed: int = 0,
    missing: str | None = None,
) -> Outcome:
    """Train the policy on ``evaluate(genotype)``, an accuracy from 0 to 1, until ``budget`` different networks were evaluated.

    Arguments as in ``dnas.methods.evolution.search``; ``objective``, ``strength``: of the reward; ``lr``: Adam's (beta_1 = 0).
    The policy may draw networks above the target; the best one that keeps it is returned, or a ConfigError where there is
    none. It ends early where it draws nothing new.
    """
    problem = Problem(space, limits_of(space, lut, target_ms, missing), np.random.default_rng(seed))
    made = objectives(objective).make(Settings((float(target_ms),), strength))
    method = make(space, SearchConfig(method="reinforce"))
    optimiser = optax.adam(lr, b1=0.0)
    nothing = {n: jnp.zeros(len(c.options)) for n, c in space.choices.items()}
    assert method.theta is not None
    draw: Any = jax.jit(method.theta)

    @jax.jit
    def learn(logits: Logits, opt: Any, memory: Baseline, drawn: Draw, task: Any, ms: Any) -> Any:
        seen = Seen(task, ms, nothing, nothing)
        loss, _, _ = combine(made, begin_objective(made, nothing), seen)
        slope, memory = gradient(memory, loss, logits, drawn)
        return *masked_update(optimiser, slope, opt, logits, drawn.moves), memory

    def proposals() -> Proposals:
        logits, opt, memory = nothing, optimiser.init(nothing), begin()
        for number in itertools.count():
            drawn = draw(jax.random.fold_in(jax.random.key(seed), number), logits, jnp.float32(1))
            genotype = tuple(int(v[0]) for v in jax.device_get(drawn.gates.active).values())
            value = yield space.canonical(genotype)
            ms = jnp.float32(problem.costs(genotype)[0])
            logits, opt, memory = learn(logits, opt, memory, drawn, jnp.float32(1 - value), ms)

    return drive(problem, proposals(), evaluate, budget)


def make(space: Space, config: SearchConfig) -> Method:
    on = switched_on(space)
    widest = {n: int(np.argmax(c.options)) if isinstance(c, Width) else None for n, c in space.choices.items()}

    def draw(key: jax.Array, logits: Logits, temperature: jax.Array) -> Draw:
        found = gates.sample(key, logits)
        assert found.active is not None
        return Draw(found, found.weights, whole(on(first_path(found.active)), space))

    def everything(key: jax.Array, logits: Logits, temperature: jax.Array) -> gates.Gates:
        """All candidates, weighed alike; of a width all channels: the warm-up of ops and that of filters."""
        alike = gates.softmax({n: jnp.zeros_like(v) for n, v in logits.items()}).weights
        return gates.Gates({n: alike[n] if i is None else jax.nn.one_hot(i, len(alike[n])) for n, i in widest.items()})

    return Method(draw, draw, warm=drawn(everything), score=gradient, init=begin)


REINFORCE = Form("reinforce", make)
