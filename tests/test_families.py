"""Several targets from one supernet, new targets on its weights, what they share, and exact resumption."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jax
import numpy as np
import pytest
import tiny
from test_search_steps import images

import dnas
from dnas import compare, loop
from dnas.config import SearchConfig
from dnas.errors import ConfigError, Interrupted, LatencyError, RunError
from dnas.runs import Journal
from dnas.search import (
    Epoch,
    FamilyResult,
    __main__,
    finish,
    init,
    prepare,
    resume,
    run,
    step,
    whole,
)
from dnas.search.family import begin, rows_of
from dnas.search.phase import SearchPhase
from dnas.search.schedule import Schedule
from dnas.search.supernets import as_before, split_seed

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
def test_a_new_target_on_the_weights_of_a_run_moves_theta_alone(
    found: FamilyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything but the target is as in that run; the architecture has its epochs after the warm-up, the weights none."""
    assert found.folder
    target = float(f"{LOW + 0.6 * (HIGH - LOW):.3g}")
    given = {"space": SPACE, "lut": LUT, "data": images()}
    spy = Mock(wraps=prepare)
    monkeypatch.setattr(whole, "prepare", spy)
    more = run(**given, from_supernet=found.folder, target_ms=target, seed=7, out=tmp_path / "more", progress=False)
    assert spy.call_args.args[-1] == 0 and spy.call_args.args[0].seed == 7  # images are divided as they were for the weights
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
        ({"theta_images": "weights"}, ConfigError, "--theta-images is 'weights', and .* was trained with 'own'"),
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


def test_the_images_of_theta_are_those_of_the_supernet_where_a_method_has_theta(in_tmp: Path) -> None:
    body = {"search": {"lut": "samsung_s8", "epochs": 4, "warm_up": 0.5, "theta_images": "weights"}, "inputs": {}}
    (in_tmp / "config.json").write_text(json.dumps(body))
    then = {m: SearchConfig(from_supernet=".", method=m) for m in ("two-path", "single-path")}
    assert as_before(then["two-path"], {"method"}, set()).theta_images == "weights"
    assert as_before(then["single-path"], {"method"}, set()).theta_images is None
    del body["search"]["theta_images"]  # as a version, or a method, without the option leaves it
    (in_tmp / "config.json").write_text(json.dumps(body))
    asked = SearchConfig(from_supernet=".", theta_images="own")
    assert as_before(asked, {"theta_images"}, set()).theta_images == "own"
    with pytest.raises(ConfigError, match="was trained with 'own'"):
        as_before(dataclasses.replace(asked, theta_images="weights"), {"theta_images"}, set())


def test_images_that_trained_the_weights_measure_no_later_seed(in_tmp: Path) -> None:
    (in_tmp / "config.json").write_text(json.dumps({"search": {"lut": "samsung_s8", "seed": 3}, "inputs": {}}))
    assert split_seed(".") == 3
    config = SearchConfig(lut="t", space="t", data="b", target_ms=TARGETS[0], epochs=2, batch_size=8, devices=1, seed=5)
    weights = jax.device_get(dnas.init(SPACE, jax.random.key(1))[1:])
    trained = prepare(dataclasses.replace(config, seed=3), SPACE, LUT, images())
    later = prepare(config, SPACE, LUT, images(), weights, split_seed("."))
    for part in ("weights", "architecture", "selection"):
        assert np.array_equal(getattr(later.splits, part).indices, getattr(trained.splits, part).indices)


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
