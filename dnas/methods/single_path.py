"""Single-path one-shot: every weight step trains one path, drawn uniformly; evolution then chooses (Guo et al. 2020, SPOS,
arXiv:1904.00420). There are no logits to learn: after the training, ``dnas.methods.evolution`` compares networks by their
loss on the selection split, recalibrated, with the supernet's weights, all within the budget.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dnas import gates
from dnas.gates import Gates, Logits
from dnas.methods.base import Form, Method, drawn


def draw(key: jax.Array, logits: Logits, temperature: jax.Array) -> Gates:
    """One option of each choice, all equally likely; only that one runs."""
    return gates.sample(key, {n: jnp.zeros_like(v) for n, v in logits.items()})


SINGLE_PATH = Form("single-path", lambda space, config: Method(drawn(draw), ends="evolution"))
