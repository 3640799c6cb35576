"""A batch that lies on several devices: each works through its own images, and sums are added up.

XLA's partitioner gathers the whole batch on every device for a loop over slices of it. Such loops run by ``on_each`` instead,
where a mesh is in use (``dnas.devices.spread_over``); elsewhere nothing changes. Derivatives are taken outside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.sharding import PartitionSpec

AXIS = "data"
OWN, ALL = PartitionSpec(AXIS), PartitionSpec()  # a share of the images on every device; the same on every device


def on_each(run: Callable[..., Any], given: Any, found: Any) -> Callable[..., Any]:
    """``run`` on each device; ``given`` and ``found``: OWN or ALL for every argument and result, or trees of these."""
    mesh = jax.sharding.get_abstract_mesh()
    if AXIS not in mesh.axis_names or AXIS in mesh.manual_axes:
        return run
    return jax.shard_map(run, in_specs=given, out_specs=found, check_vma=False)


def devices() -> int:
    """How many share the batch, within ``on_each``; otherwise 1."""
    return lax.axis_size(AXIS) if AXIS in jax.sharding.get_abstract_mesh().manual_axes else 1


def summed(values: Any) -> Any:
    """Each of ``values`` added up over the devices."""
    return lax.psum(values, AXIS) if devices() > 1 else values
