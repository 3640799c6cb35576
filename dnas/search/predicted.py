"""The end of a search by a predictor: what the options add to the losses of many networks, in place of one network's loss.

A supernet flatters some networks and wrongs others, by chance; a linear model of the losses of many evens that out
(docs/study.md). It learns best from networks that differ, and so from latencies well below and above the target.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnas.derive import Limit, banded, highest
from dnas.errors import ConfigError
from dnas.evaluate import Accuracy
from dnas.loop import Watcher
from dnas.methods.predictor import fit
from dnas.methods.random_search import BAND
from dnas.search.engine import Setup, State
from dnas.search.measured import FILE, Measured, value
from dnas.space import Genotype, Space

BANDS = 8  # of latency, each with as many networks
REACH = 2.0  # they reach from the target divided by this to the target times this


def predict(
    setup: Setup, state: State, watcher: Watcher, folder: Path | None
) -> tuple[Genotype, Mapping[Genotype, Accuracy], dict[str, Any]]:
    """The network within all targets, of 0.9 to 1 times the first where there are any, that a linear model likes best of the
    losses of ``--derive-samples`` others; the accuracy of each on the selection split, and words.

    Each is measured with the supernet's weights after recalibration, once. Errors: RunError.
    """
    config, limits = setup.config, setup.limits(None)
    assert config.derive_samples is not None
    pool = spread(setup.space, limits, config.derive_samples, np.random.default_rng(config.seed))
    found = Measured(setup, state, folder and folder / FILE)
    watcher.begin("ranking", len(pool) + 1, 0)
    for genotype in pool:
        found.of(genotype)
        watcher.advance("ranking")
    finite = {g: value(a) for g, a in found.items() if a.finite}
    model = fit(setup.space, list(finite), list(finite.values())) if len(finite) > 1 else None
    nothing = {n: np.zeros(len(c.options)) for n, c in setup.space.choices.items()}  # of a supernet that is lost
    (best,) = highest(setup.space, model.by_choice() if model else nothing, limits, band=BAND)
    found.of(best)
    watcher.advance("ranking")
    about: dict[str, Any] = {"networks": len(found)}
    if model:
        mean, sd = model.predict([best])
        about |= {"predicted_loss": -float(mean[0]), "predicted_sd": float(sd[0]), "noise": model.noise}
    return best, found, about


def spread(space: Space, limits: Sequence[Limit], number: int, rng: np.random.Generator) -> list[Genotype]:
    """About ``number`` different networks, as many from each of ``BANDS`` bands around the target of the first cost that adds
    up over layers, where there are any; from all of the space where no cost does, or the bands have not two networks."""
    limit = next((limit for limit in limits if limit.adds_up), None)
    found = {} if limit is None else _in_bands(space, limit, number, rng)
    return list(found if len(found) > 1 else dict.fromkeys(space.canonical(space.sample(rng)) for _ in range(number)))


def _in_bands(space: Space, limit: Limit, number: int, rng: np.random.Generator) -> dict[Genotype, None]:
    fastest, slowest = limit.terms.extreme(1)[0], limit.terms.extreme(-1)[0]
    middle = min(limit.target, slowest)
    edges = np.geomspace(max(fastest, middle / REACH), min(slowest, middle * REACH), min(BANDS, number) + 1)
    edges[0], edges[-1] = edges[0] * (1 - 1e-9), edges[-1] * (1 + 1e-9)  # rounding may have moved them
    found: dict[Genotype, None] = {}
    for low, high in itertools.pairwise(edges):
        try:
            band = banded(space, limit.terms, low, high)
        except ConfigError:  # it has no networks
            continue
        each = -(-number // (len(edges) - 1))
        found |= dict.fromkeys(map(space.canonical, band.sample(rng, min(each, band.count_between[1]))))
    return found
