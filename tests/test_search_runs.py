"""Whole runs on a tiny space: files, exact repetition, interruption and resumption, and what a user's mistakes give."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest
import tiny
from test_search_steps import OPEN, bands, images

import dnas
from dnas import loop
from dnas.config import SearchConfig
from dnas.errors import ConfigError, DnasError, Interrupted, NotFiniteError, RunError
from dnas.evaluate import Accuracy
from dnas.latency import LatencyTable
from dnas.latency.costs import by_count
from dnas.search import SearchResult, __main__, prepare, resume, run
from dnas.search.record import finished as finished_by

pytestmark = pytest.mark.usefixtures("no_pictures")
TEST_IMAGES = 19  # a fifth of 96, the rest of each class rounded
OPTIONS = {"epochs": 3, "batch_size": 8, "train_epochs": 2, "warm_up": 0.34, "devices": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A space, a table and a data set in files, as a user has them."""
    path = tmp_path_factory.mktemp("inputs")
    space = tiny.template_space()
    space.save(path / "space.json")
    tiny.table_for(space).save(path / "lut.json")
    pixels, labels = bands()
    np.savez(path / "data.npz", images=pixels, labels=labels)
    return path


def search(folder, out, **more) -> SearchResult:
    named = {"space": folder / "space.json", "lut": folder / "lut.json", "data": f"npz:{folder / 'data.npz'}"}
    return run(**{**named, **OPTIONS, **more}, out=out, progress=False)


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory) -> SearchResult:
    return search(folder, tmp_path_factory.mktemp("runs") / "first")


def test_a_run_leaves_its_files_and_an_honest_architecture(folder, finished):
    names = {p.name for p in finished.folder.iterdir()} - {"weights.safetensors"}  # that is an extra's
    wanted = {"architecture.json", "config.json", "history.jsonl", "preprocessing.json", "search.png", "report.html"}
    assert names == wanted | {"checkpoint", "measured.jsonl", "supernet"}
    saved = dnas.Architecture.load(finished.folder / "architecture.json")
    assert saved == finished.architecture
    assert saved.metrics["params"] == saved.params and saved.metrics["macs"] == saved.macs
    (latency,) = saved.metrics["latency"]
    lut = dnas.LatencyTable.load(folder / "lut.json")
    assert latency["latency_ms"] == pytest.approx(lut.latency_ms(saved)) and latency["sha256"] == lut.sha256
    assert saved.metrics["accuracy"]["n"] == TEST_IMAGES
    low, high = saved.metrics["accuracy"]["interval95"]
    assert 0 <= low <= saved.metrics["accuracy"]["top1"] <= high <= 1
    assert tiny.template_space().fix(saved.provenance["genotype"]) == saved
    assert saved.provenance["command"].startswith("python -m dnas.search --lut ")
    assert str(finished.folder) not in (finished.folder / "architecture.json").read_text()
    resolved = json.loads((finished.folder / "config.json").read_text())["search"]
    assert latency["latency_ms"] <= saved.provenance["target_ms"]
    how = saved.provenance["derivation"]
    assert how["by"] == "budget" and how["derived_ms"] == latency["latency_ms"] and how["proven"] is True
    assert how["log_probability_given_up"] >= 0 or how["argmax_ms"] <= saved.provenance["target_ms"]
    assert {k for k, v in resolved.items() if v is None} <= OPEN
    history = [json.loads(line) for line in (finished.folder / "history.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in history] == [1, 2, 3, 1, 2] and history == finished.history
    assert history[0]["mixture_accuracy"] is None and history[1]["mixture_accuracy"] is not None


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(folder, finished, tmp_path):
    again = search(folder, tmp_path / "again")
    text = (finished.folder / "architecture.json").read_bytes()
    assert (again.folder / "architecture.json").read_bytes() == text
    assert (again.folder / "history.jsonl").read_bytes() == (finished.folder / "history.jsonl").read_bytes()
    other = search(folder, tmp_path / "other", seed=1)
    assert (other.folder / "architecture.json").read_bytes() != text


@pytest.mark.parametrize("stop_at", [2, 8, 13, 30])
def test_interrupted_and_resumed_equals_uninterrupted(folder, finished, tmp_path, monkeypatch, stop_at):
    """Ctrl-C during a weight step, after an epoch, in a later epoch, and during the training."""
    seen = 0
    whole_step = loop.run.__globals__["jax"].block_until_ready

    def counting(value):
        nonlocal seen
        seen += 1
        if seen == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return whole_step(value)

    with monkeypatch.context() as patch:
        patch.setattr(loop.jax, "block_until_ready", counting)
        with pytest.raises(Interrupted, match="--resume"):
            search(folder, tmp_path / "cut")
    assert not (tmp_path / "cut" / "architecture.json").exists()
    resume(tmp_path / "cut", progress=False)
    for name in ("architecture.json", "history.jsonl", "config.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (finished.folder / name).read_bytes()


def test_what_on_epoch_raises_stops_the_run_with_everything_saved(folder, finished, tmp_path):
    """In the search, and again in the training; the bytes are those of a run that nobody listened to."""

    class Enough(Exception):
        pass

    told = []

    def listen(epoch):
        told.append(epoch)
        if (epoch.phase, epoch.epoch) in (("search", 2), ("training", 1)):
            raise Enough

    with pytest.raises(Enough) as stop:
        search(folder, tmp_path / "cut", on_epoch=listen)
    assert "after epoch 2 of the search; everything is saved: python -m dnas.search --resume" in stop.value.__notes__[0]
    with pytest.raises(Enough):
        resume(tmp_path / "cut", progress=False, on_epoch=listen)
    resume(tmp_path / "cut", progress=False, on_epoch=told.append)
    for name in ("architecture.json", "history.jsonl", "config.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (finished.folder / name).read_bytes()
    assert [(e.phase, e.epoch, e.epochs) for e in told] == [
        *(("search", i, 3) for i in (1, 2, 3)), *(("training", i, 2) for i in (1, 2))
    ]  # fmt: skip
    for n, epoch in enumerate(told, 1):
        assert epoch.history == tuple(finished.history[:n]) and epoch.row == finished.history[n - 1]
        assert epoch.target_ms == finished.target_ms and epoch.seed == 0
        assert {c: tuple(p) for c, p in epoch.probabilities.items()} == {n: c.labels for n, c in epoch.space.choices.items()}
        assert [list(p.values()) for p in epoch.probabilities.values()] == list(
            finished.history[min(n, 3) - 1]["probabilities"].values()
        )
    assert told[-1].likeliest == finished.space.fix(finished.derivation["argmax_genotype"])
    assert [a.get_visible() for a in told[1].plot().axes] == [True] * 4


def test_what_cannot_be_resumed_is_refused(folder, finished, tmp_path):
    for where, words in (
        (tmp_path / "none", "no such run folder"),
        (folder, "has no config.json"),
        (finished.folder, "is finished"),
    ):
        with pytest.raises(RunError, match=words):
            resume(where, progress=False)
    with pytest.raises(RunError, match="drop --epochs"):
        __main__.main(SearchConfig(resume=str(finished.folder), epochs=5))
    copy = tmp_path / "copy"
    copy.mkdir()
    body = json.loads((finished.folder / "config.json").read_text())
    body["inputs"]["lut"] = "0" * 64
    (copy / "config.json").write_text(json.dumps(body))
    with pytest.raises(RunError, match="lut has changed since"):
        resume(copy, progress=False)


def test_an_existing_folder_is_not_overwritten(folder, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "keep.txt").write_text("mine")
    with pytest.raises(RunError, match="exists and is not empty"):
        search(folder, tmp_path / "full")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["keep.txt"]


def test_a_loss_that_is_not_finite_stops_and_names_the_step(folder, tmp_path):
    with pytest.raises(NotFiniteError, match=r"became NaN or infinite at step \d+"):
        search(folder, tmp_path / "nan", lr=1000.0, epochs=4)
    assert not (tmp_path / "nan" / "architecture.json").exists()


def test_a_full_disk_is_one_sentence(folder, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dnas.checkpoint._orbax", lambda: type("Orbax", (), {"save_pytree": staticmethod(full)}))
    with pytest.raises(RunError, match=r"checkpoint cannot be written \(.*No space left"):
        search(folder, tmp_path / "disk")


def test_sampling_derives_a_network_of_the_space(folder, tmp_path):
    result = search(folder, tmp_path / "sampled", derive="sample", derive_samples=3, train_epochs=0)
    space = tiny.template_space()
    assert space.fix(result.genotype).layers == dataclasses.replace(result.architecture, name="x").layers


def test_from_python_nothing_is_written_unless_asked(folder, in_tmp):
    space = tiny.template_space()
    result = run(space, tiny.table_for(space), images(), progress=False, **{**OPTIONS, "train_epochs": 0, "epochs": 2})
    assert result.folder is None and not list(in_tmp.iterdir())
    assert result.plot().axes
    for wrong in ({"epoch": 2}, {"resume": "somewhere"}):
        with pytest.raises(ConfigError, match=f"unknown option '{next(iter(wrong))}'"):
            run(space, tiny.table_for(space), images(), **wrong)


def test_macs_alone_can_be_held(folder, in_tmp):
    """Without --lut: latency is reported by the table that prices every op, with a target that never binds."""
    low, high = (by_count(tiny.template_space(), "macs", 1.0).terms.extreme(sign)[0] for sign in (1, -1))
    target = (low + high) / 2
    result = search(folder, True, lut="", also=(f"macs={target}",), epochs=3, train_epochs=0)
    config = json.loads((result.folder / "config.json").read_text(encoding="utf-8"))["search"]
    slowest = result.space.latency_range(LatencyTable.load("samsung_s8.json"))[1]
    assert (config["lut"], config["target_ms"]) == ("samsung_s8.json", pytest.approx(slowest))
    assert result.architecture.macs <= target < high


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lut": ""}, "--lut is missing"),
        ({"lut": "", "also": ("macs=3000",), "target_ms": 0.1}, "--lut is missing"),
        ({"lut": "", "also": ("macs=3000",), "method": "random-search"}, "random-search draws within a band of latency"),
        ({"lut": "samsung_s9.json"}, "samsung_s8"),
        ({"space": "fbnet_min"}, "did you mean 'fbnet_mini'"),
        ({"data": "digit"}, "digits"),
        ({"target_ms": 1e6}, "out of reach"),
        ({"objective": "mul-log", "target_ms": 0.1}, "has no target"),
        ({"objective": "mul-log", "derive": "budget"}, "needs a target"),
        ({"objective": "mul-log", "derive": "predictor"}, "--derive predictor needs a target"),
        ({"derive": "predictor", "derive_samples": 1}, "at least 2 networks"),
        ({"also": ("macs=1",)}, "--cost macs --target 1 is out of reach: the networks of tiny_template take .* MACs"),
        ({"also": ("flops=1",)}, "unknown cost 'flops'"),
        ({"also": ("macs",)}, "expected TABLE.json=MS"),
        ({"also": ("macs=",)}, "--cost macs: no target; expected --target and a positive number after it"),
        ({"also": ("macs=abc",)}, "--cost macs --target abc: expected a positive number"),
        ({"also": ("b.json=-1",)}, "--lut b.json --target-ms -1: expected a positive number"),
        ({"also": ("b.json=",)}, "--lut b.json: no target; expected --target-ms and a positive number after it"),
        ({"also": ("peak-activation=1e6",)}, "did you mean 'peak-activation-bytes'"),
        ({"also": ("energy=3",)}, "lut.json states no energies; expected a --lut whose entries have mj"),
        ({"also": ("macs=3000",), "objective": "absolute"}, "for several costs use --objective lagrange"),
        ({"reference_ms": 3.0}, "belongs to --objective mul-log"),
        ({"derive_from": 0.9, "derive": "argmax"}, "belongs to --derive budget; here it is --derive argmax"),
        ({"method": "gumble"}, "did you mean 'gumbel'"),
        ({"lut": "samsung_s8.json", "missing": "error"}, "has no entry for"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_written(folder, in_tmp, change, words):
    with pytest.raises(DnasError, match=words) as caught:
        search(folder, True, **change)
    assert "\n" not in str(caught.value) and not list(in_tmp.iterdir())


def test_the_stored_command_says_the_same_search(folder, finished):
    """Parsed by the command itself, it gives the resolved configuration back; objects have no command."""
    import shlex

    import tyro

    words = shlex.split(finished.architecture.provenance["command"])
    assert words[:3] == ["python", "-m", "dnas.search"]
    resolved = json.loads((finished.folder / "config.json").read_text())["search"]
    assert tyro.cli(SearchConfig, args=words[3:]).to_dict() == SearchConfig(**resolved).to_dict()


def test_numbers_of_numpy_and_objects_are_taken(folder, tmp_path):
    import numpy as np

    space = tiny.template_space()
    lut = tiny.table_for(space)
    options = {**OPTIONS, "train_epochs": 0, "epochs": 2, "seed": np.int64(1), "lr": np.float32(0.1)}
    found = run(space, lut, images(), out=tmp_path / "objects", progress=False, **options)
    assert found.architecture.provenance["command"] is None
    (tmp_path / "objects" / "architecture.json").unlink()
    with pytest.raises(RunError, match="given its space as an object"):
        resume(tmp_path / "objects", progress=False)
    again = resume(tmp_path / "objects", space=space, lut=lut, data=images(), progress=False)
    assert again.architecture.to_dict() == found.architecture.to_dict()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("--lut a.json --target-ms 20 --lut b.json --target-ms 8", "--lut a.json --target-ms 20 --also b.json=8"),
        ("--lut=a.json --lut=b.json --target-ms=8 --seed 1", "--lut a.json --seed 1 --also b.json=8"),
        ("--cost macs --target 1e8 --lut a.json --epochs 3", "--lut a.json --epochs 3 --also macs=1e8"),
        ("--lut a.json --also params=3 --cost macs --target 1e8", "--lut a.json --also macs=1e8 params=3"),
        ("--lut a.json --cost macs", "--lut a.json --also macs="),
        ("--lut a.json --target-ms 3", "--lut a.json --target-ms 3"),
        ("--lut a.json --lut", "--lut a.json --lut"),
    ],
)
def test_a_target_belongs_to_the_table_or_cost_before_it(words, wanted):
    assert __main__.plain(words.split()) == wanted.split()


@pytest.mark.parametrize("by", ["argmax", "sample", "budget", "predictor"])
def test_a_network_above_a_target_is_told_by_name_and_unit(by):
    """Of every cost; by --derive budget and predictor none can be above."""
    space = tiny.tied_space()
    lut, cheapest = tiny.table_for(space), space.fix((0, 0, 0))
    also = (f"peak-activation-bytes={cheapest.peak_activation_bytes}", "params=739")
    limits = {"target_ms": min(space.latency_range(lut)), "also": also, "derive": by}
    setup = prepare(SearchConfig(lut="x", space="x", data="x", batch_size=8, devices=1, **limits), space, lut, images())
    notes = {"genotype": [1, 1, 1], "derivation": {"by": by}}
    chances = {n: [0.0, 1.0] for n in space.choices}
    last = {"entropy": 0.0, "expected_ms": limits["target_ms"], "probabilities": chances}
    network = space.fix(notes["genotype"])
    found, warnings = finished_by(setup, notes, last, network, lut.report(network), Accuracy(1, 2, 0.5))
    said = [w.partition(": ")[0] for w in warnings if "above its target" in w]
    names = [w.partition(" by ")[0] for w in said]
    wanted = [f"{limits['target_ms']:.4g} ms", f"{cheapest.peak_activation_bytes:.4g} bytes (peak-activation-bytes)"]
    assert names == [f"The network is above its target of {w}" for w in wanted if by in ("argmax", "sample")]
    assert found.metrics["costs"]["params"] == {"value": network.params, "unit": "parameters", "target": 739.0}


@pytest.mark.slow
def test_several_costs_are_all_kept_and_told(folder, tmp_path):
    """Two tables, MACs, energy and the peak of maps: the result keeps each target, history and result carry every one."""
    space = tiny.tied_space()
    first, second = tiny.with_energies(tiny.table_for(space)), tiny.table_for(space, 1)
    first.save(tmp_path / "a.json")
    second.save(tmp_path / "b.json")
    space.save(tmp_path / "space.json")
    middle = sum(space.latency_range(second)) / 2
    every = [space.fix((i, j, k)) for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    macs, mj = sorted(n.macs for n in every)[6], 2 * max(map(first.latency_ms, every))
    peak = max(n.peak_activation_bytes for n in every)
    assert peak > min(n.peak_activation_bytes for n in every)
    costs = {f"{tmp_path / 'b.json'}": middle, "macs": macs, "energy": mj, "peak-activation-bytes": peak - 1}
    given = {"space": tmp_path / "space.json", "lut": tmp_path / "a.json", "train_epochs": 0}
    result = search(folder, tmp_path / "two", also=tuple(f"{n}={v}" for n, v in costs.items()), **given)
    found = result.architecture
    assert second.latency_ms(found) <= middle and found.macs <= macs and found.peak_activation_bytes < peak
    assert first.latency_ms(found) <= found.provenance["target_ms"]
    assert [m["table"] for m in found.metrics["latency"]] == ["a.json", "b.json"]
    assert found.metrics["costs"] == {
        "macs": {"value": found.macs, "unit": "MACs", "target": macs},
        "energy": {"value": pytest.approx(2 * first.latency_ms(found)), "unit": "mJ", "target": mj},
        "peak-activation-bytes": {"value": found.peak_activation_bytes, "unit": "bytes", "target": peak - 1},
    }
    names = {"b.json", "macs", "energy", "peak-activation-bytes"}
    assert set(found.provenance["targets"]) == {"a.json", *names}
    assert set(result.history[-1]["others"]) == names and len(result.history[-1]["multipliers"]) == 5


def test_a_batch_that_the_devices_cannot_share_is_refused_first(folder, in_tmp):
    with pytest.raises(ConfigError, match=r"--devices 3 do not divide batches of .*train split"):
        search(folder, True, devices=3)
    with pytest.raises(ConfigError, match="--devices 9: this machine has 8"):
        search(folder, True, devices=9)
    assert not list(in_tmp.iterdir())
