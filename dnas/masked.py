"""Optimiser updates that touch only what ran: moments, weight decay and the step itself."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

Tree = Any


def masked_update(
    optimizer: optax.GradientTransformation, gradients: Tree, state: Tree, params: Tree, ran: Tree | None
) -> tuple[Tree, Tree]:
    """New ``(params, state)``. ``ran``: a tree like ``params`` of bool[] or bool of a leaf's shape; None: all of it.

    A candidate that did not run has a zero gradient, not none: without the mask momentum, weight decay and Adam would
    still move it. Counters are global.
    """
    updates, new_state = optimizer.update(gradients, state, params)
    if ran is not None:
        updates = jax.tree.map(lambda r, u: jnp.where(r, u, 0), ran, updates)
        keep = optax.tree_utils.tree_map_params(
            optimizer, lambda _, r: r, state, ran, transform_non_params=lambda _: jnp.asarray(True)
        )
        new_state = jax.tree.map(jnp.where, keep, new_state, state)
    return optax.apply_updates(params, updates), new_state
