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

from dnas.arch import Defaults
from dnas.layers import blocked as lib
from dnas.layers import blocks, fused
from dnas.layers.conv import Pads, padding_of
from dnas.layers.norm import ACTIVATIONS, normalise
from dnas.layers.op import layer_of
from dnas.ops import InvertedResidualOp


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
    last = [
        normalise(part @ kernel, scale, bias, None, spec.eps)
        for part, kernel, scale, bias in zip(
            lax.split(b, spec.mids, axis=3), w.project, w.project_scale, w.project_bias, strict=True
        )
    ]
    y = sum(found[0] * gate for found, gate in zip(last, w.gates, strict=True))
    return y, lib.Moments(*first, *second, tuple(f[1] for f in last), tuple(f[2] for f in last))


def same(size: tuple[int, int, int, int], mids: tuple[int, ...], kernel: int, stride: int, pads: Pads, act: str) -> None:
    with jax.enable_x64(True):
        wide, out = sum(mids), 3
        shapes = [(size[-1], wide), (wide,), (wide,), (kernel, kernel, wide), (wide,), (wide,)]
        parts = [tiny.normal(i, *shape, dtype="float64") for i, shape in enumerate(shapes)]
        each = enumerate(mids)
        ends = zip(*((tiny.normal(i, *s, dtype="float64") for s in ((m, out), (out,), (out,))) for i, m in each), strict=True)
        w = lib.Weights(*parts, *ends, tuple(tiny.normal(7, len(mids), dtype="float64")))
        x = 0.7 + tiny.normal(9, *size, dtype="float64")
        spec = lib.Spec(mids, act, stride, pads, 1e-5)

        def run(f: Any, x: jax.Array, w: lib.Weights) -> Any:
            y, pull, moments = jax.vjp(lambda x, w: f(x, w), x, w, has_aux=True)
            return y, moments, pull(tiny.normal(8, *y.shape, dtype="float64"))

        def ours(x: jax.Array, w: lib.Weights) -> Any:
            """Values and moments of one call; gradients also of a second call with what the first has kept."""
            first = run(lambda x, w: _with_moments(lib.blocked(spec, x, *lib.input_moments(x), w)), x, w)
            kept = lib.blocked(spec, x, *lib.input_moments(x), w)[1]
            return first, run(lambda x, w: _with_moments(lib.blocked(spec, x, *lib.input_moments(x), w, kept)), x, w)

        got, again = tiny.compiled(ours)(x, w)
        wanted = tiny.compiled(lambda x, w: run(lambda x, w: reference(spec, x, w), x, w))(x, w)
        tiny.assert_close(got, wanted, 1e-9)
        tiny.assert_close(again, wanted, 1e-9)


def _with_moments(found: Any) -> Any:
    return found[0], found[1].moments


CASES = {
    "one block": ((4, 8, 8, 6), (6, 12), 3, 1, ((1, 1), (1, 1)), "relu"),
    "odd, strided": ((3, 7, 9, 4), (5, 3), 5, 2, ((2, 2), (2, 2)), "hswish"),
    "padded after": ((4, 8, 6, 5), (7,), 5, 2, ((1, 2), (1, 2)), "relu6"),
}


@pytest.mark.parametrize("keep", [1, 10**6])
@pytest.mark.parametrize("name", CASES)
def test_blocks_are_the_whole(name: str, keep: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks, with the expansion kept for the backward pass and computed again."""
    monkeypatch.setattr(blocks, "KEEP_CHANNELS", keep)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1 if keep == 1 else 2**13)
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
    parts = (jnp.ones(s) for s in [(1, 1), (1,), (1,), (1, 1, 1), (1,), (1,)])
    w = lib.Weights(*parts, (jnp.ones((1, 1)),), *((jnp.ones(1),),) * 2, (jnp.ones(()),))
    w = w._replace(expand_bias=jnp.full(1, 3000.0))
    x = tiny.normal(0, 64, 4, 4, 1)
    spec = lib.Spec((1,), "relu", 1, ((0, 0), (0, 0)), 1e-5)
    moments = jax.jit(lambda x, w: lib.blocked(spec, x, *lib.input_moments(x), w)[1].moments)(x, w)
    assert float(moments.depthwise_var[0]) == pytest.approx(1.0, rel=2e-3)


def test_a_candidate_with_its_record_is_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grouped, shuffled and residual; alone, again with the record of the first call, and by operations on whole maps."""
    op = InvertedResidualOp(in_=4, mid=8, out=4, act="relu", residual=True, expand_groups=2, project_groups=2, shuffle=2)
    member = fused.Member("it", op)
    with jax.enable_x64(True):
        _, params, stats = layer_of(op, Defaults())
        params = {"it": jax.tree.map(lambda v: 1 + tiny.normal(v.size, *v.shape, dtype="float64"), params)}
        stats = {"it": jax.tree.map(lambda v: 0.5 + jnp.zeros(v.shape), stats)}
        x, dy = (tiny.normal(i, 3, 4, 5, 4, dtype="float64") for i in (1, 2))

        def pulled(run: Any) -> Any:
            y, pull, new = jax.vjp(run, params, x, has_aux=True)
            return y, new, pull(dy)

        def ours() -> Any:
            record = fused.alone(member, params, stats, x, Defaults(), 0.9)[2]
            assert record.numbers.size == fused.numbers_of(op)
            each = (lambda p, x, r=r: fused.alone(member, p, stats, x, Defaults(), 0.9, r)[:2] for r in (None, record))
            return [pulled(run) for run in each]

        once, again = tiny.compiled(ours)()
        monkeypatch.setattr(jax, "default_backend", lambda: "other")
        gates = {"it": jnp.ones(())}
        wanted = tiny.compiled(
            lambda: pulled(lambda p, x: fused.mixture([member], p, stats, x, gates, Defaults(), True, 0.9))
        )()
        tiny.assert_close(once, wanted, 1e-9)
        tiny.assert_close(again, wanted, 1e-9)
