"""Exports: every format computes what Flax does, and what does not is not kept; the command as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from test_fold import filled

from dnas import export, weights
from dnas.arch import Architecture
from dnas.cli import command
from dnas.errors import ExportError
from dnas.export import formats, trained
from dnas.export.__main__ import main
from dnas.export.compare import Difference, Lost
from dnas.export.config import ExportConfig
from dnas.export.whole import Report, Written
from dnas.interchange.timm import Recipe
from dnas.interchange.torch_weights import from_torch
from dnas.ops import SE, ConvOp, DsConvOp, GlobalPoolOp, InvertedResidualOp, LinearOp

OWN = "stablehlo,safetensors,timm"  # what needs no further extra


def network(classes: int = 10, grouped: bool = False) -> Architecture:
    """A network for digits; ``grouped``: with blocks that timm's strings cannot hold."""
    groups = {"expand_groups": 2, "project_groups": 2, "shuffle": 2} if grouped else {}
    block = InvertedResidualOp(in_=8, mid=24, out=8, se=SE(6), residual=True, act="hswish", **groups)
    stem = ConvOp(in_=1, out=8, kernel=3, stride=2, act="hswish")
    layers = (stem, DsConvOp(in_=8, out=8, act="hswish"), block, GlobalPoolOp(), LinearOp(in_=8, out=classes))
    return Architecture(layers, 1, 8, classes, name="toy net")


def run_folder(folder: Path, architecture: Architecture) -> Path:
    """A folder as a finished training leaves it, with weights from a hash."""
    params, stats, _ = filled(architecture)
    as32 = jax.tree.map(lambda leaf: leaf.astype(np.float32), (params, stats))
    weights.save(folder / weights.FILE, architecture, *as32)
    architecture.save(folder / "architecture.json")
    about = weights.preprocessing(architecture, [f"digit {i}" for i in range(10)], (0.3,), (0.25,))
    (folder / weights.PREPROCESSING).write_text(json.dumps(about))
    (folder / "config.json").write_text(json.dumps({"train": {"data": "digits", "data_dir": None}}))
    return folder


def export_command(*args: str) -> int:
    return command("python -m dnas.export", ExportConfig, main, args)


def test_latencies_of_another_precision_or_runtime_are_announced() -> None:
    rows = [
        {"table": "s8.json", "precision": "int8", "runtime": "Caffe2 of 2018"},
        {"table": "server.json", "precision": "float32", "runtime": "LiteRT 2.3.0, XNNPACK"},
    ]
    about = SimpleNamespace(architecture=SimpleNamespace(metrics={"latency": rows}))
    kinds = (("tflite", "float32"), ("tflite", "int8"), ("onnx", "float32"), ("safetensors", "float32"))
    files = tuple(Written(f, p, Path(f"{p}.{f}"), 1, "", None, 0.0, None) for f, p in kinds)
    assert Report(about, files, (), "").notes == (  # type: ignore[arg-type]
        "float32.tflite: the latency by s8.json is int8, not float32, by Caffe2 of 2018",
        "int8.tflite: the latency by s8.json is by Caffe2 of 2018",
        "float32.onnx: the latency by s8.json is int8, not float32, by Caffe2 of 2018",
        "int8.tflite: the latency by server.json is float32, not int8",
        "float32.onnx: the latency by server.json is by LiteRT 2.3.0, XNNPACK",
    )
    about.architecture.metrics = {"latency": "fast"}
    assert Report(about, files, (), "").notes == ()  # type: ignore[arg-type]


def test_a_run_folder_is_exported_and_agrees(in_tmp: Path, capsys: Any) -> None:
    """The README's command: weights, labels, normalisation and images are those of the run; every file reads back."""
    run = run_folder(in_tmp / "run", network())
    assert export_command(str(run), "--to", OWN, "--out", "out", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(Path("out/export.json").read_text())
    assert [f["file"] for f in report["files"]] == ["toy_net.stablehlo", "toy_net.safetensors", "toy_net.timm.safetensors"]
    assert report["compared_on"] == "test images of digits" and report["labels"][3] == "digit 3" and report["mean"] == [0.3]
    for file in report["files"]:
        assert file["difference"]["n"] == 64 and file["difference"]["relative"] <= file["tolerance"] == 1e-4
    sidecar = json.loads(Path("out/toy_net.stablehlo.json").read_text())
    assert sidecar["architecture_sha256"] == network().fingerprint and json.loads(sidecar["std"]) == [0.25]
    assert weights.load("out/toy_net.safetensors").architecture == network()
    recipe = Recipe.from_dict(json.loads(json.loads(Path("out/toy_net.timm.safetensors.json").read_text())["recipe"]))
    assert recipe.architecture().layers == network().layers
    params, stats = from_torch(network(), "out/toy_net.timm.safetensors")
    own = weights.load(run / weights.FILE)
    tiny.assert_close((params, stats), (own.params, own.stats), 0)


def test_what_a_format_cannot_hold_is_refused_and_the_rest_is_written(in_tmp: Path, capsys: Any) -> None:
    run = run_folder(in_tmp / "run", network(grouped=True))
    assert export_command(str(run), "--to", "timm,safetensors,net-config", "--out", "out") == 2
    text = capsys.readouterr()
    assert "error: timm: toy net: layer 2 (ir" in text.err and "channel shuffle" in text.err and "Traceback" not in text.err
    assert sorted(p.name for p in Path("out").iterdir()) == ["export.json", "toy_net.safetensors"]
    assert [f.partition(":")[0] for f in json.loads(Path("out/export.json").read_text())["failed"]] == ["timm", "net-config"]


def test_a_file_that_differs_is_not_left_behind(in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """A writer that gets a weight wrong: no file, also not that of an earlier export, and exit code 2."""
    from dnas.export import stablehlo

    run = run_folder(in_tmp / "run", network())
    write = stablehlo.write

    def wrong(folded: Any, about: Any) -> bytes:
        folded.steps[0].kernel[0, 0] += 0.5
        return write(folded, about)

    Path("out").mkdir()
    Path("out/toy_net.stablehlo").write_text("of yesterday")
    monkeypatch.setattr(stablehlo, "write", wrong)
    assert export_command(str(run), "--to", "stablehlo", "--out", "out") == 2
    assert "stablehlo: the outputs differ from the network's by" in capsys.readouterr().err
    assert [p.name for p in Path("out").iterdir()] == ["export.json"]


def test_without_data_it_says_random(in_tmp: Path) -> None:
    report = export.run(trained.fresh(network()), "safetensors", "out")
    assert "random numbers" in report.images and report.files[0].difference == Difference(64, 0.0, 0.0)
    assert "random" in report.to_dict()["weights"] and report.to_dict()["mean"] == []


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["fbnet_c", "--to", "onnxx"], "--to 'onnxx' is no format; did you mean 'onnx'?"),
        (["fbnet_c", "--to", "safetensors"], "fbnet_c is a network without weights; give --weights"),
        (["fbnet_c", "--to", "safetensors", "--weights", "x.safetensors"], "x.safetensors: no such file"),
        (["fbnet_c", "--to", "safetensors", "--weights", "run"], "these weights are of another network (toy net) than fbnet_c"),
        (["run", "--to", "safetensors", "--precision", "int8"], "--precision int8: none of --to safetensors has it"),
        (["run", "--to", "safetensors", "--precision", "int4"], "--precision 'int4'"),
        (["run", "--to", "safetensors", "--images", "0"], "--images is 0"),
        (["run", "--to", "safetensors", "--weights", "run", "--random-weights"], "contradict each other"),
        (["empty", "--to", "safetensors"], "empty: it has no architecture.json"),
    ],
)
def test_mistakes_are_one_line(args: list[str], words: str, in_tmp: Path, capsys: Any) -> None:
    run_folder(in_tmp / "run", network())
    Path("empty").mkdir()
    assert export_command(*args, "--out", "out") == 2
    text = capsys.readouterr().err
    assert words in text and text.startswith("error: ") and text.count("\n") == 1
    assert not Path("out").exists()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    format = formats.Format("onnx", ".onnx", "dnas.export.onnx", "onnx", ("no_such_package",))
    with pytest.raises(ExportError, match=r"--to onnx needs no_such_package: pip install 'dnas\[onnx\]'"):
        format.load()


def test_differences_are_never_hidden() -> None:
    one = np.ones((2, 3))
    assert Difference.of(one, one) == Difference(2, 0.0, 0.0)
    assert Difference.of(one[:, :2], one).relative == np.inf and Difference.of(one * np.nan, one).relative == np.inf


def test_accuracy_lost_by_hand() -> None:
    """Four images: one is lost, one is won, so none is; with three lost of four it is 75 points."""
    labels = np.array([0, 0, 1, 1])
    right, wrong = np.eye(2)[labels], np.eye(2)[1 - labels]
    mixed_a, mixed_b = np.concatenate([wrong[:1], right[1:]]), np.concatenate([right[:1], wrong[1:2], right[2:]])
    assert Lost.of(mixed_a, mixed_b, labels).lost == 0
    found = Lost.of(np.concatenate([right[:1], wrong[1:]]), right, labels)
    assert found.lost == 0.75 and found.network.top1 == 1 and found.file.top1 == 0.25
    assert found.interval95[0] < 0.75 < found.interval95[1]
    assert Lost.of(right, right, labels).interval95 == (0, 0)
