"""The end of a search: from logits to the network that is kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from dnas import derive
from dnas.evaluate import Accuracy
from dnas.loop import Watcher
from dnas.search.engine import Setup, State
from dnas.search.evolve import evolve
from dnas.search.measured import FILE, Measured, value
from dnas.search.one_by_one import best
from dnas.search.phase import describe, held
from dnas.search.predicted import predict
from dnas.space import Genotype


def choose(
    setup: Setup, state: State, watcher: Watcher, folder: Path | None = None
) -> tuple[dict[str, Any], dict[Genotype, Accuracy], State]:
    """The network of the smallest loss on the selection split of those that ``--derive`` or the method puts up, or the best one
    by a model of such losses: notes about it, all that were measured, and the state with the weights that they were measured
    with. ``folder``: of the run.

    Every network is measured after recalibration. Notes: ``genotype``, ``inherited``, ``draws`` (how many were compared) and
    ``derivation``, which says what the likeliest network would have been.
    """
    multipliers = held(setup, state)["multipliers"]
    if setup.method.ends == "evolution":
        genotype, compared, about = evolve(setup, state, watcher, folder)
        about["by"] = "evolution"
    elif setup.method.ends == "best":
        state, found = best(state)
        genotype = derive.argmax_genotype(setup.space, jax.device_get(state.logits))
        compared = {genotype: found}
        about = {"by": "random-search", "networks": setup.config.evaluations}
    elif setup.config.derive == "predictor":
        genotype, compared, about = predict(setup, state, watcher, folder)
    else:
        genotype, compared, about = _derive(setup, state, watcher, multipliers, folder)
    logits = jax.device_get(state.logits)
    likeliest = derive.argmax_genotype(setup.space, logits)
    figures = describe(setup, logits, genotype)
    chance, most = (derive.log_probability(setup.space, logits, g) for g in (genotype, likeliest))
    derivation = {
        "by": setup.config.derive, "networks": about["networks"], "multipliers": multipliers,
        "expected_ms": figures["expected_ms"], "argmax_ms": setup.terms.at(setup.space.assignment(likeliest)),
        "derived_ms": setup.terms.at(setup.space.assignment(genotype)),
        "gap_ms": setup.terms.at(setup.space.assignment(genotype)) - figures["expected_ms"],
        "argmax_genotype": list(likeliest), "log_probability": chance, "log_probability_given_up": most - chance, **about,
    }  # fmt: skip
    own = compared[genotype]
    inherited = [own.hits, own.n, own.loss]
    notes = {"genotype": list(genotype), "inherited": inherited, "draws": about["networks"], "derivation": derivation}
    return notes, dict(compared), state


def _derive(
    setup: Setup, state: State, watcher: Watcher, multipliers: list[float] | None, folder: Path | None
) -> tuple[Genotype, Mapping[Genotype, Accuracy], dict[str, Any]]:
    """The best of those that ``--derive`` puts up, with the supernet's weights."""
    logits = jax.device_get(state.logits)
    pool, about = _pool(setup, logits, derive.argmax_genotype(setup.space, logits), multipliers)
    watcher.begin("ranking", len(pool), 0)
    ranked = Measured(setup, state, folder and folder / FILE)
    for genotype in pool:
        ranked.of(genotype)
        watcher.advance("ranking")
    genotype = max(ranked, key=lambda g: value(ranked[g]))
    return genotype, ranked, {"networks": len(ranked), **about}


def _pool(
    setup: Setup, logits: dict[str, Any], likeliest: Genotype, multipliers: list[float] | None
) -> tuple[list[Genotype], dict[str, Any]]:
    """Genotypes to compare, each once, and what is to be said of how they were found."""
    config = setup.config
    if config.derive != "budget":
        drawn = []
        if config.derive == "sample":
            assert config.derive_samples is not None
            drawn = derive.sample(setup.space, logits, config.seed, config.derive_samples)
        return list(dict.fromkeys([likeliest, *drawn])), {}
    assert config.derive_samples is not None
    found = derive.shortlist(setup.space, logits, setup.limits(multipliers), config.derive_samples, near=config.derive_from)
    near = any(low > float("-inf") for low in found.low)
    return list(found.genotypes), {
        "proven": found.proven,
        "bound": found.bound if found.proven is False else None,
        "near": near,
    }
