"""The end of a search by a predictor: what the options add to the losses of many networks, in place of one network's loss.

A supernet flatters some networks and wrongs others, by chance; a model of the losses of many evens that out (docs/study.md).
It learns best from networks that differ, and so from latencies well below and above the target. A linear model finds the best
networks of the space within the target, and a Gaussian process, which knows what options do together, the best of these and of
the measured ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnas.derive import Limit, banded, highest
from dnas.errors import ConfigError
from dnas.evaluate import Accuracy
from dnas.loop import Watcher
from dnas.methods.predictor import fit, fit_process
from dnas.methods.random_search import BAND
from dnas.search.engine import Setup, State
from dnas.search.measured import FILE, Measured, value
from dnas.space import Genotype, Space

BANDS = 8  # of latency, each with as many networks
REACH = 2.0  # they reach from the target divided by this to the target times this
FINALISTS = 32  # of the linear model


def predict(
    setup: Setup, state: State, watcher: Watcher, folder: Path | None
) -> tuple[Genotype, Mapping[Genotype, Accuracy], dict[str, Any]]:
    """The network within all targets, of 0.9 to 1 times the first where there are any, that models of the losses of
    ``--derive-samples`` others like best; the accuracy of each on the selection split, and words.

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
    best, about = chosen(setup.space, limits, finite)
    found.of(best)
    watcher.advance("ranking")
    return best, found, {"networks": len(found), **about}


def chosen(space: Space, limits: Sequence[Limit], known: Mapping[Genotype, float]) -> tuple[Genotype, dict[str, float]]:
    """The best network within ``limits`` by the values of ``known`` ones, the larger the better, and what the model says of it;
    any one where fewer than two are known."""
    if len(known) < 2:  # of a supernet that is lost
        return highest(space, {n: np.zeros(len(c.options)) for n, c in space.choices.items()}, limits, band=BAND)[0], {}
    given = list(known), list(known.values())
    finalists = highest(space, fit(space, *given).by_choice(), limits, FINALISTS, band=BAND)
    first_cost = next((limit for limit in limits if limit.adds_up), None)

    def inside(genotype: Genotype) -> bool:
        assignment = space.assignment(genotype)
        return all(limit.keeps(assignment, BAND * limit.target if limit is first_cost else -math.inf) for limit in limits)

    candidates = list(dict.fromkeys([*finalists, *filter(inside, known)]))
    model = fit_process(space, *given)
    means, sds = model.predict(candidates)
    best = int(means.argmax())
    about = {"predicted_loss": -float(means[best]), "predicted_sd": float(sds[best]), "noise": model.noise}
    return candidates[best], about


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
