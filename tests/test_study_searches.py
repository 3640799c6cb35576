"""benchmarks.study: the statistics, and what is made of searches by an oracle that did not choose them."""

from __future__ import annotations

import itertools
import json

import jax
import numpy as np
import pytest
import tiny
from test_search_steps import images

from dnas.errors import RunError
from dnas.latency import LatencyTable
from dnas.oracle import Oracle
from dnas.space import load_space

pytest.importorskip("benchmarks", reason="the wheel has no benchmarks")
from benchmarks import rows
from benchmarks.oracle import results, stages
from benchmarks.rows import Rows
from benchmarks.study import figures, inference, searches, verdict

SHARES = (0.3, 0.7)
SIZE = 108  # networks of the oracle's space


def test_holm() -> None:
    found = inference.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.5})
    assert found == pytest.approx({"a": 0.04, "b": 0.09, "c": 0.09, "d": 0.5})
    assert inference.holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}


def test_paired_differences() -> None:
    rng = np.random.default_rng(0)
    a, signs = rng.normal(size=6), np.array(list(itertools.product((-1, 1), repeat=6)))
    gaps = rng.normal(0.8, 1, 6)
    found = inference.paired(a + gaps, a)
    exact = (np.abs((signs * gaps).mean(1)) >= abs(gaps.mean()) - 1e-12).mean()
    assert (found.mean, found.p, found.n) == pytest.approx((gaps.mean(), exact, 6)) and found.low < found.mean < found.high
    assert inference.paired(a, a) == inference.Difference(0.0, 0.0, 0.0, 1.0, 6)
    covered = 0
    for _ in range(100):
        low, high = inference.interval(rng.normal(3, 1, 20))
        covered += low <= 3 <= high
    assert 85 <= covered <= 100


def test_a_reference_that_is_scored_by_other_trainings_is_not_inflated() -> None:
    rng, gaps = np.random.default_rng(0), []
    for _ in range(300):  # 40 networks that are all alike
        gaps.append(inference.reference(90 + 0.5 * rng.normal(size=(40, 3)), np.arange(40) < 30))
    assert np.mean([g.accuracy for g in gaps]) == pytest.approx(90, abs=0.1) and np.mean([g.naive for g in gaps]) > 90.4
    clear = inference.reference(np.array([[90.0, 91], [80, 81], [95, 95]]), np.array([True, True, False]))
    assert clear == (90.5, 90.5)


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    """The oracle's space with made-up accuracies that grow with MACs, and a little noise."""
    space, rng = load_space("oracle"), np.random.default_rng(0)
    macs = Oracle("made up", space, np.zeros((SIZE, 4))).costs("macs")
    truth = 80 + 10 * macs / macs.max() + rng.normal(0, 1, SIZE)
    return Oracle("made up", space, truth[:, None] + rng.normal(0, 0.2, (SIZE, 4)))


def row(judge: verdict.Judge, share: float, case: str, seed: int, index: int) -> dict:
    code = judge.problem.oracle.codes[index]
    return {
        "case": case, "share": share, "seed": seed, "code": code, "cpu_s": 60.0, "images": 90_000, "mixture": 0.8,
        "inherited": 0.79, "other_rules": {"from 90 %": "00000"},
        "compile_s": 20.0 if seed == 0 else None, "path": [[30.0, 45_000, code], [60.0, 90_000, code]],
    }  # fmt: skip


def test_a_verdict(oracle: Oracle) -> None:
    table = LatencyTable.load("samsung_s8")
    judges = {s: verdict.Judge.of(oracle, table, s, crossed=True) for s in SHARES}
    rows = []
    for share, seed in itertools.product(SHARES, range(4)):
        judge = judges[share]
        inside = np.flatnonzero(judge.problem.costs <= judge.problem.target_ms)
        best = inside[np.argsort(-oracle.accuracies[inside])]
        rows += [row(judge, share, "gumbel", seed, best[seed]), row(judge, share, "softmax", seed, best[8 + seed])]
        if seed == 0:  # of a host that is slower
            rows.append({**row(judge, share, "gumbel", 4, best[0]), "cpu_s": 900.0, "compile_s": 900.0, "timed": False})
        assert judge.rank(oracle.codes[best[seed]]) == seed + 1 and judge.within(oracle.codes[best[0]])
        assert judge.naive >= judge.best - 1e-9
    macs = oracle.costs("macs")
    rows[0]["ranked"] = {c: [n, -n] for c, n in zip(oracle.codes, macs.tolist(), strict=True)}
    rows[-2]["ranked"] = {c: [n, n] for c, n in zip(oracle.codes, macs.tolist(), strict=True)}
    rows[0]["compared"] = {rows[0]["code"]: [5, 0.1], rows[1]["code"]: [6, 0.2]}
    found = verdict.judged(rows, judges, verdict.Cost(5.0, 16_000, 10.0))
    assert found["regret"]["gumbel"]["n"] == 5 and found["regret"]["gumbel"]["mean"] < found["regret"]["softmax"]["mean"]
    against = found["against_default"]["softmax"]
    assert against["high"] < 0 and against["p"] == 0.125 <= against["p_holm"]  # four seeds: 2 of 16 signs
    assert found["gap"]["gumbel"] == pytest.approx({"mean": 1.0, "sd": 0.0, "n": 10})
    assert [found["regret"][f"random search, equal {cost}"]["n"] for cost in ("CPU time", "training images")] == [4, 5]
    assert found["anytime"]["gumbel"]["cpu_s"] == [80.0] == [found["anytime"]["gumbel"]["choice"][0]]  # compilation included
    assert found["anytime"]["random search"]["cpu_s"] == [15.0 + 5 * i for i in range(14)]  # 80 s, 10 of them to compile
    assert found["regret"]["gumbel, from 90 %"]["mean"] > found["regret"]["gumbel"]["mean"]
    order = found["ranking"]["gumbel"]
    assert order["tau_in_bands_each"] == [order["tau_in_bands_of_macs"], -order["tau_in_bands_of_macs"]]
    assert order["tau_in_bands_by_accuracy"] == order["tau_in_bands_of_macs"] != 0 and order["networks"] == SIZE
    assert verdict.by_accuracy(rows)[0]["code"] == rows[1]["code"]
    for target in found["targets"]:
        assert min(target["controls"].values()) >= target["best"] - target["best_naive"]
    assert figures.verdict(found).axes
    for name in verdict.BY_TRAINING:
        codes = judges[0.3].by_training(name, 12, 0)
        first = [oracle.runs[oracle._index(c), 0] for c in codes]
        assert first == sorted(first) and 5 < len(codes) <= 12 and all(map(judges[0.3].within, codes))


def test_searches_that_train_are_not_scored_by_what_they_chose_by() -> None:
    space, rng, regrets = load_space("oracle"), np.random.default_rng(0), []
    table = LatencyTable.load("samsung_s8")
    for _ in range(10):  # networks that are all alike: nobody has a regret, on average
        judge = verdict.Judge.of(Oracle("alike", space, 50 + rng.normal(size=(SIZE, 2))), table, 0.7, crossed=True)
        regrets.append(judge.regrets_by_training("random search", 8, 0)[[0, -1]])
    assert np.abs(np.mean(regrets, axis=0)).max() < 0.8 < judge.naive - 50


def test_an_oracle_of_what_is_trained(tmp_path) -> None:
    space, done = load_space("oracle"), results.Results(tmp_path / "none.jsonl")
    codes = [stages.code_of(g) for g in stages.genotypes(space)]
    done.runs = [results.Run(c, s, 8000 + s, 0.5, 0.4, 5.0, 6.0) for c in codes for s in range(3)][:-1]
    table = LatencyTable.load("samsung_s8")
    assert verdict.oracle_of(space, done, table, 99.0).runs.shape == (SIZE, 2)
    fast = space.latency_range(table)[0] * 1.2
    within = Oracle("", space, np.zeros((SIZE, 1))).costs(table) <= fast
    done.runs = [r for r in done.runs if within[codes.index(r.code)]]
    found = verdict.oracle_of(space, done, table, fast)
    assert found.runs.shape == (SIZE, 3) and (np.isfinite(found.runs).all(1) == within).all()
    rows = [{"share": 0.5, "target_ms": 99.0}, {"share": 0.1, "target_ms": fast}]
    assert list(verdict.judges_of(rows, space, done, table)) == [0.1]
    with pytest.raises(RunError, match=f"{within.sum()} of the {SIZE} networks within 99 ms have two trainings"):
        verdict.judges_of(rows[:1], space, done, table)


@pytest.mark.slow
def test_rows_of_another_machine_say_so(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    Rows(path, ("n",), {}).add({"n": 0})
    here = rows.machine()
    monkeypatch.setattr(rows, "machine", lambda: here | {"processor": "another"})
    Rows(path, ("n",), {}).add({"n": 1})
    found = Rows(path, ("n",))
    assert found.about["machine"] == here and found.rows == [{"n": 0}, {"n": 1, "machine": {"processor": "another"}}]


def test_searches_go_on_where_they_were(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "other")  # compiles faster
    space, data, path = tiny.template_space(), images(), tmp_path / "rows.jsonl"
    work, key = searches.tasks(["gumbel"], SHARES, 1), ("case", "share", "seed")
    first = {**work[0]._asdict(), "code": "012"}
    Rows(path, key, {"epochs": 2}).add(first)  # done before
    with open(path, "a") as file:
        file.write('{"case": "gum')  # a power cut
    searches.run(work, Rows(path, key, {"epochs": 2}), space, tiny.table_for(space), data, 2, None)
    before, found = map(json.loads, path.read_text().splitlines()[1:])
    assert before == first and tuple(found[k] for k in key) == work[1]
    assert found["ms"] <= found["target_ms"] and len(found["path"]) == 2 and found["path"][-1][0] <= found["cpu_s"]
    assert space.fix(tuple(map(int, found["path"][-1][2]))) and found["compile_s"] > 0
    with pytest.raises(RunError, match="made with another epochs"):
        Rows(path, key, {"epochs": 3})
