"""The end of a single-path search: evolution over the supernet's accuracy."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dnas.devices import on_first
from dnas.errors import RunError
from dnas.evaluate import Accuracy
from dnas.files import kind
from dnas.loop import Watcher
from dnas.methods import evolution
from dnas.methods.selection import Evaluated, Problem, drive
from dnas.search.engine import Setup, State
from dnas.search.phase import measure
from dnas.space import Genotype

MEASURED = "measured.jsonl"  # in a run folder: the networks measured so far, which a resumed run need not measure again


def evolve(setup: Setup, state: State, watcher: Watcher, folder: Path | None) -> tuple[Genotype, Accuracy, dict[str, Any]]:
    """The best of ``--evaluations`` networks within all targets, its accuracy on the selection split, and words about the rest.

    Each is measured with the supernet's weights after recalibration, once. Errors: RunError.
    """
    config = setup.config
    assert config.evolution is not None and config.evaluations is not None
    problem = Problem(setup.space, setup.limits(None), np.random.default_rng(config.seed))
    size = max(min(evolution.POPULATION, config.evaluations // 4), 2)
    known, found = _read(folder), dict[Genotype, Accuracy]()
    watcher.begin("evolution", config.evaluations, 0)

    def evaluate(genotype: Genotype) -> float:
        found[genotype] = known.get(genotype) or measure(setup, state, genotype)
        if folder and genotype not in known:
            on_first(partial(_append, folder / MEASURED, genotype, found[genotype]))
        watcher.advance("evolution")
        return value(found[genotype])

    outcome = drive(problem, evolution.proposals(problem, config.evolution, size), evaluate, config.evaluations)

    def said(one: Evaluated) -> dict[str, Any]:
        return {"genotype": list(one.genotype), "selection_top1": found[one.genotype].top1, "costs": list(one.costs)}

    best = outcome.best.genotype
    about = {"algorithm": config.evolution, "population": size, "costs": [limit.name for limit in problem.limits]}
    return best, found[best], {**about, "networks": len(found), "pareto": [said(one) for one in outcome.pareto]}


def value(accuracy: Accuracy) -> float:
    """Top-1 accuracy; among equals the smaller loss is better."""
    return (accuracy.hits + math.exp(-accuracy.loss)) / (accuracy.n + 1)


def _read(folder: Path | None) -> dict[Genotype, Accuracy]:
    """What ``MEASURED`` holds; a last line that was cut off is left out."""
    if folder is None or not kind(folder / MEASURED):
        return {}
    found = {}
    for line in (folder / MEASURED).read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
            found[tuple(row["genotype"])] = Accuracy(row["hits"], row["n"], row["loss"])
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _append(path: Path, genotype: Genotype, accuracy: Accuracy) -> None:
    row = {"genotype": list(genotype), "hits": accuracy.hits, "n": accuracy.n, "loss": accuracy.loss}
    try:
        with open(path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")
    except OSError as problem:
        raise RunError(f"{path}: cannot be written ({problem.strerror})") from None
