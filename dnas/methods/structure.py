"""What a method must know of a space: which choices meet in a layer, which make a difference, which options are identities."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from dnas.ops import SkipOp
from dnas.space import Space


def neighbours(space: Space) -> dict[str, tuple[str, ...]]:
    """The other choices that decide a layer together with each."""
    found: dict[str, set[str]] = {n: set() for n in space.choices}
    for slot in space.slots:
        for name in slot.choices:
            found[name] |= set(slot.choices) - {name}
    return {n: tuple(m for m in space.choices if m in others) for n, others in found.items()}


def identities(space: Space) -> dict[str, np.ndarray]:
    """bool[n] per choice: the options that alone make some layer an identity (not those of a stage's depth)."""
    found = {n: np.zeros(len(c.options), bool) for n, c in space.choices.items()}
    for slot in space.slots:
        for candidate in slot.candidates:
            if isinstance(candidate.op, SkipOp) and not candidate.off and len(candidate.when) == 1:
                name, options = candidate.when[0]
                found[name][list(options)] = True
    return found


def switched_on(space: Space) -> Callable[[Mapping[str, jax.Array]], dict[str, jax.Array]]:
    """A function from the option of every choice, i32[], to whether the choice makes a difference there, bool[]."""
    tables = {n: space.matters(n) for n in space.choices}

    def find(picked: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return {n: jnp.asarray(f.values)[tuple(picked[m] for m in f.names)] for n, f in tables.items()}

    return find


def first_path(active: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """i32[] per choice: what runs on the first path."""
    return {n: v[0] for n, v in active.items()}


def whole(on: Mapping[str, jax.Array], space: Space) -> dict[str, jax.Array]:
    """bool[n] per choice from bool[]."""
    return {n: jnp.broadcast_to(on[n], (len(c.options),)) for n, c in space.choices.items()}
