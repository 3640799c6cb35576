"""Lowerings of convolutions equal ``lax.conv_general_dilated``, and batch normalisation its formula: values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax import lax
from jax.test_util import check_grads
from tiny import assert_close, normal

from dnas.layers import norm
from dnas.layers.conv import block_size, conv, padding_of, per_channel, shuffle
from dnas.layers.norm import ACTIVATIONS, batch_norm

ACTS = [None, *ACTIVATIONS]
TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 3e-2}


def precision(dtype: str) -> Any:
    return jax.enable_x64(True) if dtype == "float64" else nullcontext()


def value_and_pullback(f: Callable[..., Any], cotangent: jax.Array, *args: jax.Array) -> Any:
    def run(cotangent: jax.Array, *args: jax.Array) -> Any:
        y, pull = jax.vjp(f, *args)
        return y, pull(cotangent)

    return tiny.compiled(run)(cotangent, *args)


def reference(x: jax.Array, kernel: jax.Array, stride: int, pads: Any, groups: int) -> jax.Array:
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=dimensions, feature_group_count=groups)


def same_convolution(
    dtype: str, size: tuple[int, int], kernel: int, stride: int, rule: str, pad: int | None, in_: int, out: int, groups: int
) -> None:
    """``conv`` against float64 ``lax.conv_general_dilated`` on the same (rounded) numbers."""
    with precision(dtype):
        x = normal(0, 3, *size, in_, dtype=dtype)
        taps = normal(1, kernel, kernel, in_ // groups, out, dtype=dtype)
        pads = padding_of(size, kernel, stride, rule, pad)
        dy = normal(2, *jax.eval_shape(lambda: reference(x, taps, stride, pads, groups)).shape, dtype=dtype)
        got = value_and_pullback(lambda x, k: conv(x, k, stride, pads, groups), dy, x, taps)
        assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype(dtype)}
    with jax.enable_x64(True):
        wide = [np.asarray(a, np.float64) for a in (dy, x, taps)]
        wanted = value_and_pullback(lambda x, k: reference(x, k, stride, pads, groups), *wide)
    assert_close(got, wanted, TOLERANCE[dtype])


# -- convolutions -------------------------------------------------------------------------------------------------

PADDING = {"symmetric": ("symmetric", None), "tf_same": ("tf_same", None), "none": ("symmetric", 0), "pad2": ("tf_same", 2)}
WHOLE_GRID = [(k, s, p) for k in (1, 3, 5, 7) for s in (1, 2, 3) for p in PADDING]
FAST_GRID = {(1, 2, "pad2"), (3, 1, "symmetric"), (3, 2, "tf_same"), (3, 3, "none"), (5, 2, "symmetric"), (7, 3, "tf_same")}


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [pytest.param(*case, marks=() if case in FAST_GRID else pytest.mark.slow) for case in WHOLE_GRID],
)
def test_depthwise(kernel: int, stride: int, padding: str) -> None:
    same_convolution("float64", (8, 11), kernel, stride, *PADDING[padding], in_=5, out=5, groups=5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_depthwise_in_other_precisions(dtype: str) -> None:
    same_convolution(dtype, (9, 6), 3, 2, "tf_same", None, in_=5, out=5, groups=5)


@pytest.mark.parametrize("bytes_", [2**9, 2**13])
def test_sums_over_several_blocks_of_accumulators(monkeypatch: pytest.MonkeyPatch, bytes_: int) -> None:
    """Small enough that they go strip by strip, or image by image."""
    monkeypatch.setattr("dnas.layers.conv.ACCUMULATOR_BYTES", bytes_)
    assert (block_size(4, 9 * 5 * 5 * 8), block_size(4, 4 * 9 * 5 * 5 * 8)) == ((1, 1) if bytes_ == 2**9 else (4, 1))
    same_convolution("float64", (8, 10), 3, 2, "tf_same", None, in_=5, out=5, groups=5)
    test_batch_norm_is_its_formula("relu")


@pytest.mark.parametrize(
    ("stride", "groups", "dtype"),
    [(1, 1, "float64"), (2, 3, "float64"), (3, 6, "float64"), (2, 1, "bfloat16"), (1, 3, "float32")],
)
def test_pointwise(stride: int, groups: int, dtype: str) -> None:
    same_convolution(dtype, (5, 8), 1, stride, "symmetric", None, in_=6, out=12, groups=groups)


@pytest.mark.parametrize(("kernel", "groups", "out"), [(3, 1, 4), (3, 2, 8), (3, 6, 12)])
def test_other_convolutions(kernel: int, groups: int, out: int) -> None:
    """Dense, grouped, and depthwise with a channel multiplier."""
    same_convolution("float64", (5, 8), kernel, 2, "tf_same", None, in_=6, out=out, groups=groups)


@pytest.mark.parametrize("size", [5, 6, 7])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 3), (1, 2), (7, 1)])
def test_tf_same_is_what_lax_calls_same(size: int, kernel: int, stride: int) -> None:
    wanted = lax.padtype_to_pads((size, 9), (kernel, kernel), (stride, stride), "SAME")
    assert list(padding_of((size, 9), kernel, stride, "tf_same", None)) == list(wanted)


def test_shuffle_interleaves_the_groups() -> None:
    x = jnp.arange(6.0).reshape(1, 1, 1, 6)
    assert shuffle(x, 2).ravel().tolist() == [0, 3, 1, 4, 2, 5]
    np.testing.assert_array_equal(shuffle(shuffle(x, 2), 3), x)


# -- batch normalisation ------------------------------------------------------------------------------------------


def formula(x: jax.Array, scale: jax.Array, bias: jax.Array, act: str | None, eps: float) -> jax.Array:
    mean = x.mean((0, 1, 2), keepdims=True)
    var = jnp.square(x - mean).mean((0, 1, 2), keepdims=True)
    z = (x - mean) / jnp.sqrt(var + eps) * per_channel(scale, x) + per_channel(bias, x)
    return z if act is None else ACTIVATIONS[act](z)


def trained(x: jax.Array, scale: jax.Array, bias: jax.Array, act: str | None = None, momentum: Any = 0.9) -> Any:
    zero, one = jnp.zeros_like(scale), jnp.ones_like(scale)
    return batch_norm(x, scale, bias, zero, one, act, 1e-3, True, momentum)


@pytest.mark.parametrize("act", ACTS)
def test_batch_norm_is_its_formula(act: str | None) -> None:
    with jax.enable_x64(True):
        args = normal(0, 3, 4, 5, 2, dtype="float64"), 1 + normal(1, 2, dtype="float64") / 4, normal(2, 2, dtype="float64")
        dy = normal(3, 3, 4, 5, 2, dtype="float64")
        got = value_and_pullback(lambda *a: trained(*a, act=act)[0], dy, *args)
        assert_close(got, value_and_pullback(lambda *a: formula(*a, act, 1e-3), dy, *args), 1e-12)


@pytest.mark.parametrize("act", [None, "swish"])
def test_batch_norm_gradient_is_the_finite_difference(act: str | None) -> None:
    with jax.enable_x64(True):
        args = normal(0, 2, 3, 2, 2, dtype="float64"), normal(1, 2, dtype="float64"), normal(2, 2, dtype="float64")
        check_grads(jax.jit(lambda *a: trained(*a, act=act)[0]), args, order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


def test_batch_norm_in_eval_mode_uses_the_running_statistics_and_keeps_them() -> None:
    x, scale, bias, mean = normal(0, 2, 3, 3, 2), jnp.array([0.5, 2.0]), jnp.array([1.0, -1.0]), jnp.array([0.3, -0.2])
    var = jnp.array([2.0, 0.25])
    y, *kept = batch_norm(x, scale, bias, mean, var, "relu", 1e-3, False, 0.9)
    wanted = np.maximum((np.asarray(x) - np.asarray(mean)) / np.sqrt(np.asarray(var) + 1e-3) * [0.5, 2.0] + [1.0, -1.0], 0)
    assert_close(y, wanted, 1e-6)
    np.testing.assert_array_equal(kept, [mean, var])


def test_traced_train_equals_both_static_modes() -> None:
    x, scale, bias, mean, var = (
        normal(0, 3, 4, 4, 2),
        jnp.array([0.5, 2.0]),
        jnp.ones(2),
        jnp.array([0.3, -0.2]),
        jnp.ones(2) * 2,
    )

    def run(train: Any) -> Any:
        return batch_norm(x, scale, bias, mean, var, "hswish", 1e-3, train, 0.7)

    traced = jax.jit(run)
    assert_close(traced(jnp.bool_(True)), run(True), 1e-6)
    assert_close(traced(jnp.bool_(False))[0], run(False)[0], 1e-6)
    np.testing.assert_array_equal(traced(jnp.bool_(False))[1:], [mean, var])


def test_a_forward_pass_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal layers share one trace, and derivatives find it again."""
    traces = []
    moments = norm._moments
    monkeypatch.setattr(norm, "_moments", lambda x: traces.append(x.shape) or moments(x))
    x, scale, bias = normal(0, 3, 5, 7, 11), jnp.ones(11), jnp.zeros(11)  # a shape of its own: nothing was traced before

    def loss(x: jax.Array) -> jax.Array:
        for _ in range(3):
            x = trained(x, scale, bias, act="relu")[0]
        return (x**2).sum()

    jax.jit(jax.value_and_grad(loss)).lower(x)
    jax.jit(loss).lower(x)
    assert traces == [x.shape]


@pytest.mark.parametrize(("mean", "std"), [(1e4, 1.0), (-300.0, 1e-2), (0.0, 1e-4)])
def test_variance_does_not_cancel(mean: float, std: float) -> None:
    """float32 statistics of a map whose mean is up to 30,000 times its spread."""
    x = np.float32(mean + std * np.random.default_rng(0).normal(size=(16, 5, 5, 2)))
    _, got_mean, got_var = trained(jnp.asarray(x), jnp.ones(2), jnp.zeros(2), momentum=0.0)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(got_mean, exact.mean((0, 1, 2)), rtol=1e-6, atol=1e-3 * std)
    np.testing.assert_allclose(got_var, exact.var((0, 1, 2)), rtol=1e-3)


def test_bfloat16_maps_have_float32_statistics() -> None:
    x = normal(0, 8, 5, 5, 2, dtype="bfloat16") + 3
    y, mean, var = trained(x, jnp.ones(2), jnp.zeros(2), "relu", momentum=0.0)
    exact = np.asarray(x, np.float64)
    assert (y.dtype, mean.dtype, var.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(var, exact.var((0, 1, 2)), rtol=1e-5)


def test_running_statistics_decay_by_the_momentum() -> None:
    x = normal(0, 4, 3, 3, 2) * 2 + 1
    _, mean, var = trained(x, jnp.ones(2), jnp.zeros(2), momentum=0.9)
    np.testing.assert_allclose(mean, 0.1 * np.asarray(x).mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(var, 0.9 + 0.1 * np.asarray(x).var((0, 1, 2)), rtol=1e-5)  # biased, as in Flax


def test_momentum_of_a_cumulative_mean() -> None:
    batches = [np.asarray(normal(i, 4, 3, 3, 2)) * (i + 1) + i for i in range(4)]
    mean, var = jnp.full(2, 7.0), jnp.full(2, 7.0)
    for i, x in enumerate(batches):
        _, mean, var = batch_norm(
            jnp.asarray(x), jnp.ones(2), jnp.zeros(2), mean, var, None, 1e-3, True, jnp.float32(i / (i + 1))
        )
    np.testing.assert_allclose(mean, np.mean([x.mean((0, 1, 2)) for x in batches], axis=0), rtol=1e-5)
    np.testing.assert_allclose(var, np.mean([x.var((0, 1, 2)) for x in batches], axis=0), rtol=1e-5)
