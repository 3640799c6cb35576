"""soft(one-hot) == sampled path == derived network with inherited weights, in float64, for every kind of choice.

Values, gradients of weights and input, gates of what ran, and new statistics. The lowerings here are those of other
platforms, which compile faster; those of the CPU have tests of their own and run here in the slow case.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dnas import gates, supernet
from dnas.gates import Gates
from dnas.space import Genotype

TOLERANCE = 1e-10
# without and with a dropped layer, a skip, a choice that is switched off
GENOTYPES: dict[str, tuple[Genotype, Genotype]] = {
    "plain_space": ((2, 0), (3, 1)),
    "template_space": ((0, 1, 1), (1, 0, 0)),
    "tied_space": ((1, 0, 0), (0, 1, 1)),
    "stage_space": ((2, 0, 1, 1), (1, 1, 0, 1)),
    "nested_space": ((1, 0, 1, 0, 1), (0, 1, 0, 1, 0)),
}


class Bench:
    """A supernet with random weights and statistics; its three uses, each traced once."""

    def __init__(self, name: str) -> None:
        self.space = getattr(tiny, name)()
        self.net, self.params, stats = supernet.init(self.space, jax.random.key(0), jnp.float64)
        self.stats = jax.tree.map(lambda v: v + 0.5, stats)
        self.params = jax.tree.map(lambda v: v + 0.1 * tiny.normal(v.size, *v.shape, dtype="float64"), self.params)
        self.x, self.dy = tiny.normal(1, 4, 8, 8, 3, dtype="float64"), tiny.normal(2, 4, 3, dtype="float64")
        self.traces = 0
        self._apply = tiny.compiled(self._traced)

    def _traced(self, params: Any, stats: Any, x: jax.Array, gates: Gates, dy: jax.Array) -> Any:
        self.traces += 1
        return tiny.pull(self.net, params, stats, x, gates, dy)

    def __call__(self, chosen: Gates) -> Any:
        weights = {n: w.astype(jnp.float64) for n, w in chosen.weights.items()}
        return self._apply(self.params, self.stats, self.x, chosen._replace(weights=weights), self.dy)

    def soft(self, genotype: Genotype) -> Any:
        return self(gates.one_hot(self.space, genotype, run_all=True))

    def sampled(self, genotype: Genotype) -> Any:
        return self(gates.one_hot(self.space, genotype))

    def two_paths(self, first: Genotype, second: Genotype) -> Any:
        """Weight 1 on the first path, 0 on the second; both run."""
        one = gates.one_hot(self.space, first).weights
        both = zip(self.space.choices, first, second, strict=True)
        return self(Gates(one, {n: jnp.array([a, b], jnp.int32) for n, a, b in both}))

    def inherited(self, genotype: Genotype, tree: Any) -> Any:
        return supernet.inherit(self.space, genotype, tree)

    def on_path(self, genotype: Genotype) -> dict[tuple[str, str], bool]:
        """Whether the candidate at (layer, label) of the parameter tree belongs to the network."""
        picked = {(f"{i:02d}", c.label) for i, c in enumerate(self.space.picked(genotype))}
        return {(n, label): (n, label) in picked for n, layer in self.params.items() for label in layer}


@pytest.fixture(scope="module", autouse=True)
def other_platform() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "other")
        yield


SLOW = ("template_space", "tied_space")  # stages and nested choices have products of choices too


@pytest.fixture(scope="module", params=[pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in GENOTYPES])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with jax.enable_x64(True):
        yield Bench(request.param)


@pytest.fixture(params=[0, 1])
def genotype(request: pytest.FixtureRequest, bench: Bench) -> Genotype:
    return GENOTYPES[bench.space.name.removeprefix("tiny_") + "_space"][request.param]


def test_soft_one_hot_is_the_sampled_path(bench: Bench, genotype: Genotype) -> None:
    soft, sampled = bench.soft(genotype), bench.sampled(genotype)
    for part in ("logits", "x", "params"):
        tiny.assert_close(sampled[part], soft[part], TOLERANCE)
    tiny.assert_close(*(bench.inherited(genotype, r["stats"]) for r in (sampled, soft)), TOLERANCE)
    picked = bench.space.assignment(genotype)
    for name, choice in bench.space.choices.items():
        slots = [slot for slot in bench.space.slots if name in slot.choices]
        for option in range(len(choice.options)):
            shares = [slot.pick({**picked, name: option}) == slot.pick(picked) for slot in slots]
            got, wanted = sampled["weights"][name][option], soft["weights"][name][option]
            if all(shares):  # it selects nothing but what ran, as the picked option does
                tiny.assert_close(got, wanted, TOLERANCE)
            elif not any(shares):
                assert got == 0
        assert np.abs(soft["weights"][name]).max() > 1e-3


def test_sampled_path_is_the_derived_network(bench: Bench, genotype: Genotype) -> None:
    sampled = bench.sampled(genotype)
    net = supernet.Net.of(bench.space.fix(genotype))
    params, stats = (bench.inherited(genotype, t) for t in (bench.params, bench.stats))
    assert jax.tree.structure(params) == jax.tree.structure(supernet.init(bench.space.fix(genotype), jax.random.key(0))[1])
    derived = tiny.compiled(partial(tiny.pull, net))(params, stats, bench.x, None, bench.dy)
    for part in ("logits", "x"):
        tiny.assert_close(derived[part], sampled[part], TOLERANCE)
    for part in ("params", "stats"):
        tiny.assert_close(derived[part], bench.inherited(genotype, sampled[part]), TOLERANCE)


def test_what_is_on_the_path_gets_gradients_and_statistics_and_the_rest_none(bench: Bench, genotype: Genotype) -> None:
    sampled = bench.sampled(genotype)
    for (layer, label), ran in bench.on_path(genotype).items():
        for gradient in jax.tree.leaves(sampled["params"][layer][label]):
            assert bool(np.abs(gradient).max() > 1e-9) == ran
            assert ran or not np.any(gradient)
        if label in bench.stats.get(layer, {}):
            for new, old in zip(*(jax.tree.leaves(t[layer][label]) for t in (sampled["stats"], bench.stats)), strict=True):
                assert np.all(new != old) if ran else np.array_equal(new, old)
    marks = supernet.ran(bench.net, bench.params, gates.one_hot(bench.space, genotype))
    for (layer, label), ran in bench.on_path(genotype).items():
        assert {bool(m) for m in jax.tree.leaves(marks[layer][label])} == {ran}


def test_two_paths_give_the_gradients_of_both_gates(bench: Bench) -> None:
    """Weights [1, 0]: for each, <dL/dy, y_i>, which is what the soft mixture gives at the same weights."""
    first, second = GENOTYPES[bench.space.name.removeprefix("tiny_") + "_space"]
    both, soft = bench.two_paths(first, second), bench.soft(first)
    tiny.assert_close(both["logits"], soft["logits"], TOLERANCE)
    ran_on_both = {k: bench.on_path(first)[k] or bench.on_path(second)[k] for k in bench.on_path(first)}
    for (layer, label), ran in ran_on_both.items():
        if label in bench.stats.get(layer, {}):
            wanted = (soft["stats"] if ran else bench.stats)[layer][label]
            tiny.assert_close(both["stats"][layer][label], wanted, TOLERANCE)
    if any(len(s.choices) > 1 for s in bench.space.slots):
        return  # the second path's gate is a product of zeros: no derivative by one of them
    for name, a, b in zip(bench.space.choices, first, second, strict=True):
        wanted = np.zeros_like(soft["weights"][name])
        wanted[[a, b]] = np.asarray(soft["weights"][name])[[a, b]]
        tiny.assert_close(both["weights"][name], wanted, TOLERANCE)


def test_paths_that_meet_count_once(bench: Bench, genotype: Genotype) -> None:
    both, one = bench.two_paths(genotype, genotype), bench.sampled(genotype)
    tiny.assert_close(both, one, TOLERANCE)


def test_fifty_other_genotypes_compile_nothing(bench: Bench) -> None:
    before = {}
    for use in (bench.soft, bench.sampled, lambda g: bench.two_paths(g, g)):
        use(tuple(0 for _ in bench.space.choices))
        before[use] = bench.traces
        for seed in range(50):
            use(bench.space.sample(seed))
        assert bench.traces == before[use]


@pytest.mark.slow
def test_the_lowerings_of_the_cpu_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with jax.enable_x64(True):
        other = Bench("plain_space")
        first, second = GENOTYPES["plain_space"]

        def found(bench: Bench) -> Any:
            return [use(g) for use in (bench.soft, bench.sampled) for g in (first, second)] + [bench.two_paths(first, second)]

        wanted = found(other)
        monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
        tiny.assert_close(found(Bench("plain_space")), wanted, TOLERANCE)
