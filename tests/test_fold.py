"""Folded steps compute what the network computes, in float64, for every op type and for published networks."""

from __future__ import annotations

import dataclasses
from typing import Any

import hash_filled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_ops import BY_HAND

from dnas import fold, supernet
from dnas.arch import Architecture, Defaults
from dnas.errors import WeightsError
from dnas.ops import ConvOp, GlobalPoolOp, InvertedResidualOp, LinearOp, Shape

ACTS = ("relu", "relu6", "hswish", "swish", "gelu")


def alone(op: Any, shape: Shape, padding: str = "symmetric") -> Architecture:
    """The op as a network of its own, on square maps, with feature output."""
    return Architecture((op,), shape.channels, shape.height, 0, Defaults(padding=padding))


def cases() -> tuple[dict[str, Architecture], dict[str, Architecture]]:
    """Every op type; and the same with the other padding rule on maps of even size, and every activation."""
    first, more = {}, {}
    for name, (op, shape, *_) in BY_HAND.items():
        first[name] = alone(op, Shape(shape[0], shape[0], shape[2]))
        if getattr(op, "stride", 1) > 1:
            more[f"{name}, tf_same"] = alone(op, Shape(shape[0] + 1, shape[0] + 1, shape[2]), "tf_same")
            more[f"{name}, even"] = alone(op, Shape(shape[0] + 1, shape[0] + 1, shape[2]))
    for act in ACTS:
        more[act] = alone(ConvOp(in_=3, out=4, act=act, bias=True, norm=None), Shape(4, 4, 3))
    return first, more


OPS, MORE = cases()
FAST = (
    "conv",
    "ir, groups, shuffle, bias",
    "ir, mixed kernels and splits",
    "uib, everything",
    "meta2d",
    "meta1d",
    "token_head",
)


def filled(network: Architecture) -> tuple[Any, Any, np.ndarray]:
    """Parameters, statistics and two images from an integer hash."""
    params, stats, _ = hash_filled.filled(network, gain=1.5)
    shape = (2, *network.shapes[0])
    return params, stats, 3 * hash_filled.hashed(-1, int(np.prod(shape))).reshape(shape)


def assert_folded(network: Architecture) -> None:
    """To 1e-12 of the largest output: rounding of float64 through a few dozen sums."""
    params, stats, x = filled(network)
    folded = fold.fold(network, params, stats)
    with jax.enable_x64(True):
        net = supernet.Net.of(network)
        wanted = tiny.compiled(lambda p, s, x: supernet.apply(net, p, s, x)[0])(params, stats, jnp.asarray(x))
        got = tiny.compiled(lambda x: fold.apply(folded, x))(jnp.asarray(x))
        assert got.dtype == wanted.dtype == np.float64
        tiny.assert_close(got, wanted, 1e-12)
    assert tuple(got.shape[1:]) == folded.output_shape


@pytest.mark.parametrize("name", FAST)
def test_an_op_folded_is_the_op(name: str) -> None:
    assert_folded(OPS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in {**OPS, **MORE} if n not in FAST])
def test_all_ops_folded_are_the_ops(name: str) -> None:
    assert_folded({**OPS, **MORE}[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fbnet_c", "mixnet_s", "mobiledet_dsp", "mobilenetv3_large_100", "mobilenetv4_conv_small"])
def test_a_network_folded_is_the_network(name: str) -> None:
    assert_folded(Architecture.load(name).at(64))


@pytest.mark.slow
def test_efficientformer_folded_is_efficientformer() -> None:
    assert_folded(Architecture.load("efficientformer_l1"))


def test_what_is_left_of_a_network() -> None:
    """Every BN and layer scale of a MobileNet-like network is gone: convolutions with activations, pooling, a product, sums."""
    network = Architecture.load("mobilenetv3_large_100").at(32)
    params, stats, _ = filled(network)
    folded = fold.fold(network, params, stats)
    kinds = {type(step) for step in folded.steps}
    assert kinds == {fold.Conv, fold.Add, fold.GlobalPool, fold.Multiply, fold.Dense}
    norms = sum(2 * p.channels for op in network.layers for p in op.primitives() if type(p).__name__ == "Norm")
    biases = sum(s.bias.size for s in folded.steps if isinstance(s, fold.Conv) and "/se/" not in s.name)
    had = sum(p.out for op in network.layers for p in op.primitives() if getattr(p, "bias", False) and hasattr(p, "groups"))
    assert folded.params == network.params - norms + biases - had


def test_a_batch_norm_that_others_read_before_is_not_folded() -> None:
    """The residual's input must stay as it was: with a BN as the first step nothing before the op may change."""
    params, stats = {"scale": np.full(2, 3.0), "bias": np.ones(2)}, {"mean": np.zeros(2), "var": np.ones(2)}
    first = ConvOp(in_=3, out=2, norm=None, act=None)
    network = Architecture((first, first.__class__(in_=2, out=2)), 3, 2, 0)
    trees = hash_filled.filled(network, 1.0)[:2]
    builder = fold._Builder(network)
    value = 0
    for step in first.steps():
        value = builder.step(step, value, fold._Leaves("00", trees[0]["00"]["conv_k1"], {}))
    builder.kept = value
    norm = dataclasses.replace(network.layers[1].steps()[1], act=None)
    assert builder.step(norm, value, fold._Leaves("01", {"bn": params}, {"bn": stats})) == value + 1
    assert isinstance(builder.steps[-1], fold.Affine)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: tree["00"]["conv_k3"]["conv"].pop("kernel"), "layer 00: conv/kernel is missing"),
        (lambda tree: tree.pop("01"), "layer 01: expand/kernel is missing"),
        (
            lambda tree: tree["03"]["linear"]["linear"].update(kernel=np.zeros((4, 7))),
            r"layer 03: linear/kernel is \(4, 7\); the architecture needs \(4, 3\)",
        ),
    ],
)
def test_weights_of_another_network_are_refused(change: Any, words: str) -> None:
    block = InvertedResidualOp(in_=4, mid=8, out=4)
    layers = (ConvOp(in_=3, out=4, kernel=3, stride=2), block, GlobalPoolOp(), LinearOp(in_=4, out=3))
    network = Architecture(layers, 3, 8, 3)
    params, stats, _ = filled(network)
    change(params)
    with pytest.raises(WeightsError, match=words):
        fold.fold(network, params, stats)
