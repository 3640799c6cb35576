"""What the architecture step minimises, given the task loss and the expected latency of the same gates."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dnas.errors import ConfigError, nearest

Objective = Callable[[jax.Array, jax.Array], jax.Array]  # (task loss, latency in ms) -> loss


def mul_log(alpha: float, beta: float) -> Objective:
    """CE * alpha * (log LAT)^beta with LAT in microseconds (FBNet, arXiv:1812.03443, equation 2).

    alpha has a meaning only with the unit; below 1 us the form is undefined, and NaN there stops the search.
    """

    def loss(task: jax.Array, ms: jax.Array) -> jax.Array:
        return task * alpha * jnp.log(ms * 1e3) ** beta

    return loss


def absolute(target_ms: float, strength: float) -> Objective:
    """CE + strength * |LAT / T - 1| (TF-NAS, arXiv:2008.05314; TuNAS, arXiv:2008.06120, as a reward)."""

    def loss(task: jax.Array, ms: jax.Array) -> jax.Array:
        return task + strength * jnp.abs(ms / target_ms - 1)

    return loss


class Form(NamedTuple):
    """An objective by name: whether it has a target, and how the resolved configuration makes it."""

    has_target: bool
    make: Callable[[float, float, float, float], Objective]  # (target_ms, strength, alpha, beta)


OBJECTIVES: dict[str, Form] = {
    "absolute": Form(True, lambda target_ms, strength, alpha, beta: absolute(target_ms, strength)),
    "mul-log": Form(False, lambda target_ms, strength, alpha, beta: mul_log(alpha, beta)),
}


def objective(name: str) -> Form:
    """Look ``name`` up. Errors: ConfigError with the nearest names."""
    if name not in OBJECTIVES:
        raise ConfigError(f"unknown objective {name!r}{nearest(name, OBJECTIVES)}")
    return OBJECTIVES[name]
