"""Networks of a latency band: counted exactly, drawn uniformly; spaces of a minimum depth."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import dnas
from dnas.depth import at_least
from dnas.derive import banded
from dnas.errors import ConfigError, SpaceError
from dnas.factors import Factor
from dnas.latency.costs import by_count
from dnas.latency.terms import Terms, price
from dnas.ops import SkipOp
from dnas.space import OneOf, Space

MAKERS = (*tiny.SPACES, tiny.width_space)


def run_of_skips() -> Space:
    """Three neighbours with the same candidates, of which identities may come anywhere: 9 + 2 + ... networks, not 27."""
    return tiny.network("tiny_run", *(OneOf(f"l{i}", (tiny.block(3), tiny.block(5), SkipOp(in_=4, out=4))) for i in range(3)))


def whole_microseconds(space: Space, seed: int) -> Terms:
    """Terms whose every price is a whole number of microseconds, from 0 to 30."""
    terms, rng = price(space, tiny.table_for(space)), np.random.default_rng(seed)
    factors = tuple(Factor(f.names, rng.integers(0, 31, f.values.shape) * 1e-3) for f in terms.factors)
    return dataclasses.replace(terms, factors=factors, constant_ms=0.0125, parts=())


def enumerated(space: Space, terms: Terms) -> dict[tuple[int, ...], float]:
    """Latency in ms of every network, each once."""
    every = itertools.product(*(range(len(c.options)) for c in space.choices.values()))
    return {g: terms.at(space.assignment(g)) for g in every if space.canonical(g) == g}


@pytest.mark.parametrize("make", [*MAKERS, run_of_skips])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), edges=st.tuples(st.integers(0, 90), st.integers(0, 90)))
def test_the_count_is_that_of_enumeration(make: object, seed: int, edges: tuple[int, int]) -> None:
    space: Space = make()  # type: ignore[operator]
    terms = whole_microseconds(space, seed)
    low, high = (0.0125 + e * 1e-3 for e in sorted(edges))
    found = enumerated(space, terms)
    wanted = sum(low - 1e-9 <= ms <= high + 1e-9 for ms in found.values())
    if not wanted:
        with pytest.raises(ConfigError, match="no network of"):
            banded(space, terms, low, high)
        return
    band = banded(space, terms, low, high)
    assert band.exact and band.unit_ms == 1e-3 and band.count == wanted
    assert all(low - 1e-9 <= found[g] <= high + 1e-9 for g in band.sample(seed, 3))


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("make", [tiny.stage_space, tiny.nested_space, run_of_skips])
def test_draws_are_uniform(make: object, exact: bool) -> None:
    """Chi-square at a fixed seed, over the networks of the band; also where prices had to be rounded."""
    space: Space = make()  # type: ignore[operator]
    terms = whole_microseconds(space, 3) if exact else price(space, tiny.table_for(space))
    found = enumerated(space, terms)
    low, high = np.quantile(list(found.values()), [0.2, 0.8])
    inside = [g for g, ms in found.items() if low <= ms <= high]
    drawn = Counter(banded(space, terms, float(low), float(high)).sample(0, 4000))
    assert set(drawn) <= set(inside)
    assert stats.chisquare([drawn[g] for g in inside]).pvalue > 0.01


def test_prices_that_are_not_whole_give_bounds() -> None:
    space = tiny.stage_space()
    terms = price(space, tiny.table_for(space))
    found = sorted(enumerated(space, terms).values())
    band = banded(space, terms, found[2], found[9])
    low, high = band.count_between
    assert not band.exact and low <= 8 <= high
    with pytest.raises(ConfigError, match="see count_between"):
        band.count  # noqa: B018


def test_all_of_nas_bench_macro_are_its_3969_networks() -> None:
    """The number of different networks that its oracle has; and a band of MACs, which are whole numbers."""
    oracle = dnas.oracle.load("nas-bench-macro")
    macs = by_count(oracle.space, "macs", None).terms
    assert banded(oracle.space, macs, 0, 1e12).count_between[1] == len(oracle.networks) == 3969
    costs = dict(zip(oracle.codes, oracle.costs("macs"), strict=True))
    wanted = sum(60e6 <= costs[c] <= 80e6 for c in oracle.networks)
    low, high = banded(oracle.space, macs, 60e6, 80e6).count_between
    assert low <= wanted <= high


def test_counts_beyond_64_bits_are_exact() -> None:
    """FBNet at any latency: the product over stages of the networks of each, identities last."""
    space, lut = dnas.load_space("fbnet"), dnas.LatencyTable.load("samsung_s8.json")
    runs = {len(run) for run in space.interchangeable}
    whole = banded(space, lut, 0, 1e3, missing="cost-model").count_between[1]
    assert whole > 2**63 and runs
    wanted = 1
    covered = {i for run in space.interchangeable for i in run}
    for run in space.interchangeable:
        options = len(space.slots[run[0]].candidates) - 1
        wanted *= sum(options**k for k in range(len(run) + 1))  # the first k are no identities
    for slot in space.slots:
        if slot.index not in covered:
            wanted *= len(slot.candidates)
    assert whole == wanted


@pytest.mark.parametrize("depth", [1, 2, 3, 9])
@pytest.mark.parametrize("make", [tiny.stage_space, run_of_skips, tiny.plain_space])
def test_a_minimum_depth_leaves_the_networks_that_have_it(make: object, depth: int) -> None:
    space: Space = make()  # type: ignore[operator]
    deep = at_least(space, depth)

    def layers(network: dnas.Architecture) -> tuple[object, ...]:
        return tuple(op for op in network.layers if not isinstance(op, SkipOp))

    def all_of(one: Space) -> set[tuple[object, ...]]:
        return {layers(one.fix(g)) for g in itertools.product(*(range(len(c.options)) for c in one.choices.values()))}

    most = max(len(found) for found in all_of(space))
    wanted = {found for found in all_of(space) if len(found) >= min(most, depth + 3)}  # stem, pool and classifier
    if make is tiny.plain_space:  # two stages of one layer each
        wanted = {found for found in all_of(space) if len(found) == most}
    assert all_of(deep) == wanted
    assert at_least(deep, depth) == deep


def test_mistakes() -> None:
    space = tiny.stage_space()
    with pytest.raises(ConfigError, match="the smaller number first"):
        banded(space, tiny.table_for(space), 2.0, 1.0)
    with pytest.raises(SpaceError, match="expected a whole number from 1"):
        at_least(space, 0)
