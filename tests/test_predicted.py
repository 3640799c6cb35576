"""--derive predictor: the network that a model of other networks' losses likes best."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import tiny
from test_search_steps import images

import dnas
from dnas.derive import Limit, highest
from dnas.errors import NotFiniteError
from dnas.evaluate import Accuracy
from dnas.latency.costs import by_count
from dnas.latency.terms import price
from dnas.methods import predictor
from dnas.search import SearchResult, run
from dnas.search.predicted import FINALISTS, chosen, spread
from dnas.space import Genotype

pytestmark = pytest.mark.usefixtures("no_pictures")
OPTIONS = {"epochs": 3, "batch_size": 8, "train_epochs": 0, "warm_up": 0.34, "devices": 1, "progress": False}


def test_a_predictor_takes_what_it_says_of_others() -> None:
    """The best one within the target by models of the losses of the others, and below 0.9 times the target only where none is
    above; the same each time."""
    space = tiny.template_space()
    lut = tiny.table_for(space)
    low, high = space.latency_range(lut)
    target = low + 0.5 * (high - low)

    def search() -> SearchResult:
        found = run(space, lut, images(), derive="predictor", derive_samples=12, target_ms=target, **OPTIONS)
        assert isinstance(found, SearchResult)
        return found

    result = search()
    *others, last = result.compared
    assert len(others) >= 4 and result.genotype in result.compared
    assert {lut.latency_ms(space.fix(g)) > target for g in others} == {True, False}  # it learns from both sides
    if result.genotype != last:  # it was among those that are known
        others.append(last)
    learnt = space, others, [-result.compared[g].loss for g in others]
    linear, model = predictor.fit(*learnt), predictor.fit_process(*learnt)
    every = {space.canonical(g) for g in itertools.product(*(range(len(c.options)) for c in space.choices.values()))}
    inside = [g for g in every if lut.latency_ms(space.fix(g)) <= target]
    inside = [g for g in inside if lut.latency_ms(space.fix(g)) >= 0.9 * target] or inside
    finalists = sorted(inside, key=lambda g: -linear.predict([g])[0][0])[:FINALISTS]
    finalists += [g for g in others if g in inside]
    chosen, *rest = model.predict([result.genotype, *finalists])[0]
    assert result.genotype in finalists and chosen == pytest.approx(max(rest))
    how = result.derivation
    assert how["by"] == result.chosen_by == "predictor" and how["networks"] == len(result.compared) == result.draws
    assert how["predicted_loss"] == pytest.approx(-chosen) and how["derived_ms"] <= target
    assert "one of" in result.caveat and not result.learned
    again = search()
    assert again.genotype == result.genotype and again.compared == result.compared


def test_of_the_finalists_the_one_that_options_make_together_is_chosen() -> None:
    """Two options that help alone and hurt together, of 200 networks: the linear model would take both."""
    oracle = dnas.oracle.load("nas-bench-macro")
    rng, terms = np.random.default_rng(1), by_count(oracle.space, "macs", None).terms

    def value(genotype: Genotype) -> float:
        one, two = genotype[0] == 2, genotype[2] == 2  # the first layers of two stages
        return one + two - 1.5 * (one and two)

    known = {g: value(g) for g in (oracle.space.canonical(oracle.space.sample(rng)) for _ in range(200))}
    limits = [Limit(terms, 60e6)]
    inside = [g for g in known if 0.9 * 60e6 <= terms.at(oracle.space.assignment(g)) <= 60e6]
    assert max(map(value, inside)) == 1
    (naive,) = highest(
        oracle.space, predictor.fit(oracle.space, list(known), list(known.values())).by_choice(), limits, band=0.9
    )
    found, about = chosen(oracle.space, limits, known)
    assert value(naive) == 0.5 and value(found) == 1 and limits[0].keeps(oracle.space.assignment(found), 0.9 * 60e6)
    assert -about["predicted_loss"] == pytest.approx(1, abs=0.2) and about["noise"] < 0.1


@pytest.mark.parametrize("target", [1e-9, 0.5, 1.0, 50.0])
def test_a_predictor_learns_from_networks_around_its_target(target: float) -> None:
    """Also where the target is above all networks, or a cost does not add up."""
    space = tiny.stage_space()
    terms = price(space, tiny.table_for(space))
    low, high = terms.extreme(1)[0], terms.extreme(-1)[0]
    limit = Limit(terms, low + target * (high - low))
    found = spread(space, [limit], 24, np.random.default_rng(0))
    ms = [terms.at(space.assignment(g)) for g in found]
    assert 8 <= len(found) == len(set(found)) and [space.canonical(g) for g in found] == found
    assert max(ms) <= 2 * limit.target * 1.001 and min(ms) >= min(limit.target, high) / 2.001
    nothing_near = Limit(terms, low / 3)
    assert len(spread(space, [nothing_near], 24, np.random.default_rng(0))) >= 8
    peak = by_count(space, "peak-activation-bytes", None).terms
    only = spread(space, [Limit(peak, 1e9)], 24, np.random.default_rng(0))
    assert 8 <= len(only) == len(set(only))
    assert spread(space, [Limit(peak, 1e9), limit], 24, np.random.default_rng(0)) == found


def test_a_supernet_without_losses_chooses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    space = tiny.template_space()
    monkeypatch.setattr("dnas.search.measured.measure", lambda *_: Accuracy(0, 9, math.nan))
    with pytest.raises(NotFiniteError, match="on the selection images"):
        run(space, tiny.table_for(space), images(), derive="predictor", derive_samples=12, **OPTIONS)
