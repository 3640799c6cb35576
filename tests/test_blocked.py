"""Inverted residuals by blocks of images equal the same on whole maps: values, moments and every gradient, in float64."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from dnas.layers import blocked as lib
from dnas.layers.conv import Pads, padding_of
from dnas.layers.norm import ACTIVATIONS, normalise


def reference(spec: lib.Spec, x: jax.Array, w: lib.Weights) -> Any:
    a, *first = normalise(x @ w.expand, w.expand_scale, w.expand_bias, spec.act, spec.eps)
    d = lax.conv_general_dilated(
        a,
        w.taps[:, :, None],
        (spec.stride, spec.stride),
        spec.pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=a.shape[-1],
    )
    b, *second = normalise(d, w.depthwise_scale, w.depthwise_bias, spec.act, spec.eps)
    parts = zip(lax.split(b, spec.mids, axis=3), w.project, strict=True)
    return jnp.concatenate([part @ kernel for part, kernel in parts], -1), lib.Moments(*first, *second)


def same(size: tuple[int, int, int, int], mids: tuple[int, ...], kernel: int, stride: int, pads: Pads, act: str) -> None:
    with jax.enable_x64(True):
        wide, out = sum(mids), 3
        shapes = [(size[-1], wide), (wide,), (wide,), (kernel, kernel, wide), (wide,), (wide,)]
        parts = [tiny.normal(i, *shape, dtype="float64") for i, shape in enumerate(shapes)]
        projects = tuple(tiny.normal(i, m, out, dtype="float64") for i, m in enumerate(mids))
        w = lib.Weights(*parts, projects)
        x = 0.7 + tiny.normal(9, *size, dtype="float64")
        spec = lib.Spec(mids, act, stride, pads, 1e-5)

        def run(f: Any, x: jax.Array, w: lib.Weights) -> Any:
            y, pull, moments = jax.vjp(lambda x, w: f(x, w), x, w, has_aux=True)
            return y, moments, pull(tiny.normal(8, *y.shape, dtype="float64"))

        got = tiny.compiled(lambda x, w: run(lambda x, w: lib.blocked(spec, x, *lib.input_moments(x), w), x, w))(x, w)
        wanted = tiny.compiled(lambda x, w: run(lambda x, w: reference(spec, x, w), x, w))(x, w)
        tiny.assert_close(got, wanted, 1e-9)


CASES = {
    "one block": ((4, 8, 8, 6), (6, 12), 3, 1, ((1, 1), (1, 1)), "relu"),
    "odd, strided": ((3, 7, 9, 4), (5, 3), 5, 2, ((2, 2), (2, 2)), "hswish"),
    "padded after": ((4, 8, 6, 5), (7,), 5, 2, ((1, 2), (1, 2)), "relu6"),
}


@pytest.mark.parametrize("keep", [1, 10**6])
@pytest.mark.parametrize("name", CASES)
def test_blocks_are_the_whole(name: str, keep: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks, with the expansion kept for the backward pass and computed again."""
    monkeypatch.setattr(lib, "KEEP_CHANNELS", keep)
    monkeypatch.setattr(lib, "BLOCK_BYTES", 1 if keep == 1 else 2**13)
    same(*CASES[name])


@pytest.mark.slow
@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_any_shape(data: st.DataObject) -> None:
    kernel, stride = data.draw(st.sampled_from([1, 3, 5, 7])), data.draw(st.integers(1, 3))
    size = (data.draw(st.integers(2, 6)), *(data.draw(st.integers(kernel, 11)) for _ in range(2)), data.draw(st.integers(1, 6)))
    rule, pad = data.draw(st.sampled_from([("symmetric", None), ("tf_same", None), ("symmetric", 0)]))
    mids = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    pads = padding_of(size[1:3], kernel, stride, rule, pad)
    same(size, mids, kernel, stride, pads, data.draw(st.sampled_from(sorted(ACTIVATIONS))))


def test_float32_moments_do_not_cancel() -> None:
    """A depthwise output far from zero: its variance comes from deviations, not from a difference of squares."""
    w = lib.Weights(*(jnp.ones(s) for s in [(1, 1), (1,), (1,), (1, 1, 1), (1,), (1,)]), (jnp.ones((1, 1)),))
    w = w._replace(expand_bias=jnp.full(1, 3000.0))
    x = tiny.normal(0, 64, 4, 4, 1)
    spec = lib.Spec((1,), "relu", 1, ((0, 0), (0, 0)), 1e-5)
    moments = jax.jit(lambda x, w: lib.blocked(spec, x, *lib.input_moments(x), w)[1])(x, w)
    assert float(moments.depthwise_var[0]) == pytest.approx(1.0, rel=2e-3)
