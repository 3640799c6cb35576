"""What the two JAX sides share."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.supernet.case import Case
from dnas.process import in_line

in_line()


def random_batch(case: Case) -> tuple[jax.Array, jax.Array]:
    """Images f32[batch, h, w, 3] and labels i32[batch], on the device."""
    space, rng = case.build(), np.random.default_rng(0)
    shape = (case.batch, space.resolution, space.resolution, 3)
    labels = rng.integers(space.num_classes, size=case.batch).astype(np.int32)
    return jnp.asarray(rng.normal(size=shape), jnp.float32), jnp.asarray(labels)


def device_peak() -> int | None:
    """Bytes; None where the platform does not count them (CPU)."""
    stats = jax.local_devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] if stats else None
