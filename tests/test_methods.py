"""The contract of all search methods: gates, gradients, latency, planted optima, one trace, and exact resumption."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_search_steps import images

from dnas import derive, gates
from dnas.config import SearchConfig
from dnas.latency.terms import latency_ms
from dnas.methods import METHODS
from dnas.methods.structure import switched_on
from dnas.recipes import TRAITS
from dnas.search import init, prepare, step
from dnas.search.engine import Setup
from dnas.search.programs import Gradients

SPACES = (*tiny.SPACES, tiny.width_space)
DEAR = (tiny.nested_space, tiny.width_space)  # where whole networks are compiled: between them, every kind of choice
ALONE = {"objective": "absolute", "theta_lr": 0.1, "strength": 0.0}  # the task, without latency
GRADIENT = [n for n in METHODS if n in TRAITS and TRAITS[n].objectives]


def cases(fast: set[str], spaces: Sequence[Any] = SPACES) -> list[Any]:
    """Every method on every one of ``spaces``; those of ``fast`` alone in the fast tests."""
    found = []
    for name in GRADIENT:
        for make in spaces:
            label = make.__name__.removesuffix("_space")
            marks = () if label in fast else (pytest.mark.slow,)
            found.append(pytest.param(name, make, id=f"{name}-{label}", marks=marks))
    return found


@lru_cache
def setup_of(name: str, make: Any, **options: Any) -> Setup:
    space = make()
    given = {"epochs": 4, "batch_size": 8, "warm_up": 0.0, "theta_lr_end": 1.0, **options}
    config = SearchConfig(lut="tiny", space="tiny", data="bands", method=name, devices=1, **given)
    return prepare(config, space, tiny.table_for(space), images())


def drawn(setup: Setup, seeds: int = 256, spread: float = 0.5) -> tuple[Any, Any]:
    """Logits, and many draws of an architecture step."""
    keys = jax.random.split(jax.random.key(5), len(setup.space.choices))
    logits = {
        n: spread * jax.random.normal(k, (len(c.options),)) for k, (n, c) in zip(keys, setup.space.choices.items(), strict=True)
    }
    make = setup.method.theta
    assert make is not None
    return logits, jax.jit(jax.vmap(lambda key: make(key, logits, jnp.float32(0.8))))(
        jax.random.split(jax.random.key(0), seeds)
    )


@pytest.mark.parametrize(("name", "make"), cases({"stage"}))
def test_gates_sum_to_one_and_what_runs_is_weighed(name: str, make: Any) -> None:
    setup = setup_of(name, make)
    _, draw = drawn(setup)
    for n, weights in draw.gates.weights.items():
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
        np.testing.assert_allclose(draw.priced[n].sum(-1), 1, rtol=1e-5)
        assert (np.asarray(weights) >= -1e-6).all()
        if draw.gates.active is not None:
            first = np.asarray(draw.gates.active[n])[:, 0]
            np.testing.assert_allclose(np.take_along_axis(np.asarray(weights), first[:, None], 1), 1, rtol=1e-6)
    low, high = setup.terms.extreme(1)[0], setup.terms.extreme(-1)[0]
    ms = np.asarray(jax.jit(jax.vmap(lambda w: latency_ms(setup.terms, w)))(draw.priced))
    assert (low - 1e-5 <= ms).all() and (ms <= high + 1e-5).all() and ms.std() >= 0


def planted(setup: Setup) -> tuple[dict[str, int], Any]:
    """A genotype, and a task loss that is 0 there: the share of choices on which a network differs, as gates weigh it.

    As in the supernet, candidates that did not run give their gates no gradient, nor do choices that are switched off.
    """
    rng = np.random.default_rng(1)
    wanted = {n: int(rng.integers(len(c.options))) for n, c in setup.space.choices.items()}
    wanted |= {n: len(c.options) - 1 for n, c in setup.space.choices.items() if n == "depth" or n == "family"}
    on = switched_on(setup.space)

    def loss(found: gates.Gates) -> jax.Array:
        total = jnp.float32(0)
        here = None if found.active is None else on({n: v[0] for n, v in found.active.items()})
        for n, weights in found.weights.items():
            wrong = 1 - jax.nn.one_hot(wanted[n], weights.shape[0])
            if here is None or found.active is None:
                total += (weights * wrong).sum()
                continue
            ran = jnp.zeros(weights.shape, bool).at[found.active[n]].set(True)
            total += jnp.where(here[n], (jnp.where(ran, weights, jax.lax.stop_gradient(weights)) * wrong).sum(), 0)
        return total / len(wanted)

    return wanted, loss


def pretend(setup: Setup, loss: Any) -> Any:
    """The engine's gradient program with ``loss`` in the network's place."""
    make = setup.method.theta

    def gradients(params: Any, stats: Any, logits: Any, key: Any, count: Any, temperature: Any, *_: Any) -> Gradients:
        def value(logits: Any) -> Any:
            draw = make(jax.random.fold_in(jax.random.wrap_key_data(key), count), logits, temperature)
            return loss(draw.gates), (latency_ms(setup.terms, draw.priced), draw)

        (task, (ms, draw)), slope = jax.value_and_grad(value, has_aux=True)(logits)
        by_ms = jax.grad(lambda v: value(v)[1][0])(logits)
        return Gradients(task, 100 * (1 - task), jnp.float32(100), ms, None, slope, by_ms, None, None, draw.moves)

    return gradients


def follow(setup: Setup, loss: Any, steps: int) -> Any:
    """Logits after ``steps`` architecture steps of the real update, temperature falling as it does."""
    compute = pretend(setup, loss)
    start, end = setup.config.temperature_start or 1.0, max(setup.config.temperature_end or 1.0, 0.3)

    def one(state: Any, number: jax.Array) -> Any:
        heat = start * (end / start) ** (number / steps)
        grads = compute(None, None, state.logits, state.key, state.step, heat)
        return setup.programs._update_theta(state, grads, heat)[0], None

    state, _ = tiny.compiled(lambda state: jax.lax.scan(one, state, jnp.arange(steps, dtype=jnp.float32)))(init(setup))
    return jax.device_get(state.logits)


@pytest.mark.parametrize(("name", "make"), cases({"stage"}))
def test_the_planted_network_is_found(name: str, make: Any) -> None:
    """Through the engine's update: the gradient of what ran reaches the logits."""
    setup = setup_of(name, make, **ALONE)
    wanted, loss = planted(setup)
    genotype = setup.space.canonical(tuple(wanted.values()))
    logits = follow(setup, loss, 400)
    assert setup.space.canonical(derive.argmax_genotype(setup.space, logits)) == genotype


@pytest.mark.parametrize(("name", "make"), cases(set(), (tiny.nested_space, tiny.tied_space)))
def test_latency_alone_finds_the_fastest_network(name: str, make: Any) -> None:
    """In spaces whose prices have one minimum in theta; where widths of neighbours are priced together there are more."""
    setup = setup_of(name, make, **ALONE)
    _, loss = planted(setup)
    fastest, _ = setup.terms.extreme(1)
    alone = dataclasses.replace(setup, config=dataclasses.replace(setup.config, strength=10.0, target_ms=1e-3))
    logits = follow(alone, lambda found: 0.0 * loss(found), 400)
    found = setup.terms.at(setup.space.assignment(derive.argmax_genotype(setup.space, logits)))
    assert found == pytest.approx(fastest)


def run_steps(setup: Setup, state: Any, first: int, last: int) -> Any:
    for number in range(first, last):
        for kind, feed in (("weights", "weights"), ("theta", "architecture")):
            state, info = step(setup, state, setup.feeds[feed].batch(number), kind, 2.0 / (number + 1))
            assert np.isfinite(float(info.loss))
    return state


@pytest.mark.parametrize(("name", "make"), cases(set(), DEAR))
def test_one_trace_exact_resumption_and_gradients_through_the_network(
    name: str, make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Four steps of each kind, against two, a checkpoint, and two more by a set-up that has compiled nothing."""
    from dnas import checkpoint

    monkeypatch.setattr(jax, "default_backend", lambda: "other")  # compiles faster
    setup = setup_of(name, make)
    makers = len({setup.method.weights, setup.method.theta})
    half = run_steps(setup, init(setup), 0, 2)
    checkpoint.save(tmp_path, 2, half, {})
    whole = run_steps(setup, half, 2, 4)
    assert setup.programs.traces == {"gradients": makers, "update_weights": 1, "update_theta": 1}
    kept = checkpoint.newest(tmp_path)
    assert kept is not None
    resumed = run_steps(setup, checkpoint.load(kept, init(setup)), 2, 4)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole), jax.device_get(resumed))
    assert any(np.asarray(v).any() for v in whole.logits.values())
    assert setup.programs.traces["gradients"] == makers
