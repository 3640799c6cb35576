"""Every op type as a layer: shapes, gradients, and what is particular to tokens, splits and branches."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_ops import BY_HAND

from dnas import supernet
from dnas.arch import Architecture, Defaults
from dnas.gates import Gates
from dnas.latency.keys import read_key, write_key
from dnas.layers.op import OpLayer
from dnas.layers.tokens import distances, pool_difference
from dnas.ops import Meta1dOp, Meta2dOp, Op, Shape, SkipOp, TokenHeadOp, UniversalInvertedBottleneckOp
from dnas.space import OneOf, Space

FAST, SLOW = (
    ["ir, mixed kernels and splits", "meta1d"],
    ["fused_ir, groups, se", "tucker", "uib, everything", "meta2d", "token_head"],
)


def alone(op: Op, shape: Shape) -> Architecture:
    """The op as a network of its own, on square maps."""
    return Architecture((op,), shape.channels, shape.height, 0, Defaults())


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_an_op_as_a_network(name: str) -> None:
    """The layer's shape is the op's, its parameters are as many, and each of them gets a gradient."""
    op, shape = BY_HAND[name][0], Shape(*BY_HAND[name][1])
    network = alone(op, Shape(shape.height, shape.height, shape.channels))
    net, params, stats = supernet.init(network, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == op.params
    x = tiny.normal(0, 2, *network.shapes[0])
    # a table of positions that is 0 has equal attention everywhere, which hides the gradients of queries and keys
    params = jax.tree.map(lambda leaf: leaf + 0.1 * tiny.normal(leaf.size, *leaf.shape), params)

    def loss(params):
        y, _ = supernet.apply(net, params, stats, x, train=True)
        return (y * tiny.normal(1, *y.shape)).sum(), y

    grads, y = tiny.compiled(jax.grad(loss, has_aux=True))(params)
    out = network.shapes[-1]
    assert y.shape == ((2, out.channels) if out[:2] == (1, 1) else (2, *out))
    still = [jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(grads) if not np.any(leaf)]
    assert not still


@pytest.mark.parametrize("name", BY_HAND)
def test_a_latency_key_survives_json(name: str) -> None:
    op, shape = BY_HAND[name][0], Shape(*BY_HAND[name][1])
    key = op.price_fields(shape)
    assert read_key(write_key(key)) == key


def test_every_primitive_has_a_layer() -> None:
    for row in BY_HAND.values():
        OpLayer(row[0], Defaults())


def test_new_ops_are_candidates_like_others() -> None:
    """One-hot gates of a super-block give the network of that candidate, soft and sampled."""
    ops = (Meta2dOp(dim=4, hidden=6), UniversalInvertedBottleneckOp(in_=4, mid=8, out=4, residual=True), SkipOp(in_=4, out=4))
    space = Space(
        "toy", (OneOf("a", ops), Meta1dOp(dim=4, hidden=6, heads=2, resolution=4), TokenHeadOp(in_=4, out=3)), 4, 4, 3
    )
    net, params, stats = supernet.init(space, jax.random.key(0))
    x = tiny.normal(0, 2, 4, 4, 4)
    for index in range(3):
        one_hot = {"a": jax.nn.one_hot(index, 3)}
        single, *_ = supernet.init(space.fix((index,)), jax.random.key(0))
        own = [supernet.inherit(space, (index,), tree) for tree in (params, stats)]
        wanted, _ = tiny.compiled(lambda p, s, x, net=single: supernet.apply(net, p, s, x))(*own, x)
        for active in (None, {"a": jnp.array([index])}):
            gates = Gates(one_hot, active)
            got, _ = tiny.compiled(lambda p, s, x, g=gates: supernet.apply(net, p, s, x, g))(params, stats, x)
            tiny.assert_close(got, wanted, 1e-5)


# -- tokens -------------------------------------------------------------------------------------------------------


def test_distances_are_those_of_the_positions() -> None:
    side = 3
    for a, b in np.ndindex(side * side, side * side):
        dy, dx = abs(a // side - b // side), abs(a % side - b % side)
        assert distances(side)[a, b] == dy * side + dx


def test_pooling_leaves_padding_out_of_the_mean() -> None:
    x = np.asarray(tiny.normal(0, 2, 5, 4, 3))
    wanted = np.empty_like(x)
    for i, j in np.ndindex(5, 4):
        wanted[:, i, j] = x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].mean((1, 2)) - x[:, i, j]
    np.testing.assert_allclose(pool_difference(jnp.asarray(x), 3), wanted, rtol=1e-5, atol=1e-6)
    assert not np.any(pool_difference(jnp.ones((1, 5, 5, 2)), 3))


def test_one_head_is_its_own_mean() -> None:
    """Two equal heads give what one gives."""
    one = alone(TokenHeadOp(in_=4, out=3, heads=1), Shape(2, 2, 4))
    two = alone(TokenHeadOp(in_=4, out=3, heads=2), Shape(2, 2, 4))
    net, params, stats = supernet.init(one, jax.random.key(0))
    both = dict(params["00"]["token_head"])
    both |= {"head1": both["head0"]}
    x = tiny.normal(0, 2, 2, 2, 4)
    wanted, _ = supernet.apply(net, params, stats, x)
    got, _ = supernet.apply(supernet.Net.of(two), {"00": {"token_head": both}}, stats, x)
    tiny.assert_close(got, wanted, 1e-6)
    assert dataclasses.replace(one.layers[0], heads=2) == two.layers[0]  # type: ignore[call-arg]
