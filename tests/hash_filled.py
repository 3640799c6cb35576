"""Networks whose parameters and images come from an integer hash, so that no weights are needed to compare functions.

Tensors are numbered in execution order of the primitives: convolution weight and bias, then BN gamma, beta, running mean
and variance; squeeze-excite at its place; layer normalisation, layer scale and attention's table where they are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tiny

from dnas import supernet
from dnas.arch import Architecture
from dnas.ops import Op
from dnas.ops import primitives as p


def hashed(t: int, size: int) -> np.ndarray:
    """float64[size] in [-1, 1): element j of tensor ``t`` (the image: t = -1)."""
    x = (np.arange(1, size + 1, dtype=np.uint64) * 2654435761 + np.uint64((t + 1) * 2246822519 % 2**32)) % 2**32
    for shift, factor in ((15, 2246822519), (13, 3266489917)):
        x = ((x ^ (x >> np.uint64(shift))) * np.uint64(factor)) % 2**32
    return (x ^ (x >> np.uint64(16))).astype(np.float64) / 2**31 - 1


def tensors(op: Op) -> Iterator[tuple[tuple[str, ...], str, tuple[int, ...]]]:
    """(path in the tree, leaf, shape) of the tensors of ``op``; kernels are numbered as OIHW, matrices as [out, in]."""
    for step in op.primitives():
        if isinstance(step, p.Conv):
            yield (step.name,), "kernel", (step.out, step.in_ // step.groups, step.kernel, step.kernel)
            yield from [((step.name,), "bias", (step.out,))] * step.bias
        elif isinstance(step, p.Norm):
            yield from (((step.name,), leaf, (step.channels,)) for leaf in ("scale", "bias", "mean", "var"))
        elif isinstance(step, p.LayerNorm):
            yield from (((step.name,), leaf, (step.channels,)) for leaf in ("scale", "bias"))
        elif isinstance(step, p.Scale):
            yield (step.name,), "scale", (step.channels,)
        elif isinstance(step, p.Attention):
            yield (step.name,), "table", (step.heads, step.resolution**2)
        elif isinstance(step, p.SqueezeExcite):
            for part, out, in_ in (("reduce", step.reduce, step.channels), ("expand", step.channels, step.reduce)):
                yield (step.name, part), "kernel", (out, in_)
                yield from [((step.name, part), "bias", (out,))] * step.bias
        elif isinstance(step, p.Dense):
            yield (step.name,), "kernel", (step.out, step.in_)
            yield from [((step.name,), "bias", (step.out,))] * step.bias


def filled(architecture: Architecture, gain: float) -> tuple[dict[str, Any], dict[str, Any], int]:
    """``(params, stats, number of tensors)`` from the hash."""
    trees: dict[str, dict[str, Any]] = {"params": {}, "stats": {}}
    t = 0
    for index, op in enumerate(architecture.layers):
        for path, leaf, shape in tensors(op):
            u = hashed(t, int(np.prod(shape))).reshape(shape)
            if leaf == "kernel":
                u *= np.sqrt(3 * gain / np.prod(shape[1:]))
                u = u.transpose(2, 3, 1, 0) if u.ndim == 4 else u.T
            else:
                u = {"scale": 1 + 0.2 * u, "var": 1 + 0.3 * u}.get(leaf, 0.1 * u)
            place = trees["stats" if leaf in ("mean", "var") else "params"]
            for step in (f"{index:02d}", op.label, *path):
                place = place.setdefault(step, {})
            place[leaf] = u
            t += 1
    return trees["params"], trees["stats"], t


def assert_equal_logits(architecture: Architecture, model: dict[str, Any], case: dict[str, Any]) -> None:
    """float64 logits of ``architecture``, filled by the hash, are those that ``case`` records, to 1e-9 relative."""
    params, stats, count = filled(architecture, model["gain"])
    assert count == model["tensors"]
    shape = (case["batch"], 3, case["resolution"], case["resolution"])
    with jax.enable_x64(True):
        shapes = jax.eval_shape(lambda key: supernet.init(architecture, key, jnp.float64)[1:], jax.random.key(0))
        assert jax.tree.map(jnp.shape, (params, stats)) == jax.tree.map(jnp.shape, shapes)
        net = supernet.Net.of(architecture)
        x = jnp.asarray(hashed(-1, int(np.prod(shape))).reshape(shape).transpose(0, 2, 3, 1))
        logits = np.asarray(tiny.compiled(lambda p, s, x: supernet.apply(net, p, s, x)[0])(params, stats, x))
    assert logits.dtype == np.float64
    scale = np.abs(case["logits_l2"]).max() / logits.shape[1] ** 0.5
    close = {"rtol": 1e-9, "atol": 1e-9 * scale}
    np.testing.assert_allclose(logits[:, :10], case["logits_first10"], **close)
    np.testing.assert_allclose(logits.sum(1), case["logits_sum"], rtol=1e-9, atol=1e-9 * scale * logits.shape[1])
    np.testing.assert_allclose(np.linalg.norm(logits, axis=1), case["logits_l2"], rtol=1e-9)
