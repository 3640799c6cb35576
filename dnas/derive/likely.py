"""What the logits alone say: the likeliest network, random ones, and the probability of one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dnas.arch import Architecture
from dnas.errors import SpaceError
from dnas.files import shown
from dnas.space import Genotype, Space


def argmax_genotype(space: Space, logits: Mapping[str, Any]) -> Genotype:
    """The likeliest option of every choice (the first of equals)."""
    return tuple(int(np.argmax(v)) for v in checked(space, logits).values())


def argmax(space: Space, logits: Mapping[str, Any]) -> Architecture:
    """The network of the likeliest option of every choice."""
    return space.fix(argmax_genotype(space, logits))


def sample(space: Space, logits: Mapping[str, Any], rng: np.random.Generator | int, count: int = 1) -> list[Genotype]:
    """``count`` genotypes, each option drawn with probability softmax(logits): FBNet's derivation (arXiv:1812.03443, 3.4)."""
    generator = np.random.default_rng(rng)
    chances = {n: probabilities(v) for n, v in checked(space, logits).items()}
    return [tuple(int(generator.choice(len(p), p=p)) for p in chances.values()) for _ in range(count)]


def probabilities(logits: Any) -> np.ndarray:
    """softmax of one logit vector, float64[n]."""
    values = np.asarray(logits, np.float64)
    weights = np.exp(values - values.max())
    return weights / weights.sum()


def log_probabilities(logits: Any) -> np.ndarray:
    """log softmax of one logit vector, float64[n]."""
    values = np.asarray(logits, np.float64)
    shifted = values - values.max()
    return shifted - np.log(np.exp(shifted).sum())


def log_probability(space: Space, logits: Mapping[str, Any], genotype: Sequence[int]) -> float:
    """log of the probability, under softmax(logits), of the network that ``genotype`` builds, in nats.

    Choices that the rest of the genotype switches off add nothing.
    """
    picked, active = space.assignment(genotype), space.active(genotype)
    return math.fsum(log_probabilities(v)[picked[n]] for n, v in checked(space, logits).items() if n in active)


def checked(space: Space, logits: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """``logits`` as arrays in the order of the choices. Errors: SpaceError for other choices or lengths, or NaN."""
    if set(logits) != set(space.choices):
        raise SpaceError(f"{space.name}: expected logits for {', '.join(space.choices)}")
    arrays = {n: np.asarray(logits[n]) for n in space.choices}
    for name, choice in space.choices.items():
        if arrays[name].shape != (len(choice.options),):
            raise SpaceError(f"{name}: logits of shape {arrays[name].shape}; expected ({len(choice.options)},)")
        if np.isnan(arrays[name]).any() or arrays[name].max() in (np.inf, -np.inf):
            raise SpaceError(f"{name}: logits {shown(arrays[name].tolist())}; expected numbers, one of them finite")
    return arrays
