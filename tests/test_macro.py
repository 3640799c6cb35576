"""benchmarks.macro: a proxy's searches are priced as the full network; regret and ranking of made-up searches."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from dnas.latency import LatencyTable
from dnas.oracle import Oracle, load

pytest.importorskip("benchmarks", reason="the wheel has no benchmarks")
from benchmarks.macro import derived, figures, predictors, ranking, searches, together, verdict
from benchmarks.rows import Rows
from benchmarks.study import verdict as study_verdict
from benchmarks.study.verdict import BY_ACCURACY, Judge

SHARES = (0.25, 0.75)


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return load("nas-bench-macro")


@pytest.fixture(scope="module")
def judges(oracle: Oracle) -> dict[float, Judge]:
    return {s: Judge.of(oracle, LatencyTable.load("samsung_s8"), s) for s in SHARES}


@pytest.mark.parametrize(("case", "code"), [("gumbel", "21020112"), ("gumbel, depth alone", "20020202")])
def test_a_proxy_is_priced_as_the_full_network(oracle: Oracle, case: str, code: str) -> None:
    from dnas.data import Dataset

    rng, table = np.random.default_rng(0), LatencyTable.load("samsung_s8")
    data = Dataset.from_arrays(rng.integers(0, 256, (60, 16, 16, 3), np.uint8), np.arange(60) % 3)
    recipe = searches.Recipe(images=40, px=8, width=0.125, batch=4)
    one = searches.setup_of(searches.CASES[case], SHARES, 0, table, searches.first_images(data, recipe), recipe)
    costs = oracle.costs(table)
    assert [m.config.target_ms for m in one.members] == pytest.approx(
        [costs.min() + s * (costs.max() - costs.min()) for s in SHARES]
    )
    space, name = one.members[0].space, searches.CASES[case].code
    of_code = {name(g): g for g in itertools.product(*(range(len(c.options)) for c in space.choices.values()))}
    assert len(of_code) == space.size and space.fix(of_code["2" * 8]).macs < oracle.costs("macs").max() / 50
    for member, own in itertools.product(one.members, ("00000000", code)):
        (limit,) = member.limits(None)
        price = limit.terms.at(member.space.assignment(of_code[own]))
        classes = 7 * 1280 / 1e6  # ten classes cost more than three by next to nothing
        assert price == pytest.approx(costs[oracle._index(own)], rel=0.01 + classes)
    assert one.schedule.theta_steps == 2 * 2  # two targets, two batches of the architecture split each


def made_up(judges: dict[float, Judge], case: str, seeds: int, place: int) -> list[dict]:
    """Searches that find the network of rank ``place`` + seed, after worse ones."""
    rows = []
    for (share, judge), seed in itertools.product(judges.items(), range(seeds)):
        inside = np.flatnonzero(judge.problem.costs <= judge.problem.target_ms)
        code, worse = (judge.problem.oracle.codes[inside[np.argsort(-judge.score[inside])][at]] for at in (place + seed, -1))
        rows.append({
            "case": case, "share": share, "seed": seed, "code": code, "argmax": worse, "ms": 1.0, "inherited": 0.5,
            "mixture": 0.52, "entropy": 0.1, "images": 100_000, "cpu_s": 500.0, "shared_cpu_s": 300.0, "networks": 32,
            "epochs": 6, "compared": {worse: [50, 1.9], code: [40, 1.8]},
            "path": [[n, worse] for n in (10_000, 20_000, 50_000)] + [[100_000, code]],
        })  # fmt: skip
    return rows


def test_a_verdict(judges: dict[float, Judge]) -> None:
    rows = made_up(judges, "gumbel", 3, 0) + made_up(judges, "single-path", 3, 150)[:-1]  # a seed without its last target
    renamed = f"gdas{BY_ACCURACY}, before"  # rows of an earlier version
    assert list(verdict.judged(rows + made_up(judges, renamed, 3, 0), judges, draws=2)["anytime"])[-1] == renamed
    rows[0] |= {"cpu_s": 9e9, "timed": False}  # of a host that is slower
    body = verdict.judged(rows, judges, draws=2)
    assert body["cost"]["gumbel"]["cpu_s_all_targets"] == 500.0
    assert body["regret"]["gumbel"]["all"]["n"] == 3 and body["regret"]["single-path"]["all"]["n"] == 2
    assert body["regret"]["single-path"]["by_target"]["0.25"]["n"] == 3
    assert body["cost"]["gumbel"]["of_a_training"] == 0.04 and body["worth"]["gumbel"] == "more than 32"
    assert body["gap"]["gumbel"]["mean"] == pytest.approx(2.0) and len(body["gap"]) == 2
    other = body["regret"]["gumbel" + BY_ACCURACY]["all"]  # the worse network is the more accurate one
    assert other["n"] == 3 and other["mean"] > body["regret"]["gumbel"]["all"]["mean"]
    assert body["default_against"]["gumbel" + BY_ACCURACY]["mean"] < 0
    assert len(body["shortlists"]) == 3 * len(SHARES) + 5
    assert all(s["tau_by_loss"] == 1 == -s["tau_by_accuracy"] and s["best"] < s["likeliest"] for s in body["shortlists"])
    every = {n: b["all"] for n, b in body["baselines"].items()}
    assert every["random search, 32"] < every["random search, 1"] < every["best uniform op"]
    assert every["predictor, 32"] < every["predictor, 4"] and "predictor, 1" not in every
    against = body["default_against"]["random search, 1"]
    mean = body["regret"]["gumbel"]["all"]["mean"]
    assert against["mean"] == pytest.approx(mean - every["random search, 1"]) and against["p"] == 0.25 <= against["p_holm"]
    path = body["anytime"]["gumbel"]
    assert path["images"] == [50_000, 100_000] and len(path["regret"]) == 3
    assert np.mean([r[-1] for r in path["regret"]]) == pytest.approx(mean) and all(a > b for a, b in path["regret"])
    assert verdict.known({0: 1.0}) == {"mean": 1.0, "low": None, "high": None, "n": 1}  # JSON has no infinity
    assert verdict.worth({0: every["random search, 8"]}, every).endswith("to 8")
    lines = verdict.table(body).splitlines()
    assert len({line.count("|") for line in lines}) == 1 and lines[2].startswith("| **gumbel** | ")
    assert figures.verdict(body).axes


def test_a_control_is_scored_as_a_search(judges: dict[float, Judge]) -> None:
    judge = judges[0.75]
    inside = np.flatnonzero(judge.problem.costs <= judge.problem.target_ms)
    most = inside[judge.problem.oracle.costs("macs")[inside].argmax()]
    found = verdict.baselines({0.75: judge}, 2)["most MACs"][0.75]
    assert found == [pytest.approx(judge.regret(judge.problem.oracle.codes[most]))]


def test_ranking(oracle: Oracle, judges: dict[float, Judge]) -> None:
    table, rng = LatencyTable.load("samsung_s8"), np.random.default_rng(0)
    codes = ranking.networks(oracle, oracle.costs(table), 2.0)
    assert len(codes) == len({oracle.canonical(c) for c in codes}) == ranking.BANDS * ranking.EACH
    assert len(codes) == len(set(codes)) and codes == ranking.networks(oracle, oracle.costs(table), 2.0)
    rows = [
        {"case": case, "seed": 0, "code": c, "hits": int(100 * oracle.accuracy(c)), "n": 10_000, "loss": rng.normal()}
        for case, c in itertools.product(("gumbel", "single-path"), codes)
    ]
    found = ranking.rankings([*rows, {**rows[0], "seed": 1}], oracle, table)  # of seed 1 one network is measured
    gumbel, _, macs = map(ranking.said, found)
    assert gumbel["tau"] > 0.95 > gumbel["ceiling"] > 0.7 > abs(gumbel["tau_by_loss"]) + 0.4
    assert gumbel["given_up"] == 0 < gumbel["given_up_at_random"]  # true accuracies are the proxy here
    assert macs["case"] == "MACs" and macs["tau"] < 0.3 < macs["global_tau"]
    noisy = [
        {"case": "gdas", "seed": seed, "code": c, "hits": i, "n": 1, "loss": -oracle.accuracy(c) + 3 * rng.normal()}
        for seed, (i, c) in itertools.product(range(4), enumerate(codes))
    ]
    one, *_, four = ranking.together([*rows, *noisy, {**noisy[0], "seed": 4}], "gdas", oracle, table)
    assert (one["supernets"], one["sets"], four["supernets"], four["sets"]) == (1, 4, 4, 1)
    assert four["tau"] > one["tau"] + 0.1 and four["given_up"] < one["given_up"]  # noise is averaged away
    own = ranking.said(ranking.rankings(noisy[: len(codes)], oracle, table)[0])
    assert own["tau_by_model"] > own["tau_by_loss"] + 0.1  # and by a model of the networks' losses
    picked = ranking.choices(rows, judges)
    assert [(p["case"], p["share"]) for p in picked] == list(itertools.product(("gumbel", "single-path"), SHARES))
    assert all(p["networks"] >= ranking.EACH and p["by_accuracy"] < p["at_random"] for p in picked)
    (honest,) = ranking.choices([{**r, "loss": -r["hits"]} for r in rows[: len(codes)]], {0.75: judges[0.75]})
    assert 0 <= honest["by_model"] < 0.5 * honest["at_random"]
    learnt = [{"trainings": 8, "tau": 0.3, "sd": 0.1}]
    assert figures.ranking(found, learnt).axes[1].get_yticklabels()[-1].get_text() == "linear model of 8 trainings"


def test_predictors_learn_to_rank(oracle: Oracle) -> None:
    costs = oracle.costs(LatencyTable.load("samsung_s8"))
    few, many = predictors.learnt(oracle, costs, ranking.networks(oracle, costs, 2.0), (8, 128), draws=3)
    assert few["trainings"] == 8 and 0 < few["tau"] < many["tau"] < 1 and few["given_up"] > many["given_up"]


def test_what_a_predictor_derives_stands_beside_the_search(judges: dict[float, Judge], tmp_path, capsys) -> None:
    rows = made_up(judges, "gumbel", 2, 0)
    best = {s: j.problem.oracle.codes[int(np.nanargmax(np.where(j.problem.costs <= j.problem.target_ms, j.score, np.nan)))]
            for s, j in judges.items()}  # fmt: skip
    found = [{"case": "gumbel", "share": s, "seed": 1, "code": c} for s, c in best.items()]
    also = derived.rows_of(rows, found)
    body = verdict.judged(rows, judges, draws=2, also=also)
    own = body["regret"]["gumbel, --derive predictor"]["all"]
    assert own["n"] == 1 and own["mean"] <= min(body["regret"]["gumbel"]["all"]["mean"], 0.05)
    known = next(iter(judges.values())).problem.oracle
    seen = {c: [0, -a] for c, a in list(zip(known.codes, known.accuracies.tolist(), strict=True))[::40]}
    (beside,) = derived.against(rows, [{**one, "compared": seen} for one in found], judges)
    assert beside["seeds"] == [1] and beside["derived"] == own["mean"] and beside["smaller"] == 1
    assert beside["searched"] == np.mean([judges[r["share"]].regret(r["code"]) for r in rows if r["seed"] == 1])
    assert beside["derived"] < beside["linear"] < 2.5  # which knows the truth of one network of forty
    assert "gumbel, --derive predictor" not in body["cost"] and len(body["searches"]) > len(rows)
    derived.run(["gumbel"], (0.5,), 1, Rows(tmp_path / "rows.jsonl", derived.KEY), None, None, tmp_path, searches.Recipe())
    assert "gumbel 0 has no folder" in capsys.readouterr().out


def test_supernets_choose_together(oracle: Oracle, judges: dict[float, Judge], tmp_path) -> None:
    rng, seeds = np.random.default_rng(0), range(4)
    within = {s: np.flatnonzero(j.problem.costs <= j.problem.target_ms) for s, j in judges.items()}
    lists = {(s, seed): [oracle.codes[i] for i in rng.choice(within[s], 20, False)] for s in judges for seed in seeds}
    every = sorted({c for own in lists.values() for c in own})
    rows = [
        {"case": "gumbel", "seed": seed, "code": c, "loss": -oracle.accuracy(c) + 4 * rng.normal()}
        for seed, c in itertools.product(seeds, every)
    ]
    loss = {(r["seed"], r["code"]): r["loss"] for r in rows}
    searched = [
        {"case": "gumbel", "share": s, "seed": seed, "selection_images": 9, "compared": {c: [0, loss[seed, c]] for c in own}}
        for (s, seed), own in lists.items()
    ]
    found = together.choices(rows, searched, judges)
    assert [(f["supernets"], f["sets"]) for f in found] == [(1, 4), (2, 6), (3, 4), (4, 1)]
    alone = [judges[s].regret(min(own, key=lambda c: loss[seed, c])) for (s, seed), own in lists.items()]
    assert found[0]["mean"] == pytest.approx(np.mean(alone)) and found[-1]["mean"] < found[0]["mean"]
    less = together.choices(rows[:-1], searched, judges)  # the last supernet has still a network to measure
    assert [(f["supernets"], f["sets"]) for f in less] == [(1, 3), (2, 3), (3, 1)]
    pairs = together.of_teams(rows, searched, judges, 2)[0]
    assert pairs["teams"] == [[0, 1], [2, 3]] and together.of_teams(rows[:-1], searched, judges, 3)[0]["teams"] == [[0, 1, 2]]
    every_pair = together.choices([r for r in rows if r["seed"] < 2], searched[:2] + searched[4:6], judges)
    assert pairs["each"][0] == pytest.approx(every_pair[-1]["mean"])
    assert pairs["alone"] == pytest.approx(np.mean(alone))
    assert pairs["less_alone"]["mean"] == pytest.approx(pairs["mean"] - pairs["alone"]) and pairs["less_alone"]["n"] == 2
    assert together.of_teams(rows, searched, judges, 5) == []
    team = together.put_up(searched, oracle, 2, 4, "gumbel", 3)
    assert team == together.put_up(searched, oracle, 2, 4, "gumbel", 2) and 32 <= len(team) <= 2 * 32
    assert together.put_up(searched, oracle, 2, 3, "gumbel", 2) == [] == together.put_up(searched, oracle, 2, 4, "gdas", 2)
    searches.folder_of(tmp_path, "gumbel", 1).mkdir()
    assert set(together.compared(searched, tmp_path, 4, "gumbel")) == {c for s in judges for c in lists[s, 1]}
    assert together.compared(searched, tmp_path, 1, "gumbel") == []


def test_figures_leave_out_what_others_compare_by_loss() -> None:
    alone, both = "x, compared by accuracy", ["gumbel", "gumbel, compared by accuracy"]
    assert figures.shown([*both, alone]) == ["gumbel", alone]


def test_a_supernet_that_is_not_there_is_named_and_left_out(tmp_path, capsys) -> None:
    rows = Rows(tmp_path / "rows.jsonl", ranking.KEY)
    ranking.measure_all(["gumbel"], 2, lambda case, seed: ["0" * 8], rows, None, None, tmp_path, searches.Recipe(), (0.5,))
    ranking.measure_all(
        ["gumbel, depth alone"], 1, lambda case, seed: ["0" * 8], rows, None, None, tmp_path, searches.Recipe(), (0.5,)
    )
    said = capsys.readouterr().out
    assert "gumbel 1 has no folder" in said and "depth alone has not all" in said and not rows.done


def test_the_documents_say_what_the_results_say() -> None:
    root = Path(__file__).parents[1]
    body = json.loads((root / "benchmarks" / "results" / "macro_verdict.json").read_text())
    study, readme = ((root / name).read_text() for name in ("docs/study.md", "README.md"))
    assert verdict.table(body) in study
    own = json.loads((root / "benchmarks" / "results" / "study_verdict.json").read_text())
    assert study_verdict.table(own) in study
    for case in ("gumbel", "gumbel, --theta-images weights"):
        found = body["regret"][case]["all"]
        assert f"{found['mean']:.2f}" in readme and f"{found['low']:.2f} to {found['high']:.2f}, {found['n']} seeds" in readme
    teams = {t["case"]: t for t in body["teams"] if t["supernets"] == 3}
    for case in ("gumbel, --theta-images weights", "gumbel, temperature 1"):
        each = ", ".join(f"{x:.2f}" for x in teams[case]["each"])
        assert f"{teams[case]['mean']:.2f} (three teams: {each})" in readme and f"{teams[case]['mean']:.2f} ({each})" in study
    for one in body["together"]:
        assert f"{one['mean']:.2f} ({one['sets']})" in study
    (beside,) = body["derived"]
    first, last = beside["seeds"][0], beside["seeds"][-1]
    words = f"(seeds {first} to {last}) the regret is {beside['derived']:.2f} in place of {beside['searched']:.2f}"
    assert words in " ".join(study.split()) and f"would have had {beside['linear']:.2f} from the same losses" in " ".join(
        study.split()
    )
    assert (
        f"{beside['derived']:.2f} where it is {beside['searched']:.2f} without ({len(beside['seeds'])} of these seeds)"
        in readme
    )


def _cells(text: str, first: str) -> dict[str, list[str]]:
    """Label -> cells of the Markdown table whose header begins with ``first``."""
    lines = text[text.index(first) :].split("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("| ---")]
    return {label: cells for label, *cells in rows}


def test_the_study_says_what_devices_cost_each_other() -> None:
    root = Path(__file__).parents[1]
    found = json.loads((root / "benchmarks" / "results" / "study_hardware.json").read_text())["nas_bench_macro"]["penalties"]
    names = {
        "xeon_nas_bench_macro.json": "Xeon, LiteRT", "xeon_nas_bench_macro_again.json": "the same, measured again",
        "samsung_s8.json": "Galaxy S8", "model of pixel3_fbnet_cifar.json": "Pixel 3",
        "model of raspi4_fbnet_cifar.json": "Raspberry Pi 4",
    }  # fmt: skip
    on, *rows = _cells((root / "docs" / "study.md").read_text(), "| chosen for (down)").items()
    said = {
        (label, device): cell.replace(" %", "%") for label, cells in rows for device, cell in zip(on[1], cells, strict=True)
    }
    assert {*on[1], "the same, measured again"} == set(names.values()) == {label for label, _ in rows}
    for one in found:
        words = f"{one['longer']:.1%} ({one['largest']:.1%}), {one['same_network']:.0%}, {one['beyond']:.0%}"
        assert said.get((names[one["chosen_for"]], names[one["on"]]), words) == words  # it is run on one of the two Xeons alone


def test_the_study_says_what_methods_find_by_the_truth() -> None:
    root = Path(__file__).parents[1]
    targets = json.loads((root / "benchmarks" / "results" / "study_ideal.json").read_text())["targets"]
    said = _cells((root / "docs" / "study.md").read_text(), "| regret in points: mean (from to)")
    heads = [f"{t['target_ms']:.2f} ms, best {t['best_accuracy']:.2f} %" for t in targets]
    assert said.pop("regret in points: mean (from to)") == heads and set(said) == set(targets[0]["methods"])
    for name, cells in said.items():
        for target, cell in zip(targets, cells, strict=True):
            regret = target["methods"][name]["regret"]
            mean, ends = f"{sum(regret) / len(regret):.2f}", f"{min(regret):.2f} to {max(regret):.2f}"
            assert cell == (mean if min(regret) == max(regret) else f"{mean} ({ends})"), (name, cell)
