"""The whole road as commands, small: search -> weights of the supernet -> train -> ONNX and TFLite -> measured latency."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny

from dnas import data, supernet
from dnas.bench import __main__ as bench
from dnas.bench.config import BenchConfig
from dnas.cli import command
from dnas.config import SearchConfig
from dnas.evaluate import accuracy
from dnas.export import __main__ as export
from dnas.export import trained
from dnas.export.config import ExportConfig
from dnas.latency import LatencyTable
from dnas.search import __main__ as search
from dnas.search import finish
from dnas.train import __main__ as train
from dnas.train import run as train_run
from dnas.train import start
from dnas.train.config import TrainConfig

pytestmark = pytest.mark.slow
HOW = {"search": (SearchConfig, search), "train": (TrainConfig, train), "export": (ExportConfig, export)}


def do(name: str, *args: str | Path) -> None:
    kind, module = HOW[name]
    assert command(f"python -m dnas.{name}", kind, module.main, [*map(str, args)]) == 0


@pytest.fixture(autouse=True, scope="module")
def quick_to_compile() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "other")
        patch.setenv("DNAS_PROCESS_SETUP", "0")
        for name in ("_picture", "_report"):
            patch.setattr(finish, name, lambda *_: None)
        yield


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, quick_to_compile: None) -> Path:
    """The run folder of a search on digits, with its space and its table in files beside it."""
    folder = tmp_path_factory.mktemp("road")
    space = tiny.plain_space().at(num_classes=10)
    space.save(folder / "space.json")
    tiny.table_for(space).save(folder / "lut.json")
    options = ("--epochs", "5", "--train-epochs", "0", "--devices", "1", "--augment", "none", "--derive-samples", "2")
    do("search", "--space", folder / "space.json", "--lut", folder / "lut.json", *options, "--out", folder / "found")
    return folder / "found"


@pytest.fixture(scope="module")
def ready(found: Path) -> Path:
    """The run folder of the training of what was found, from the supernet's weights."""
    out = found.with_name("ready")
    options = ("--epochs", "6", "--devices", "1", "--augment", "none")
    do("train", found, "--init", "supernet", found, *options, "--out", out)
    return out


def test_weights_of_a_search_run_are_those_it_measured(found: Path) -> None:
    """What a run folder holds gives the accuracy that the run reports."""
    kept, digits = trained.load(found), data.load("digits")
    assert kept.labels == digits.classes and kept.mean == digits.mean
    feed = data.Feed(digits.test, batch_size=64, resolution=8, channels=3, mean=kept.mean, std=kept.std)
    again = accuracy(supernet.Net.of(kept.architecture), kept.params, kept.stats, feed)
    reported = kept.architecture.metrics["accuracy"]
    assert again.n == reported["n"] == 359 and again.top1 == reported["top1"]


def test_weights_of_the_supernet_are_inherited_bit_for_bit_and_worth_it(found: Path) -> None:
    """Each tensor is the supernet's at the chosen candidate; measured without training, it beats fresh weights."""
    from dnas import checkpoint
    from dnas.space import load_space

    space, network = load_space(str(found.with_name("space.json"))), trained.load(found).architecture
    kept = checkpoint.newest(found / "supernet")
    assert kept is not None
    like = supernet.init(space, jax.random.key(0))[1:]
    whole = checkpoint.load(kept, {"params": like[0], "stats": like[1]})
    taken = dict(zip(("params", "stats"), start.inherited(str(found), network), strict=True))
    fresh = dict(zip(("params", "stats"), supernet.init(network, jax.random.key(0))[1:], strict=True))
    assert jax.tree.structure(taken) == jax.tree.structure(fresh)
    for path, leaf in jax.tree_util.tree_leaves_with_path(taken):
        wanted = whole
        for part in path:
            wanted = wanted[part.key]
        assert np.array_equal(leaf, wanted), jax.tree_util.keystr(path)
    options: dict[str, Any] = {"epochs": 0, "devices": 1, "progress": False}
    new, inherited = (train_run(found, "digits", init=init, **options) for init in ((), ("supernet", str(found))))
    assert new.accuracy.interval95[1] < inherited.accuracy.interval95[0]


def _needs_runtimes() -> None:
    for package, extra in (("onnxruntime", "onnx"), ("ai_edge_litert", "litert"), ("tensorflow", "litert")):
        pytest.importorskip(package, reason=f"installed for one test job only (extra: {extra})")


def test_from_the_search_to_files_that_agree(found: Path, ready: Path, tmp_path: Path) -> None:
    """ONNX and TFLite give the outputs of each other and the accuracy of the training."""
    _needs_runtimes()
    from dnas.export import onnx, tflite

    do("export", ready, "--to", "onnx,tflite", "--out", tmp_path / "out")
    report = json.loads((tmp_path / "out" / "export.json").read_text())
    network = trained.load(ready)
    assert report["architecture"]["sha256"] == network.architecture.fingerprint == trained.load(found).architecture.fingerprint
    read = {file["format"]: (tmp_path / "out" / file["file"]).read_bytes() for file in report["files"]}
    for module in (onnx, tflite):
        about = module.read_about(read[module.__name__.rpartition(".")[2]])
        assert about["architecture_sha256"] == network.architecture.fingerprint
        assert tuple(json.loads(about["mean"])) == network.mean and json.loads(about["labels"]) == list(network.labels)
    digits = data.load("digits")
    images = np.repeat((digits.test.images / 255 - np.array(network.mean)) / np.array(network.std), 3, -1).astype(np.float32)
    one, other = onnx.run(read["onnx"], images), tflite.run(read["tflite"], images)
    np.testing.assert_allclose(one, other, atol=1e-4 * float(np.abs(one).max()))
    evaluation = json.loads((ready / "evaluation.json").read_text())
    hits = int((one.argmax(1) == digits.test.labels).sum())
    assert abs(hits - round(evaluation["top1"] * 359)) <= 1 and hits > 180  # one image may be a tie within rounding


def test_measured_stands_beside_predicted(found: Path, ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _needs_runtimes()
    lut = found.with_name("lut.json")
    words = [str(ready), "--runtime", "litert,onnxruntime", "--lut", str(lut), "--repeats", "5"]
    capsys.readouterr()
    code = command("python -m dnas.bench", BenchConfig, bench.main, words)
    text = capsys.readouterr()
    if code == 2 and "disturbed by other jobs" in text.err:
        pytest.skip("other jobs disturb the machine: bench refuses to give a figure, as it should")
    assert code == 0 and "LiteRT" in text.out and "ONNX Runtime" in text.out
    predicted = LatencyTable.load(str(lut)).latency_ms(trained.load(ready).architecture)
    assert text.out.count(f"{predicted:.3f}*") == 2 and "was made for device toy phone" in text.out
