"""Whole trainings on a tiny network: files, first weights, exact resumption, odd images, and what a user's mistakes give."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from PIL import Image
from test_search_steps import bands, images

import dnas
from dnas import loop, weights
from dnas.arch import Architecture
from dnas.errors import ArchitectureError, ConfigError, DnasError, Interrupted, NotFiniteError, RunError, WeightsError
from dnas.metrics import Evaluation
from dnas.train import TrainConfig, TrainResult, __main__, resume, run

SPACE = tiny.plain_space()
NETWORK = SPACE.fix(tuple(0 for _ in SPACE.choices))
OPTIONS = {"epochs": 3, "batch_size": 16, "devices": 1, "validation": 0.2, "augment": "crop+flip", "ema": 0.9}
FILES = {
    "architecture.json", "weights.safetensors", "preprocessing.json", "evaluation.json", "history.jsonl", "config.json",
    "train.png", "checkpoint",
}  # fmt: skip


@pytest.fixture(autouse=True)
def quick_to_compile(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "other")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("inputs")
    NETWORK.save(path / "net.json")
    pixels, labels = bands()
    np.savez(path / "data.npz", images=pixels, labels=labels, classes=["left", "middle", "right"])
    return path


def train(folder, out, **more) -> TrainResult:
    return run(folder / "net.json", f"npz:{folder / 'data.npz'}", **{**OPTIONS, **more}, out=out, progress=False)


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory) -> TrainResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "other")
        return train(folder, tmp_path_factory.mktemp("runs") / "first")


def test_a_run_leaves_its_files_and_they_agree(finished):
    assert {p.name for p in finished.folder.iterdir()} == FILES
    saved = Architecture.load(finished.folder / "architecture.json")
    assert saved == finished.architecture == NETWORK and saved.metrics["params"] == saved.params
    about = saved.provenance["training"]
    score = json.loads((finished.folder / "evaluation.json").read_text())
    assert about["architecture_sha256"] == score["architecture_sha256"] == NETWORK.fingerprint
    assert score["top1"] == saved.metrics["accuracy"]["top1"] == finished.accuracy.top1 and score["n"] == 19
    assert np.sum(score["confusion"]) == 19 and np.trace(score["confusion"]) / 19 == score["top1"]
    assert about["command"].startswith("python -m dnas.train ") and str(finished.folder) not in json.dumps(saved.to_dict())
    ways = json.loads((finished.folder / "preprocessing.json").read_text())
    assert ways == finished.preprocessing == about["preprocessing"] and ways["labels"] == ["left", "middle", "right"]
    kept = weights.load(finished.folder / "weights.safetensors")
    assert kept.architecture == NETWORK
    assert all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(kept.params), jax.tree.leaves(finished.params), strict=True)
    )
    history = [json.loads(line) for line in (finished.folder / "history.jsonl").read_text().splitlines()]
    assert history == finished.history and [r["epoch"] for r in history] == [1, 2, 3]
    assert all(0 <= r["validation_accuracy"] <= 1 for r in history)
    assert finished.plot().axes


def test_saved_weights_give_the_same_figures_without_training(finished, folder, tmp_path):
    again = run(
        finished.folder,
        f"npz:{folder / 'data.npz'}",
        epochs=0,
        init=("weights", str(finished.folder)),
        devices=1,
        progress=False,
    )
    assert again.evaluation.to_dict() == finished.evaluation.to_dict() and again.preprocessing["normalise"] == "start"


@pytest.mark.parametrize("stop_at", [1, 6])
def test_interrupted_and_resumed_equals_uninterrupted(folder, finished, tmp_path, monkeypatch, stop_at):
    seen, whole_step = 0, jax.block_until_ready

    def counting(value):
        nonlocal seen
        seen += 1
        if seen == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return whole_step(value)

    with monkeypatch.context() as patch:
        patch.setattr(loop.jax, "block_until_ready", counting)
        with pytest.raises(Interrupted, match=r"python -m dnas\.train --resume"):
            train(folder, tmp_path / "cut")
    assert not (tmp_path / "cut" / "architecture.json").exists()
    resume(tmp_path / "cut", progress=False)
    same_files(tmp_path / "cut", finished.folder)


def test_what_on_epoch_raises_stops_the_training_with_everything_saved(folder, finished, tmp_path):
    told = []

    def listen(epoch):
        told.append(epoch)
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough") as stop:
        train(folder, tmp_path / "cut", on_epoch=listen)
    assert "after epoch 1 of the training; everything is saved: python -m dnas.train" in stop.value.__notes__[0]
    resume(tmp_path / "cut", progress=False, on_epoch=told.append)
    same_files(tmp_path / "cut", finished.folder)
    assert [(e.phase, e.epoch, e.epochs) for e in told] == [("training", i, 3) for i in (1, 2, 3)]
    assert told[-1].history == tuple(finished.history) and told[-1].plot().axes


def same_files(one, other):
    for name in FILES - {"checkpoint", "train.png"}:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_bytes(folder, tmp_path):
    """kill -9 of the command, at some step after the first epoch."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "DNAS_PROCESS_SETUP": "0"}
    words = [sys.executable, "-m", "dnas.train", str(folder / "net.json"), "--data", f"npz:{folder / 'data.npz'}"]
    words += ["--epochs", "40", "--batch-size", "8", "--devices", "1", "--checkpoint-s", "0", "--validation", "0.2"]
    subprocess.run([*words, "--out", str(tmp_path / "whole")], env=env, check=True, capture_output=True)
    cut = tmp_path / "cut"
    with subprocess.Popen([*words, "--out", str(cut)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        while child.poll() is None and not (cut / "history.jsonl").exists():
            time.sleep(0.01)
        child.kill()
    assert child.returncode == -signal.SIGKILL and not (cut / "architecture.json").exists()
    subprocess.run([sys.executable, "-m", "dnas.train", "--resume", str(cut)], env=env, check=True, capture_output=True)
    same_files(cut, tmp_path / "whole")


def test_a_classifier_for_other_classes_starts_afresh_and_the_rest_is_kept(finished, tmp_path):
    pixels, labels = bands()
    data = dnas.data.Dataset.from_arrays(pixels, labels % 2, name="two")
    result = run(finished.folder, data, epochs=0, init=("weights", str(finished.folder)), devices=1, progress=False)
    last = f"{len(NETWORK.layers) - 1:02d}"
    assert result.architecture.num_classes == 2 and result.params[last]["linear"]["linear"]["kernel"].shape == (8, 2)
    for name, own in finished.params.items():
        if name != last:
            assert all(
                np.array_equal(a, b) for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(result.params[name]), strict=True)
            )
    other = SPACE.fix((1, *(0 for _ in range(len(SPACE.choices) - 1))))
    with pytest.raises(WeightsError, match=r"of another network .* they differ from layer 1 on"):
        run(other, images(), init=("weights", str(finished.folder)), progress=False)


def test_a_teacher_is_named_by_its_weights(finished, folder):
    result = train(folder, None, teacher=f"{folder / 'net.json'}:{finished.folder}", epochs=1)
    assert len(result.history) == 1
    with pytest.raises(WeightsError, match=r"has no weights\.safetensors"):
        train(folder, None, teacher=str(folder))
    with pytest.raises(ConfigError, match="it distinguishes 3 classes, and the data have 10"):
        run(NETWORK, "digits", teacher=str(finished.folder), progress=False)


@pytest.mark.slow
def test_images_of_odd_sizes_and_a_damaged_file_train_a_network_of_the_zoo(tmp_path, monkeypatch):
    """As a user has them; the damaged file is refused, then left out and listed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(6):
            shape = (int(rng.integers(20, 60)), int(rng.integers(20, 60)), 3)
            pixels = rng.integers(0, 80, shape, dtype=np.uint8) + np.uint8(150 * number)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{i}.{('jpg', 'png')[i % 2]}")
    broken = tmp_path / "set" / "dog" / "broken.jpg"
    broken.write_bytes((tmp_path / "set" / "dog" / "0.jpg").read_bytes()[:300])
    options = dict(
        preset="imagenet", data=f"folder:{tmp_path / 'set'}", resolution=32, epochs=1, batch_size=4, devices=1, validation=0.0,
        augment="resized-crop+flip", progress=False,
    )  # fmt: skip
    with pytest.raises(DnasError, match=r"1 image files cannot be read: .*broken\.jpg"):
        run("mobilenetv3_small_100", **options)
    result = run("mobilenetv3_small_100", **options, bad_images="skip", out=tmp_path / "run")
    assert result.architecture.num_classes == 2 and result.evaluation.n == 2
    assert any("broken.jpg" in text for text in result.warnings)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["skipped"] == [str(broken)]


def test_objects_are_taken_and_arrays_given_stay_the_users(folder, in_tmp):
    _, params, stats = dnas.init(NETWORK, jax.random.key(3))
    result = run(NETWORK, images(), start_from=(params, stats), progress=False, **OPTIONS)
    assert result.folder is None and not list(in_tmp.iterdir())
    assert np.isfinite(jax.tree.leaves(params)[0]).all()  # a step gives its state away, but not this one
    assert "command" in result.architecture.provenance["training"]
    assert result.architecture.provenance["training"]["command"] is None


@pytest.mark.parametrize(
    ("arch", "change", "words"),
    [
        ("", {}, "the network is missing"),
        ("fbnet_d", {}, "unknown network 'fbnet_d'"),
        ("mobilenetv2:width=0.25,resolution=32,stride=3", {}, "stride 3; expected one of 32, 16, 8, 4, 2, 1"),
        (NETWORK, {"data": "digit"}, "digits"),
        (NETWORK, {"init": ("weights", "none.safetensors")}, "none.safetensors"),
        (NETWORK, {"init": ("supernet", "none")}, "no such run folder"),
        (NETWORK, {"normalise": "imagenet", "data": "digits"}, "for RGB images, and digits has 1 channels"),
        (NETWORK, {"devices": 99}, "--devices 99"),
        (NETWORK, {"epoch": 3}, "unknown option 'epoch'"),
    ],
)
def test_a_users_mistakes_are_one_sentence_and_write_nothing(in_tmp, arch, change, words):
    with pytest.raises(DnasError, match=words) as error:
        run(arch, **{"data": images(), "epochs": 1, **change}, progress=False)
    assert "\n" not in str(error.value) and not list(in_tmp.iterdir())


def test_what_cannot_be_resumed_is_refused(folder, finished, tmp_path):
    with pytest.raises(RunError, match="is finished"):
        resume(finished.folder, progress=False)
    with pytest.raises(RunError, match="drop --epochs"):
        __main__.main(TrainConfig(resume=str(finished.folder), epochs=5))
    with pytest.raises(ArchitectureError, match=r"has no architecture\.json"):
        run(tmp_path, images(), progress=False)


def test_a_loss_that_is_not_finite_stops_and_names_the_step(folder, tmp_path):
    with pytest.raises(NotFiniteError, match=r"loss of the training became NaN or infinite"):
        train(folder, tmp_path / "nan", lr=1000.0, weight_decay=9.0, epochs=9)
    assert not (tmp_path / "nan" / "architecture.json").exists()


def test_an_evaluation_counts_right():
    true = np.array([0, 0, 1, 2, 2, 2])
    said = np.array([0, 1, 1, 2, 0, 2])
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (true, said), 1)
    sure = np.array([0.9, 0.5, 0.7, 1.0, 0.35, 0.7])
    found = Evaluation(("a", "b", "c"), confusion, np.array([0, 1, 0, 0, 2, 0]), sure, true == said, 0.5)
    assert found.accuracy.hits == 4 and found.top(2).hits == 5 and found.top(3).hits == 6
    rows = found.table()
    assert [r["recall"] for r in rows] == pytest.approx([1 / 2, 1, 2 / 3]) and rows[0]["mistaken_for"] == "b"
    assert [r["precision"] for r in rows] == pytest.approx([1 / 2, 1 / 2, 1])
    error, _ = found.calibration()
    assert error == pytest.approx((0.1 + 0.5 + 2 * 0.3 + 0 + 0.35) / 6)


def test_confusion_and_rank_are_those_of_the_logits(finished):
    """By hand, image by image, with ties won by the first class as argmax has it."""
    from dnas.metrics import _judged

    net, data = dnas.supernet.Net.of(NETWORK), images()
    x = jax.numpy.asarray(data.test.images[:12], "float32") / 255
    y = jax.numpy.asarray(data.test.labels[:12])
    said, rank, sure, loss = map(np.asarray, _judged(net, finished.params, finished.stats, x, y))
    logits = np.asarray(dnas.apply(net, finished.params, finished.stats, x)[0], np.float64)
    order = np.argsort(-logits, axis=1, kind="stable")
    assert np.array_equal(said, order[:, 0])
    assert np.array_equal(rank, [list(o).index(t) for o, t in zip(order, np.asarray(y), strict=True)])
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(sure, chances.max(1), rtol=1e-5)
    np.testing.assert_allclose(loss, -np.log(chances[np.arange(12), np.asarray(y)]), rtol=1e-4)
    flat = jax.tree.map(lambda v: v * 0, finished.params)
    said, rank, *_ = map(np.asarray, _judged(net, flat, finished.stats, x, y))
    assert np.array_equal(said, np.zeros(12)) and np.array_equal(rank, y)
