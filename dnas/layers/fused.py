"""All inverted residuals of one super-block at once: the soft mixture in few wide operations.

Candidates read the same input, so their expansions are one matrix product with one BN, their depthwise convolutions one
per kernel size, and their last BNs one. Every channel sees exactly what it sees when candidates run one by one; parameters and
statistics keep their places (candidate, primitive).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from dnas.arch import Defaults
from dnas.layers.conv import conv, padding_of, per_channel, shuffle
from dnas.layers.norm import batch_norm
from dnas.ops import InvertedResidualOp, Op

Tree = dict[str, Any]


class Member(NamedTuple):
    """A candidate that takes part: its label in the parameter tree, and its op."""

    label: str
    op: InvertedResidualOp


def fusible(ops: Sequence[tuple[str, Op]]) -> tuple[Member, ...]:
    """Those of the (label, op) that can run together: inverted residuals alike in activation, stride and output."""
    members = [Member(label, op) for label, op in ops if isinstance(op, InvertedResidualOp) and op.se is None]
    alike = [m for m in members if _common(m.op) == _common(members[0].op)]
    alike.sort(key=lambda m: (m.op.kernel, not m.op.expand))
    return tuple(alike) if len(alike) > 1 else ()


def _common(op: InvertedResidualOp) -> tuple[Any, ...]:
    return (op.in_, op.out, op.stride, op.act, op.bias, op.pad)


def mixture(
    members: Sequence[Member],
    params: Tree,
    stats: Tree,
    x: Float[Array, "n h w c"],
    gates: dict[str, jax.Array],
    defaults: Defaults,
    train: bool | jax.Array,
    momentum: float | jax.Array,
) -> tuple[Float[Array, "n p q o"], Tree]:
    """sum_i gates[i] * candidate_i(x), and the new statistics {label: {primitive: {mean, var}}}.

    ``gates``: per label, broadcastable to the output (shape [] or [n, 1, 1, 1]).
    """
    new: Tree = {m.label: {} for m in members}

    def norm(group: Sequence[Member], name: str, y: jax.Array, act: str | None) -> jax.Array:
        """One BN over the channels of all of ``group``, in order."""
        wide = {k: jnp.concatenate([params[m.label][name][k] for m in group]) for k in ("scale", "bias")}
        wide |= {k: jnp.concatenate([stats[m.label][name][k] for m in group]) for k in ("mean", "var")}
        y, mean, var = batch_norm(y, **wide, act=act, eps=defaults.bn_eps, train=train, momentum=momentum)
        sizes = [params[m.label][name]["scale"].shape[0] for m in group]
        for m, own_mean, own_var in zip(group, lax.split(mean, sizes), lax.split(var, sizes), strict=True):
            new[m.label][name] = {"mean": own_mean, "var": own_var}
        return y

    def biased(group: Sequence[Member], name: str, y: jax.Array) -> jax.Array:
        if not group[0].op.bias:
            return y
        bias = jnp.concatenate([params[m.label][name]["bias"] for m in group])
        return y + per_channel(bias.astype(y.dtype), y)

    act = members[0].op.act
    inner = _expand(members, params, x, act, norm, biased)
    branches: list[tuple[Member, jax.Array]] = []
    for kernel in sorted({m.op.kernel for m in members}):
        group = [m for m in members if m.op.kernel == kernel]
        pieces = [shuffle(inner[m.label], m.op.shuffle) for m in group]
        taps = jnp.concatenate([params[m.label]["depthwise"]["kernel"] for m in group], axis=-1).astype(x.dtype)
        op = group[0].op
        pads = padding_of(x.shape[1:3], kernel, op.stride, defaults.padding, op.pad)
        z = conv(jnp.concatenate(pieces, axis=-1), taps, op.stride, pads, taps.shape[-1])
        z = norm(group, "depthwise_bn", biased(group, "depthwise", z), act)
        branches += zip(group, lax.split(z, [m.op.mid for m in group], axis=-1), strict=True)
    order = [m for m, _ in branches]
    projected = [
        conv(z, params[m.label]["project"]["kernel"].astype(x.dtype), 1, ((0, 0), (0, 0)), m.op.project_groups)
        for m, z in branches
    ]
    outs = norm(order, "project_bn", biased(order, "project", jnp.concatenate(projected, axis=-1)), None)
    separate = lax.split(outs, [m.op.out for m in order], axis=-1)
    total = sum(y * gates[m.label] for m, y in zip(order, separate, strict=True))
    residual = [gates[m.label] for m in order if m.op.residual]
    return (total + x * sum(residual) if residual else total), new  # type: ignore[return-value]


def _expand(members: Sequence[Member], params: Tree, x: jax.Array, act: str, norm: Any, biased: Any) -> dict[str, jax.Array]:
    """What each member's depthwise convolution reads."""
    inner = {m.label: x for m in members}
    for groups in sorted({m.op.expand_groups for m in members if m.op.expand}):
        group = [m for m in members if m.op.expand and m.op.expand_groups == groups]
        if groups == 1:
            kernel = jnp.concatenate([params[m.label]["expand"]["kernel"] for m in group], axis=-1).astype(x.dtype)
            wide = conv(x, kernel, 1, ((0, 0), (0, 0)), 1)
        else:
            kernels = (params[m.label]["expand"]["kernel"].astype(x.dtype) for m in group)
            wide = jnp.concatenate([conv(x, k, 1, ((0, 0), (0, 0)), groups) for k in kernels], axis=-1)
        wide = norm(group, "expand_bn", biased(group, "expand", wide), act)
        inner |= zip((m.label for m in group), lax.split(wide, [m.op.mid for m in group], axis=-1), strict=True)
    return inner
