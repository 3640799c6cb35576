"""Masked updates: what did not run keeps its weights and moments, bit for bit, and what ran is updated as if it were alone."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from dnas import gates, supernet
from dnas.masked import masked_update

OPTIMISERS = {
    "sgd": lambda: optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(0.1, momentum=0.9)),
    "adam": lambda: optax.chain(optax.add_decayed_weights(1e-2), optax.adam(0.1)),
    "adamw": lambda: optax.adamw(0.1, weight_decay=1e-2),
}
GENOTYPE = (2, 0)


class Run:
    """One full update, which fills the moments of everything; then ten in which one path ran."""

    def __init__(self, name: str, masked: bool) -> None:
        space = tiny.plain_space()
        net, params, _ = supernet.init(space, jax.random.key(0))
        self.optimiser = OPTIMISERS[name]()
        self.ran = supernet.ran(net, params, gates.one_hot(space, GENOTYPE))
        rng = np.random.default_rng(0)

        def gradient(everything: bool = False) -> Any:
            def one(leaf: jax.Array, ran: Any) -> np.ndarray:
                return np.float32(rng.normal(size=leaf.shape) * (everything or bool(ran)))

            return jax.tree.map(one, params, self.ran)

        update = tiny.compiled(partial(masked_update, self.optimiser))
        self.start = update(gradient(True), self.optimiser.init(params), params, None)
        self.gradients = [gradient() for _ in range(10)]
        self.end = self.start
        for g in self.gradients:
            self.end = update(g, *reversed(self.end), self.ran if masked else None)
        self.ran, self.start, self.end = jax.device_get((self.ran, self.start, self.end))


def per_parameter(optimiser: optax.GradientTransformation, params: Any, state: Any) -> list[Any]:
    """``params`` and every part of ``state`` of its shape."""
    parts: list[Any] = []
    optax.tree_utils.tree_map_params(optimiser, lambda leaf: parts.append(leaf), state)
    count = len(jax.tree.leaves(params))
    structure = jax.tree.structure(params)
    assert parts and len(parts) % count == 0
    return [params, *(jax.tree.unflatten(structure, parts[i : i + count]) for i in range(0, len(parts), count))]


@pytest.mark.parametrize("name", OPTIMISERS)
def test_off_path_is_bit_identical_and_on_path_is_ordinary_training(name: str) -> None:
    run = Run(name, masked=True)
    for start, end in zip(*(per_parameter(run.optimiser, *r) for r in (run.start, run.end)), strict=True):
        for ran, before, after in zip(*map(jax.tree.leaves, (run.ran, start, end)), strict=True):
            assert bool(np.all(before == after)) != bool(ran)
            assert ran or before.tobytes() == after.tobytes()
            assert np.any(before)  # moments are not zero to begin with
    plain = Run(name, masked=False)
    for masked, other in zip(*(per_parameter(r.optimiser, *r.end) for r in (run, plain)), strict=True):
        for ran, a, b in zip(*map(jax.tree.leaves, (run.ran, masked, other)), strict=True):
            if ran:
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
            else:  # what the mask is for: a zero gradient is not a still parameter
                assert np.any(a != b)


def test_counters_are_global() -> None:
    run = Run("adam", masked=True)
    assert int(optax.tree_utils.tree_get(run.end[1], "count")) == 11


def test_masks_of_a_leafs_shape_serve_logits() -> None:
    """Options that were not sampled keep their logit and moments."""
    optimiser = optax.adam(0.1)
    logits = {"a": jnp.zeros(4), "b": jnp.zeros(3)}
    gradients = {"a": jnp.array([1.0, 2.0, 3.0, 4.0]), "b": jnp.ones(3)}
    logits, state = masked_update(optimiser, gradients, optimiser.init(logits), logits, None)
    sampled = {"a": jnp.array([True, False, False, True]), "b": jnp.array(False)}
    after, new = masked_update(optimiser, jax.tree.map(lambda g, r: g * r, gradients, sampled), state, logits, sampled)
    for old_tree, new_tree in zip(*(per_parameter(optimiser, *r) for r in ((logits, state), (after, new))), strict=True):
        assert (old_tree["a"] != new_tree["a"]).tolist() == [True, False, False, True]
        np.testing.assert_array_equal(old_tree["b"], new_tree["b"])


def test_everything_ran_in_soft_mode() -> None:
    space = tiny.plain_space()
    net, params, _ = supernet.init(space, jax.random.key(0))
    assert supernet.ran(net, params, gates.uniform(space)) is None
