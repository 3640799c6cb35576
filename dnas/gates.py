"""Gates: the mixing weights that a search method makes from the logits, and which candidates run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from dnas.errors import SpaceError

if TYPE_CHECKING:
    from dnas.space import Space

Logits = dict[str, jax.Array]


class Gates(NamedTuple):
    """``weights``: f32[n] per choice, or f32[batch, n] in soft mode. ``active``: i32[k] per choice, or None.

    With ``active`` None every candidate runs and is weighted. With it only the named options run: entry j of every
    choice together makes path j.
    """

    weights: dict[str, jax.Array]
    active: dict[str, jax.Array] | None = None


def zeros(space: Space, dtype: jnp.dtype | type = jnp.float32) -> Logits:
    """Equal logits for every choice of ``space``."""
    return {name: jnp.zeros(len(choice.options), dtype) for name, choice in space.choices.items()}


def softmax(logits: Logits, temperature: float | jax.Array = 1.0) -> Gates:
    """softmax(logits / temperature): the expectation of the choice (DARTS' relaxation at temperature 1)."""
    return Gates({n: jax.nn.softmax(v / temperature) for n, v in logits.items()})


def uniform(space: Space) -> Gates:
    """1 / n for each of n options."""
    return softmax(zeros(space))


def gumbel_softmax(key: jax.Array, logits: Logits, temperature: float | jax.Array) -> Gates:
    """softmax((logits + g) / temperature), g ~ Gumbel(0, 1): one draw per choice.

    Jang et al. 2017, arXiv:1611.01144; Maddison et al. 2017, arXiv:1611.00712; FBNet, arXiv:1812.03443, equation 7.
    """
    return softmax({n: logits[n] + noise for n, noise in _gumbel(key, logits).items()}, temperature)


def straight_through(key: jax.Array, logits: Logits, temperature: float | jax.Array) -> Gates:
    """One-hot of the Gumbel maximum forward, the gradient of ``gumbel_softmax`` backward; every candidate runs."""
    soft = gumbel_softmax(key, logits, temperature).weights
    hard = {n: jax.nn.one_hot(v.argmax(), v.shape[-1], dtype=v.dtype) for n, v in soft.items()}
    return Gates({n: soft[n] + jax.lax.stop_gradient(hard[n] - soft[n]) for n in soft})


def sample(key: jax.Array, logits: Logits, temperature: float | jax.Array = 1.0) -> Gates:
    """One option per choice with probability softmax(logits); only that one runs.

    The weights are one-hot forward and carry the gradient of ``gumbel_softmax`` at ``temperature`` backward.
    """
    gates = straight_through(key, logits, temperature)
    return Gates(gates.weights, {n: v.argmax(keepdims=True).astype(jnp.int32) for n, v in gates.weights.items()})


def one_hot(space: Space, genotype: Sequence[int] | Mapping[str, int | jax.Array], run_all: bool = False) -> Gates:
    """The network of one genotype: weight 1 on its options, and only they run (unless ``run_all``)."""
    picked = genotype if isinstance(genotype, Mapping) else space.assignment(genotype)
    if set(picked) != set(space.choices):
        raise SpaceError(f"{space.name}: expected one index for each of {', '.join(space.choices)}")
    index = {n: jnp.asarray(picked[n], jnp.int32) for n in space.choices}
    weights = {n: jax.nn.one_hot(index[n], len(space.choices[n].options)) for n in index}
    return Gates(weights, None if run_all else {n: i.reshape(1) for n, i in index.items()})


def argmax(logits: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Index of the largest logit per choice, i32[] (the first of equals)."""
    return {n: v.argmax().astype(jnp.int32) for n, v in logits.items()}


def _gumbel(key: jax.Array, logits: Logits) -> Logits:
    keys = dict(zip(logits, jax.random.split(key, len(logits)), strict=True))
    found: Logits = {}
    for like in {v.shape: v for v in logits.values()}.values():  # together, as every draw is compiled for itself
        names = [n for n, v in logits.items() if v.shape == like.shape]
        draw = jax.vmap(lambda k, like=like: jax.random.gumbel(k, like.shape, like.dtype))
        found |= dict(zip(names, draw(jnp.stack([keys[n] for n in names])), strict=True))
    return found
