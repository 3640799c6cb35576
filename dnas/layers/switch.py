"""One candidate of a super-block by its index: only it runs, forward and backward, and it alone takes memory."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dnas.layers.fused import Record
from dnas.layers.taken import Taken

if TYPE_CHECKING:
    from dnas.layers.super_block import SuperBlock


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def switch(
    block: SuperBlock, index: jax.Array, params: Taken, stats: Taken, x: jax.Array, momentum: jax.Array
) -> tuple[jax.Array, Taken]:
    """Candidate ``index`` of ``block``: its output and new statistics. ``params``, ``stats``: its own (``taken.take``).

    Saves (params, stats, x) and the candidate's record for the backward pass.
    """
    return _recorded(block, index, params, stats, x, momentum)[:2]


def _recorded(
    block: SuperBlock, index: jax.Array, params: Taken, stats: Taken, x: jax.Array, momentum: jax.Array
) -> tuple[jax.Array, Taken, Record | None]:
    branches = [partial(block.candidate, i) for i in range(len(block.slot.hulls))]
    return lax.switch(jnp.asarray(block.slot.hull_of)[index], branches, index, params, stats, x, momentum)


def _switch_fwd(block: SuperBlock, *operands: Any) -> Any:
    y, new, record = _recorded(block, *operands)
    return (y, new), (operands, record)


def _switch_bwd(block: SuperBlock, saved: Any, cotangents: Any) -> Any:
    (index, params, stats, x, momentum), record = saved

    def branch(i: int, params: Taken, stats: Taken, x: jax.Array, momentum: jax.Array, record: Any, dy: jax.Array) -> Any:
        record = record if block.records(i, x) else None
        _, pull = jax.vjp(lambda p, x: block.candidate(i, index, p, stats, x, momentum, record)[0], params, x)
        return pull(dy)

    branches = [partial(branch, i) for i in range(len(block.slot.hulls))]
    operands = params, stats, x, momentum, record, cotangents[0]
    dparams, dx = lax.switch(jnp.asarray(block.slot.hull_of)[index], branches, *operands)
    no_index = np.zeros(index.shape, jax.dtypes.float0)
    return no_index, dparams, jax.tree.map(jnp.zeros_like, stats), dx, jnp.zeros_like(momentum)


switch.defvjp(_switch_fwd, _switch_bwd)
