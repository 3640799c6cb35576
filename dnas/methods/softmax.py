"""DARTS-style mixture: softmax(theta) weighs all candidates, without noise (Liu et al. 2019, arXiv:1806.09055)."""

from __future__ import annotations

import jax

from dnas import gates
from dnas.gates import Gates, Logits
from dnas.methods.base import Form, everywhere


def draw(key: jax.Array, logits: Logits, temperature: jax.Array) -> Gates:
    """softmax(theta / temperature); nothing is random."""
    return gates.softmax(logits, temperature)


SOFTMAX = Form("softmax", lambda space, config: everywhere(draw))
