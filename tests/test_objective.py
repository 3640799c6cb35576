"""Objectives: values and gradients by hand, and the multiplier that brings the expectation to its target."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from dnas import gates, objective
from dnas.errors import ConfigError
from dnas.latency.terms import latency_ms, price
from dnas.objective import Seen, Settings, begin, combine
from dnas.objective.forms import ramp
from dnas.objective.lagrange import FARTHEST, INTEGRAL, LARGEST, LATE, PROPORTIONAL


def test_mul_log_takes_microseconds() -> None:
    loss = objective.mul_log(0.2, 0.6)
    wanted = 1.5 * 0.2 * math.log(17_000.0) ** 0.6  # 17 ms = 17,000 us
    assert float(loss(jnp.float32(1.5), jnp.float32(17.0))) == pytest.approx(wanted, rel=1e-6)
    relative = objective.mul_log(0.2, 0.3, reference_ms=17.0)
    assert float(relative(jnp.float32(1.5), jnp.float32(17.0))) == pytest.approx(1.5 * 0.2, rel=1e-6)


@pytest.mark.parametrize(
    ("form", "at_25", "at_15"),
    [
        (objective.absolute(20.0, 4.0), 4 * 0.25, 4 * 0.25),
        (objective.add_linear(20.0, 4.0), 4 * 0.25, -4 * 0.25),
        (objective.hinge(20.0, 4.0), 4 * 0.25, 0.0),
    ],
)
def test_forms_with_a_target_by_hand(form: Any, at_25: float, at_15: float) -> None:
    for ms, added in ((20.0, 0.0), (25.0, at_25), (15.0, at_15)):
        assert float(form(jnp.float32(1.5), jnp.float32(ms))) == pytest.approx(1.5 + added, rel=1e-6)


def test_mnasnet_rewards_by_hand() -> None:
    soft, hard = objective.mnasnet(20.0, 0.07, 0.07), objective.mnasnet(20.0, 0.0, 1.0)
    for ms, wanted in ((20.0, (0.8, 0.8)), (40.0, (0.8 * 2**-0.07, 0.4)), (10.0, (0.8 * 2**0.07, 0.8))):
        for form, reward in zip((soft, hard), wanted, strict=True):
            assert -float(form(jnp.float32(0.2), jnp.float32(ms))) == pytest.approx(reward, rel=1e-6)


FORMS = (
    objective.mul_log(0.2, 0.6),
    objective.absolute(20.0, 4.0),
    objective.add_linear(20.0, 0.1),
    objective.hinge(20.0, 4.0),
)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_forms(form: Any) -> None:
    with jax.enable_x64(True):
        for ms in (12.0, 27.0):
            args = (jnp.asarray(1.5, jnp.float64), jnp.asarray(ms, jnp.float64))
            check_grads(form, args, order=1, modes=["rev"], atol=1e-7, rtol=1e-7)


def seen(expected: float, likeliest: float = 0.0, task: float = 0.3, slope: float = 0.1) -> Seen:
    """A step with one choice of two options, whose gradients have the lengths ``task`` and ``slope``."""
    away = jnp.array([1.0, -1.0]) / math.sqrt(2)
    return Seen(
        jnp.float32(1.5), jnp.float32(expected), jnp.array([expected]), jnp.array([likeliest]), {"a": -task * away},
        {"a": slope * away}, ({"a": slope * away},),
    )  # fmt: skip


def after(settings: Settings, steps: list[Seen], name: str = "lagrange") -> tuple[Any, Any, list[Any]]:
    made = objective.objective(name).make(settings)
    state, pulls = begin(made, {"a": jnp.zeros(2)}, 1), []
    for one in steps:
        loss, gradient, state = combine(made, state, one)
        pulls.append((float(loss), gradient["a"]))
    return made, state, pulls


@pytest.mark.parametrize("name", objective.OBJECTIVES)
def test_every_objective_by_name(name: str) -> None:
    """One step of each: the gradient is the sum of both parts, and far above the target latency pulls down."""
    rewards = name.startswith("mnasnet")  # where the task is an error rate
    _, state, pulls = after(Settings((10.0,)), [seen(25.0)._replace(task=jnp.float32(0.3 if rewards else 1.5))], name)
    loss, gradient = pulls[0]
    assert math.isfinite(loss) and 0 < float(state.averages.share()) < 1
    share = float(state.averages.share())
    task, costs = (optax.tree.norm(v) for v in (state.averages.weighed_task, state.averages.weighed_costs))
    assert share == pytest.approx(float(costs / (costs + task)))
    step = [v["a"] for v in (state.averages.weighed_task, state.averages.weighed_costs)]
    np.testing.assert_allclose(gradient, (step[0] + step[1]) / (1 - 0.9), rtol=1e-5)
    assert float(step[1][0]) > 0
    assert [f.has_target for f in objective.OBJECTIVES.values()] == [n != "mul-log" for n in objective.OBJECTIVES]
    with pytest.raises(ConfigError, match="lagrange"):
        objective.objective("lagrang")


def test_the_multiplier_follows_the_violation_and_is_never_negative() -> None:
    settings = Settings((10.0,), steps=100)
    eta, wanted = INTEGRAL / 100, 0.0
    made, state, _ = after(settings, [])
    assert made.multipliers is not None and float(made.multipliers(state.memory)[0]) == 0
    for ms in (11.0, 30.0, 10.5, 9.0, 1.0, 1.0, 1.0, 1.0, 12.0):
        effective = max(0.0, wanted + PROPORTIONAL * (ms / 10 - 1))
        loss, gradient, state = combine(made, state, seen(ms))
        unit = 0.3 / 0.1  # gradients point the same way at every step
        assert float(state.memory.unit[0]) == pytest.approx(unit, rel=1e-5)
        assert float(loss) == pytest.approx(1.5 + unit * (effective**2 - wanted**2) / (2 * PROPORTIONAL), rel=1e-4)
        length = float(gradient["a"][0]) * math.sqrt(2)
        assert length == pytest.approx((-0.3 + effective * unit * 0.1) / (1 + effective), rel=1e-4, abs=1e-6)
        wanted = min(max(wanted + eta * min(max(ms / 10 - 1, -FARTHEST), FARTHEST), 0.0), LARGEST)
        assert float(state.memory.multiplier[0]) == pytest.approx(wanted, rel=1e-5, abs=1e-6)
        assert float(made.multipliers(state.memory)[0]) == pytest.approx(wanted * unit, rel=1e-4, abs=1e-5)
    assert wanted > 0


def test_late_steps_follow_the_likeliest_network_where_that_is_derived() -> None:
    steps = [seen(10.0, likeliest=20.0)] * 10
    for follow, moved in ((False, 0), (True, round((1 - LATE) * 10))):
        _, state, _ = after(Settings((10.0,), steps=10, follow_argmax=follow), steps)
        assert float(state.memory.multiplier[0]) == pytest.approx(moved * INTEGRAL / 10 * FARTHEST)


def test_the_hinge_reaches_full_strength_at_half_time_and_binds_whatever_the_start() -> None:
    assert float(ramp(jnp.float32(0), 100)) == pytest.approx(0.01) and float(ramp(jnp.float32(25), 100)) == pytest.approx(0.505)
    assert float(ramp(jnp.float32(50), 100)) == float(ramp(jnp.float32(90), 100)) == 1.0
    _, _, pulls = after(Settings((10.0,), steps=4), [seen(8.0), seen(8.0), seen(12.0)], "hinge")
    assert [loss for loss, _ in pulls] == pytest.approx([1.5, 1.5, 1.5 + 4 * 0.2])


@pytest.fixture(scope="module")
def planted() -> Any:
    """A search without a network: noisy linear gains per candidate, larger for slower ones, on fbnet_mini."""
    import dnas

    space = dnas.load_space("fbnet_mini")
    terms = price(space, dnas.LatencyTable.load("samsung_s8.json"))
    slots = {s.choices[0]: s for s in space.slots if s.choices}
    ms = {n: np.array(terms.candidates_ms[s.index]) for n, s in slots.items()}
    steps = 200

    @jax.jit
    def run(key: jax.Array, target: jax.Array, size: jax.Array) -> Any:
        made = objective.lagrange(Settings((1.0,), steps=steps))
        optimiser = optax.adam(optax.linear_schedule(25 / steps, 2.5 / steps, 160, 40))
        noise = jax.random.split(key, 2)
        gains = {
            n: 0.1 * jax.random.normal(jax.random.fold_in(noise[0], i), v.shape) + 0.2 * jnp.log(jnp.maximum(v, 0.02) / 0.1)
            for i, (n, v) in enumerate(ms.items())
        }

        def body(carry: Any, count: jax.Array) -> Any:
            logits, opt, state = carry
            keys = jax.random.split(jax.random.fold_in(noise[1], count), len(logits) + 1)
            temperature = 2.0 * 0.05 ** (count / steps)

            def task(v: Any) -> Any:
                drawn = gates.gumbel_softmax(keys[0], v, temperature).weights
                return 2 * size * jnp.exp(-sum((drawn[n] * gains[n]).sum() for n in v))

            slope = {
                n: g + 0.05 * size * jax.random.normal(k, g.shape)
                for k, (n, g) in zip(keys[1:], jax.grad(task)(logits).items(), strict=True)
            }
            expected, by = jax.value_and_grad(lambda v: latency_ms(terms, gates.softmax(v)) / target)(logits)
            one = Seen(task(logits), expected, expected[None], expected[None], slope, by, (by,))
            _, gradient, state = combine(made, state, one)
            updates, opt = optimiser.update(gradient, opt, logits)
            return (optax.apply_updates(logits, updates), opt, state), None

        logits = gates.zeros(space)
        (logits, _, state), _ = jax.lax.scan(body, (logits, optimiser.init(logits), begin(made, logits, 1)), jnp.arange(steps))
        return latency_ms(terms, gates.softmax(logits)) / target, state.averages.share()

    return run, terms.extreme(1)[0], terms.extreme(-1)[0]


def test_a_target_is_hit_without_a_coefficient_whatever_the_size_of_the_loss(planted: Any) -> None:
    run, low, high = planted
    for seed in range(3):
        for part in (0.25, 0.5, 0.7):
            for size in (0.02, 1.0):
                ratio, share = run(jax.random.key(seed), jnp.float32(low + part * (high - low)), jnp.float32(size))
                assert abs(float(ratio) - 1) < 0.03, (seed, part, size)
                assert 0.02 < float(share) < 0.98
