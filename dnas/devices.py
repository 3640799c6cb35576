"""Data parallelism over the devices of one process or of several: batches are split, everything else is on every device.

Several processes (one or more on each host) run the same program on the same state, by ``jax.distributed``: each computes
its share of every batch, and process 0 alone writes and prints.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from dnas.errors import ConfigError, RunError
from dnas.files import one_line

SHUTDOWN_S = 60  # how long a process that ends waits for the others to end
_VARIABLES = {"num_processes": "JAX_NUM_PROCESSES", "process_id": "JAX_PROCESS_ID"}  # JAX reads only the address itself
_ROOM = 32768  # bytes of what process 0 can tell the others at once
_largest = jax.jit(jnp.max)


def start() -> None:
    """Join the other processes of this run; before any device is used. Errors: ConfigError where JAX finds no cluster."""
    if jax.distributed.is_initialized():
        return
    jax.config.update("jax_enable_preemption_service", False)  # it would catch SIGTERM, which is for ``loop`` to catch
    try:
        given: dict[str, Any] = {k: int(os.environ[name]) for k, name in _VARIABLES.items() if name in os.environ}
        jax.distributed.initialize(**given, shutdown_timeout_seconds=SHUTDOWN_S)
    except Exception as problem:
        raise ConfigError(
            f"--distributed: JAX found no cluster ({one_line(problem)}); expected a start by SLURM (srun), Open MPI, a TPU pod "
            "or Kubernetes, or in each process the variables JAX_COORDINATOR_ADDRESS=first-host:12345 JAX_NUM_PROCESSES=2 "
            "JAX_PROCESS_ID=0 (1 in the second)"
        ) from None


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return jax.process_index() == 0


def shared_mesh() -> Mesh | None:
    """All devices of all processes, those of a process side by side; None for one process."""
    if jax.process_count() == 1:
        return None
    return Mesh(np.array(sorted(jax.devices(), key=lambda d: (d.process_index, d.id))), ("data",))


def data_mesh(batch_size: int, wanted: int | None = None, batches: str = "") -> Mesh | None:
    """A mesh of ``wanted`` devices, or by default of as many local ones as divide ``batch_size``; None for one device.

    Several processes use all their devices. ``batches``: words for the batch sizes that must be divided, if there are several.

    Errors: ConfigError where there are fewer devices, or the batch cannot be split evenly.
    """
    shared, batches = shared_mesh(), batches or str(batch_size)
    if shared is not None:
        if wanted not in (None, shared.size):
            raise ConfigError(f"--devices {wanted}: several processes use all their devices, here {shared.size}; drop it")
        if batch_size % shared.size:
            raise ConfigError(
                f"the {shared.size} devices of the {jax.process_count()} processes do not divide batches of {batches}; "
                f"choose another --batch-size, or start fewer processes"
            )
        return shared
    devices = jax.local_devices()
    if wanted is None:
        wanted = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    if wanted > len(devices):
        raise ConfigError(f"--devices {wanted}: this machine has {len(devices)} ({devices[0].platform})")
    if batch_size % wanted:
        raise ConfigError(f"--devices {wanted} do not divide batches of {batches}")
    return Mesh(np.array(devices[:wanted]), ("data",)) if wanted > 1 else None


def spread_over(mesh: Mesh | None) -> AbstractContextManager[Any]:
    """While a step is traced: its loops over images run on each device's own (``layers.shares``).

    For one device the mesh is empty, not absent: JAX makes it so where it takes derivatives, and what it has traced before it
    finds again only if both are the same.
    """
    return jax.sharding.use_abstract_mesh(AbstractMesh((), ()) if mesh is None else mesh.abstract_mesh)


def mesh_of(tree: Any) -> Mesh | None:
    """The devices that hold copies of the arrays of ``tree``; None for one."""
    sharding = getattr(next(iter(jax.tree.leaves(tree)), None), "sharding", None)
    mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
    return mesh if isinstance(mesh, Mesh) and mesh.size > 1 else None


def split_batch(mesh: Mesh | None, batch: Any) -> Any:
    """Arrays [batch, ...] with their first axis over the devices; BN statistics stay those of the whole batch."""
    return batch if mesh is None else jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))


def own_rows(mesh: Mesh | None, count: int) -> slice:
    """Which of the ``count`` rows of a batch are on this process's devices."""
    if mesh is None:
        return slice(0, count)
    share, owners = count // mesh.size, [d.process_index for d in mesh.devices.flat]
    first = owners.index(jax.process_index())
    return slice(first * share, (first + owners.count(jax.process_index())) * share)


def from_rows(mesh: Mesh | None, rows: np.ndarray, count: int) -> Any:
    """The batch of ``count`` rows, split over the devices, of which each process gives its ``own_rows``."""
    if mesh is None:
        return rows
    return jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec("data")), rows, (count, *rows.shape[1:]))


def replicate(mesh: Mesh | None, tree: Any) -> Any:
    """A copy on every device; of several processes, each gives the same ``tree``."""
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec())
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    # ``device_put`` would compare every leaf between the processes
    return jax.tree.map(lambda v: jax.make_array_from_process_local_data(sharding, np.asarray(v), np.shape(v)), tree)


def agree(wish: int) -> jax.Array | int:
    """The largest ``wish`` of all processes, as a number to come: it is computed after the steps that are under way."""
    mesh = shared_mesh()
    if mesh is None:
        return wish
    own = np.full(len(mesh.local_devices), wish, np.int32)
    found: jax.Array = _largest(from_rows(mesh, own, mesh.size))
    return found


def settle(value: Any) -> None:
    """Where there are several processes, wait for ``value``: their CPU collectives hang when some 30 programs are under way."""
    if jax.process_count() > 1:
        jax.block_until_ready(value)


def on_first(call: Callable[[], Any]) -> Any:
    """What ``call`` returns on process 0, which alone runs it while the others wait; an error there is one everywhere.

    The result is a text or None.
    """
    if jax.process_count() == 1:
        return call()
    found, problem = None, None
    if is_first():
        try:
            found = call()
        except BaseException as error:
            problem = error
    told = json.dumps([found, None if problem is None else one_line(problem)]).encode().ljust(_ROOM)
    heard = multihost_utils.broadcast_one_to_all(np.frombuffer(told, np.uint8))
    found, words = json.loads(heard.tobytes())
    if problem is not None:
        raise problem
    if words is not None:
        raise RunError(words)
    return found
