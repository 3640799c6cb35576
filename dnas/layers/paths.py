"""Which candidate of a slot runs on each path, and the gates of hulls: products of the weights of their options."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dnas.gates import Gates
from dnas.hulls import hull_table
from dnas.layers import masks
from dnas.slots import Slot


class Weights(NamedTuple):
    """What a super-block takes of the gates.

    ``gates``: f32[..., hulls], and ``masks`` of each hull; or, where only ``chosen`` candidates run (i32[k]), f32[k].
    """

    gates: jax.Array
    chosen: jax.Array | None
    masks: tuple[masks.Masks, ...] = ()


def weights_of(slot: Slot, gates: Gates | None) -> Weights | None:
    """None for a slot with one candidate."""
    if len(slot.candidates) == 1:
        return None
    assert gates is not None
    if gates.active is None:
        each = (masks.soft(slot, i, gates.weights) for i in range(len(slot.hulls)))
        return Weights(hull_gates(slot, gates.weights), None, tuple(each))
    paths = chosen(slot, gates.active)
    products = joint([gates.weights[n] for n in slot.choices])
    there = jnp.asarray(slot.table.reshape(1, -1)) == paths[:, None]
    return Weights(jnp.where(there, products[None], 0).sum(axis=-1), paths)


def chosen(slot: Slot, active: dict[str, jax.Array]) -> jax.Array:
    """i32[k]: the candidate on each active path."""
    return jnp.asarray(slot.table)[tuple(active[n] for n in slot.choices)]


def joint(parts: list[jax.Array]) -> jax.Array:
    """f32[..., combinations]: the product of the weights of every combination of options."""
    product = parts[0]
    for part in parts[1:]:
        product = product[..., :, None] * part[..., None, :]
        product = product.reshape(*product.shape[:-2], -1)
    return product


def hull_gates(slot: Slot, weights: dict[str, jax.Array]) -> jax.Array:
    """f32[..., hulls]: the product of the weights of the options that select each, widths apart."""
    names, table = hull_table(slot)
    if not names:
        return jnp.ones(len(slot.hulls), next(iter(weights.values())).dtype)
    product = joint([weights[n] for n in names])
    if len(names) == 1 and table.tolist() == list(range(len(slot.hulls))):
        return product
    selects = np.zeros((table.size, len(slot.hulls)), np.float32)
    selects[np.arange(table.size), table.ravel()] = 1
    return jnp.matmul(product, jnp.asarray(selects, product.dtype), precision="highest")  # other platforms round by default
