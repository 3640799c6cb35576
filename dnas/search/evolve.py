"""The end of a single-path search: evolution over the loss with the supernet's weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dnas.evaluate import Accuracy
from dnas.loop import Watcher
from dnas.methods import evolution
from dnas.methods.selection import Evaluated, Problem, drive
from dnas.search.engine import Setup, State
from dnas.search.measured import FILE, Measured, value
from dnas.space import Genotype


def evolve(
    setup: Setup, state: State, watcher: Watcher, folder: Path | None
) -> tuple[Genotype, Mapping[Genotype, Accuracy], dict[str, Any]]:
    """The best of ``--evaluations`` networks within all targets, the accuracy of each on the selection split, and words.

    Each is measured with the supernet's weights after recalibration, once. Errors: RunError.
    """
    config = setup.config
    assert config.evolution is not None and config.evaluations is not None
    problem = Problem(setup.space, setup.limits(None), np.random.default_rng(config.seed))
    size = max(min(evolution.POPULATION, config.evaluations // 4), 2)
    found = Measured(setup, state, folder and folder / FILE)
    watcher.begin("evolution", config.evaluations, 0)

    def evaluate(genotype: Genotype) -> float:
        accuracy = found.of(genotype)
        watcher.advance("evolution")
        return value(accuracy)

    outcome = drive(problem, evolution.proposals(problem, config.evolution, size), evaluate, config.evaluations)

    def said(one: Evaluated) -> dict[str, Any]:
        own = found[one.genotype]
        told = {"selection_top1": own.top1, "selection_loss": own.loss}
        return {"genotype": list(one.genotype), **told, "costs": list(one.costs)}

    best = outcome.best.genotype
    about = {"algorithm": config.evolution, "population": size, "costs": [limit.name for limit in problem.limits]}
    return best, found, {**about, "networks": len(found), "pareto": [said(one) for one in outcome.pareto]}
