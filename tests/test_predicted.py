"""--derive predictor: the network that a model of other networks' losses likes best."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import tiny
from test_search_steps import images

from dnas.derive import Limit
from dnas.errors import NotFiniteError
from dnas.evaluate import Accuracy
from dnas.latency.costs import by_count
from dnas.latency.terms import price
from dnas.methods import predictor
from dnas.search import SearchResult, run
from dnas.search.predicted import spread

pytestmark = pytest.mark.usefixtures("no_pictures")
OPTIONS = {"epochs": 3, "batch_size": 8, "train_epochs": 0, "warm_up": 0.34, "devices": 1, "progress": False}


def test_a_predictor_takes_what_it_says_of_others() -> None:
    """The best one within the target by a model of the losses of the others, and below 0.9 times the target only where none is
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
    model = predictor.fit(space, others, [-result.compared[g].loss for g in others])
    every = {space.canonical(g) for g in itertools.product(*(range(len(c.options)) for c in space.choices.values()))}
    inside = [g for g in every if lut.latency_ms(space.fix(g)) <= target]
    inside = [g for g in inside if lut.latency_ms(space.fix(g)) >= 0.9 * target] or inside
    chosen, *rest = model.predict([result.genotype, *inside])[0]
    assert result.genotype in inside and chosen == pytest.approx(max(rest))
    how = result.derivation
    assert how["by"] == result.chosen_by == "predictor" and how["networks"] == len(result.compared) == result.draws
    assert how["predicted_loss"] == pytest.approx(-chosen) and how["derived_ms"] <= target
    assert "one of" in result.caveat and not result.learned
    again = search()
    assert again.genotype == result.genotype and again.compared == result.compared


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
