"""The best networks within a budget: both solvers equal brute force, and nothing is ever above the budget."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

import dnas
from dnas import derive
from dnas.derive.paths import Band, best_paths
from dnas.derive.programme import best_by_programme
from dnas.errors import ConfigError, SpaceError
from dnas.factors import Factor
from dnas.latency.terms import Terms, price
from dnas.space import Space

SPACES = {make().name: make() for make in tiny.SPACES}
each = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
NAMES = "abcde"


@st.composite
def problems(draw: st.DrawFn, costs: int = 1) -> tuple[dict[str, int], list[Factor], list[Band]]:
    """Up to 5 choices of up to 4 options; per-choice, neighbour and distant factors; prices in whole microseconds."""
    sizes = {n: draw(st.integers(1, 4)) for n in NAMES[: draw(st.integers(1, 5))]}
    pairs = list(itertools.pairwise(sizes))
    if len(sizes) > 2 and draw(st.booleans()):
        pairs.append((list(sizes)[-1], "a"))

    def factors(low: int, high: int, scale: float) -> list[Factor]:
        groups = [(n,) for n in sizes] + [p for p in pairs if draw(st.booleans())]
        return [
            Factor(g, rng.integers(low, high + 1, [sizes[n] for n in g]) * scale) for g in groups if draw(st.integers(0, 4))
        ]

    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = [*factors(-400, 400, 0.01), *(Factor((n,), np.zeros(s)) for n, s in sizes.items())]
    if draw(st.booleans()):
        forbidden = scores[0].values.astype(float)
        forbidden.ravel()[0] = -np.inf
        scores[0] = Factor(scores[0].names, forbidden)
    bands = []
    for _ in range(costs):
        tables = factors(draw(st.sampled_from([-30, 0])), 90, 1e-3)
        most = sum(float(f.values.max()) for f in tables)
        high = round(draw(st.floats(-0.1, 1.1)) * most, 3)
        bands.append(Band(tuple(tables), draw(st.sampled_from([-math.inf, round(high - 0.1 * abs(high), 3)])), high))
    return sizes, scores, bands


def brute_force(sizes: dict[str, int], scores: list[Factor], bands: list[Band]) -> list[float]:
    """Scores of all assignments that keep the bands, best first."""
    found = []
    for codes in itertools.product(*(range(s) for s in sizes.values())):
        picked = dict(zip(sizes, codes, strict=True))
        score = math.fsum(float(f.at(picked)) for f in scores)
        if score > -math.inf and all(keeps(picked, b) for b in bands):
            found.append(score)
    return sorted(found, reverse=True)


def keeps(picked: dict[str, int], band: Band) -> bool:
    return band.low - 1e-9 <= math.fsum(float(f.at(picked)) for f in band.factors) <= band.high + 1e-9


@settings(deadline=None, max_examples=150)
@given(problems(), st.integers(1, 6), st.sampled_from([0, 3, 20_000]))
def test_dynamic_programming_equals_brute_force(problem: Any, k: int, nodes: int) -> None:
    """However early the search along true costs gives up: whole microseconds are rounded nowhere."""
    sizes, scores, bands = problem
    wanted = brute_force(sizes, scores, bands)
    found = best_paths(sizes, scores, bands[0], k, lambda picked: keeps(picked, bands[0]), nodes)
    assert found.scores == pytest.approx(wanted[: len(found.scores)], abs=1e-6)
    assert len(found.scores) == min(k, len(wanted)) or (bands[0].low > -math.inf and not found.proven)
    assert all(keeps(p, bands[0]) for p in found.picked) and len({tuple(p.items()) for p in found.picked}) == len(found.picked)
    if len(found.scores) < len(wanted) and not found.proven:
        assert found.bound >= wanted[len(found.scores)] - 1e-6


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 2).flatmap(problems), st.integers(1, 3))
def test_the_integer_programme_equals_brute_force(problem: Any, k: int) -> None:
    sizes, scores, bands = problem
    bands = [b._replace(low=max(b.low, -1e3)) for b in bands]
    wanted = brute_force(sizes, scores, bands)[:k]
    found = best_by_programme(sizes, scores, bands, k, lambda picked: all(keeps(picked, b) for b in bands))
    assert found.proven and found.scores == pytest.approx(wanted, abs=1e-5)
    assert all(keeps(p, b) for p in found.picked for b in bands)


def random_logits(space: Space, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {n: rng.normal(size=len(c.options)) * 2 for n, c in space.choices.items()}


def networks(space: Space) -> list[tuple[int, ...]]:
    codes = itertools.product(*(range(len(c.options)) for c in space.choices.values()))
    return sorted({space.canonical(g) for g in codes})


@each
@pytest.mark.parametrize("multiplier", [0.0, 3.0])
def test_on_every_kind_of_choice_the_best_network_within_any_budget_is_found(space: Space, multiplier: float) -> None:
    """Budgets are the latencies of the networks themselves, to the last bit: the hardest edges there are."""
    lut, logits = tiny.table_for(space, 3, constant_ms=0.3), random_logits(space, 5)
    ms = {g: lut.latency_ms(space.fix(g)) for g in networks(space)}
    score = {g: derive.log_probability(space, logits, g) + multiplier * ms[g] for g in ms}
    for target in sorted(ms.values())[::2]:
        chosen = derive.budget(space, logits, lut, target_ms=target, multiplier=multiplier)
        near = [g for g in ms if ms[g] <= target and (not multiplier or ms[g] >= 0.98 * target)]
        assert lut.latency_ms(chosen) <= target
        assert chosen == space.fix(max(near, key=score.__getitem__))


@each
def test_two_tables_bind_together(space: Space) -> None:
    tables, logits = [tiny.table_for(space, s) for s in (1, 2)], random_logits(space, 7)
    ms = {g: [t.latency_ms(space.fix(g)) for t in tables] for g in networks(space)}
    for targets in itertools.product(*(np.quantile(v, (0.4, 0.8)) for v in zip(*ms.values(), strict=True))):
        within = [g for g, v in ms.items() if all(a <= b for a, b in zip(v, targets, strict=True))]
        if not within:
            with pytest.raises(ConfigError, match="raise one of the targets"):
                derive.budget(space, logits, tables, target_ms=targets)
            continue
        best = max(within, key=lambda g: derive.log_probability(space, logits, g))
        assert derive.budget(space, logits, tables, target_ms=targets) == space.fix(best)


def test_the_probabilities_of_all_networks_add_up_to_one() -> None:
    for space in SPACES.values():
        logits = random_logits(space, 1)
        codes = itertools.product(*(range(len(c.options)) for c in space.choices.values()))
        switched_off = {tuple(i if n in space.active(g) else 0 for n, i in space.assignment(g).items()) for g in codes}
        total = math.fsum(math.exp(derive.log_probability(space, logits, g)) for g in switched_off)
        assert total == pytest.approx(1.0)


@pytest.fixture(scope="module")
def fbnet() -> tuple[Space, Terms]:
    space = dnas.load_space("fbnet")
    return space, price(space, dnas.LatencyTable.load("samsung_s8.json"))


def test_a_shortlist_of_fbnet_is_proven_distinct_and_within(fbnet: tuple[Space, Terms]) -> None:
    space, terms = fbnet
    found = derive.shortlist(space, random_logits(space, 0), [derive.Limit(terms, 20.0)], 32)
    assert found.proven and len(set(found.genotypes)) == 32 == len({space.fix(g) for g in found.genotypes})
    assert all(terms.at(space.assignment(g)) == ms <= 20.0 for g, (ms,) in zip(found.genotypes, found.costs, strict=True))
    assert list(found.scores) == sorted(found.scores, reverse=True) == pytest.approx(list(found.log_probabilities))
    best = found.genotypes[0]
    for position, choice in enumerate(space.choices.values()):  # no single change is better and fits
        for option in range(len(choice.options)):
            other = (*best[:position], option, *best[position + 1 :])
            if terms.at(space.assignment(other)) <= 20.0:
                assert derive.log_probability(space, random_logits(space, 0), other) <= found.scores[0] + 1e-9


def test_where_sums_lie_too_close_together_the_bound_is_reported(fbnet: tuple[Space, Terms]) -> None:
    """Equal logits and a multiplier: the network nearest to 20 ms of 1e20 is wanted, which is a subset sum."""
    space, terms = fbnet
    equal = {n: np.zeros(len(c.options)) for n, c in space.choices.items()}
    found = derive.shortlist(space, equal, [derive.Limit(terms, 20.0, 0.3)], 8)
    assert not found.proven and len(found.genotypes) == 8
    assert all(19.6 <= ms <= 20.0 for (ms,) in found.costs)
    assert 0 <= found.bound - found.scores[0] < 0.3 * 22 * 1e-4 + 1e-6  # a tenth of a microsecond for each layer


def test_with_a_multiplier_only_networks_near_the_target_remain_unless_there_are_too_few() -> None:
    space = SPACES["tiny_plain"]
    lut, logits = tiny.table_for(space), random_logits(space, 2)
    terms = price(space, lut)
    ms = sorted(lut.latency_ms(space.fix(g)) for g in networks(space))
    free = derive.shortlist(space, logits, [derive.Limit(terms, ms[-1])], 32)
    limit, close = derive.Limit(terms, ms[-1], 1.0), [m for m in ms if m >= 0.98 * ms[-1]]
    assert len(free.genotypes) == len(ms) > len(close) and free.low == (-math.inf,)
    for tight in (
        derive.shortlist(space, logits, [limit], len(close)),
        derive.shortlist(space, logits, [limit], 32, near=0.98),
    ):
        assert sorted(c for (c,) in tight.costs) == close and tight.low[0] == 0.98 * ms[-1]
    assert (
        derive.shortlist(space, logits, [limit], 32).genotypes == derive.shortlist(space, logits, [limit], 32, near=0).genotypes
    )
    assert derive.shortlist(space, logits, [limit], len(close) + 1).low == (-math.inf,)
    below, above = next((a, b) for a, b in itertools.pairwise(ms) if b / a > 1.03)
    none_near = derive.shortlist(space, logits, [derive.Limit(terms, below * 1.025, 1.0)], near=0.98)
    assert none_near.low == (-math.inf,) and max(c for (c,) in none_near.costs) == below < above


def test_mistakes_are_one_sentence() -> None:
    space = SPACES["tiny_plain"]
    lut, logits = tiny.table_for(space), random_logits(space, 2)
    fastest, _ = space.latency_range(lut)
    for change, words in (
        ({"target_ms": 0.99 * fastest}, "out of reach: by tiny_0, the least"),
        ({"target_ms": math.nan}, "the target of tiny_0 is nan"),
        ({"target_ms": [1.0, 2.0]}, "2 numbers for 1 tables"),
        ({"target_ms": 2.0, "multiplier": -1.0}, "the multiplier of tiny_0 is -1.0"),
    ):
        with pytest.raises(ConfigError, match=words):
            derive.budget(space, logits, lut, **change)
    for wrong, words in ((np.full(4, np.nan), "one of them finite"), (np.zeros(3), "expected \\(4,\\)")):
        with pytest.raises(SpaceError, match=words):
            derive.budget(space, {**logits, "l1": wrong}, lut, target_ms=2.0)


def test_options_that_are_impossible_are_never_taken() -> None:
    space = SPACES["tiny_plain"]
    logits = {**random_logits(space, 2), "l1": np.array([-np.inf, 0.0, -np.inf, -np.inf])}
    genotypes = derive.shortlist(space, logits, [derive.Limit(price(space, tiny.table_for(space)), 10.0)]).genotypes
    assert {g[0] for g in genotypes} == {1} and len(genotypes) == 3
