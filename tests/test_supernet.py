"""Networks from descriptions: initial values, the fused mixture, gates per sample, evaluation, errors, several devices."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import dnas
from dnas import gates, supernet
from dnas.arch import Architecture
from dnas.devices import spread_over
from dnas.errors import ConfigError
from dnas.gates import Gates
from dnas.layers.fused import fusible
from dnas.ops import SE, ConvOp, InvertedResidualOp, Op, SkipOp
from dnas.space import OneOf, Space

block = tiny.block

# -- initial values -----------------------------------------------------------------------------------------------


def leaves(tree: Any) -> dict[str, np.ndarray]:
    return {jax.tree_util.keystr(path): np.asarray(v) for path, v in jax.tree_util.tree_leaves_with_path(tree)}


def test_init_is_a_function_of_the_key() -> None:
    space = tiny.plain_space()
    first, again, other = (leaves(supernet.init(space, jax.random.key(k))[1]) for k in (3, 3, 4))
    for path, value in first.items():
        np.testing.assert_array_equal(value, again[path])
        assert path.endswith("kernel']") == bool(np.any(value != other[path]))


def test_init_under_vmap_and_jit_is_the_eager_one() -> None:
    space = tiny.template_space()
    keys = jax.random.split(jax.random.key(0), 3)
    many = jax.jit(jax.vmap(lambda key: supernet.init(space, key)[1:]))(keys)
    for i in range(3):
        wanted = leaves(supernet.init(space, keys[i])[1:])
        for path, value in leaves(many).items():
            np.testing.assert_array_equal(value[i], wanted[path])


def test_initial_scales_are_one_in_every_last_norm_and_variances_are_those_of_the_docstring() -> None:
    """A zero in the last BN of a residual block would make every candidate equal to skip."""
    wide = Architecture((ConvOp(in_=3, out=256, kernel=3), block(5, 4, 256, 256), block(3, 1, 256, 256)), num_classes=0)
    _, params, stats = supernet.init(wide, jax.random.key(0))
    for path, value in leaves(params).items():
        if path.endswith("kernel']"):
            fan_out = value.shape[0] * value.shape[1] * (1 if "depthwise" in path else value.shape[3])
            assert value.var() == pytest.approx(2 / fan_out, rel=0.05)
        else:
            np.testing.assert_array_equal(value, float("scale" in path))
    assert all(np.all(v == float("var" in path)) for path, v in leaves(stats).items())
    _, params, _ = supernet.init(Architecture.from_dict({**_linear(1000, 500)}), jax.random.key(0))
    assert leaves(params)["['01']['linear']['linear']['kernel']"].var() == pytest.approx(1 / 1000, rel=0.05)


def _linear(in_: int, out: int) -> dict[str, Any]:
    layers = [{"op": "global_pool"}, {"op": "linear", "in": in_, "out": out, "bias": True}]
    defaults = {"bn": {"eps": 1e-5, "momentum": 0.9}, "padding": "symmetric"}
    size = {"channels": in_, "resolution": 2}
    return {"format": "dnas-arch/1", "name": "n", "input": size, "num_classes": out, "defaults": defaults, "layers": layers}


# -- the fused mixture --------------------------------------------------------------------------------------------

GROUPED = dict(expand_groups=2, project_groups=2, shuffle=2)
MIXTURES: dict[str, list[Op]] = {
    "residual": [block(3, 1, expand=False), block(3, 1, **GROUPED), block(5, 3), block(3, 2), SkipOp(in_=4, out=4)],
    "biased, reducing": [
        block(3, 2, 4, 6, 2, bias=True), block(5, 1, 4, 6, 2, bias=True, expand=False),
        block(5, 1, 4, 6, 2, bias=True, **GROUPED), ConvOp(in_=4, out=6, kernel=3, stride=2),
    ],
    "swish, one without residual": [
        block(3, 2, act="swish"), InvertedResidualOp(in_=4, mid=12, out=4, act="swish"), block(5, 3, act="swish"),
        block(3, 4, act="swish", se=SE(2)), block(3, 5, act="relu6"),
    ],
}  # fmt: skip
FUSED = {"residual": 4, "biased, reducing": 3, "swish, one without residual": 3}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if "swish" in n else ()) for n in MIXTURES])
def test_fused_mixture_is_the_sum_of_its_candidates(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values, gradients of input, weights and gates, statistics; the second case with the lowerings of the CPU."""
    if name != "biased, reducing":
        monkeypatch.setattr(jax, "default_backend", lambda: "other")  # compiles faster
    ops = MIXTURES[name]
    assert len(fusible([(op.label, op) for op in ops])) == FUSED[name]
    with jax.enable_x64(True):
        space = Space("one_layer", (OneOf("l", tuple(ops)),), input_channels=4, resolution=5, num_classes=0)
        labels = [c.label for c in space.slots[0].candidates]
        net, params, stats = supernet.init(space, jax.random.key(0), jnp.float64)
        params = jax.tree.map(lambda v: v + 0.2 * tiny.normal(v.size, *v.shape, dtype="float64"), params)
        x, weights = tiny.normal(1, 3, 5, 5, 4, dtype="float64"), jax.nn.softmax(tiny.normal(2, len(ops), dtype="float64"))
        dy = tiny.normal(3, 3, *space.slots[0].out_shape, dtype="float64")
        alone = [supernet.Net.of(Architecture((op,), 4, 5, 0)) for op in ops]

        def separate(params: Any, stats: Any, x: jax.Array, weights: jax.Array) -> Any:
            total, new = jnp.zeros(()), {}
            for i, (net, op, label) in enumerate(zip(alone, ops, labels, strict=True)):
                own = [{"00": {op.label: t["00"][label]}} if label in t["00"] else {} for t in (params, stats)]
                y, after = supernet.apply(net, *own, x, None, True)
                total = y * weights[i] + (total if i else 0)
                new |= {label: after["00"][op.label]} if after else {}
            return total, {"00": new}

        def fused(params: Any, stats: Any, x: jax.Array, weights: jax.Array) -> Any:
            return supernet.apply(net, params, stats, x, Gates({"l": weights}), True)

        def run(f: Any, params: Any, stats: Any, x: jax.Array, weights: jax.Array) -> Any:
            y, pull, new = jax.vjp(lambda p, x, w: f(p, stats, x, w), params, x, weights, has_aux=True)
            return y, pull(dy), new

        got, wanted = (tiny.compiled(partial(run, f))(params, stats, x, weights) for f in (fused, separate))
        tiny.assert_close(got, wanted, 1e-10)


# -- gates --------------------------------------------------------------------------------------------------------


def test_gates_per_sample_are_every_sample_alone() -> None:
    space = tiny.tied_space()
    net, params, stats = supernet.init(space, jax.random.key(0))
    x = tiny.normal(1, 4, 8, 8, 3)
    logits = {n: tiny.normal(i, 4, len(c.options)) for i, (n, c) in enumerate(space.choices.items())}
    weights = gates.softmax(logits).weights
    run = tiny.compiled(lambda x, w: supernet.apply(net, params, stats, x, Gates(w)))
    together, same = run(x, weights)
    one_by_one = jnp.concatenate([run(x[i : i + 1], {n: w[i] for n, w in weights.items()})[0] for i in range(4)])
    tiny.assert_close(together, one_by_one, 1e-5)
    assert np.abs(together - run(x, {n: w[0] for n, w in weights.items()})[0])[1:].max() > 1e-3
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), same, stats))  # evaluation moves no statistics


@pytest.mark.parametrize("run_all", [True, False])
def test_evaluation_moves_no_statistics(run_all: bool) -> None:
    space = tiny.stage_space()
    net, params, stats = supernet.init(space, jax.random.key(0))
    stats = jax.tree.map(lambda v: v + 0.25, stats)
    chosen = gates.one_hot(space, (2, 0, 1, 1), run_all)
    run = tiny.compiled(lambda x, train: supernet.apply(net, params, stats, x, chosen, train)[1])
    x = tiny.normal(1, 4, 8, 8, 3)
    for path, value in leaves(run(x, jnp.bool_(False))).items():
        np.testing.assert_array_equal(value, leaves(stats)[path])
    moved = {path for path, value in leaves(run(x, jnp.bool_(True))).items() if np.any(value != leaves(stats)[path])}
    picked = [f"['{i:02d}']['{c.label}']" for i, c in enumerate(space.picked((2, 0, 1, 1)))]
    assert moved == {p for p in leaves(stats) if run_all or p.startswith(tuple(picked))}


def test_float32_networks_run_where_float64_is_enabled() -> None:
    space = tiny.nested_space()
    net, params, stats = supernet.init(space, jax.random.key(0))
    with jax.enable_x64(True):
        for run_all in (True, False):
            chosen = gates.one_hot(space, (0, 1, 0, 0, 1), run_all)
            logits, new = jax.eval_shape(
                lambda g: supernet.apply(net, params, stats, jnp.ones((2, 8, 8, 3), "float32"), g, True), chosen
            )
            assert logits.dtype == jnp.float32
            assert jax.tree.map(jnp.result_type, new) == jax.tree.map(jnp.result_type, stats)


def test_wrong_images_and_missing_gates_are_refused() -> None:
    space = tiny.plain_space()
    net, params, stats = dnas.init(space, jax.random.key(0))
    with pytest.raises(ConfigError, match=r"images of shape \(9, 8, 3\); this network takes 8x8x3"):
        dnas.apply(net, params, stats, jnp.zeros((1, 9, 8, 3)), gates.uniform(space))
    with pytest.raises(ConfigError, match="2 open choices"):
        dnas.apply(net, params, stats, jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(ConfigError, match="2 open choices"):
        dnas.apply(net, params, stats, jnp.zeros((1, 8, 8, 3)), Gates({"l1": jnp.ones(4) / 4}))


# -- devices ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [8, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4))])
@pytest.mark.parametrize("sampled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_several_devices_are_one(sampled: bool, count: int) -> None:
    """Parameters replicated, images sharded: equal loss, gradients and (global) statistics; no device sees another's maps."""
    space = tiny.plain_space()
    description = space if sampled else space.fix((0, 0))
    chosen = gates.one_hot(space, (0, 1)) if sampled else None
    net, params, stats = supernet.init(description, jax.random.key(0))
    x, dy = tiny.normal(1, 16, 8, 8, 3), tiny.normal(2, 16, 3)

    def run(on: Mesh | None, *given: Any) -> Any:
        with spread_over(on):
            return tiny.pull(net, *given)

    one = tiny.compiled(partial(run, None))(params, stats, x, chosen, dy)
    mesh = Mesh(np.array(jax.devices()[:count]), ("data",))
    assert mesh.size == count
    everywhere, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    params, stats, chosen = jax.device_put((params, stats, chosen), everywhere)
    given = (params, stats, jax.device_put(x, split), chosen, jax.device_put(dy, split))
    program = tiny.compiled(partial(run, mesh)).lower(*given).compile()
    assert set(re.findall(r" (all-\w+|collective-\w+)(?:-start)?\(", program.as_text())) == {"all-reduce"}
    several = program(*given)
    assert len(several["x"].sharding.device_set) == count
    tiny.assert_close(several, one, 1e-5, least=1)


def test_equal_neighbours_run_in_one_loop_unless_every_map_is_kept() -> None:
    """Sampled paths and rematerialised layers; that the loop computes the same is what the identities say."""
    layers = [OneOf(f"l{i}", (block(3), block(5), SkipOp(in_=4, out=4))) for i in range(3)]
    space = tiny.network("tiny_alike", *layers, OneOf("other", (block(3), block(5))))
    net, params, stats = dnas.init(space, jax.random.key(0))
    assert [len(group) for group in net.alike] == [1, 3, 1, 1, 1]
    x = jnp.ones((2, 8, 8, 3))
    sampled, soft = gates.one_hot(space, [0, 1, 2, 0]), gates.uniform(space)

    def loops(picked: Gates, remat: bool) -> int:
        text = str(jax.make_jaxpr(lambda x: supernet.apply(net, params, stats, x, picked, False, remat=remat)[0])(x))
        return text.count("scan[")

    assert [loops(sampled, False), loops(soft, True), loops(soft, False)] == [1, 1, 0]
