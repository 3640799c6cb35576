"""Variable elimination: minimum, maximum and count over coupled choices equal brute force, exactly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnas.errors import SpaceError
from dnas.factors import LARGEST_TABLE, Factor, count, extreme

calm = settings(deadline=None, max_examples=80)


@st.composite
def graphs(draw: st.DrawFn, low: int, high: int) -> list[Factor]:
    """Up to 7 factors of 0 to 3 choices each, over 5 choices of 1 to 3 options."""
    sizes = {name: draw(st.integers(1, 3)) for name in "abcde"}
    factors = []
    for _ in range(draw(st.integers(1, 7))):
        names = tuple(draw(st.lists(st.sampled_from("abcde"), max_size=3, unique=True)))
        shape = [sizes[n] for n in names]
        values = draw(st.lists(st.integers(low, high), min_size=math.prod(shape), max_size=math.prod(shape)))
        factors.append(Factor(names, np.array(values).reshape(shape)))
    return factors


def assignments(factors: list[Factor]) -> Iterator[dict[str, int]]:
    sizes = {n: f.values.shape[i] for f in factors for i, n in enumerate(f.names)}
    for codes in itertools.product(*(range(s) for s in sizes.values())):
        yield dict(zip(sizes, codes, strict=True))


@calm
@given(graphs(-20, 20), st.sampled_from([1, -1]))
def test_extremes_equal_brute_force(factors: list[Factor], sign: int) -> None:
    best, options = extreme(factors, sign)
    sums = [sum(int(f.at(a)) for f in factors) for a in assignments(factors)]
    assert best == (min if sign == 1 else max)(sums)
    # the options that are returned reach it, and no choice is left open
    assert sum(int(f.at(options)) for f in factors) == best
    assert options.keys() == {n for f in factors for n in f.names}


@calm
@given(graphs(0, 1))
def test_counts_equal_brute_force(factors: list[Factor]) -> None:
    assert count(factors) == sum(all(f.at(a) for f in factors) for a in assignments(factors))


@calm
@given(graphs(-20, 20), st.data())
def test_neither_order_nor_splitting_matters(factors: list[Factor], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(factors))
    turned = [Factor(f.names[::-1], f.values.transpose()) for f in shuffled]
    halves = [Factor(f.names, v) for f in shuffled for v in (f.values // 2, f.values - f.values // 2)]
    for sign in (1, -1):
        assert extreme(shuffled, sign)[0] == extreme(turned, sign)[0] == extreme(halves, sign)[0] == extreme(factors, sign)[0]
    assert extreme(factors, 1)[0] <= extreme(factors, -1)[0]


def test_the_given_tables_are_not_changed() -> None:
    values = np.array([[1.0, 2.0], [3.0, 4.0]])
    extreme([Factor(("a", "b"), values)], -1)
    count([Factor(("a", "b"), values)])
    assert values.tolist() == [[1, 2], [3, 4]]


def test_counts_are_exact_beyond_floating_point() -> None:
    free = [Factor((f"c{i}",), np.ones(9, int)) for i in range(40)]
    odd = Factor(("c0", "c39"), np.arange(81).reshape(9, 9) % 2)
    assert count(free) == 9**40 and count([*free, odd]) == 40 * 9**38


def test_long_chains_are_cheap() -> None:
    rng = np.random.default_rng(0)
    chain = [Factor((f"c{i}", f"c{i + 1}"), rng.integers(0, 100, (9, 9))) for i in range(60)]
    forward = np.zeros(9)
    for factor in chain:  # the shortest path, by hand
        forward = (forward[:, None] + factor.values).min(axis=0)
    assert extreme(chain, 1)[0] == forward.min()


@pytest.mark.parametrize("solve", [count, lambda f: extreme(f, 1)])
def test_too_tight_a_coupling_is_refused(solve) -> None:  # type: ignore[no-untyped-def]
    names = [f"c{i}" for i in range(10)]
    clique = [Factor(pair, np.ones((9, 9), int)) for pair in itertools.combinations(names, 2)]
    assert LARGEST_TABLE < 9**10
    with pytest.raises(SpaceError, match=r"choices c\d.* are coupled too tightly"):
        solve(clique)
    assert count([Factor(pair, np.ones((2, 2), int)) for pair in itertools.combinations(names, 2)]) == 2**10
