"""Gates: distributions of the samplers, limits of the temperature, gradients, and what runs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from scipy import stats

from dnas import derive, gates
from dnas.errors import SpaceError

LOGITS = {"a": jnp.array([1.0, 0.0, -1.0]), "b": jnp.array([0.5, -0.5])}
DRAWS = 20_000


def many(sampler, count: int = DRAWS):
    return jax.jit(jax.vmap(sampler))(jax.random.split(jax.random.key(0), count))


def assert_frequencies(indices: np.ndarray, logits: jax.Array) -> None:
    """Chi-square test at a fixed seed: the draws come from softmax(logits)."""
    wanted = np.asarray(jax.nn.softmax(logits), np.float64) * len(indices)
    assert stats.chisquare(np.bincount(indices, minlength=len(wanted)), wanted * len(indices) / wanted.sum()).pvalue > 0.01


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_gumbel_softmax_is_a_distribution_whose_maximum_follows_softmax(temperature: float) -> None:
    soft = many(lambda key: gates.gumbel_softmax(key, LOGITS, temperature).weights)
    for name, weights in soft.items():
        np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
        assert weights.min() >= 0
        assert_frequencies(np.asarray(weights.argmax(1)), LOGITS[name])
    assert abs(np.corrcoef(soft["a"][:, 0], soft["b"][:, 0])[0, 1]) < 0.03  # one draw per choice


def test_sampling_follows_softmax_whatever_the_temperature() -> None:
    drawn = many(lambda key: gates.sample(key, LOGITS, 3.0))
    for name, index in drawn.active.items():
        assert index.shape == (DRAWS, 1) and index.dtype == jnp.int32
        assert_frequencies(np.asarray(index[:, 0]), LOGITS[name])
        np.testing.assert_allclose(drawn.weights[name], jax.nn.one_hot(index[:, 0], len(LOGITS[name])), atol=1e-6)


def test_derived_samples_follow_softmax() -> None:
    space = tiny.stage_space()
    logits = {n: jnp.linspace(-1.0, 1.0, len(c.options)) for n, c in space.choices.items()}
    drawn = np.array(derive.sample(space, logits, 0, 5000))
    for column, name in enumerate(space.choices):
        assert_frequencies(drawn[:, column], logits[name])


def test_temperature_limits() -> None:
    key = jax.random.key(1)
    cold, hot = (gates.gumbel_softmax(key, LOGITS, t).weights for t in (1e-3, 1e4))
    hard = gates.sample(key, LOGITS).weights
    for name in LOGITS:
        np.testing.assert_allclose(cold[name], hard[name], atol=1e-4)
        np.testing.assert_allclose(hot[name], 1 / len(LOGITS[name]), atol=1e-3)


@pytest.mark.parametrize("sampler", [gates.straight_through, gates.sample])
def test_straight_through_is_one_hot_forward_and_soft_backward(sampler) -> None:
    key, costs = jax.random.key(2), {"a": jnp.array([1.0, 2.0, 4.0]), "b": jnp.array([3.0, -1.0])}

    def cost(sampler, logits):
        weights = sampler(key, logits, 0.7).weights
        return sum((weights[n] * costs[n]).sum() for n in costs)

    for name, weights in sampler(key, LOGITS, 0.7).weights.items():
        np.testing.assert_allclose(np.sort(weights), np.eye(len(weights))[-1], atol=1e-6)
        assert weights.argmax() == gates.gumbel_softmax(key, LOGITS, 0.7).weights[name].argmax()
    hard, soft = (jax.grad(lambda v, s=s: cost(s, v))(LOGITS) for s in (sampler, gates.gumbel_softmax))
    tiny.assert_close(hard, soft, 1e-6)
    assert np.abs(soft["a"]).max() > 1e-2
    assert (sampler(key, LOGITS, 0.7).active is None) == (sampler is gates.straight_through)


def test_softmax_and_uniform() -> None:
    space = tiny.stage_space()
    for name, weights in gates.uniform(space).weights.items():
        np.testing.assert_allclose(weights, 1 / len(space.choices[name].options), rtol=1e-6)
    np.testing.assert_allclose(gates.softmax(LOGITS, 0.5).weights["b"], np.exp([1, -1]) / np.exp([1, -1]).sum(), rtol=1e-6)
    assert gates.uniform(space).active is None


def test_one_hot_is_the_genotype() -> None:
    space = tiny.nested_space()
    genotype = (1, 0, 1, 0, 1)
    chosen = gates.one_hot(space, genotype)
    assert list(chosen.weights) == list(space.choices)
    assert tuple(int(w.argmax()) for w in chosen.weights.values()) == genotype
    assert tuple(int(i[0]) for i in chosen.active.values()) == genotype
    assert all(float(w.sum()) == float(w.max()) == 1 for w in chosen.weights.values())
    assert gates.one_hot(space, genotype, run_all=True).active is None
    again = gates.one_hot(space, gates.argmax(chosen.weights))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), again, chosen))


def test_argmax_takes_the_first_of_equals() -> None:
    assert {n: int(i) for n, i in gates.argmax({"a": jnp.zeros(3), "b": jnp.array([0.0, 2.0, 2.0])}).items()} == {
        "a": 0,
        "b": 1,
    }


def test_wrong_names_and_sizes_are_refused() -> None:
    space = tiny.plain_space()
    with pytest.raises(SpaceError, match="one index for each of l1, l2"):
        gates.one_hot(space, {"l1": 0, "l3": 0})
    with pytest.raises(SpaceError, match="2 indices, got 1"):
        gates.one_hot(space, (0,))
    with pytest.raises(SpaceError, match=r"l2: index 3; expected 0 to 2"):
        gates.one_hot(space, (0, 3))
