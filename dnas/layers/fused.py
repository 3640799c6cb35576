"""All inverted residuals of one super-block at once: the soft mixture in few wide operations.

Candidates read the same input, so their expansions are one matrix product with one BN, their depthwise convolutions one
per kernel size, and their last BNs one. Every channel sees exactly what it sees when candidates run one by one; parameters and
statistics keep their places (candidate, primitive). Training on a CPU goes by blocks of images (``blocked``), everything else
by operations on whole maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from dnas.arch import Defaults
from dnas.layers.blocked import Kept, Moments, Spec, Weights, blocked, input_moments
from dnas.layers.conv import Pads, conv, padding_of, per_channel, shuffle
from dnas.layers.norm import batch_norm, moved
from dnas.ops import InvertedResidualOp, Op

Tree = dict[str, Any]


class Member(NamedTuple):
    """A candidate that takes part: its label in the parameter tree, and its op."""

    label: str
    op: InvertedResidualOp


def fusible(ops: Sequence[tuple[str, Op]]) -> tuple[Member, ...]:
    """Those of the (label, op) that can run together: inverted residuals alike in activation, stride and output."""
    members = [Member(label, op) for label, op in ops if _simple(op)]
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

    ``members``: from ``fusible``. ``gates``: per label, broadcastable to the output (shape [] or [n, 1, 1, 1]).
    """
    run = _Run(params, stats, x, defaults, train, momentum)
    shared = all(g.size == 1 for g in gates.values())  # by all images
    chosen = [m for m in members if shared and in_blocks(m.op, train, x.dtype)]
    mean, cov = input_moments(x) if chosen else (None, None)
    parts = [run.blocked(group, mean, cov, gates)[0] for group in _by_kernel(chosen)]
    if rest := [m for m in members if m not in chosen]:
        order, projected = zip(*run.plain(rest), strict=True)
        wide = run.biased(order, "project", jnp.concatenate(projected, axis=-1))
        separate = lax.split(run.norm(order, "project", wide, None), [m.op.out for m in order], axis=-1)
        parts += [y * gates[m.label] for m, y in zip(order, separate, strict=True)]
    residual = [gates[m.label] for m in members if m.op.residual]
    return sum(parts) + x * sum(residual) if residual else sum(parts), run.new  # type: ignore[return-value]


class Record(NamedTuple):
    """What one candidate leaves to its backward pass, so that most of it need not run again: ``Kept``, and numbers in a row."""

    projection: Float[Array, "pixels o"]
    numbers: Float[Array, " _"]


def alone(
    member: Member,
    params: Tree,
    stats: Tree,
    x: Float[Array, "n h w c"],
    defaults: Defaults,
    momentum: float | jax.Array,
    record: Record | None = None,
) -> tuple[Float[Array, "n p q o"], Tree, Record]:
    """A candidate that runs ``in_blocks``, its new statistics, and its record; ``record``: that of the same call before."""
    run, op = _Run(params, stats, x, defaults, True, momentum), member.op
    like = Moments(*(jnp.zeros(op.mid, x.dtype),) * 4, *((jnp.zeros(op.out, x.dtype),),) * 2)
    parts: list[Any] = [jnp.zeros(op.in_, x.dtype), jnp.zeros((op.in_, op.in_), x.dtype), like]
    flat, restore = ravel_pytree(parts)
    if record is None:
        mean, cov = input_moments(x)
        kept = None
    else:
        mean, cov, moments = restore(record.numbers[: flat.size])
        kept = Kept((record.projection,), moments)
    y, kept = run.blocked([member], mean, cov, {member.label: jnp.ones((), x.dtype)}, kept)
    record = Record(kept.projections[0], ravel_pytree([mean, cov, kept.moments])[0])
    return (y + x if op.residual else y), run.new, record


def numbers_of(op: InvertedResidualOp) -> int:
    """Length of a record's ``numbers``."""
    return op.in_ * (op.in_ + 1) + 4 * op.mid + 2 * op.out


def _simple(op: Op) -> TypeGuard[InvertedResidualOp]:
    """An inverted residual with one kernel size, wider than its padding, no shares of channels and no squeeze-excitation."""
    if not isinstance(op, InvertedResidualOp) or op.se is not None:
        return False
    if not isinstance(op.kernel, int) or (op.pad or 0) >= op.kernel:
        return False
    return op.expand_splits == op.project_splits == 1


def in_blocks(op: Op, train: bool | jax.Array, dtype: Any) -> TypeGuard[InvertedResidualOp]:
    """Whether ``op`` runs by blocks of images: in training on a CPU, in float32 or wider."""
    if not _simple(op) or not op.expand:
        return False
    return train is True and jax.default_backend() == "cpu" and jnp.finfo(dtype).bits >= 32


class _Run:
    """One pass of some members over one input; ``new`` collects their statistics."""

    def __init__(self, params: Tree, stats: Tree, x: jax.Array, defaults: Defaults, train: Any, momentum: Any):
        self.params, self.stats, self.x = params, stats, x
        self.defaults, self.train, self.momentum = defaults, train, momentum
        self.new: Tree = {}

    def plain(self, members: Sequence[Member]) -> list[tuple[Member, jax.Array]]:
        """Every member's projection before its last BN, by operations on whole maps."""
        inner = self.expand(members)
        found: list[tuple[Member, jax.Array]] = []
        for group in _by_kernel(members):
            op = group[0].op
            pieces = [shuffle(inner[m.label], m.op.shuffle) for m in group]
            taps = self.side_by_side(group, "depthwise", "kernel").astype(self.x.dtype)
            z = conv(jnp.concatenate(pieces, axis=-1), taps, op.stride, self.pads(op), taps.shape[-1])
            z = self.norm(group, "depthwise", self.biased(group, "depthwise", z), op.act)
            for m, own in zip(group, lax.split(z, [m.op.mid for m in group], axis=-1), strict=True):
                kernel = self.params[m.label]["project"]["kernel"].astype(self.x.dtype)
                found.append((m, conv(own, kernel, 1, ((0, 0), (0, 0)), m.op.project_groups)))
        return found

    def expand(self, members: Sequence[Member]) -> dict[str, jax.Array]:
        """What each member's depthwise convolution reads."""
        x, inner = self.x, {m.label: self.x for m in members}
        for groups in sorted({m.op.expand_groups for m in members if m.op.expand}):
            group = [m for m in members if m.op.expand and m.op.expand_groups == groups]
            if groups == 1:
                kernel = self.side_by_side(group, "expand", "kernel").astype(x.dtype)
                wide = conv(x, kernel, 1, ((0, 0), (0, 0)), 1)
            else:
                kernels = (self.params[m.label]["expand"]["kernel"].astype(x.dtype) for m in group)
                wide = jnp.concatenate([conv(x, k, 1, ((0, 0), (0, 0)), groups) for k in kernels], axis=-1)
            wide = self.norm(group, "expand", self.biased(group, "expand", wide), group[0].op.act)
            inner |= zip((m.label for m in group), lax.split(wide, [m.op.mid for m in group], axis=-1), strict=True)
        return inner

    def blocked(
        self, group: Sequence[Member], mean: Any, cov: Any, gates: dict[str, jax.Array], kept: Kept | None = None
    ) -> tuple[jax.Array, Kept]:
        """Weighted sum of ``group``, members of one kernel size, by blocks of images. A grouped 1x1 is one with zeros, a
        shuffle an order of the expansion's columns."""
        op, dtype = group[0].op, self.x.dtype
        order = _order(group)
        kernels = [_dense(self.params[m.label]["expand"]["kernel"][0, 0], m.op.expand_groups) for m in group]
        norm = [self.side_by_side(group, "expand_bn", k) for k in ("scale", "bias")]
        expand, scale, bias = (v if order is None else v[..., order] for v in (jnp.concatenate(kernels, axis=-1), *norm))
        weights = Weights(
            expand,
            scale,
            bias,
            self.side_by_side(group, "depthwise", "kernel")[:, :, 0],
            self.side_by_side(group, "depthwise_bn", "scale"),
            self.side_by_side(group, "depthwise_bn", "bias"),
            tuple(_dense(self.params[m.label]["project"]["kernel"][0, 0], m.op.project_groups) for m in group),
            tuple(self.params[m.label]["project_bn"]["scale"] for m in group),
            tuple(self.params[m.label]["project_bn"]["bias"] for m in group),
            tuple(gates[m.label].reshape(()) for m in group),
        )
        spec = Spec(tuple(m.op.mid for m in group), op.act, op.stride, self.pads(op), self.defaults.bn_eps)
        y, kept = blocked(spec, self.x, mean, cov, jax.tree.map(lambda v: v.astype(dtype), weights), kept)
        found = kept.moments
        expanded = found.expand_mean, found.expand_var
        if order is not None:
            expanded = expanded[0][np.argsort(order)], expanded[1][np.argsort(order)]
        sizes = [m.op.mid for m in group]
        inner = (found.depthwise_mean, found.depthwise_var)
        for name, mean, var in (("expand", *expanded), ("depthwise", *inner)):
            self.move(group, name, lax.split(mean, sizes), lax.split(var, sizes))
        self.move(group, "project", found.project_mean, found.project_var)
        return y, kept

    def move(self, group: Sequence[Member], name: str, means: Sequence[jax.Array], variances: Sequence[jax.Array]) -> None:
        """Each member's running statistics after the batch's. These are from before a convolution's bias was added, which moves
        the mean and nothing else."""
        for m, mean, var in zip(group, means, variances, strict=True):
            if m.op.bias:
                mean = mean + lax.stop_gradient(self.params[m.label][name]["bias"])
            batch = {"mean": mean, "var": var}
            old = self.stats[m.label][f"{name}_bn"]
            self.new.setdefault(m.label, {})[f"{name}_bn"] = {
                k: moved(v, batch[k].astype(v.dtype), self.momentum) for k, v in old.items()
            }

    def norm(self, group: Sequence[Member], name: str, y: jax.Array, act: str | None) -> jax.Array:
        """One BN over the channels of all of ``group``, in order."""
        wide = {k: self.side_by_side(group, f"{name}_bn", k) for k in ("scale", "bias")}
        sizes = [self.params[m.label][f"{name}_bn"]["scale"].shape[0] for m in group]
        wide |= {k: self.side_by_side(group, f"{name}_bn", k, self.stats) for k in ("mean", "var")}
        y, mean, var = batch_norm(y, **wide, act=act, eps=self.defaults.bn_eps, train=self.train, momentum=self.momentum)
        for m, own_mean, own_var in zip(group, lax.split(mean, sizes), lax.split(var, sizes), strict=True):
            self.new.setdefault(m.label, {})[f"{name}_bn"] = {"mean": own_mean, "var": own_var}
        return y

    def biased(self, group: Sequence[Member], name: str, y: jax.Array) -> jax.Array:
        if not group[0].op.bias:
            return y
        return y + per_channel(self.side_by_side(group, name, "bias").astype(y.dtype), y)

    def side_by_side(self, group: Sequence[Member], name: str, leaf: str, tree: Tree | None = None) -> jax.Array:
        tree = self.params if tree is None else tree
        return jnp.concatenate([tree[m.label][name][leaf] for m in group], axis=-1)

    def pads(self, op: InvertedResidualOp) -> Pads:
        return padding_of(self.x.shape[1:3], op.kernel, op.stride, self.defaults.padding, op.pad)


def _by_kernel(members: Sequence[Member]) -> list[list[Member]]:
    return [[m for m in members if m.op.kernel == k] for k in sorted({m.op.kernel for m in members})]


def _order(group: Sequence[Member]) -> np.ndarray | None:
    """Which column of the expansions side by side each middle channel reads; None if each reads its own."""
    if all(m.op.shuffle == 1 for m in group):
        return None
    starts = np.cumsum([0, *(m.op.mid for m in group)])
    own = (np.arange(m.op.mid).reshape(m.op.shuffle, -1).T.ravel() for m in group)
    return np.concatenate([start + columns for start, columns in zip(starts, own, strict=False)])


def _dense(kernel: Float[Array, "i o"], groups: int) -> Float[Array, "groups*i o"]:
    """The kernel of a grouped 1x1 convolution as that of an ordinary one."""
    if groups == 1:
        return kernel
    return jax.scipy.linalg.block_diag(*jnp.split(kernel, groups, axis=1))
