"""Widths by masks: a hull computes what one of its members would, by zeroing the channels that this member lacks.

Masks come from gates (soft: sum_i g_i m_i, where m_i is 1 on the first k_i channels; FBNetV2, arXiv:2004.05565, equation 2) or
from the member that runs (sampled). Every parameter and statistic of a member is the leading part of the hull's.
"""

from __future__ import annotations

import functools
import string
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Bool, Float

from dnas.hulls import per_candidate, width_tables
from dnas.ops import Op
from dnas.ops import primitives as p
from dnas.slots import Slot

Tree = dict[str, Any]
Masks = dict[str, jax.Array]


def soft(slot: Slot, number: int, weights: Mapping[str, jax.Array]) -> Masks:
    """The masks of hull ``number`` by the place of their cut: f32[channels], or f32[batch, channels]."""
    found = {}
    for cut in slot.hulls[number].cuts:
        names, widths = width_tables(slot, number)[cut.place]
        axes = string.ascii_letters[: len(names)]
        ones = jnp.asarray(np.arange(cut.channels) < widths[..., None], weights[names[0]].dtype)
        operands = ",".join(f"...{a}" for a in axes)
        parts = [weights[n] for n in names]
        found[cut.place] = jnp.einsum(f"{axes}Z,{operands}->...Z", ones, *parts, precision="highest")
    return found


def hard(slot: Slot, number: int, candidate: jax.Array) -> Masks:
    """The masks under which hull ``number`` is ``candidate`` (its index among the slot's, i32[])."""
    return {
        cut.place: _below(cut.channels, jnp.asarray(per_candidate(slot, number, cut.widths))[candidate])
        for cut in slot.hulls[number].cuts
    }


def settled(slot: Slot, number: int, candidate: jax.Array, old: Tree, new: Tree) -> Tree:
    """``new`` statistics of the hull where ``candidate`` has channels, ``old`` ones elsewhere."""
    inside = _boxes(slot, number, candidate, new)
    return jax.tree.map(jnp.where, inside, new, old)


def ran(slot: Slot, number: int, paths: jax.Array, tree: Tree) -> Tree:
    """For every leaf of the hull's ``tree``, bool[] or bool[leaf]: what belongs to the candidate on any of the ``paths``."""
    if not slot.hulls[number].varied:
        here = (jnp.asarray(slot.hull_of)[paths] == number).any()
        return jax.tree.map(lambda _: here, tree)
    return jax.tree.map(lambda *parts: functools.reduce(jnp.logical_or, parts), *(_boxes(slot, number, c, tree) for c in paths))


def _boxes(slot: Slot, number: int, candidate: jax.Array, tree: Tree) -> Tree:
    """For every leaf of the hull's ``tree``, bool[] or bool[leaf]: what belongs to ``candidate``, which may be no member."""
    hull = slot.hulls[number]
    sizes = [_shapes(slot.candidates[i].op) for i in hull.members]
    found = {}
    for path, leaf in traverse_util.flatten_dict(tree).items():
        extent = jnp.asarray(per_candidate(slot, number, [s[path] for s in sizes]))[candidate]
        inside: Any = jnp.asarray(slot.hull_of)[candidate] == number
        for axis, n in enumerate(np.shape(leaf)):
            if any(s[path][axis] != n for s in sizes):
                inside = inside & _below(n, extent[axis]).reshape([n if a == axis else 1 for a in range(np.ndim(leaf))])
        found[path] = inside
    return traverse_util.unflatten_dict(found)


def leading(op: Op, tree: Tree) -> Tree:
    """The part of a hull's ``tree`` that is the member ``op``'s own; copies."""
    shapes = _shapes(op)
    flat = traverse_util.flatten_dict(tree)
    return traverse_util.unflatten_dict({k: jnp.copy(v[tuple(slice(n) for n in shapes[k])]) for k, v in flat.items()})


def _below(n: int, extent: jax.Array) -> Bool[Array, " n"]:
    return jnp.arange(n) < extent


def spread(mask: Float[Array, "*batch c"], like: jax.Array) -> jax.Array:
    """A mask with the axes and type of a map (or vector) of channels last."""
    return mask.astype(like.dtype).reshape((*mask.shape[:-1], *(1,) * (like.ndim - mask.ndim), mask.shape[-1]))


@functools.lru_cache(maxsize=65536)
def _shapes(op: Op) -> dict[tuple[str, ...], tuple[int, ...]]:
    """The shape of every parameter and statistic of ``op``, for the primitives that can be masked."""
    found: dict[tuple[str, ...], tuple[int, ...]] = {}
    for step in op.primitives():
        if isinstance(step, p.Conv):
            found[step.name, "kernel"] = (step.kernel, step.kernel, step.in_ // step.groups, step.out)
            found[step.name, "bias"] = (step.out,)
        elif isinstance(step, p.Dense):
            found[step.name, "kernel"] = (step.in_, step.out)
            found[step.name, "bias"] = (step.out,)
        elif isinstance(step, p.Norm):
            found |= {(step.name, leaf): (step.channels,) for leaf in ("scale", "bias", "mean", "var")}
        elif isinstance(step, p.SqueezeExcite):
            for name, a, b in (("reduce", step.channels, step.reduce), ("expand", step.reduce, step.channels)):
                found |= {(step.name, name, "kernel"): (a, b), (step.name, name, "bias"): (b,)}
    return found
