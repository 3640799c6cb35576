"""StableHLO, serialised by ``jax.export`` with the weights inside; the size of the batch is free.

Convolutions are XLA's own on every platform, so that the program is not bound to the machine that wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import export, lax

from dnas import fold
from dnas.layers.conv import Pads

PLATFORMS = ("cpu", "cuda", "tpu")


def write(network: fold.Folded, about: Mapping[str, str] | None = None) -> bytes:
    """The network in float32 for images f32[n, height, width, channels], for ``PLATFORMS``. The format holds no ``about``."""
    (n,) = export.symbolic_shape("n")
    images = jax.ShapeDtypeStruct((n, *network.input_shape), jnp.float32)
    program = export.export(jax.jit(lambda x: fold.apply(network, x, _conv)), platforms=PLATFORMS)(images)
    return bytes(program.serialize())


def run(data: bytes, images: np.ndarray) -> np.ndarray:
    """Outputs f32[n, ...] for ``images`` f32[n, h, w, c], read back and run by JAX."""
    return np.asarray(jax.jit(export.deserialize(bytearray(data)).call)(jnp.asarray(images)))


def _conv(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads, groups: int) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )
