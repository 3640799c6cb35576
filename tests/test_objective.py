"""Objectives: values and gradients by hand, and the multiplier that brings the expectation to its target."""

from __future__ import annotations

import itertools
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
from dnas.objective import Seen, Settings, begin, combine, hold
from dnas.objective.forms import ramp
from dnas.objective.lagrange import LARGEST, LEAST, QUADRATIC


def test_mul_log_takes_microseconds_and_milliseconds_with_a_reference() -> None:
    loss = objective.mul_log(0.2, 0.6)
    wanted = 1.5 * 0.2 * math.log(17_000.0) ** 0.6  # 17 ms = 17,000 us
    assert float(loss(jnp.float32(1.5), jnp.float32(17.0))) == pytest.approx(wanted, rel=1e-6)
    relative = objective.mul_log(0.2, 0.3, reference_ms=17.0)
    for ms in (17.0, 40.0):
        wanted = 1.5 * 0.2 * (math.log(ms) / math.log(17.0)) ** 0.3
        assert float(relative(jnp.float32(1.5), jnp.float32(ms))) == pytest.approx(wanted, rel=1e-6)


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


def seen(ms: float, task: float = 1.5, slope: float = 0.1) -> Seen:
    """A step with one choice of two options, whose gradients have the lengths 0.3 and ``slope``."""
    away = jnp.array([1.0, -1.0]) / math.sqrt(2)
    return Seen(jnp.float32(task), jnp.float32(ms), {"a": -0.3 * away}, {"a": slope * away})


def after(settings: Settings, steps: list[Seen], name: str) -> tuple[Any, list[Any]]:
    made = objective.objective(name).make(settings)
    state, pulls = begin(made, {"a": jnp.zeros(2)}), []
    for one in steps:
        loss, gradient, state = combine(made, state, one)
        pulls.append((float(loss), gradient["a"]))
    return state, pulls


@pytest.mark.parametrize("name", [n for n in objective.OBJECTIVES if n != "lagrange"])
def test_every_form_by_name(name: str) -> None:
    """One step of each: the gradient is the sum of both parts, and far above the target latency pulls down."""
    rewards = name.startswith("mnasnet")  # where the task is an error rate
    state, pulls = after(Settings((10.0,)), [seen(25.0, 0.3 if rewards else 1.5)], name)
    loss, gradient = pulls[0]
    assert math.isfinite(loss) and 0 < float(state.averages.share()) < 1
    share = float(state.averages.share())
    task, costs = (optax.tree.norm(v) for v in state.averages)
    assert share == pytest.approx(float(costs / (costs + task)))
    step = [v["a"] for v in state.averages]
    np.testing.assert_allclose(gradient, (step[0] + step[1]) / (1 - 0.9), rtol=1e-5)
    assert float(step[1][0]) > 0


def test_objectives_by_name() -> None:
    assert [f.has_target for f in objective.OBJECTIVES.values()] == [n != "mul-log" for n in objective.OBJECTIVES]
    with pytest.raises(ConfigError, match="lagrange"):
        objective.objective("lagrang")


MS = {"a": jnp.array([1.0, 2.0, 4.0]), "b": jnp.array([0.0, 3.0])}


def of_target(target: float) -> Any:
    return lambda weights: (sum((MS[n] * weights[n]).sum() for n in MS) / target)[None]


def held(settings: Settings, logits: Any, price: Any, memory: Any = None) -> tuple[Any, Any, Any]:
    """Objective, logits and memory after one step whose optimiser led to ``logits``."""
    made = objective.lagrange(settings)
    assert made.hold is not None
    return made, *made.hold(made.init() if memory is None else memory, logits, price)


def test_a_step_ends_at_the_nearest_distribution_that_keeps_the_target() -> None:
    """Against SciPy: least KL from where the optimiser led, with the target kept; the move is -multiplier * latency."""
    from scipy.optimize import minimize

    start = {"a": jnp.array([0.3, -0.2, 1.0]), "b": jnp.array([-0.5, 0.5])}
    ms = np.concatenate([np.asarray(v) for v in MS.values()])
    p = np.concatenate([np.asarray(jax.nn.softmax(start[n])) for n in MS])

    def nearest(x: np.ndarray, cost: float) -> np.ndarray:
        """The distribution of that cost with the least KL from p."""
        held = [lambda v: v[:3].sum() - 1, lambda v: v[3:].sum() - 1, lambda v: v @ ms - cost]
        rules = [{"type": "eq", "fun": f} for f in held]
        found = minimize(lambda v: (v * np.log(v / p)).sum(), x, constraints=rules, bounds=[(1e-9, 1)] * 5, tol=1e-12)
        return np.asarray(found.x)

    for target in (1.7, 3.0, 5.5):  # 3.7 to begin with: both above it and below
        price = of_target(target)
        made, logits, memory = held(Settings((target,)), start, price)
        q = np.concatenate([np.asarray(jax.nn.softmax(logits[n])) for n in MS])
        np.testing.assert_allclose(q, nearest(np.full(5, 0.3), float(q @ ms)), atol=1e-4)
        multiplier, violation = float(memory.multiplier[0]), float(price(gates.softmax(logits).weights)[0]) - 1
        assert abs(violation) < 2e-3 and multiplier == pytest.approx(QUADRATIC * violation, abs=0.02)
        assert made.multipliers is not None and float(made.multipliers(memory)[0]) == multiplier
        for n, ms_ in MS.items():
            lost = start[n] - logits[n]
            np.testing.assert_allclose(lost - lost[0], multiplier * (ms_ - ms_[0]) / target, rtol=1e-3, atol=1e-4)


def test_a_decided_theta_comes_back_in_one_step_and_the_multiplier_does_not_wind_up() -> None:
    decided = {"a": jnp.array([60.0, 0.0, 0.0]), "b": jnp.array([60.0, 0.0])}  # gradients of 1e-26
    _, logits, memory = held(Settings((3.0,)), decided, of_target(3.0))
    assert abs(float(of_target(3.0)(gates.softmax(logits).weights)[0]) - 1) < 0.02 and float(memory.multiplier[0]) < 0
    _, logits, memory = held(Settings((0.5,)), decided, of_target(0.5))  # the fastest takes 1, and is what theta has
    assert float(memory.multiplier[0]) == 0 and all((logits[n] == decided[n]).all() for n in decided)
    undecided = {n: jnp.zeros_like(v) for n, v in decided.items()}
    for _ in range(3):
        _, undecided, memory = held(Settings((0.5,)), undecided, of_target(0.5), memory)
        assert 0 < float(memory.multiplier[0]) <= LARGEST and all(np.isfinite(v).all() for v in undecided.values())


def test_several_targets_are_bounds_and_their_multipliers_not_negative() -> None:
    """Of two costs the one that binds is met, the other one has no say; what is below both stays where it is."""
    start = {"a": jnp.array([0.3, -0.2, 1.0]), "b": jnp.array([-0.5, 0.5])}
    more = {"a": jnp.array([5.0, 1.0, 1.0]), "b": jnp.array([1.0, 2.0])}

    def price(weights: Any) -> Any:
        return jnp.stack([sum((t[n] * weights[n]).sum() for n in t) for t in (MS, more)])

    def both(targets: tuple[float, float]) -> tuple[Any, np.ndarray, np.ndarray]:
        by = jnp.array(targets)
        _, logits, memory = held(Settings(targets), start, lambda w: price(w) / by)
        return logits, np.asarray(price(gates.softmax(logits).weights) / by), np.asarray(memory.multiplier)

    at = price(gates.softmax(start).weights)
    _, costs, multipliers = both((float(at[0]) * 0.8, 100.0))
    assert costs[0] == pytest.approx(1, abs=2e-3) and multipliers[0] > 0 and multipliers[1] == 0
    _, costs, multipliers = both((float(at[0]) * 0.85, float(at[1]) * 0.9))
    np.testing.assert_allclose(costs, 1, atol=5e-3)
    assert (multipliers > 0).all()
    logits, _, multipliers = both((100.0, 100.0))
    assert (multipliers == 0).all() and all((logits[n] == start[n]).all() for n in start)


def test_late_steps_follow_the_network_that_would_be_derived() -> None:
    start = {"a": jnp.array([0.3, -0.2, 1.0]), "b": jnp.array([-0.5, 0.5])}
    made = objective.lagrange(Settings((3.0,), steps=10))
    assert made.follow is not None
    for derived, wanted in ((0.995, 0.995), (0.7, LEAST), (1.0, 1.0)):
        memory = made.follow(made.init(), jnp.array([derived]))
        for steps, share in ((0, 1.0), (8, wanted)):
            _, logits, _ = held(Settings((3.0,), steps=10), start, of_target(3.0), memory._replace(steps=jnp.int32(steps)))
            assert float(of_target(3.0)(gates.softmax(logits).weights)[0]) == pytest.approx(share, abs=2e-3)
    for target in (1.5, 2.5, 4.5, 6.5):  # argmax: the likeliest network keeps the target, which its expectation need not
        memory = made.init()._replace(steps=jnp.int32(8))
        _, logits, _ = held(Settings((target,), steps=10, follow_argmax=True), start, of_target(target), memory)
        picked = {n: jax.nn.one_hot(v.argmax(), v.shape[0]) for n, v in logits.items()}
        assert float(of_target(target)(picked)[0]) <= 1


def test_the_hinge_reaches_full_strength_at_half_time_and_binds_whatever_the_start() -> None:
    assert float(ramp(jnp.float32(0), 100)) == pytest.approx(0.01) and float(ramp(jnp.float32(25), 100)) == pytest.approx(0.505)
    assert float(ramp(jnp.float32(50), 100)) == float(ramp(jnp.float32(90), 100)) == 1.0
    _, pulls = after(Settings((10.0,), steps=4), [seen(8.0), seen(8.0), seen(12.0)], "hinge")
    assert [loss for loss, _ in pulls] == pytest.approx([1.5, 1.5, 1.5 + 4 * 0.2])


@pytest.fixture(scope="module")
def planted() -> Any:
    """Searches without a network on fbnet_mini, short and hard: Adam moves each logit by half a unit at a step from the first
    one on, the task wants faster or slower candidates or is all noise, and its gradients vanish where theta has decided."""
    import dnas

    space = dnas.load_space("fbnet_mini")
    terms = price(space, dnas.LatencyTable.load("samsung_s8.json"))
    ms = {s.choices[0]: jnp.array(terms.candidates_ms[s.index]) for s in space.slots if s.choices}
    steps = 44  # 15 epochs of the digits
    made = objective.lagrange(Settings((1.0,), steps=steps))
    optimiser = optax.adam(optax.linear_schedule(25 / steps, 2.5 / steps, 35, 9))

    def run(key: jax.Array, target: jax.Array, taste: jax.Array, noise: jax.Array) -> Any:
        own, batches = jax.random.split(key)
        gains = {n: 0.1 * jax.random.normal(jax.random.fold_in(own, i), v.shape) for i, (n, v) in enumerate(ms.items())}

        def of_target(weights: Any) -> jax.Array:
            return latency_ms(terms, weights)[None] / target

        def body(carry: Any, count: jax.Array) -> Any:
            logits, opt, state = carry
            draw, *batch = jax.random.split(jax.random.fold_in(batches, count), len(logits) + 1)

            def task(logits: Any) -> jax.Array:
                drawn = gates.gumbel_softmax(draw, logits, 1.5 * 0.07 ** (count / steps)).weights
                noises = {n: noise * jax.random.normal(k, v.shape) for k, (n, v) in zip(batch, ms.items(), strict=True)}
                return jnp.exp(-sum((drawn[n] * (gains[n] + taste * 10 * ms[n] + noises[n])).sum() for n in drawn))

            loss, slope = jax.value_and_grad(task)(logits)
            nothing = jax.tree.map(jnp.zeros_like, logits)
            _, gradient, state = combine(made, state, Seen(loss, loss, slope, nothing))
            updates, opt = optimiser.update(gradient, opt, logits)
            logits, state = hold(made, state, logits, optax.apply_updates(logits, updates), of_target)
            return (logits, opt, state), of_target(gates.softmax(logits).weights)[0]

        logits = gates.zeros(space)
        carry = (logits, optimiser.init(logits), begin(made, logits))
        (logits, _, state), course = jax.lax.scan(body, carry, jnp.arange(steps))
        return course, state.averages.share()

    return jax.jit(jax.vmap(run)), terms.extreme(1)[0], terms.extreme(-1)[0]


def test_a_target_is_hit_without_a_coefficient_whatever_the_task_wants(planted: Any) -> None:
    run, low, high = planted
    cases = list(itertools.product(range(2), (0.02, 1 / 6, 0.5, 5 / 6, 0.98), (-0.2, 0.0, 0.2), (0.0, 0.8)))
    seeds, parts, tastes, noises = (jnp.array(v) for v in zip(*cases, strict=True))
    course, share = run(jax.vmap(jax.random.key)(seeds), low + parts * (high - low), tastes, noises)
    off = np.abs(np.asarray(course) - 1)
    assert (off[:, -1] < 0.005).all(), [cases[i] for i in np.flatnonzero(off[:, -1] >= 0.005)]
    assert (off < 0.05).all()  # not only at the end
    middle = np.asarray(share)[np.asarray(parts) == 0.5]
    assert (middle > 0.02).all() and (middle < 0.98).all()
