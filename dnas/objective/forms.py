"""Objectives that are functions of the task loss and of the latency of the gates that were drawn."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from dnas.objective.base import Form, Objective, Pull, Seen, Settings

Function = Callable[[jax.Array, jax.Array], jax.Array]  # (task loss, latency in ms) -> loss


def mul_log(alpha: float, beta: float, reference_ms: float | None = None) -> Function:
    """CE * alpha * (log LAT)^beta with LAT in microseconds (FBNet, arXiv:1812.03443, equation 2).

    With ``reference_ms``: CE * alpha * (log LAT / log reference)^beta, both in milliseconds (ProxylessNAS, arXiv:1812.00332):
    at 80 ms that pulls 2.6 times as hard as microseconds would. alpha and beta have a meaning only with the unit; below 1 of it
    the form is undefined, and NaN there stops the search.
    """
    unit, scale = (1e3, 1.0) if reference_ms is None else (1.0, math.log(reference_ms))

    def loss(task: jax.Array, ms: jax.Array) -> jax.Array:
        return task * alpha * (jnp.log(ms * unit) / scale) ** beta

    return loss


def absolute(target_ms: float, strength: float) -> Function:
    """CE + strength * |LAT / T - 1| (TF-NAS, arXiv:2008.05314; TuNAS, arXiv:2008.06120, as a reward)."""

    def loss(task: jax.Array, ms: jax.Array) -> jax.Array:
        return task + strength * jnp.abs(ms / target_ms - 1)

    return loss


def add_linear(reference_ms: float, strength: float) -> Function:
    """CE + strength * (LAT - reference) / reference (ProxylessNAS, arXiv:1812.00332): latency costs the same everywhere."""

    def loss(task: jax.Array, ms: jax.Array) -> jax.Array:
        return task + strength * (ms - reference_ms) / reference_ms

    return loss


def hinge(target_ms: float, strength: jax.Array | float) -> Function:
    """CE + strength * max(0, LAT / T - 1)."""

    def loss(task: jax.Array, ms: jax.Array) -> jax.Array:
        return task + strength * jax.nn.relu(ms / target_ms - 1)

    return loss


def ramp(count: jax.Array, steps: int) -> jax.Array:
    """From a hundredth to 1 over the first half of ``steps``, linearly."""
    return jnp.minimum(0.01 + 0.99 * count / max(steps / 2, 1.0), 1.0)


def of_draw(function: Function) -> Objective:
    """The objective that minimises ``function`` of task loss and drawn latency; it remembers nothing."""

    def pull(memory: tuple[()], seen: Seen) -> tuple[Pull, tuple[()]]:
        return _pull(function, seen), memory

    return Objective(tuple, pull)


def _pull(function: Function, seen: Seen) -> Pull:
    loss, (by_task, by_latency) = jax.value_and_grad(function, argnums=(0, 1))(seen.task, seen.drawn_ms)
    return Pull(loss, by_task, by_latency)


def _ramped_hinge(settings: Settings) -> Objective:
    """``hinge`` whose strength grows over the first half of the architecture steps, as in PLiNIO's DUCCIO.

    There the full strength is computed once from task loss and first violation, which leaves no constraint at all where the
    search begins within its target; here the violation is a fraction of the target, and the strength is given.
    """

    def pull(count: jax.Array, seen: Seen) -> tuple[Pull, jax.Array]:
        return _pull(hinge(settings.targets[0], settings.strength * ramp(count, settings.steps)), seen), count + 1

    return Objective(lambda: jnp.zeros((), jnp.float32), pull)


def mnasnet(target_ms: float, below: float, above: float) -> Function:
    """-accuracy * (LAT / T)^w, w = -``below`` up to T and -``above`` beyond it, where the task is the error rate: MnasNet's
    reward (Tan et al. 2019, arXiv:1807.11626, equations 2 and 3)."""

    def loss(task: jax.Array, ms: jax.Array) -> jax.Array:
        return (task - 1) * (ms / target_ms) ** -jnp.where(ms <= target_ms, below, above)

    return loss


ABSOLUTE = Form("absolute", True, False, lambda s: of_draw(absolute(s.targets[0], s.strength)))
ADD_LINEAR = Form("add-linear", True, False, lambda s: of_draw(add_linear(s.targets[0], s.strength)))
HINGE = Form("hinge", True, False, _ramped_hinge)
MUL_LOG = Form("mul-log", False, False, lambda s: of_draw(mul_log(s.alpha, s.beta, s.reference_ms)))
MNASNET_SOFT = Form("mnasnet-soft", True, False, lambda s: of_draw(mnasnet(s.targets[0], s.strength, s.strength)))
MNASNET_HARD = Form("mnasnet-hard", True, False, lambda s: of_draw(mnasnet(s.targets[0], 0.0, s.strength)))
