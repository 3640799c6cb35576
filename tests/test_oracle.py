"""NAS-Bench-Macro: published figures, networks behind the codes, true fronts and regrets against brute force."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import dnas
from dnas.errors import ConfigError, DnasError, SpaceError
from dnas.latency import LatencyTable
from dnas.oracle import Oracle, load

# code: (accuracy of each training, parameters, MACs) as published (xiusu/NAS-Bench-Macro, CIFAR-10)
PUBLISHED = {
    "00000000": ((45.32, 45.33, 45.44), 387_882, 7_713_280),
    "02012100": ((89.47, 88.95, 89.17), 890_666, 47_327_744),
    "11111221": ((92.18, 92.22, 92.51), 2_181_386, 65_012_224),
    "12012001": ((90.75, 90.81, 91.09), 1_183_114, 53_895_680),
    "22212220": ((93.28, 93.33, 92.77), 1_985_514, 85_164_544),
    "22222222": ((93.06, 92.92, 92.88), 2_932_586, 105_660_928),
}


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return load("nas-bench-macro")


@pytest.mark.parametrize("code", PUBLISHED)
def test_published_figures(code: str, oracle: Oracle) -> None:
    seeds, params, macs = PUBLISHED[code]
    assert oracle.seeds(code) == pytest.approx(seeds) and oracle.accuracy(code) == pytest.approx(np.mean(seeds))
    network = oracle.space.fix([int(i) for i in code])
    assert (network.params, network.macs) == (params, macs)
    assert oracle.accuracy(network) == oracle.accuracy([int(i) for i in code]) == oracle.accuracy(code)


def test_codes_and_networks(oracle: Oracle) -> None:
    assert len(oracle.codes) == len(set(oracle.codes)) == 6561 and len(oracle.networks) == 3969
    group = [oracle.codes.index(oracle.canonical(c)) for c in oracle.codes[::37]]
    np.testing.assert_array_equal(oracle.runs[::37], oracle.runs[group])  # codes of one network share its trainings
    assert oracle.canonical("22212202") == oracle.canonical("22212220") == "22212220"
    assert oracle.canonical("22212022") == "22212022"  # what changes a shape is no identity
    assert len({tuple(r) for r in oracle.runs}) == 3969
    assert oracle.codes[int(oracle.accuracies.argmax())] in ("22212202", "22212220")
    assert 0.1 < oracle.runs.std(axis=1).mean() < 0.3


def table() -> LatencyTable:
    return LatencyTable.load("samsung_s8.json")


def test_costs_are_those_of_the_networks(oracle: Oracle) -> None:
    lut = table()
    by = {"macs": oracle.costs("macs"), "params": oracle.costs("params"), "ms": oracle.costs(lut)}
    np.testing.assert_array_equal(by["ms"], oracle.costs("samsung_s8.json"))
    for i in range(0, 6561, 311):
        network = oracle.space.fix(oracle.genotypes[i])
        assert (by["macs"][i], by["params"][i]) == (network.macs, network.params)
        assert by["ms"][i] == pytest.approx(lut.latency_ms(network), rel=1e-12)
    few = Oracle("few", oracle.space, oracle.runs)
    np.testing.assert_array_equal(few.costs(lambda a: len(a.layers)), np.full(6561, 12))


@pytest.mark.parametrize("by", ["macs", "params", "samsung_s8.json"])
def test_the_front_is_true(by: str, oracle: Oracle) -> None:
    costs, accuracies = oracle.costs(by), oracle.accuracies
    front = oracle.pareto(by)
    assert [p.cost for p in front] == sorted({p.cost for p in front})
    assert [p.accuracy for p in front] == sorted({p.accuracy for p in front})
    for point in front:
        i = oracle.codes.index(point.code)
        assert (point.accuracy, point.cost, point.code) == (accuracies[i], costs[i], oracle.canonical(point.code))
        assert not np.any((costs <= point.cost) & (accuracies > point.accuracy))
        assert not np.any((costs < point.cost) & (accuracies >= point.accuracy))
    dominated = np.zeros(len(costs), bool)
    for point in front:
        dominated |= (costs >= point.cost) & (accuracies <= point.accuracy)
    assert dominated.all()


def test_regret_is_the_distance_to_the_best_within_the_budget(oracle: Oracle) -> None:
    costs = oracle.costs("macs")
    rng = np.random.default_rng(0)
    for i in rng.integers(0, 6561, 40):
        budget = float(costs[i]) * rng.uniform(1, 1.3)
        wanted = oracle.accuracies[costs <= budget].max() - oracle.accuracies[i]
        assert oracle.regret(oracle.codes[i], budget, "macs") == pytest.approx(wanted) and wanted >= 0
    best = oracle.best(60e6, "macs")
    assert oracle.regret(best.code, 60e6, "macs") == 0 and best.cost <= 60e6


def test_our_own() -> None:
    own = load("fashion-mnist")
    assert own.runs.shape[0] == len(own.networks) == 108 and own.runs.shape[1] >= 2
    assert 30 < own.runs.min() < own.runs.max() < 60
    noise = np.mean(np.var(own.runs, axis=1, ddof=1))
    assert np.var(own.accuracies) - noise / own.runs.shape[1] > noise  # networks differ more than trainings of one
    lut = LatencyTable.load("epyc_zen4_oracle.json")
    assert own.best(0.005, lut).cost <= 0.005 and own.regret("00000", 0.005, lut) > 1
    assert dnas.oracle.available() == ("nas-bench-macro", "fashion-mnist")


REFUSED = {
    "an unknown name": (lambda o: load("nas-bench-micro"), ConfigError, "did you mean 'nas-bench-macro'"),
    "a short code": (lambda o: o.accuracy("2221222"), SpaceError, "8 indices, got 7"),
    "a wrong digit": (lambda o: o.accuracy("22212223"), SpaceError, "index 3; expected 0 to 2"),
    "a word": (lambda o: o.seeds("macro"), SpaceError, "'macro'; expected 8 digits"),
    "another network": (lambda o: o.accuracy(dnas.load_space("fbnet").fix([0] * 22)), SpaceError, "resolution 224"),
    "no budget": (lambda o: o.best(1e6, "macs"), ConfigError, "at most 1e.06; the cheapest costs 7.71328e.06"),
    "over the budget": (lambda o: o.regret("22222222", 5e7, "macs"), ConfigError, "more than the budget of 5e.07"),
    "an unknown cost": (lambda o: o.costs("flops"), DnasError, "flops"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_questions_are_refused(case: str, oracle: Oracle) -> None:
    call, error, words = REFUSED[case]
    with pytest.raises(error, match=words):
        call(oracle)


def test_it_needs_no_jax() -> None:
    code = "import sys, dnas; dnas.oracle.load('nas-bench-macro').pareto('macs'); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
