"""Widths by masks: one hull computes what each narrower network computes, in float64; couplings, files and errors."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from jax.test_util import check_grads
from test_identities import TOLERANCE, Bench

from dnas import gates, supernet
from dnas.arch import Architecture
from dnas.errors import SpaceError
from dnas.gates import Gates
from dnas.masked import masked_update
from dnas.ops import ConvOp, GlobalPoolOp, InvertedResidualOp, LinearOp, SkipOp
from dnas.space import Follow, OneOf, Space, Stage, Template, Width

GENOTYPES = ((0, 0, 0, 0, 1, 0), (1, 0, 1, 1, 0, 1), (1, 1, 1, 0, 1, 0))  # narrow, mixed (depth 0, no SE), full


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as patch, jax.enable_x64(True):
        patch.setattr(jax, "default_backend", lambda: "other")
        yield Bench("width_space")


def test_one_set_of_parameters_serves_all_widths(bench: Bench) -> None:
    assert list(bench.space.choices) == ["w1", "mid", "w2", "kernel", "se", "depth"]
    counts = [len(slot.hulls) for slot in bench.net.slots]
    assert counts == [1, 4, 2, 1, 1] and [len(s.candidates) for s in bench.net.slots] == [2, 32, 4, 2, 2]
    widest = [h.op for slot in bench.net.slots for h in slot.hulls if h.op.primitives()]
    assert sum(v.size for v in jax.tree.leaves(bench.params)) == sum(op.params for op in widest)


@pytest.mark.parametrize("genotype", GENOTYPES)
def test_soft_one_hot_is_the_sampled_path_is_the_derived_network(bench: Bench, genotype: tuple[int, ...]) -> None:
    """Values, gradients of input and weights, new statistics; gradients of the gates that are no widths."""
    soft, sampled = bench.soft(genotype), bench.sampled(genotype)
    network = bench.space.fix(genotype)
    inherited = [bench.inherited(genotype, t) for t in (bench.params, bench.stats)]
    fresh = supernet.init(network, jax.random.key(0))[1]
    assert jax.tree.map(jnp.shape, inherited[0]) == jax.tree.map(jnp.shape, fresh)
    derived = tiny.compiled(partial(tiny.pull, supernet.Net.of(network)))(*inherited, bench.x, None, bench.dy)
    for part in ("logits", "x"):
        tiny.assert_close(soft[part], sampled[part], TOLERANCE)
        tiny.assert_close(sampled[part], derived[part], TOLERANCE)
    tiny.assert_close(soft["params"], sampled["params"], TOLERANCE)
    for part in ("params", "stats"):
        tiny.assert_close(bench.inherited(genotype, sampled[part]), derived[part], TOLERANCE)
        tiny.assert_close(bench.inherited(genotype, soft[part]), derived[part], TOLERANCE)
    picked = bench.space.assignment(genotype)
    for name in ("kernel", "depth"):  # only one layer depends on them
        tiny.assert_close(sampled["weights"][name][picked[name]], soft["weights"][name][picked[name]], TOLERANCE)


def test_what_a_network_lacks_keeps_its_values(bench: Bench) -> None:
    """Gradients and statistics of other channels; and, after an optimiser with momentum and decay, the weights themselves."""
    genotype = GENOTYPES[0]
    sampled = bench.sampled(genotype)
    marks = supernet.ran(bench.net, bench.params, gates.one_hot(bench.space, genotype))
    own = jax.tree.leaves(bench.inherited(genotype, bench.params))
    full = jax.tree.map(lambda m, v: jnp.broadcast_to(m, v.shape), marks, bench.params)
    assert sum(int(m.sum()) for m in jax.tree.leaves(full)) == sum(v.size for v in own)
    optimiser = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9))
    state = optimiser.init(bench.params)
    state = jax.tree.map(lambda v: v + 1.0, state)  # momentum from earlier steps
    after, _ = masked_update(optimiser, sampled["params"], state, bench.params, marks)
    for inside, gradient, old, new in zip(*map(jax.tree.leaves, (full, sampled["params"], bench.params, after)), strict=True):
        assert not np.any(np.where(inside, 0, gradient))
        np.testing.assert_array_equal(np.asarray(new != old), np.asarray(inside))
    moved = jax.tree.map(lambda a, b: a != b, sampled["stats"], bench.stats)
    moving = [v.size for v in jax.tree.leaves(bench.inherited(genotype, bench.stats))]
    assert sum(int(m.sum()) for m in jax.tree.leaves(moved)) == sum(moving)


def test_two_paths_of_other_widths(bench: Bench) -> None:
    """The first path gives the value; what either has got runs."""
    first, second = GENOTYPES[0], GENOTYPES[2]
    both, one = bench.two_paths(first, second), bench.sampled(first)
    tiny.assert_close(both["logits"], one["logits"], TOLERANCE)
    tiny.assert_close(both["params"], one["params"], TOLERANCE)
    active = {n: jnp.array([a, b]) for n, a, b in zip(bench.space.choices, first, second, strict=True)}
    marks = supernet.ran(bench.net, bench.params, Gates(gates.one_hot(bench.space, first).weights, active))
    wide = supernet.ran(bench.net, bench.params, gates.one_hot(bench.space, second))
    narrow = supernet.ran(bench.net, bench.params, gates.one_hot(bench.space, first))
    jax.tree.map(lambda a, b, c: np.testing.assert_array_equal(a, np.logical_or(b, c)), marks, wide, narrow)
    assert both["weights"]["kernel"].shape == (2,)


def test_other_genotypes_compile_nothing(bench: Bench) -> None:
    for use in (bench.soft, bench.sampled):
        use(GENOTYPES[0])
        before = bench.traces
        for seed in range(20):
            use(bench.space.sample(seed))
        assert bench.traces == before


def test_soft_masks_are_weighted_sums() -> None:
    """FBNetV2, equation 2: conv(x) times sum_i g_i m_i; per image if the gates are."""
    with jax.enable_x64(True):
        stem = Template(ConvOp, in_=3, out=Width("w", (1, 3, 4)), kernel=3, norm=None, act=None)
        last = Template(ConvOp, in_=Follow("w", (1, 3, 4)), out=2, norm=None, act=None)
        space = Space("s", (stem, last), resolution=4, num_classes=0)
        net, params, stats = supernet.init(space, jax.random.key(0), jnp.float64)
        x, g = tiny.normal(0, 2, 4, 4, 3, dtype="float64"), jax.nn.softmax(tiny.normal(1, 2, 3, dtype="float64"))
        mask = jnp.stack([g.sum(1), g[:, 1:].sum(1), g[:, 1:].sum(1), g[:, 2]], axis=1)
        wide = Architecture((stem_op := net.slots[0].hulls[0].op, net.slots[1].hulls[0].op), 3, 4, 0)
        assert stem_op == ConvOp(in_=3, out=4, kernel=3, norm=None, act=None)
        first = supernet.Net.of(Architecture((stem_op,), 3, 4, 0))
        middle, _ = supernet.apply(first, {"00": params["00"]}, {}, x)
        wanted = jnp.einsum("nhwc,nc,co->nhwo", middle, mask, params["01"][wide.layers[1].label]["conv"]["kernel"][0, 0])
        got, _ = supernet.apply(net, params, stats, x, Gates({"w": g}))
        tiny.assert_close(got, wanted, 1e-12)
        one, _ = supernet.apply(net, params, stats, x[:1], Gates({"w": g[0]}))
        tiny.assert_close(one, wanted[:1], 1e-12)


def test_gradients_of_soft_widths(bench: Bench) -> None:
    logits = {n: tiny.normal(i, len(c.options), dtype="float64") for i, (n, c) in enumerate(bench.space.choices.items())}

    def loss(logits: Any) -> Any:
        out, _ = supernet.apply(bench.net, bench.params, bench.stats, bench.x, gates.softmax(logits))
        return (out * bench.dy).sum()

    check_grads(jax.jit(loss), (logits,), 1, ["rev"], atol=1e-5, rtol=1e-5)
    gradient = tiny.compiled(jax.grad(loss))(logits)
    assert all(np.abs(v).max() > 1e-6 for v in gradient.values())


def every(space: Space) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(len(c.options)) for c in space.choices.values())))


def test_codes_files_and_sizes() -> None:
    space = tiny.width_space()
    codes = every(space)
    assert space.size == len(codes) == len({space.fix(g) for g in codes}) == 64
    for genotype in codes:
        assert space.encode(space.fix(genotype)) == space.canonical(genotype) == genotype
    again = Space.from_json(json.loads(json.dumps(space.to_json())))
    assert again == space and again.slots == space.slots and again.fingerprint == space.fingerprint
    with pytest.raises(SpaceError, match="layer 1, ir"):
        wrong = InvertedResidualOp(in_=3, mid=5, out=4)
        space.encode(
            Architecture((ConvOp(in_=3, out=3, kernel=3, stride=2), wrong, GlobalPoolOp(), LinearOp(in_=4, out=3)), 3, 8, 3)
        )


W = Width("w", (2, 4))
AFTER = Follow("w", (2, 4))
STEM = Template(ConvOp, in_=3, out=W)
WRONG: dict[str, Any] = {
    "layer 0 (w): candidates give different shapes (conv_k1_out2: 4x4x2, conv_k1_out4: 4x4x4); layer 1, candidate conv_k1, "
    "takes 4 channels and is given 2": (STEM, ConvOp(in_=4, out=4)),
    "layer 0 (w): candidates give different shapes": (STEM,),
    "layer 1: ir: expand cannot be masked": (
        STEM, Template(InvertedResidualOp, in_=AFTER, mid=AFTER, out=4, expand_groups=2),
    ),
    "layer 0: conv: a width changes kernel": (Template(ConvOp, in_=3, out=4, kernel=Width("w", (3, 5))),),
    "a field follows the choice 'v'": (STEM, Template(ConvOp, in_=Follow("v", (2, 4)), out=4)),
    "w: a field has 3 values for its 2 options": (STEM, Template(ConvOp, in_=Follow("w", (2, 4, 6)), out=4)),
    "w: tied choices have options": (STEM, Template(ConvOp, in_=AFTER, out=OneOf("w", (2, 4)))),
    "layer 0 (d, w): candidates give different shapes": (Stage(OneOf("d", (0, 1)), (STEM,)),),
    "the width w decides which op runs": (
        STEM, Template(ConvOp, in_=AFTER, out=4, kernel=Follow("w", (3, OneOf("k", (3, 5))))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_impossible_widths_are_refused_at_the_layer(text: str) -> None:
    with pytest.raises(SpaceError) as caught:
        Space("toy", WRONG[text], 3, 4, 0)
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_widths_are_numbers_of_channels() -> None:
    for options in ((0, 2), ("a",), (True, 2)):
        with pytest.raises(SpaceError, match=r"w: widths .*; expected whole numbers from 1"):
            Width("w", options)
    identity = Template(SkipOp, in_=AFTER, out=AFTER)
    layers = (
        STEM,
        OneOf("l", (identity, Template(ConvOp, in_=AFTER, out=AFTER, kernel=3))),
        Template(ConvOp, in_=AFTER, out=4),
    )
    space = Space("toy", layers, 3, 4, 0)
    assert space.size == 4 and space.fix((1, 0)).layers[1] == SkipOp(in_=4, out=4)
    assert [h.label for h in space.slots[1].hulls] == ["skip", "conv_k3"]
    with pytest.raises(SpaceError, match="the fields follow"):
        Space.from_json(space.to_json() | {"layers": [{"op": "conv", "in": {"follow": "w"}, "out": 3}]})
