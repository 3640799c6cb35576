"""How well predictors rank that have learnt from a few trainings, on the networks that supernets are ranked on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.macro.ranking import LEAST, WIDTH, given_up
from dnas.methods import predictor
from dnas.oracle import Oracle
from dnas.plot.ranking import info

TRAININGS = (8, 16, 32, 64, 128, 256)
DRAWS = 20


def learnt(
    oracle: Oracle, costs: np.ndarray, ranked: Sequence[str], trainings: Sequence[int] = TRAININGS, draws: int = DRAWS
) -> list[dict[str, Any]]:
    """In-band tau-b on the networks ``ranked``, by predictors of ``dnas.methods.predictor`` that know the first training of so
    many others, which are drawn ``draws`` times: mean, standard deviation over draws, and what is given up in a band."""
    at, found = np.array([oracle._index(c) for c in ranked]), []
    others = np.array(
        sorted({oracle._index(c) for c in oracle.networks} - {oracle._index(oracle.canonical(c)) for c in ranked})
    )
    for number in trainings:
        each = []
        for draw in range(draws):
            known = np.random.default_rng(draw).permutation(others)[:number]
            model = predictor.fit(oracle.space, oracle.genotypes[known].tolist(), oracle.runs[known, 0].tolist())
            mean, _ = model.predict(oracle.genotypes[at].tolist())
            each.append(info(mean.tolist(), oracle.runs[at], costs[at], WIDTH, LEAST))
        taus = [one.tau for one in each]
        found.append({
            "trainings": number, "draws": draws, "tau": float(np.mean(taus)), "sd": float(np.std(taus, ddof=1)),
            "given_up": float(np.mean([given_up(one) for one in each])),
        })  # fmt: skip
    return found
