"""Data parallelism over the local devices: batches are split, everything else is on every device."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dnas.errors import ConfigError


def data_mesh(batch_size: int, wanted: int | None = None, batches: str = "") -> Mesh | None:
    """A mesh of ``wanted`` devices, or by default of as many local ones as divide ``batch_size``; None for one device.

    ``batches``: words for the batch sizes that must be divided, if there are several.

    Errors: ConfigError where there are fewer devices, or the batch cannot be split evenly.
    """
    devices = jax.local_devices()
    if wanted is None:
        wanted = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    if wanted > len(devices):
        raise ConfigError(f"--devices {wanted}: this machine has {len(devices)} ({devices[0].platform})")
    if batch_size % wanted:
        raise ConfigError(f"--devices {wanted} do not divide batches of {batches or batch_size}")
    return Mesh(np.array(devices[:wanted]), ("data",)) if wanted > 1 else None


def split_batch(mesh: Mesh | None, batch: Any) -> Any:
    """Arrays [batch, ...] with their first axis over the devices; BN statistics stay those of the whole batch."""
    return batch if mesh is None else jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))


def replicate(mesh: Mesh | None, tree: Any) -> Any:
    """A copy on every device."""
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
