"""What a sampled path needs of a slot's trees: taken, read, given back, and how little of it there is."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from test_methods import setup_of

from dnas import gates, supernet
from dnas.layers import taken
from dnas.ops import SkipOp
from dnas.search import init
from dnas.search.programs import arguments
from dnas.space import OneOf

LEAF = st.lists(st.integers(1, 3), max_size=2).map(tuple)
TREE = st.dictionaries(st.sampled_from("abc"), st.dictionaries(st.sampled_from("xy"), LEAF, min_size=1), max_size=3)


def filled(shapes: list[dict[str, dict[str, tuple[int, ...]]]], start: float = 1.0) -> tuple[Any, ...]:
    """Trees of these shapes, no two numbers alike."""
    count = iter(np.arange(start, start + 1000))

    def leaf(shape: tuple[int, ...]) -> jax.Array:
        return jnp.array([next(count) for _ in range(int(np.prod(shape)))], jnp.float32).reshape(shape)

    return tuple({n: {m: leaf(s) for m, s in own.items()} for n, own in tree.items()} for tree in shapes)


@settings(max_examples=25, deadline=None)
@given(st.lists(TREE, min_size=1, max_size=3), st.data())
def test_what_is_taken_is_one_tree_and_can_be_put_back(shapes: Any, data: Any) -> None:
    trees, number = filled(shapes), data.draw(st.integers(0, len(shapes) - 1))
    found = taken.take(trees, jnp.int32(number))
    own = taken.own(taken.shapes_of(trees[number]), found)
    jax.tree.map(np.testing.assert_array_equal, own, trees[number])
    assert sum(float(v.sum()) for v in found.values()) == sum(float(v.sum()) for v in jax.tree.leaves(own))  # zeros elsewhere

    other = filled(shapes, 500.0)[number]
    moved = taken.put(trees, jnp.int32(number), taken.given(found, other))
    expected = (*trees[:number], other, *trees[number + 1 :])
    jax.tree.map(np.testing.assert_array_equal, moved, expected)


def test_gradients_reach_the_tree_that_is_taken_and_no_other() -> None:
    trees = filled([{"a": {"x": (2, 3)}}, {"a": {"x": (1, 2)}, "b": {"y": (2,)}}, {}])
    for number in range(3):
        took = partial(taken.take, number=jnp.int32(number))
        check_grads(took, (trees,), order=1, modes=["rev"], atol=1e-2, rtol=1e-2)
        slope = jax.grad(lambda t, took=took: sum((v**2).sum() for v in took(t).values()))(trees)
        for i, own in enumerate(slope):
            jax.tree.map(lambda d, v, i=i: np.testing.assert_array_equal(d, 2 * v * (i == number)), own, trees[i])  # noqa: B023


def test_a_path_needs_as_much_of_many_candidates_as_of_one() -> None:
    """Numbers that enter and leave a step, for the largest candidate alone and beside others."""

    def size(*options: Any) -> int:
        space = tiny.network("tiny", OneOf("l1", options))
        net, params, _ = supernet.init(space, jax.random.key(0))
        needed = supernet.on_paths(net, params, gates.one_hot(space, (0,)).active)
        return sum(v.size for v in jax.tree.leaves(needed))

    largest, skip = tiny.block(5, 3), SkipOp(in_=4, out=4)
    assert size(largest, skip) == size(largest, skip, tiny.block(3, 3), tiny.block(5, 2), tiny.block(3, 1))


@pytest.mark.parametrize("method", ["gdas", "gumbel"])
def test_a_sampled_step_returns_gradients_of_what_its_path_needs(method: str) -> None:
    """All of them where everything runs."""
    setup = setup_of(method, tiny.plain_space)
    state = init(setup)
    batch = setup.feeds["weights"].batch(0)
    found = setup.programs.gradients["weights"].eval_shape(*arguments(state, batch, jnp.float32(1)))
    path = gates.one_hot(setup.space, (0,) * len(setup.space.choices)).active if method == "gdas" else None
    needed = supernet.on_paths(setup.net, state.params, path)
    jax.tree.map(lambda g, v: np.testing.assert_equal(g.shape, v.shape), found.params, needed)
    sizes = [sum(v.size for v in jax.tree.leaves(tree)) for tree in (found.params, state.params)]
    assert (sizes[0] < sizes[1]) == (method == "gdas")


@pytest.mark.parametrize("name", ["plain_space", "tied_space"])
def test_gradients_of_what_paths_need_are_those_of_all_parameters(name: str) -> None:
    space = getattr(tiny, name)()
    net, params, stats = supernet.init(space, jax.random.key(0))
    x, picked = tiny.normal(0, 2, 8, 8, 3), gates.one_hot(space, (1,) * len(space.choices))

    def loss(params: Any) -> jax.Array:
        return (supernet.apply(net, params, stats, x, picked, True)[0] ** 2).sum()

    def by_need(params: Any) -> Any:
        needed, pull = jax.vjp(lambda p: supernet.on_paths(net, p, picked.active), params)
        return pull(jax.grad(loss)(needed))[0]

    tiny.assert_close(tiny.compiled(by_need)(params), tiny.compiled(jax.grad(loss))(params), 1e-6)
