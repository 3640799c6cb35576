"""The contract of a search method."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from dnas.gates import Gates, Logits


class Method(NamedTuple):
    """``draw(key, logits, temperature)`` makes the gates of one step, for the forward pass and for the latency alike."""

    name: str
    draw: Callable[[jax.Array, Logits, jax.Array], Gates]
