"""Latency of gates == table sums: one-hot, expected, derivatives, extremes."""

from __future__ import annotations

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.test_util import check_grads

import dnas
from dnas import gates, supernet
from dnas.errors import LatencyError
from dnas.factors import Factor
from dnas.latency import LatencyTable
from dnas.latency.keys import Entry
from dnas.latency.terms import Terms, latency_ms, price
from dnas.layers.paths import hull_gates
from dnas.ops import SkipOp
from dnas.space import OneOf, Space, Stage

SPACES = {make().name: make() for make in tiny.SPACES}
SPACES["tiny_depth0"] = tiny.network(
    "tiny_depth0", Stage(OneOf("depth", (0, 2)), (tiny.block(3), OneOf("l2", (tiny.block(3), tiny.block(5)))))
)
SPACES["tiny_width"] = tiny.width_space()
each = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def genotypes(space: Space) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(len(c.options)) for c in space.choices.values())))


def with_skips(space: Space, lut: LatencyTable) -> LatencyTable:
    """``lut`` where identities have a latency too, as in tables that were measured layer by layer."""
    keys = {c.op.price_fields(s.shape_of(c)) for s in space.slots for c in s.candidates if isinstance(c.op, SkipOp)}
    return dataclasses.replace(lut, entries={**lut.entries, **{key: Entry(ms=0.05) for key in keys}})


@each
@pytest.mark.parametrize("skips_cost", [False, True])
def test_one_hot_gates_give_the_table_sum(space: Space, skips_cost: bool) -> None:
    lut = tiny.table_for(space, seed=1, constant_ms=0.7)
    lut = with_skips(space, lut) if skips_cost else lut
    terms = price(space, lut)
    run = jax.jit(lambda g: latency_ms(terms, g))
    for genotype in genotypes(space):
        wanted = lut.latency_ms(space.fix(genotype))
        assert terms.at(space.assignment(genotype)) == pytest.approx(wanted, rel=1e-12)
        assert float(run(gates.one_hot(space, genotype))) == pytest.approx(wanted, rel=1e-6)


def test_one_hot_gates_give_the_table_sum_on_the_shipped_table() -> None:
    space, lut = dnas.load_space("fbnet_mini"), LatencyTable.load("samsung_s8.json")
    terms = price(space, lut)
    run = jax.jit(lambda g: latency_ms(terms, g))
    found = set()
    for seed in range(20):
        genotype = space.sample(seed)
        wanted = lut.latency_ms(space.fix(genotype))
        found.add(wanted)
        assert float(run(gates.one_hot(space, genotype))) == pytest.approx(wanted, rel=1e-6)
    assert len(found) == 20


@each
def test_derivative_by_a_gate_is_the_difference_in_the_table(space: Space) -> None:
    lut = tiny.table_for(space, seed=2)
    terms = price(space, lut)
    slope = jax.jit(jax.grad(lambda w: latency_ms(terms, w)))
    for genotype in genotypes(space)[::3]:
        gradient = slope(gates.one_hot(space, genotype).weights)
        here = space.assignment(genotype)
        for name, choice in space.choices.items():
            for option in range(len(choice.options)):
                other = lut.latency_ms(space.fix(tuple({**here, name: option}.values())))
                got = float(gradient[name][option] - gradient[name][here[name]])
                assert got == pytest.approx(other - lut.latency_ms(space.fix(genotype)), abs=1e-5)


@each
def test_expected_latency_is_the_mean_over_all_genotypes(space: Space) -> None:
    lut = tiny.table_for(space, seed=3, constant_ms=0.2)
    terms = price(space, lut)
    with jax.enable_x64(True):
        logits = {n: tiny.normal(i, len(c.options), dtype="float64") for i, (n, c) in enumerate(space.choices.items())}
        soft = gates.softmax(logits)
        chances = [np.asarray(w) for w in soft.weights.values()]
        wanted = math.fsum(
            math.prod(p[i] for p, i in zip(chances, g, strict=True)) * lut.latency_ms(space.fix(g)) for g in genotypes(space)
        )
        assert float(latency_ms(terms, soft)) == pytest.approx(wanted, rel=1e-9)
        check_grads(jax.jit(lambda v: latency_ms(terms, gates.softmax(v))), (logits,), 1, ["rev"], atol=1e-6, rtol=1e-6)


@each
def test_extremes_are_those_of_all_genotypes(space: Space) -> None:
    lut = tiny.table_for(space, seed=4)
    terms = price(space, lut)
    everything = [lut.latency_ms(space.fix(g)) for g in genotypes(space)]
    for sign, wanted in ((1, min(everything)), (-1, max(everything))):
        ms, assignment = terms.extreme(sign)
        assert ms == pytest.approx(wanted, rel=1e-12)
        assert lut.latency_ms(space.fix([assignment[n] for n in space.choices])) == pytest.approx(wanted, rel=1e-12)
    assert space.latency_range(lut) == pytest.approx((min(everything), max(everything)))


def test_gates_per_sample_give_a_latency_per_sample() -> None:
    space = tiny.tied_space()
    terms = price(space, tiny.table_for(space))
    weights = gates.softmax({n: tiny.normal(i, 5, len(c.options)) for i, (n, c) in enumerate(space.choices.items())}).weights
    together = latency_ms(terms, weights)
    assert together.shape == (5,)
    alone = [float(latency_ms(terms, {n: w[i] for n, w in weights.items()})) for i in range(5)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_many_choices_in_one_term() -> None:
    names = tuple(f"c{i}" for i in range(10))
    values = np.random.default_rng(0).uniform(size=[2] * 10)
    terms = Terms(0.5, (Factor(names, values),), ())
    assert float(latency_ms(terms, {n: jnp.array([0.25, 0.75]) for n in names})) == pytest.approx(
        0.5 + np.average(values.ravel(), weights=np.ravel([0.25 ** (10 - c) * 0.75**c for c in _ones(10)])), rel=1e-5
    )


def _ones(bits: int) -> list[int]:
    return [bin(i).count("1") for i in range(2**bits)]


def test_products_are_not_rounded_on_any_platform() -> None:
    """Matrix products in float32 take bfloat16 or TF32 factors on TPUs and GPUs unless they are asked not to."""
    space = tiny.tied_space()
    terms, net = price(space, tiny.table_for(space)), supernet.Net.of(space)
    weights = gates.uniform(space).weights
    for f in (lambda w: latency_ms(terms, w), lambda w: [hull_gates(s, w) for s in net.slots if s.choices]):
        text = str(jax.make_jaxpr(f)(weights))
        assert text.count("dot_general[") == text.count("Precision.HIGHEST, Precision.HIGHEST") > 0


def test_the_constant_is_counted_once_and_covered_layers_not_again() -> None:
    space = tiny.plain_space()
    lut = tiny.table_for(space)
    stem = space.slots[0]
    key = stem.candidates[0].op.price_fields(stem.in_shape)
    covered = dataclasses.replace(lut, constant_ms=5.0, constant_covers=(key,))
    before, after = price(space, lut), price(space, covered)
    assert after.constant_ms == pytest.approx(before.constant_ms - lut.entries[key].ms + 5.0)
    assert after.candidates_ms[0] == (0.0,)
    assert float(latency_ms(after, gates.uniform(space)) - latency_ms(before, gates.uniform(space))) == pytest.approx(
        5.0 - lut.entries[key].ms, rel=1e-5
    )


def test_candidates_that_differ_less_than_twofold_are_announced() -> None:
    space = tiny.plain_space()
    lut = tiny.table_for(space)

    def warnings(first: list[float]) -> tuple[str, ...]:
        slot, ms = space.slots[1], dict(lut.entries)
        keys = [c.op.price_fields(slot.in_shape) for c in slot.candidates if c.op.primitives()]
        ms |= {key: Entry(ms=v) for key, v in zip(keys, first, strict=True)}
        slot = space.slots[2]  # always far apart
        keys = [c.op.price_fields(slot.in_shape) for c in slot.candidates]
        ms |= {key: Entry(ms=v) for key, v in zip(keys, (0.1, 0.5, 1.0), strict=True)}
        return price(space, dataclasses.replace(lut, entries=ms)).warnings

    assert warnings([0.3, 0.6, 0.3]) == ()
    (line,) = warnings([0.3, 0.599, 0.4])  # skip (0 ms) is not counted
    assert "1 of 2 layers (l1)" in line and "twofold" in line and "tiny_0" in line


def test_an_op_without_an_entry_is_an_error() -> None:
    space = tiny.plain_space()
    lut = tiny.table_for(tiny.stage_space())
    with pytest.raises(LatencyError, match="toy phone"):
        price(space, lut)
