"""Search spaces of two or three layers on 8 px images, one per kind of choice, latency tables for them, and comparisons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dnas import supernet
from dnas.gates import Gates
from dnas.latency import LatencyTable
from dnas.latency.keys import Entry
from dnas.ops import SE, ConvOp, DsConvOp, GlobalPoolOp, InvertedResidualOp, LinearOp, Op, SkipOp
from dnas.slots import Layer
from dnas.space import Follow, OneOf, Space, Stage, Template, Width

CLASSES = 3


def block(
    kernel: int = 3, expansion: int = 2, in_: int = 4, out: int = 4, stride: int = 1, **more: object
) -> InvertedResidualOp:
    """An inverted residual; it has a residual wherever shapes allow."""
    return InvertedResidualOp(
        in_=in_, mid=in_ * expansion, out=out, kernel=kernel, stride=stride, residual=stride == 1 and in_ == out, **more
    )  # type: ignore[arg-type]


def network(name: str, *layers: Layer, out: int = 4) -> Space:
    """``layers`` (4 -> ``out`` channels, at 4 x 4 pixels) between a stem and a classifier."""
    stem = ConvOp(in_=3, out=4, kernel=3, stride=2)
    return Space(name, (stem, *layers, GlobalPoolOp(), LinearOp(in_=out, out=CLASSES)), resolution=8, num_classes=CLASSES)


def plain_space() -> Space:
    """Plain ``OneOf``: one layer that may be skipped, one that reduces (12 architectures)."""
    grouped = block(3, 1, expand_groups=2, project_groups=2, shuffle=2)
    first = OneOf("l1", (block(3), block(5), grouped, SkipOp(in_=4, out=4)))
    reduce = OneOf("l2", (block(3, 1, 4, 8, 2, expand=False), block(5, 2, 4, 8, 2), ConvOp(in_=4, out=8, kernel=3, stride=2)))
    return network("tiny_plain", first, reduce, out=8)


def template_space() -> Space:
    """Field choices: kernel x width of one layer, kernel of the next (8 architectures)."""
    fields = dict(in_=4, out=4, residual=True)
    first = Template(InvertedResidualOp, **fields, mid=OneOf("mid1", (4, 8)), kernel=OneOf("kernel1", (3, 5)))
    second = Template(InvertedResidualOp, **fields, mid=8, kernel=OneOf("kernel2", (3, 5)))
    return network("tiny_template", first, second)


def tied_space() -> Space:
    """One kernel choice for two layers, whose widths are free (2 * 2 * 2 = 8 architectures)."""
    kernel = OneOf("kernel", (3, 5))
    fields = dict(in_=4, out=4, residual=True, kernel=kernel)
    first = Template(InvertedResidualOp, **fields, mid=OneOf("mid1", (4, 8)))
    second = Template(InvertedResidualOp, **fields, mid=OneOf("mid2", (4, 8)))
    return network("tiny_tied", first, second)


def stage_space() -> Space:
    """Depth 1 to 3 of a stage whose layers choose their kernel (2 + 4 + 8 = 14 architectures)."""
    layers = [OneOf(f"kernel{i}", (block(3), block(5))) for i in (1, 2, 3)]
    return network("tiny_stage", Stage(OneOf("depth", (1, 2, 3)), tuple(layers)))


def nested_space() -> Space:
    """A choice between families, two of which have choices of their own (1 + 2 + 4 = 7, times 2, architectures)."""
    convs = OneOf("conv_kernel", tuple(ConvOp(in_=4, out=4, kernel=k) for k in (1, 3)))
    inverted = Template(
        InvertedResidualOp, in_=4, out=4, residual=True, mid=OneOf("mid", (4, 8)), kernel=OneOf("kernel", (3, 5))
    )
    family = OneOf("family", (convs, inverted, SkipOp(in_=4, out=4)))
    return network("tiny_nested", family, OneOf("l2", (block(3), block(5))))


def width_space() -> Space:
    """Masked widths: two that neighbours share, one in the middle; with kernel, squeeze-excite and depth (2^6 genotypes)."""
    first, second = Width("w1", (3, 5)), Width("w2", (4, 6))
    after1, after2 = Follow("w1", (3, 5)), Follow("w2", (4, 6))
    reduce = OneOf("se", (None, Follow("mid", (SE(2), SE(3)), "se")))
    fields = {"in_": after1, "mid": Width("mid", (4, 6)), "out": second, "kernel": OneOf("kernel", (3, 5)), "se": reduce}
    repeat = Template(DsConvOp, in_=after2, out=after2, residual=True)
    layers: tuple[Layer, ...] = (
        Template(ConvOp, in_=3, out=first, kernel=3, stride=2),
        Template(InvertedResidualOp, **fields),
        Stage(OneOf("depth", (1, 0)), (repeat,)),
        GlobalPoolOp(),
        Template(LinearOp, in_=after2, out=CLASSES),
    )
    return Space("tiny_width", layers, resolution=8, num_classes=CLASSES)


SPACES = (plain_space, template_space, tied_space, stage_space, nested_space)


def table_for(space: Space, seed: int = 0, constant_ms: float = 0.0) -> LatencyTable:
    """A measured, absolute table with a random latency between 0.1 and 1 ms for every op but the identity."""
    rng = np.random.default_rng(seed)
    ops: list[tuple[Op, object]] = [(c.op, s.shape_of(c)) for s in space.slots for c in s.candidates if c.op.primitives()]
    keys = dict.fromkeys(op.price_fields(shape) for op, shape in ops)  # type: ignore[arg-type]
    table = LatencyTable(
        device="toy phone",
        runtime="none",
        precision="float32",
        status="measured",
        meaning="absolute",
        entries={key: Entry(ms=float(ms)) for key, ms in zip(keys, rng.uniform(0.1, 1.0, len(keys)), strict=True)},
        source={"who": "random numbers"},
        constant_ms=constant_ms,
    )
    return replace(table, name=f"tiny_{seed}")


def with_energies(table: LatencyTable, stated: int | None = None) -> LatencyTable:
    """``table`` and 0.5 ms, with 2 mJ per ms for the first ``stated`` entries (None: all)."""
    every = list(table.entries.items())
    stated = len(every) if stated is None else stated
    entries = dict(every) | {k: replace(e, mj=2 * e.ms) for k, e in every[:stated]}
    return replace(table, entries=entries, constant_ms=0.5, constant_mj=1.0, name=table.name)


def pull(
    net: supernet.Net, params: Any, stats: Any, x: jax.Array, gates: Gates | None, dy: jax.Array, train: bool = True
) -> Any:
    """{logits, stats, params, x, weights}: output, new statistics, and gradients of sum(dy * logits)."""

    def loss(params: Any, x: jax.Array, weights: Any) -> Any:
        chosen = None if gates is None else gates._replace(weights=weights)
        logits, new = supernet.apply(net, params, stats, x, chosen, train)
        return (logits * dy).sum(), (logits, new)

    weights = {} if gates is None else gates.weights
    (_, (logits, new)), grads = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(params, x, weights)
    return {"logits": logits, "stats": new} | dict(zip(("params", "x", "weights"), grads, strict=True))


def compiled(f: Callable[..., Any]) -> Callable[..., Any]:
    """``jax.jit`` without optimisation: tests wait for the compiler, not for the result."""
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 0})


def normal(seed: int, *shape: int, dtype: Any = "float32") -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def assert_close(got: Any, wanted: Any, tolerance: float, least: float = 1e-3) -> None:
    """Equal structure, and every leaf close relative to the largest element of the wanted leaf (at least ``least``)."""
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for (path, a), (_, b) in zip(*map(jax.tree_util.tree_leaves_with_path, (got, wanted)), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        close = {"rtol": 0, "atol": tolerance * max(np.abs(b).max(initial=0), least)}
        np.testing.assert_allclose(a, b, **close, err_msg=jax.tree_util.keystr(path))
