"""XLA, as JAX runs it: the network as StableHLO with its weights inside (``jax.export``), compiled when it is opened.

Threads: XLA takes as many as the cores that the process may use when JAX starts (``taskset``, or ``dnas.latency.timing.pinned``
around everything); ``open`` cannot change that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from dnas import fold
from dnas.arch import Architecture

suffix = ".stablehlo"
own_thread = True


def version() -> str:
    return f"XLA of jax {jax.__version__}, {jax.default_backend()}"


def write(architecture: Architecture, params: Any, stats: Any) -> bytes:
    """Serialised StableHLO for the platform that JAX uses here, batch 1, float32, BN folded."""
    network = partial(fold.apply, fold.fold(architecture, params, stats))
    images = jax.ShapeDtypeStruct((1, *architecture.shapes[0]), jnp.float32)
    return bytes(export.export(jax.jit(network))(images).serialize())


def open(model: bytes, threads: int = 1) -> Runner:
    return Runner(model)


class Runner:
    """A compiled network."""

    kernels_left: tuple[str, ...] = ()

    def __init__(self, model: bytes):
        network = export.deserialize(bytearray(model))
        (images,) = network.in_avals
        self._call = jax.jit(network.call).lower(jax.ShapeDtypeStruct(images.shape, images.dtype)).compile()

    def bind(self, images: np.ndarray) -> Callable[[], object]:
        placed = jax.block_until_ready(jnp.asarray(images))
        return lambda: jax.block_until_ready(self._call(placed))

    def run(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self._call(jnp.asarray(images)))
