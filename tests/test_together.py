"""Several seeds: each is a run of its own, and their supernets choose a network together."""

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

import pytest
from test_families import BY_TARGET, LUT, OPTIONS, SPACE, TARGETS
from test_search_steps import images

from dnas.config import SearchConfig
from dnas.errors import Interrupted, NotFiniteError, RunError
from dnas.evaluate import Accuracy
from dnas.search import FamilyResult, SearchResult, SeedsResult, init, prepare, resume, run, supernets, together
from dnas.search.console import Console
from dnas.search.phase import measure

pytestmark = pytest.mark.usefixtures("no_pictures")


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

    def seed(good: Any, chosen: Any = None) -> Any:
        return SimpleNamespace(
            compared={g: Accuracy(0, 9, -ms[g] if good(g) else 9.0) for g in every if good(g)}, genotype=chosen
        )

    above, below = seed(lambda g: ms[g] > TARGETS[0]), seed(lambda g: ms[g] <= TARGETS[0])
    pool = together._pool(setup, [above, below, seed(lambda g: True)])
    assert pool and all(ms[g] <= TARGETS[0] for g in pool) and len({SPACE.canonical(g) for g in pool}) == len(pool)
    assert set(pool) <= set(below.compared) and together._pool(setup, [above, above])[0] == max(ms, key=lambda g: ms[g])
    worst, most = min(ms, key=lambda g: ms[g]), [below] * 31  # a model's choice, say, whose own loss is large
    every_one = (together._pool(setup, [*most, seed(lambda g: True, chosen)]) for chosen in (None, worst))
    assert [worst in pool for pool in every_one] == [False, True]
    dear = max(ms, key=lambda g: ms[g])
    assert dear not in together._pool(setup, [below, seed(lambda g: True, dear)])  # above the target
    many = [{f"{seed}{i}": Accuracy(0, 9, i) for i in range(40)} for seed in "ab"]
    assert together.liked(many, str) == [f"{seed}{i}" for seed in "ab" for i in range(16)]
    assert together.liked(many, lambda code: code[1:]) == [f"a{i}" for i in range(16)]


def test_what_cannot_choose_together_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    config = SearchConfig(lut="t", space="t", data="b", target_ms=TARGETS[0], batch_size=8, devices=1, epochs=3)
    setup = prepare(config, SPACE, LUT, images())
    has, has_not = (SimpleNamespace(results=[SimpleNamespace(compared=c, folder="old")]) for c in ({(0, 0, 0): 1}, {}))
    console = Console(True)
    assert together._may(setup, [has, has], console)  # type: ignore[list-item]
    assert not together._may(setup, [has, has_not], console)  # type: ignore[list-item]
    assert "old does not say which networks were compared" in capsys.readouterr().out
    same = dataclasses.replace(setup, frozen=({}, {}))  # one supernet would vote twice
    random = prepare(dataclasses.replace(config, method="random-search", epochs=None), SPACE, LUT, images())
    assert not any(together._may(s, [has, has], console) for s in (same, random))  # type: ignore[list-item]


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
