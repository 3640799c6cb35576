"""Random search: networks drawn uniformly from a band below the target, the best one kept.

In a search each network is trained for its share of the epochs, from fresh weights, by the one program that runs the likeliest
network of the logits: these name the network, and are not learned. The control that every other method is to be compared with
(Li & Talwalkar 2019, arXiv:1902.07638). Networks come from ``dnas.derive.banded``: each network of the band has the same
chance, none is drawn twice, none is above the target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dnas.derive.banded import Banded, banded
from dnas.errors import ConfigError
from dnas.gates import Gates, Logits
from dnas.methods.base import Form, Method, drawn
from dnas.methods.selection import STALE, Evaluate, Outcome, Problem, Proposals, drive, limits_of
from dnas.space import Genotype, Space

if TYPE_CHECKING:
    from dnas.derive.within import Costs, Numbers

BAND = 0.9  # of the target, where the band begins


def search(
    space: Space,
    evaluate: Evaluate,
    lut: Costs,
    *,
    target_ms: Numbers,
    budget: int = 1000,
    band: float = BAND,
    seed: int = 0,
    missing: str | None = None,
) -> Outcome:
    """Evaluate ``budget`` different random networks that take ``band`` to 1 times ``target_ms``, and keep the best.

    Arguments as in ``dnas.methods.evolution.search``; of several tables the band is that of the first, and all targets are
    kept. Errors: ConfigError where the band is empty, LatencyError.
    """
    problem = Problem(space, limits_of(space, lut, target_ms, missing), np.random.default_rng(seed))
    return drive(problem, proposals(problem, band), evaluate, budget)


def band_of(problem: Problem, band: float) -> Banded:
    """The networks that take ``band`` to 1 times the first target. Errors: ConfigError."""
    if not 0 <= band <= 1:
        raise ConfigError(f"a band from {band!r} of the target; expected a number from 0 to 1")
    limit = problem.limits[0]
    return banded(problem.space, limit.terms, band * limit.target, limit.target)


def proposals(problem: Problem, band: float) -> Proposals:
    """Different networks of the band that keep all targets; ends where hardly any is left."""
    source = band_of(problem, band)
    seen: set[Genotype] = set()
    barren = 0
    while barren < STALE and len(seen) < source.count_between[1]:
        (genotype,) = source.sample(problem.rng)
        barren += 1
        if genotype not in seen and problem.keeps(genotype):
            seen.add(genotype)
            barren = 0
            yield genotype


def draw(key: jax.Array, logits: Logits, temperature: jax.Array) -> Gates:
    """The likeliest option of each choice alone."""
    index = {n: v.argmax() for n, v in logits.items()}
    weights = {n: jax.nn.one_hot(index[n], v.shape[0], dtype=v.dtype) for n, v in logits.items()}
    return Gates(weights, {n: i.astype(jnp.int32).reshape(1) for n, i in index.items()})


class Best(NamedTuple):
    """The best network so far: its weights, statistics and logits, and its hits and loss on n selection images."""

    params: Any
    stats: Any
    logits: Logits
    hits: jax.Array
    n: jax.Array
    loss: jax.Array


def begin(params: Any, stats: Any, logits: Logits) -> Best:
    """Before the first network."""
    nothing = jax.tree.map(jnp.zeros_like, (params, stats, logits))
    return Best(nothing[0], nothing[1], nothing[2], jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), jnp.zeros(()))


RANDOM_SEARCH = Form("random-search", lambda space, config: Method(drawn(draw), init=begin, ends="best"))
