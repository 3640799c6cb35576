"""Searches over networks of known value: within the budget, planted optima, fronts, and random search as a control."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import tiny

import dnas
from dnas.derive import Limit
from dnas.errors import ConfigError
from dnas.latency.costs import by_count
from dnas.latency.terms import price
from dnas.methods import evolution, predictor, random_search, reinforce
from dnas.methods.selection import Outcome, Problem, limits_of
from dnas.space import Genotype, Space

ORACLE = dnas.oracle.load("nas-bench-macro")
MACS = by_count(ORACLE.space, "macs", None).terms


def accuracy(genotype: Genotype) -> float:
    return ORACLE.accuracy(genotype) / 100


SEARCHES: dict[str, Callable[..., Outcome]] = {
    "regularised": lambda *a, **k: evolution.search(*a, **k, algorithm="regularised"),
    "nsga2": lambda *a, **k: evolution.search(*a, **k, algorithm="nsga2"),
    "random-search": random_search.search,
    "predictor": predictor.search,
}


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("target", [20e6, 60e6])
def test_all_that_is_evaluated_keeps_the_budget_and_comes_once(name: str, target: float) -> None:
    found = SEARCHES[name](ORACLE.space, accuracy, MACS, target_ms=target, budget=60, seed=1)
    networks = [e.genotype for e in found.evaluated]
    assert len(networks) <= 60 and len(set(networks)) == len(networks)
    assert all(ORACLE.space.canonical(g) == g for g in networks)
    assert all(e.costs[0] <= target and e.costs[0] == MACS.at(ORACLE.space.assignment(e.genotype)) for e in found.evaluated)
    assert found.best.value == max(e.value for e in found.evaluated) == accuracy(found.best.genotype)
    again = SEARCHES[name](ORACLE.space, accuracy, MACS, target_ms=target, budget=60, seed=1)
    assert again == found
    inside = [e.costs[0] >= 0.9 * target for e in found.evaluated]
    assert name != "random-search" or all(inside)
    assert name != "predictor" or (inside[0] and inside == sorted(inside, reverse=True))  # others where the band is known


@pytest.mark.parametrize("make", [*tiny.SPACES, tiny.width_space])
@pytest.mark.parametrize("name", SEARCHES)
def test_a_small_space_is_searched_to_its_end(name: str, make: Callable[[], Space]) -> None:
    """With a budget of everything the best network within the target is found."""
    space = make()
    terms = price(space, tiny.table_for(space))
    every = {space.canonical(g) for g in itertools.product(*(range(len(c.options)) for c in space.choices.values()))}
    ms = {g: terms.at(space.assignment(g)) for g in every}
    target = float(np.quantile(list(ms.values()), 0.6))
    worth = {g: float(v) for g, v in zip(sorted(every), np.random.default_rng(2).permutation(len(every)), strict=True)}
    more = {"band": 0.0} if name == "random-search" else {}
    found = SEARCHES[name](space, worth.__getitem__, terms, target_ms=target, budget=len(every), seed=0, **more)
    assert found.best.value == max(v for g, v in worth.items() if ms[g] <= target)


def test_the_front_is_that_of_all_pairs() -> None:
    second = by_count(ORACLE.space, "params", None).terms
    targets = (80e6, 2e6)
    found = evolution.search(ORACLE.space, accuracy, (MACS, second), target_ms=targets, budget=80, algorithm="nsga2", seed=3)
    assert all(c <= t for e in found.evaluated for c, t in zip(e.costs, targets, strict=True))
    points = {e.genotype: (-e.value, *e.costs) for e in found.evaluated}
    front = {
        g
        for g, p in points.items()
        if not any(q != p and all(a <= b for a, b in zip(q, p, strict=True)) for q in points.values())
    }
    assert {e.genotype for e in found.pareto} == front
    assert [e.costs for e in found.pareto] == sorted(e.costs for e in found.pareto)


def test_ranks_and_crowding_by_hand() -> None:
    space = tiny.stage_space()
    terms = price(space, tiny.table_for(space))
    problem = Problem(space, limits_of(space, terms, 99.0), np.random.default_rng(0))
    cheap, dear = ({s: terms.extreme(s)[1] for s in (1, -1)}[s] for s in (1, -1))
    middle = (1, 0, 0, 0)
    pool = {tuple(cheap.get(n, 0) for n in space.choices): 0.1, middle: 0.5, tuple(dear.get(n, 0) for n in space.choices): 0.4}
    rank, crowding = evolution.ranked(problem, pool)
    assert rank.tolist() == [0, 0, 1] and np.isinf(crowding).all()


@pytest.mark.slow
def test_reinforce_finds_a_network_near_the_best_within_the_target() -> None:
    found = reinforce.search(ORACLE.space, accuracy, MACS, target_ms=60e6, budget=200, seed=0)
    assert found.best.costs[0] <= 60e6 and len(found.evaluated) <= 200
    assert ORACLE.best(60e6, "macs").accuracy / 100 - found.best.value < 0.01


def test_a_predictor_learns_values_that_add_up() -> None:
    """With values that are sums of effects it predicts networks it has not seen, and is sure of them; its best is the best."""
    space = ORACLE.space
    rng = np.random.default_rng(5)
    truth = {n: rng.normal(size=len(c.options)) for n, c in space.choices.items()}
    networks = sorted({space.canonical(g) for g in ORACLE.genotypes.tolist()})
    value = {g: 70 + sum(v[i] for v, i in zip(truth.values(), g, strict=True)) for g in networks}
    seen = [networks[i] for i in rng.choice(len(networks), 60, replace=False)]
    model = predictor.fit(space, seen, [value[g] for g in seen])
    mean, sd = model.predict(networks)
    assert np.abs(mean - list(value.values())).max() < 0.01 and sd.max() < 0.01 and model.noise < 0.01
    few = predictor.fit(space, seen[:10], [value[g] for g in seen[:10]])
    assert few.predict(seen[:10])[1].mean() < few.predict(networks)[1].mean()  # of what it has seen it is surer


def test_a_process_learns_what_options_do_together() -> None:
    """Values that are no sums of effects: it predicts networks it has not seen, which the linear model cannot; of sums it says
    what the linear model says; and how sure it is holds for networks it has not seen."""
    space, rng = ORACLE.space, np.random.default_rng(6)
    networks = sorted({space.canonical(g) for g in ORACLE.genotypes.tolist()})
    x = predictor.features(space, networks)
    effects, pairs = rng.normal(size=x.shape[1]), rng.normal(size=(x.shape[1], x.shape[1]))
    noise = 0.2
    seen, unseen = np.split(rng.permutation(len(networks)), [200])
    for share in (0.0, 0.3):
        value = x @ effects + share * np.einsum("ni,ij,nj->n", x, pairs, x)
        given = [networks[i] for i in seen], value[seen] + noise * rng.normal(size=len(seen))
        linear, process = predictor.fit(space, *given), predictor.fit_process(space, *given)
        others = [networks[i] for i in unseen]
        mean, sd = process.predict(others)
        off, off_linear = (np.std(m - value[unseen]) for m in (mean, linear.predict(others)[0]))
        if share:
            assert off < 0.6 * off_linear
        else:
            assert off < 1.2 * off_linear and process.noise == pytest.approx(noise, rel=0.2)
        within = np.abs(mean - value[unseen]) < 2 * sd
        assert 0.85 < within.mean() < 0.995
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert predictor.fit_process(space, networks[:5], [1.5] * 5).predict(networks[9:10])[0] == pytest.approx([1.5])


def test_the_highest_sum_is_that_of_all_networks() -> None:
    """``derive.highest`` against brute force, on spaces with choices that switch others off; with known ones left out."""
    for make in tiny.SPACES:
        space = make()
        terms = price(space, tiny.table_for(space))
        rng = np.random.default_rng(3)
        values = {n: rng.normal(size=len(c.options)) for n, c in space.choices.items()}
        codes = list(itertools.product(*(range(len(c.options)) for c in space.choices.values())))
        ms = [terms.at(space.assignment(g)) for g in codes]
        limit = Limit(terms, float(np.quantile(ms, 0.7)))
        band = float(np.quantile(ms, 0.3)) / limit.target
        best: dict[Genotype, float] = {}
        for g, cost in zip(codes, ms, strict=True):
            if band * limit.target <= cost <= limit.target:
                active = space.active(g)
                total = sum(values[n][i] for n, i in zip(space.choices, g, strict=True) if n in active)
                same = space.canonical(g)
                best[same] = max(best.get(same, -math.inf), total)
        order = sorted(best, key=lambda g: -best[g])
        assert dnas.derive.highest(space, values, [limit], 5, band=band) == tuple(order[:5])
        assert dnas.derive.highest(space, values, [limit], 2, band=band, known=order[:1]) == tuple(order[1:3])
        assert len(order) > 1
        (outside,) = dnas.derive.highest(space, values, [limit], band=band, known=order)
        assert terms.at(space.assignment(outside)) < band * limit.target
        assert dnas.derive.highest(space, values, [limit], known=[space.canonical(g) for g in codes]) == ()


def test_a_value_that_is_no_number_teaches_nothing() -> None:
    broken = lambda g: math.nan if g[0] == 0 else accuracy(g)  # noqa: E731
    found = predictor.search(ORACLE.space, broken, MACS, target_ms=60e6, budget=30, seed=0)
    values = [e.value for e in found.evaluated]
    assert len(values) == 30 and found.best.value == np.nanmax(values)


def test_mistakes() -> None:
    space, lut = tiny.stage_space(), tiny.table_for(tiny.stage_space())
    for call, words in (
        (lambda: evolution.search(space, accuracy, lut, target_ms=1e-3), "is out of reach"),
        (lambda: evolution.search(space, accuracy, lut, target_ms=(1.0, 2.0)), "2 numbers for 1 tables"),
        (lambda: evolution.search(space, accuracy, lut, target_ms=9.0, budget=0), "at least one network"),
        (lambda: evolution.search(space, accuracy, lut, target_ms=9.0, algorithm="nsga3"), "did you mean 'nsga2'"),
        (lambda: evolution.search(space, accuracy, lut, target_ms=9.0, population=1), "at least two"),
        (lambda: random_search.search(space, accuracy, lut, target_ms=9.0, band=2.0), "a number from 0 to 1"),
        (lambda: predictor.search(space, accuracy, lut, target_ms=9.0, band=2.0), "a band from 0 to 1"),
        (lambda: predictor.search(space, accuracy, lut, target_ms=9.0, first=1), "at least 2 networks"),
        (lambda: predictor.fit(space, [(0, 0, 0, 0)], [1.0]), "1 networks with 1 values"),
        (lambda: predictor.fit(space, [(0, 0, 0, 0), (1, 0, 0, 0)], [1.0, math.nan]), "finite numbers"),
        (lambda: predictor.fit_process(space, [(0, 0, 0, 0)], [1.0]), "1 networks with 1 values"),
    ):
        with pytest.raises(ConfigError, match=words):
            call()
