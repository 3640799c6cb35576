"""Costs beside latency: the peak of feature maps (a maximum over layers), and energy where a table states it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dnas import derive
from dnas.errors import ConfigError, LatencyError
from dnas.factors import Factor
from dnas.latency import LatencyTable
from dnas.latency.costs import by_count, by_energy, by_table, read
from dnas.latency.peak import Largest
from dnas.latency.terms import latency_ms
from dnas.space import OneOf, Space

PEAK = "peak-activation-bytes"


def deep_space() -> Space:
    """Three layers with expansions of their own, a stage of a depth: 4 * 4 * 3 * (2 + 4) genotypes, many peaks."""
    layers = [OneOf(f"l{i}", tuple(tiny.block(k, e) for e in es for k in (3, 5))) for i, es in enumerate(((1, 3), (2, 6)))]
    reduce = OneOf("l2", tuple(tiny.block(3, e, 4, 8, 2) for e in (1, 4, 8)))
    stage = tiny.Stage(OneOf("depth", (1, 2)), tuple(OneOf(f"e{i}", (tiny.block(3, e, 8, 8) for e in (2, 20))) for i in (1, 2)))
    return tiny.network("tiny_deep", *layers, reduce, stage, out=8)


SPACES = (*tiny.SPACES, tiny.width_space, deep_space)


def everything(space: Space) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(len(c.options)) for c in space.choices.values())))


def chances(space: Space) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {n: rng.dirichlet(np.ones(len(c.options))) for n, c in space.choices.items()}


@pytest.mark.parametrize("make", SPACES, ids=lambda f: f.__name__)
def test_a_peak_is_the_largest_of_the_layers_and_its_expectation_is_exact(make: Callable[[], Space]) -> None:
    space = make()
    terms, p = by_count(space, PEAK, None).terms, chances(space)
    costs = {g: space.fix(g).peak_activation_bytes for g in everything(space)}
    assert {g: terms.at(space.assignment(g)) for g in costs} == costs
    assert (terms.extreme(1)[0], terms.extreme(-1)[0]) == (min(costs.values()), max(costs.values()))
    for g, cost in costs.items():  # the same floats: whole numbers below 2^24
        assert latency_ms(terms, {n: jnp.eye(len(p[n]))[i] for n, i in space.assignment(g).items()}) == cost
    mean = math.fsum(c * math.prod(p[n][i] for n, i in space.assignment(g).items()) for g, c in costs.items())
    assert terms.mean(p) == pytest.approx(mean, rel=1e-12)
    assert float(latency_ms(terms, {n: jnp.asarray(v, jnp.float32) for n, v in p.items()})) == pytest.approx(mean, rel=1e-6)


def test_the_gradient_of_a_peak_is_that_of_the_sum_over_networks() -> None:
    space = deep_space()
    terms = by_count(space, PEAK, None).terms
    logits = {n: jnp.asarray(np.log(v), jnp.float32) for n, v in chances(space).items()}
    costs = np.array([space.fix(g).peak_activation_bytes for g in everything(space)], np.float32)
    index = {n: jnp.asarray([g[i] for g in everything(space)]) for i, n in enumerate(space.choices)}

    def brute(logits: Any) -> jax.Array:
        p = [jax.nn.softmax(v)[index[n]] for n, v in logits.items()]
        return ((costs - costs.mean()) * jnp.stack(p).prod(0)).sum()  # less that rounds off

    def ours(logits: Any) -> jax.Array:
        return latency_ms(terms, {n: jax.nn.softmax(v) for n, v in logits.items()})

    got, wanted = (jnp.concatenate([*jax.grad(f)(logits).values()]) for f in (ours, brute))
    tiny.assert_close(got, wanted, 1e-5)


def test_a_peak_with_layers_that_share_choices_is_exact() -> None:
    rng = np.random.default_rng(1)
    sizes = {"a": 3, "b": 2, "c": 4, "d": 2}
    names = [("a", "b"), ("b", "c"), ("a",), ("d",), ()]
    terms = Largest.of([Factor(n, rng.integers(1, 9, [sizes[m] for m in n]).astype(float)) for n in names], ())
    p = {n: rng.dirichlet(np.ones(s)) for n, s in sizes.items()}
    each = [dict(zip(sizes, g, strict=True)) for g in itertools.product(*map(range, sizes.values()))]
    costs = [max(float(f.at(g)) for f in terms.parts) for g in each]
    assert [terms.at(g) for g in each] == costs and terms.extreme(1)[0] == min(costs) and terms.extreme(-1)[0] == max(costs)
    mean = math.fsum(c * math.prod(p[n][i] for n, i in g.items()) for c, g in zip(costs, each, strict=True))
    assert terms.mean(p) == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("make", [deep_space, tiny.width_space], ids=lambda f: f.__name__)
def test_a_peak_is_kept_exactly_alone_and_beside_latency(make: Callable[[], Space]) -> None:
    """At every target that a network has: the most probable network within it, by brute force."""
    space = make()
    logits = {n: np.log(v) for n, v in chances(space).items()}
    peak, table = by_count(space, PEAK, None).terms, tiny.table_for(space)
    found: dict[tuple[int, ...], tuple[float, float, float]] = {}
    for g in map(space.canonical, everything(space)):
        network = space.fix(g)
        found[g] = (derive.log_probability(space, logits, g), network.peak_activation_bytes, table.latency_ms(network))
    middle = float(np.median([ms for _, _, ms in found.values()]))
    lut = by_table(space, table, middle).terms
    for target in sorted({peak for _, peak, _ in found.values()}):
        for limits, most in (([], math.inf), ([derive.Limit(lut, middle, 0.7, "lut")], middle)):
            inside = [v for v in found.values() if v[1] <= target and v[2] <= most]
            if not inside:
                continue
            rate = limits[0].multiplier if limits else 0.0
            near = [v for v in inside if v[2] >= 0.98 * most] if rate else []
            got = derive.shortlist(space, logits, [*limits, derive.Limit(peak, target, 3.0, PEAK)], k=1)
            assert got.proven and got.costs[0][-1] <= target
            assert got.scores[0] == pytest.approx(max(v[0] + rate * v[2] for v in near or inside), abs=1e-9)
    with pytest.raises(ConfigError, match=f"out of reach: by {PEAK}, the least that a network of {space.name} takes is"):
        derive.shortlist(space, logits, [derive.Limit(peak, 1.0, 0.0, PEAK)], k=1)


def test_a_band_is_no_band_of_peaks() -> None:
    space = tiny.plain_space()
    with pytest.raises(ConfigError, match="a cost that adds up over layers, such as latency, not by a peak"):
        derive.banded(space, by_count(space, PEAK, None).terms, 1, 2)


def test_energies_are_summed_kept_in_files_and_asked_for_by_name() -> None:
    space = tiny.plain_space()
    table = tiny.with_energies(tiny.table_for(space))
    terms = by_energy(space, table, None).terms
    for g in everything(space):
        assert terms.at(space.assignment(g)) == pytest.approx(2 * table.latency_ms(space.fix(g)))
    again = LatencyTable.from_dict(table.to_dict())
    assert again == table and again.constant_mj == 1.0 and "constant_mj" not in tiny.table_for(space).to_dict()
    cost = read(space, table, "energy=3")
    assert (cost.name, cost.unit, cost.target, cost.lut) == ("energy", "mJ", 3.0, None)
    fastest = derive.shortlist(
        space, {n: np.zeros(len(c.options)) for n, c in space.choices.items()}, [derive.Limit(terms, terms.extreme(1)[0])], k=1
    )
    assert fastest.costs[0][0] == terms.extreme(1)[0]


def test_a_table_without_energies_is_one_clear_error() -> None:
    space = tiny.plain_space()
    with pytest.raises(ConfigError, match="tiny_0 states no energies; expected a --lut whose entries have mj"):
        read(space, tiny.table_for(space), "energy=3")
    with pytest.raises(LatencyError, match=r"\(toy phone\) states no energy \(mj\) for ir\(in=4"):
        read(space, tiny.with_energies(tiny.table_for(space), 1), "energy=3")
    body = tiny.table_for(space).to_dict()
    for wrong, words in ((-1, "mj is -1; expected a number that is not negative, at most 1e.09 mJ"), ("1", "mj is '1'")):
        body["entries"][0]["mj"] = wrong
        with pytest.raises(LatencyError, match=rf"entries\[0\]: .*: {words}"):
            LatencyTable.from_dict(body)
