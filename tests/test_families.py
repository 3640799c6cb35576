"""Several targets from one supernet, new targets on its weights, several seeds: what they share, and exact resumption."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shutil
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from test_search_steps import images

import dnas
from dnas import compare, loop
from dnas.config import SearchConfig
from dnas.errors import ConfigError, Interrupted, LatencyError, NotFiniteError, RunError
from dnas.evaluate import Accuracy
from dnas.runs import Journal
from dnas.search import (
    Epoch,
    FamilyResult,
    SearchResult,
    SeedsResult,
    __main__,
    finish,
    init,
    prepare,
    resume,
    run,
    step,
    supernets,
    together,
    whole,
)
from dnas.search.console import Console
from dnas.search.family import begin, rows_of
from dnas.search.phase import SearchPhase, measure
from dnas.search.schedule import Schedule

pytestmark = pytest.mark.usefixtures("no_pictures")
SPACE = tiny.template_space()
LUT = tiny.table_for(SPACE)
LOW, HIGH = SPACE.latency_range(LUT)
TARGETS = [float(f"{LOW + share * (HIGH - LOW):.3g}") for share in (0.4, 0.8)]
OPTIONS: dict[str, Any] = {"epochs": 3, "batch_size": 8, "warm_up": 0.34, "devices": 1, "progress": False}
TOLD: list[Epoch] = []
BY_TARGET = [f"{t:g}ms/{name}" for t in TARGETS for name in ("architecture.json", "history.jsonl")]


def family_run(out: Path, **more: Any) -> Any:
    return run(SPACE, LUT, images(), target_ms=TARGETS, out=out, **{**OPTIONS, "train_epochs": 1, **more})


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> FamilyResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "_report", lambda *_: None)
        result = family_run(tmp_path_factory.mktemp("family") / "run", on_epoch=TOLD.append)
    assert isinstance(result, FamilyResult)
    return result


def test_a_family_has_one_network_for_each_target_within_it(found: FamilyResult) -> None:
    assert [r.target_ms for r in found.results] == TARGETS and len(found.architectures) == 2
    for result, target in zip(found.results, TARGETS, strict=True):
        assert LUT.latency_ms(result.architecture) == result.latency.total_ms <= target
        assert result.architecture.provenance["target_ms"] == target
        assert [r["phase"] for r in result.history] == ["search"] * 3 + ["training"]
        assert result.folder and (result.folder / "architecture.json").exists()
        assert compare.Run.load(result.folder).architecture == result.architecture
        with pytest.raises(RunError, match=r"it is one target of a family; resume the folder above it: --resume .*run$"):
            resume(result.folder)
    assert found.folder
    with pytest.raises(RunError, match=f"holds several searches; give them one by one: {TARGETS[0]:g}ms, {TARGETS[1]:g}ms"):
        compare.Run.load(found.folder)
    body = json.loads((found.folder / "family.json").read_text())
    assert [m["target_ms"] for m in body["members"]] == TARGETS and set(body["front"]) <= {f"{t:g}ms" for t in TARGETS}
    assert (found.folder / "pareto.png").stat().st_size > 5000
    dotted = [line.get_xdata()[0] for line in found.plot().axes[0].lines if line.get_linestyle() == ":"]
    assert dotted == TARGETS


def test_members_take_turns_and_share_weights_but_nothing_else() -> None:
    """Weight step k draws by the logits of member k mod 2, architecture step k moves them alone; one trace serves both."""
    config = SearchConfig(
        lut="t", space="t", data="b", family_ms=tuple(TARGETS), epochs=3, batch_size=8, warm_up=0.34, devices=1
    )
    setup = prepare(config, SPACE, LUT, images())
    phase, state = SearchPhase(setup), begin(setup)
    assert [m.config.target_ms for m in setup.members] == TARGETS
    per_epoch, theta = setup.schedule.weight_steps, setup.schedule.theta_steps
    assert setup.schedule.total_theta_steps == theta  # each: two epochs, shared by two members
    state, _ = phase.end_epoch(state, 0)
    kept = jax.device_get(state)
    state, _ = phase.step(state, 1, 0)
    after = jax.device_get(state)
    jax.tree.map(np.testing.assert_array_equal, kept.members[1 - per_epoch % 2], after.members[1 - per_epoch % 2])
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (kept.shared.params, after.shared.params)), strict=True))
    state, _ = phase.step(state, 1, per_epoch)  # architecture step 0: the first member's
    last = jax.device_get(state)
    jax.tree.map(np.testing.assert_array_equal, after.members[1].logits, last.members[1].logits)
    jax.tree.map(np.testing.assert_array_equal, after.shared.params, last.shared.params)
    assert any((after.members[0].logits[n] != last.members[0].logits[n]).any() for n in SPACE.choices)
    state, _ = phase.step(state, 2, per_epoch)
    assert any((state.members[1].logits[n] != 0).any() for n in SPACE.choices)
    assert setup.members[1].programs.gradients is setup.members[0].programs.gradients
    assert setup.members[0].programs.traces["gradients"] == 1 and setup.members[1].programs.traces["gradients"] == 0


def test_every_member_is_told_of_by_itself(found: FamilyResult) -> None:
    searched = [(("search", i), t) for i in (1, 2, 3) for t in TARGETS]
    assert [((e.phase, e.epoch), e.target_ms) for e in TOLD] == searched + [(("training", 1), t) for t in TARGETS]
    for index, result in enumerate(found.results):
        assert [e.history for e in TOLD if e.target_ms == TARGETS[index]][-1] == tuple(result.history)
    shown = found._repr_html_()
    assert all(f"<td>{r.label}</td><td>{r.latency.total_ms:.4g} ms</td>" in shown for r in found.results)


def test_the_architecture_steps_are_shared_or_asked_for() -> None:
    schedule = Schedule(10, 3, 5, 4, 5.0, 0.1, members=3)
    assert schedule.total_theta_steps == 10  # 28 steps, of which the first member takes one more
    options = {"lut": "t", "space": "t", "data": "b", "family_ms": tuple(TARGETS), "epochs": 3, "batch_size": 8, "devices": 1}
    once, twice = (prepare(SearchConfig(**options, theta_passes=n), SPACE, LUT, images()) for n in (1, 2))
    alone = prepare(SearchConfig(**{**options, "family_ms": (), "target_ms": TARGETS[0]}), SPACE, LUT, images())
    assert twice.schedule.total_theta_steps == alone.schedule.total_theta_steps == 2 * once.schedule.total_theta_steps
    assert twice.config.theta_lr == alone.config.theta_lr == pytest.approx(once.config.theta_lr / 2)  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [9, 25, 34])
def test_a_family_interrupted_anywhere_resumes_to_the_same_bytes(
    found: FamilyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    """During the search, and during the training of the first and of the second member."""
    seen = 0
    advance = Journal.save_is_due.fget  # type: ignore[attr-defined]

    def stopping(journal: Journal) -> bool:
        nonlocal seen
        seen += 1
        if seen == stop_at:
            raise KeyboardInterrupt
        return seen % 3 == 0 or advance(journal)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "save_is_due", property(stopping))
        with pytest.raises(Interrupted, match="what the newest checkpoint has is saved"):
            family_run(tmp_path / "cut")
    assert not (tmp_path / "cut" / "family.json").exists()
    resume(tmp_path / "cut", space=SPACE, lut=LUT, data=images(), progress=False)
    assert found.folder
    for name in ("family.json", "history.jsonl", "config.json", *BY_TARGET):
        assert (tmp_path / "cut" / name).read_bytes() == (found.folder / name).read_bytes(), name


@pytest.mark.slow
def test_a_new_target_on_the_weights_of_a_run_moves_theta_alone(found: FamilyResult, tmp_path: Path) -> None:
    """Everything but the target is as in that run; the architecture has its epochs after the warm-up, the weights none."""
    assert found.folder
    target = float(f"{LOW + 0.6 * (HIGH - LOW):.3g}")
    given = {"space": SPACE, "lut": LUT, "data": images()}
    more = run(**given, from_supernet=found.folder, target_ms=target, out=tmp_path / "more", progress=False)
    assert more.latency.total_ms <= target and more.history[0]["train_loss"] is None
    config = json.loads((tmp_path / "more" / "config.json").read_text())
    assert (config["search"]["epochs"], config["search"]["batch_size"], config["search"]["warm_up"]) == (2, 8, 0.0)
    assert more.architecture.provenance["supernet_sha256"] == config["inputs"]["supernet"]
    assert not (tmp_path / "more" / "supernet").exists()
    with pytest.raises(RunError, match="it has no supernet/"):
        run(**given, from_supernet=tmp_path / "more", target_ms=target)


def test_weights_stay_as_they_are_and_no_gradient_of_them_is_computed() -> None:
    config = SearchConfig(lut="t", space="t", data="b", target_ms=TARGETS[0], epochs=2, batch_size=8, warm_up=0.0, devices=1)
    params, stats = jax.device_get(dnas.init(SPACE, jax.random.key(1))[1:])
    setup = prepare(config, SPACE, LUT, images(), (params, stats))
    state, batch = init(setup), setup.feeds["architecture"].batch(0)
    traced = setup.programs.gradients["theta"].eval_shape(
        state.params, state.stats, state.logits, state.key, state.step, np.float32(1), *batch
    )
    assert traced.params is None and setup.schedule.weight_steps == 0
    state, _ = step(setup, state, batch, "theta", 1.0)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get((state.params, state.stats)), (params, stats))
    assert any(v.any() for v in state.logits.values())


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"from_supernet": "nowhere"}, RunError, "--from-supernet nowhere: no such run folder"),
        ({"lr": 0.5}, ConfigError, r"--lr is 0.5, and the supernet in .* was trained with 0.1; drop it, or search anew"),
        ({"batch_size": 4}, ConfigError, "--batch-size is 4, and"),
        (
            {"space": tiny.plain_space(), "lut": tiny.table_for(tiny.plain_space())},
            RunError,
            "its weights are of another space",
        ),
        ({"data": None}, ConfigError, "was given its data as an object in Python; give it to dnas.search.run as data=..."),
        ({"target_ms": 100.0}, ConfigError, "--target-ms 100 is out of reach"),
        ({"lut": "./none.json"}, LatencyError, "^(?!.*go there first).*none.json"),
    ],
)
def test_what_does_not_fit_the_weights_is_refused_by_name(
    found: FamilyResult, in_tmp: Path, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    given = {"space": SPACE, "lut": LUT, "data": images(), "from_supernet": found.folder, "target_ms": TARGETS[0], "out": "new"}
    with pytest.raises(error, match=words):
        run(**{**given, **change})
    assert not list(in_tmp.iterdir())


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> SeedsResult:
    out = tmp_path_factory.mktemp("seeds") / "run"
    return run(SPACE, LUT, images(), target_ms=TARGETS[1], seeds=2, seed=3, out=out, train_epochs=0, **OPTIONS)  # type: ignore[no-any-return]


@pytest.mark.slow
def test_seeds_are_reported_by_mean_and_spread(seeds: SeedsResult) -> None:
    assert [r.architecture.provenance["seed"] for r in seeds.results] == [3, 4]
    wanted = {"config.json", "seeds.json", "seed3", "seed4", "together"}
    assert seeds.folder and {p.name for p in seeds.folder.iterdir()} == wanted
    (target,) = json.loads((seeds.folder / "seeds.json").read_text())["targets"]
    values = [r.accuracy.top1 for r in seeds.results]
    spread = {"mean": statistics.fmean(values), "sd": statistics.stdev(values), "min": min(values), "max": max(values)}
    assert target["n"] == 2 and target["summary"]["test_top1"] == pytest.approx(spread)
    assert isinstance(seeds.together, SearchResult) and target["together"]["genotype"] == list(seeds.together.genotype)
    assert target["together"]["test_top1"] == seeds.together.accuracy.top1 and "entropy" not in target["together"]
    (_, headings, rows), *_ = seeds.tables()
    assert headings[-1] == "together" and {r[0]: r[-1] for r in rows}["entropy"] == "-" != rows[0][-1]


@pytest.mark.slow
def test_supernets_choose_the_network_of_the_smallest_mean_loss_together(seeds: SeedsResult) -> None:
    found, folder = seeds.together, seeds.folder
    assert isinstance(found, SearchResult) and folder
    liked = [sorted(r.compared, key=lambda g: r.compared[g].loss)[:16] for r in seeds.results]
    assert set(found.compared) == {g for own in liked for g in own} and len(liked[0]) > 3
    losses = {}
    for seed, result in zip((3, 4), seeds.results, strict=True):
        config = SearchConfig(**json.loads((folder / f"seed{seed}" / "config.json").read_text())["search"])
        setup = prepare(config, SPACE, LUT, images())
        (params, stats), _ = supernets.read(str(folder / f"seed{seed}"), setup.space)
        state = init(setup)._replace(params=params, stats=stats)
        losses[seed] = {g: measure(setup, state, g).loss for g in found.compared}
        assert all(
            losses[seed][g] == pytest.approx(own.loss, rel=1e-5) for g, own in result.compared.items() if g in losses[seed]
        )
    best = min(found.compared, key=lambda g: losses[3][g] + losses[4][g])
    told = found.derivation
    assert found.genotype == best and told["by"] == "together" and told["seeds"] == [3, 4]
    assert told["losses"] == pytest.approx([losses[3][best], losses[4][best]], rel=1e-5)
    assert told["inherits_seed"] == min((3, 4), key=lambda s: losses[s][best])
    assert found.inherited.loss == pytest.approx(min(told["losses"])) and found.latency.total_ms <= TARGETS[1]
    assert told["derived_ms"] == pytest.approx(found.latency.total_ms) and "one of" in found.caveat
    assert found.architecture.name.endswith("_s3to4") and not found.learned and found.chosen_by == "2 supernets together"
    assert {p.name for p in (folder / "together").iterdir()} >= {"architecture.json", "history.jsonl", "weights.safetensors"}
    with pytest.raises(RunError, match=r"what several seeds chose together; resume the folder above it: --resume .*run$"):
        resume(folder / "together")


def test_networks_within_their_targets_are_put_up_each_once() -> None:
    config = SearchConfig(lut="t", space="t", data="b", target_ms=TARGETS[0], batch_size=8, devices=1, epochs=3)
    setup = prepare(config, SPACE, LUT, images())
    every = list(itertools.product(*(range(len(c.options)) for c in SPACE.choices.values())))
    ms = {g: LUT.latency_ms(SPACE.fix(g)) for g in every}
    assert max(ms.values()) > TARGETS[0]

    def seed(good: Any) -> Any:
        return SimpleNamespace(compared={g: Accuracy(0, 9, -ms[g] if good(g) else 9.0) for g in every if good(g)})

    above, below = seed(lambda g: ms[g] > TARGETS[0]), seed(lambda g: ms[g] <= TARGETS[0])
    pool = together._pool(setup, [above, below, seed(lambda g: True)])
    assert pool and all(ms[g] <= TARGETS[0] for g in pool) and len({SPACE.canonical(g) for g in pool}) == len(pool)
    assert set(pool) <= set(below.compared) and together._pool(setup, [above, above])[0] == max(ms, key=lambda g: ms[g])
    many = [{f"{seed}{i}": Accuracy(0, 9, i) for i in range(40)} for seed in "ab"]
    assert together.liked(many, str) == [f"{seed}{i}" for seed in "ab" for i in range(16)]
    assert together.liked(many, lambda code: code[1:]) == [f"a{i}" for i in range(16)]


def test_what_cannot_choose_together_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    config = SearchConfig(lut="t", space="t", data="b", target_ms=TARGETS[0], batch_size=8, devices=1, epochs=3)
    setup = prepare(config, SPACE, LUT, images())
    has, has_not = (SimpleNamespace(results=[SimpleNamespace(compared=c, folder="old")]) for c in ({(0, 0, 0): 1}, {}))
    console = Console(True)
    assert whole._may_choose_together(setup, [has, has], console)  # type: ignore[list-item]
    assert not whole._may_choose_together(setup, [has, has_not], console)  # type: ignore[list-item]
    assert "old does not say which networks were compared" in capsys.readouterr().out
    same = dataclasses.replace(setup, frozen=({}, {}))  # one supernet would vote twice
    random = prepare(dataclasses.replace(config, method="random-search", epochs=None), SPACE, LUT, images())
    assert not any(whole._may_choose_together(s, [has, has], console) for s in (same, random))  # type: ignore[list-item]


@pytest.mark.slow
def test_a_loss_that_is_no_number_chooses_nothing(seeds: SeedsResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert seeds.folder
    shutil.copytree(seeds.folder, tmp_path / "cut")
    (tmp_path / "cut" / "seeds.json").unlink()
    shutil.rmtree(tmp_path / "cut" / "together")
    votes = together._vote
    monkeypatch.setattr(together, "_vote", lambda *a: {g: Accuracy(0, 9, math.nan) for g in votes(*a)})
    with pytest.raises(NotFiniteError, match="on the selection images"):
        resume(tmp_path / "cut", space=SPACE, lut=LUT, data=images(), progress=False)


@pytest.mark.slow
def test_a_seed_is_the_run_that_it_would_be_alone_and_all_resume(seeds: SeedsResult, tmp_path: Path) -> None:
    assert seeds.folder
    alone = run(SPACE, LUT, images(), target_ms=TARGETS[1], seed=4, out=tmp_path / "alone", train_epochs=0, **OPTIONS)
    for name in ("architecture.json", "history.jsonl", "config.json"):
        assert (alone.folder / name).read_bytes() == (seeds.folder / "seed4" / name).read_bytes()
    with pytest.raises(RunError, match=r"this run is finished; see .*seeds.json"):
        resume(seeds.folder)
    cut = tmp_path / "cut"
    shutil.copytree(seeds.folder, cut)
    (cut / "seeds.json").unlink()
    shutil.rmtree(cut / "seed4")
    shutil.rmtree(cut / "together")
    resume(cut, space=SPACE, lut=LUT, data=images(), progress=False)
    for name in ("seeds.json", "together/architecture.json", "together/history.jsonl"):
        assert (cut / name).read_bytes() == (seeds.folder / name).read_bytes()


@pytest.mark.slow
def test_several_targets_are_chosen_together_in_memory_and_after_a_break(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"seeds": 2, "epochs": 2, "train_epochs": 1, "method": "single-path", "evaluations": 3, "warm_up": None}
    memory = run(SPACE, LUT, images(), target_ms=TARGETS, **{**OPTIONS, **more})
    assert isinstance(memory.together, FamilyResult) and memory.folder is None
    measured, asked = together.Measured.of, []

    def broken(self: Any, genotype: Any) -> Any:
        asked.append(genotype)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return measured(self, genotype)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="resume"):
        patch.setattr(together.Measured, "of", lambda *a: broken(*a) if "together" in str(a[0]._path) else measured(*a))
        run(SPACE, LUT, images(), target_ms=TARGETS, out=tmp_path / "run", **{**OPTIONS, **more})
    given = {"space": SPACE, "lut": LUT, "data": images(), "progress": False}
    with pytest.raises(ZeroDivisionError):
        resume(tmp_path / "run", **given, on_epoch=lambda epoch: 1 / 0)  # of the first short training
    assert not (tmp_path / "run" / "together" / "family.json").exists()
    again = resume(tmp_path / "run", **given)
    run(SPACE, LUT, images(), target_ms=TARGETS, out=tmp_path / "whole", **{**OPTIONS, **more})
    asked_for = sorted(p.relative_to(tmp_path / "run") for p in (tmp_path / "run" / "together").rglob("measured-*"))
    assert asked_for
    for name in ("seeds.json", "together/family.json", *(f"together/{n}" for n in BY_TARGET), *asked_for):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(RunError, match=r"chose together; resume the folder above it: --resume .*run$"):
        resume(tmp_path / "run" / "together" / f"{TARGETS[0]:g}ms")
    assert all(r.supernet is None for r in (*memory.results, *memory.together.results))
    assert [r.genotype for r in again.together.results] == [r.genotype for r in memory.together.results]
    assert [r.accuracy.top1 for r in again.together.results] == [r.accuracy.top1 for r in memory.together.results]
    assert [r.latency.total_ms <= t for r, t in zip(again.together.results, TARGETS, strict=True)] == [True, True]
    body = json.loads((tmp_path / "run" / "together" / "family.json").read_text())
    assert [m["name"] for m in body["members"]] == [f"{t:g}ms" for t in TARGETS]
    assert memory._repr_html_().count("together") == 2


def test_targets_as_the_command_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--lut", "a.json", "--target-ms", "10,15,20", "--epochs", "3"]
    assert __main__.plain(words) == ["--lut", "a.json", "--family-ms", "10", "15", "20", "--epochs", "3"]
    assert __main__.plain(["--target-ms=10,15"]) == ["--family-ms", "10", "15"]
    for wrong, message in (
        ({"family_ms": (10.0, 10.0)}, "has a target twice"), ({"family_ms": (10.0, -1.0)}, "has -1.0 among its targets"),
        ({"family_ms": (10.0, 12.0), "target_ms": 3.0}, "both given"), ({"seeds": 0}, "--seeds is 0"),
        ({"theta_passes": 1.5}, "--theta-passes is 1.5; expected a whole number"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            SearchConfig(**wrong)
    with pytest.raises(ConfigError, match="target_ms is empty"):
        run(SPACE, LUT, images(), target_ms=[])


def test_a_part_of_a_run_names_the_whole_to_resume(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run" / "seed1" / "10ms")
    journal.whole = tmp_path / "run"
    assert loop.how_to_resume(journal, "here").endswith(f"python -m dnas.search --resume {tmp_path / 'run'}")


def test_rows_of_a_member() -> None:
    history = [{"phase": "search", "epoch": 1, "members": [{"a": 1}, {"a": 2}]}]
    assert rows_of(history, 1) == [{"phase": "search", "epoch": 1, "a": 2}]
    assert loop._finite({"members": [{"a": 1.0}]}) and not loop._finite({"members": [{"a": float("nan")}]})
