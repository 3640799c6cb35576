"""``python -m dnas.compare``: the table says what the runs' files say, and what must not be compared."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import tiny

from dnas.arch import Architecture
from dnas.cli import command
from dnas.compare import CompareConfig, Run, groups, main, to_dict
from dnas.files import dump_json
from dnas.plot.compare import draw, info


def make(folder: Path, seed: int, top1: float, lr: float = 0.1, data: str = "d", table: str = "t") -> str:
    """A run folder as dnas.search leaves it, with made-up figures."""
    network = tiny.plain_space().fix([seed % 4, 1])
    latency = [{"latency_ms": 1.0 + seed, "interval_ms": [0.9 + seed, 1.2 + seed], "table": table, "sha256": table}]
    accuracy = {"top1": top1, "interval95": [top1 - 0.02, top1 + 0.01], "n": 100}
    by = {"space": "tiny", "method": "gumbel", "seed": seed, "target_ms": 1.5, "data_sha256": data}
    body = network.to_dict() | {"metrics": {"accuracy": accuracy, "latency": latency}, "provenance": by}
    folder.mkdir()
    Architecture.from_dict(copy.deepcopy(body)).save(folder / "architecture.json")
    (folder / "config.json").write_text(dump_json({"search": {"seed": seed, "lr": lr, "out": str(folder)}, "inputs": {}}))
    row = {"phase": "search", "entropy": 0.5, "expected_ms": 1.2}
    rows = [row | {"epoch": 1, "argmax_accuracy": 0.2}, row | {"epoch": 2, "argmax_accuracy": 0.3}, {"phase": "training"}]
    (folder / "history.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(folder)


def run(*words: str) -> int:
    return command("dnas.compare", CompareConfig, main, words)


def test_seeds_are_grouped_and_options_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [make(tmp_path / n, s, t, lr) for n, s, t, lr in (("a", 0, 0.8, 0.1), ("b", 1, 0.9, 0.1), ("c", 2, 0.7, 0.2))]
    runs = [Run.load(f) for f in folders]
    assert [[r.name for r in g] for g in groups(runs)] == [["a", "b"], ["c"]]
    assert {r.options["theta_images"] for r in runs} == {"own"}  # the recipe's, where a run of an earlier version does not say
    found = to_dict(runs)
    assert found["differences"] == {"lr": [0.1, 0.1, 0.2]} and found["warnings"] == []
    assert found["groups"][0]["accuracy"] == pytest.approx({"mean": 0.85, "sd": 0.0707107}) and found["groups"][1]["n"] == 1
    assert run(*folders, "--figure", str(tmp_path / "f.png")) == 0
    text = capsys.readouterr().out
    assert "90.00% (88.00% to 91.00%)" in text and "of 2 seeds (a, b): 85.00% (sd 7.07%), 1.5 ms" in text
    assert "differs   --lr: 0.1, 0.1, 0.2" in text
    assert (tmp_path / "f.png").read_bytes()[:4] == b"\x89PNG"
    assert run(*folders, "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found))
    drawn = info(runs)
    assert drawn.curves["argmax_accuracy"]["c"].tolist() == [[1, 0.2], [2, 0.3]] and drawn.targets["a"] == 1.5
    point = drawn.found.series["b"][0]
    assert point.accuracy == 90 and point.cost_interval == (1.9, 2.2) and point.accuracy_interval == pytest.approx((88, 91))
    assert len(draw(drawn).axes) == 3


def test_what_cannot_be_compared_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [make(tmp_path / "a", 0, 0.8), make(tmp_path / "b", 0, 0.8, data="other", table="u")]
    assert run(*folders) == 0
    text = capsys.readouterr().out
    assert "note      The runs are on different images" in text and "Latencies are by 2 different tables (t, u)." in text


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "a", 0, 0.8)
    for words, said in (
        ((), "no run was given"), (("nowhere",), "nowhere: no such run folder"),
        ((folder, "--figure", "x.txt"), "expected a name that ends in .png, .pdf or .svg"),
    ):  # fmt: skip
        assert run(*words) == 2 and said in capsys.readouterr().err
    (tmp_path / "a" / "architecture.json").unlink()
    assert (
        run(folder) == 2
        and f"this search is not finished; run: python -m dnas.search --resume {folder}" in capsys.readouterr().err
    )
