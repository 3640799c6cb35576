"""benchmarks.study: the multilinear form is the table on one-hot gates, searches keep their target; controls."""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from dnas import gates
from dnas.latency import LatencyTable
from dnas.oracle import Oracle, load

pytest.importorskip("benchmarks", reason="the wheel has no benchmarks")
from benchmarks.study import controls, ideal


@pytest.fixture(scope="module")
def problem() -> ideal.Problem:
    return ideal.Problem.of(load("nas-bench-macro"), LatencyTable.load("samsung_s8"), 0.5)


def test_expected_accuracy_is_the_sum_over_codes(problem: ideal.Problem) -> None:
    oracle: Oracle = problem.oracle
    rng, space = np.random.default_rng(0), problem.oracle.space
    for code in (5, 1234, 6560):
        picked = gates.one_hot(space, oracle.genotypes[code].tolist())
        assert float(ideal.expected(problem.accuracy, picked.weights)) == pytest.approx(oracle.accuracies[code], rel=1e-6)
    chances = {n: rng.dirichlet(np.ones(3)) for n in space.choices}
    weights = np.array([np.prod(p) for p in itertools.product(*chances.values())])
    found = ideal.expected(problem.accuracy, {n: jnp.asarray(p, jnp.float32) for n, p in chances.items()})
    assert float(found) == pytest.approx(float(weights @ oracle.accuracies), rel=1e-5)


@pytest.mark.slow
def test_a_search_beats_random_theta_and_keeps_its_target(problem: ideal.Problem) -> None:
    found = ideal.search(problem, ideal.DRAWS["softmax"], 2, ideal.Setting(steps=150))
    regrets = [problem.regret(ideal.derived(problem, f)) for f in found]  # an error where one is over the target
    assert max(regrets) < controls.random_theta(problem, 5).mean()


def test_controls(problem: ideal.Problem) -> None:
    inside = problem.costs <= problem.target_ms
    assert problem.best == problem.oracle.accuracies[inside].max()
    many, few = (controls.random_search(problem, tries, 20) for tries in (128, 4))
    assert (many >= 0).all() and many.mean() < few.mean()
    assert 0 < controls.most_macs(problem) < 10 < controls.uniform_op(problem)  # identities everywhere, at this target
