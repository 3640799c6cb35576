"""``python -m dnas.latency``: subcommands, exit codes, what ``check`` finds, the figure, and the shipped tables remade."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_imports import HEAVY, modules_after
from test_latency_files import BODY, body

from dnas.cli import command
from dnas.latency import LatencyTable
from dnas.latency.__main__ import Latency, main
from dnas.latency.check import check
from dnas.latency.find import shipped_tables
from dnas.latency.keys import key_op
from dnas.ops import InvertedResidualOp, Shape
from dnas.plot import latency as plot
from dnas.space import load_space

ROOT = Path(__file__).resolve().parent.parent
ARCHS = ROOT / "tests" / "published" / "archs"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process: (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dnas.latency", *map(str, arguments)])
        code = command("python -m dnas.latency", Latency, main)
        return code, *capsys.readouterr()

    return call


def made() -> list[list[str]]:
    """The commands of latency_lut/make.sh."""
    text = (ROOT / "latency_lut" / "make.sh").read_text(encoding="utf-8")
    at = re.search(r"(?m)^at=(\S+)$", text)
    assert at
    lines = re.findall(r'(?m)^make (.+) "\$@"$', text)
    return [shlex.split(line.replace("$at", at[1])) for line in lines]


# -- shipped tables -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", made(), ids=lambda line: Path(line[line.index("--out") + 1]).stem)
def test_shipped_tables_are_remade_byte_for_byte(run: Run, monkeypatch: pytest.MonkeyPatch, line: list[str]) -> None:
    monkeypatch.chdir(ROOT)
    code, out, _ = run(*line, "--check")
    assert code == 0 and "the same" in out


def test_every_shipped_table_is_made_and_passes_check(run: Run) -> None:
    assert {Path(line[line.index("--out") + 1]).name for line in made()} <= set(shipped_tables())
    for name in shipped_tables():
        code, out, _ = run("check", name)
        assert code == 0 and "nothing wrong" in out, out
        assert LatencyTable.load(name).source["licence"]


def test_check_option_notices_a_difference_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    source = ROOT / "latency_lut" / "sources" / "pixel1_single_path_nas.json"
    line = ("import", source, "--from", "single-path-nas", "--out", tmp_path / "t.json")
    assert run(*line, "--check")[0] == 2 and not (tmp_path / "t.json").exists()
    assert run(*line)[0] == 0 and run(*line, "--check")[0] == 0
    (tmp_path / "t.json").write_bytes((tmp_path / "t.json").read_bytes() + b" ")
    code, out, err = run(*line, "--check", "--json")
    assert code == 1 and "differs" in err and json.loads(out)["entries"] == 40


# -- commands -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", ["--help", "calibrate --help", "list", "check pixel1 --space fbnet_mini", "show pixel1"])
def test_no_command_needs_jax(arguments: str) -> None:
    loaded = modules_after(
        f"import runpy; sys.argv = ['dnas.latency', *{arguments.split()}]\n"
        "    try:\n        runpy.run_module('dnas.latency', run_name='__main__', alter_sys=True)\n"
        "    except SystemExit:\n        pass"  # check ends with 1: its table lacks ops of the space
    )
    assert {"dnas.latency.options", "tyro"} <= loaded and not loaded & set(HEAVY)


def test_wrong_input_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dnas.latency", "show", "samsung_s9"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stderr.startswith("error: unknown latency table 'samsung_s9'; did you mean")
    assert done.stderr.count("\n") == 1 and not done.stdout


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (("check", "./none.json"), "no such file"), (("check", "pixel1", "--space", "fbnett"), "did you mean 'fbnet'"),
        (("check", "pixel1", "--networks", "./none"), "no such file or folder"), (("show", "./none.json"), "no such file"),
        (("import", "none", "--from", "ofa", "--out", "o.json"), "cannot be read"),
        (("import", "none", "--from", "mobile-vision", "--spaces", "fbnet_mini", "--out", "o.json"), "cannot be read"),
        (("calibrate", "pixel1", "--measured", "none.csv", "--out", "o.json"), "none.csv: cannot be read"),
        (("show", "pixel1", "--plot", "figure.nothing"), "--plot figure.nothing: cannot be written"),
    ],
)  # fmt: skip
def test_wrong_arguments(run: Run, in_tmp: Path, line: tuple[str, ...], text: str) -> None:
    code, out, err = run(*line)
    assert code == 2 and text in err and err.startswith("error: ") and err.count("\n") == 1, (out, err)
    assert not list(in_tmp.iterdir())


def test_list_and_show(run: Run, in_tmp: Path) -> None:
    LatencyTable.from_dict(body()).save("mine.json")
    Path("broken.json").write_text('{"format": "dnas-lut/1"}')
    Path("other.json").write_text('{"format": "dnas-arch/1"}')
    rows = json.loads(run("list", "--json")[1])
    assert [r["name"] for r in rows] == [*shipped_tables(), "./broken.json", "./mine.json"]
    assert "missing field" in rows[-2]["problem"] and rows[-1]["device"] == "Toy phone"
    code, out, _ = run("list")
    assert code == 0 and "cannot be read" in out and "./mine.json" in out
    facts = json.loads(run("show", "./mine.json", "--json")[1])
    assert facts["status"] == "measured" and facts["ops"]["ir"] == {"entries": 1, "height": [16, 16], "ms": [2.25, 2.25]}
    code, out, _ = run("show", "pixel1", "--plot", "figure.png")
    assert code == 0 and Path("figure.png").read_bytes()[:4] == b"\x89PNG"
    assert "Apache-2.0" in out and "MnasNet-B1 75.9 ms" in out and "19.5999 ms, which covers 6 ops" in out


def test_import_lists_what_it_could_not_map(run: Run, in_tmp: Path) -> None:
    Path("t.yaml").write_text("Conv-input:8x8x3-output:4x4x4: {count: 1, mean: 2.0}\nOdd-input:1: {count: 1, mean: 1.0}\n")
    line = ("import", "t.yaml", "--from", "ofa", "--out", "t.json", "--device", "d", "--runtime", "r", "--precision", "p")
    code, out, _ = run(*line)
    assert code == 0 and "Odd-input:1: Odd is no layer" in out and "1 of 2 records" in out
    assert LatencyTable.load("./t.json").source["imported"]["not_mapped"][0]["count"] == 1
    assert json.loads(run(*line, "--json")[1])["not_mapped"][0]["name"] == "Odd-input:1"
    assert run("check", "./t.json")[0] == 0


def test_calibrate_writes_a_table_that_passes_check(run: Run, in_tmp: Path) -> None:
    space, lut = load_space("fbnet_mini"), LatencyTable.load("samsung_s8")
    lines = ["architecture,ms"]
    for index in range(6):
        network = space.fix(space.sample(index))
        network.save(f"n{index}.json")
        lines.append(f"n{index}.json,{1.3 * lut.latency_ms(network)}")
    Path("n.csv").write_text("\n".join(lines))
    code, out, _ = run("calibrate", "samsung_s8", "--measured", "n.csv", "--out", "mine.json", "--device", "A phone")
    assert code == 0 and "x 1.3" in out and "a + b x MACs" in out
    mine = LatencyTable.load("./mine.json")
    assert mine.device == "A phone" and mine.latency_ms(network) == pytest.approx(1.3 * lut.latency_ms(network), rel=1e-4)
    assert run("check", "./mine.json", "--space", "fbnet_mini")[0] == 0
    assert json.loads(run("calibrate", "samsung_s8", "--measured", "n.csv", "--out", "m.json", "--json")[1])["networks"] == 6
    for wrong in (("--forms", "MACs"), ("--fit", "--device", "x"), ("--fit", "--blocks", "x")):
        code, _, err = run("calibrate", "samsung_s8", "--measured", "n.csv", "--out", "o.json", *wrong)
        assert code == 2 and ("has no place" in err or "go together" in err), err


# -- check --------------------------------------------------------------------------------------------------------

GOOD = {"source": {"who": "us", "licence": "CC0"}, "error": {"summary": "none"}}


LINEAR = {"op": "linear", "in": 32, "out": 10, "height": 1, "width": 1, "ms": 0.0}


def entry(**changes: Any) -> list[dict[str, Any]]:
    return [*BODY["entries"], BODY["entries"][1] | {"ms_p10": None, "ms_p90": None} | changes]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"source": {"who": "us"}}, "source.licence is missing"),
        ({"error": {}}, "error.summary is missing"),
        ({"status": "regression"}, "a regression is both"),
        ({"entries": []}, "neither entries nor a cost model"),
        ({"constant_covers": [{k: v for k, v in BODY["entries"][0].items() if k != "ms"}], "constant_ms": 1}, "never used"),
        ({"constant_covers": [{"op": "skip", "in": 8, "out": 8, "height": 8, "width": 8}]}, "makes 1 ops free"),
        ({"entries": entry(kernel=7, ms=1.0)}, "takes 1 ms, less than the 2.25 ms with the smaller kernel"),
        ({"entries": entry(mid=48, ms=2.0)}, "with the smaller mid"),
        ({"entries": entry(mid=48, ms=2.2)}, None),  # within 5 %
        ({"entries": entry(height=32, width=32, ms=1.0)}, "with the smaller height"),
        ({"entries": entry(mid=48, ms=0.0)}, "MACs in 0 ms"),
        ({"entries": entry(mid=960, ms=0.0, ms_p90=9.0)}, "MACs in 0 ms"),
        ({"entries": [*BODY["entries"], LINEAR]}, "320 MACs in 0 ms"),
        ({"entries": [*BODY["entries"], LINEAR | {"ms_p90": 1e-5}]}, None),  # in the noise of its measurement
        ({"entries": entry(mid=24, height=32, width=32, ms=9.0, ms_p90=8.0)}, "ms_p90 is 8, on the wrong side"),
        ({"entries": entry(mid=25, expand_groups=3, ms=2.5)}, "no such op is possible"),
        ({"entries": [BODY["entries"][1] | {"ms": 2e-9, "ms_p10": None, "ms_p90": None}]}, "are its times in ms?"),
        ({"entries": entry(mid=48, ms=-5.0), "meaning": "relative_to_skip", "status": "recovered"}, "with the smaller mid"),
        ({"entries": entry(out=16, residual=False, ms=-5.0), "meaning": "relative_to_skip", "status": "recovered"}, None),
    ],
)  # fmt: skip
def test_check_finds(changes: dict[str, Any], problem: str | None) -> None:
    found = check(LatencyTable.from_dict(body(**(GOOD | changes)), "toy.json")).problems
    assert any(problem in p for p in found) if problem else not found, found


def test_check_reports_malformed_files_and_missing_keys_with_exit_code_1(run: Run, in_tmp: Path) -> None:
    Path("bad.json").write_text(json.dumps(body(unit="us")))
    code, out, _ = run("check", "./bad.json")
    assert code == 1 and "unit is 'us'; expected 'ms'" in out
    code, out, _ = run("check", "pixel1", "--space", "fbnet_mini", "--json")
    verdict = json.loads(out)
    assert code == 1 and len(verdict["problems"]) == verdict["space"]["missing"] > 20
    assert all(p.startswith("fbnet_mini: no entry for ") for p in verdict["problems"])


def test_check_gives_range_and_the_networks_that_can_be_priced(run: Run) -> None:
    code, out, _ = run("check", "pixel1", "--networks", ARCHS, "--json")
    networks = json.loads(out)["networks"]
    priced = {name for name, row in networks.items() if row}
    assert code == 0 and priced == {"mnasnet_100", "spnasnet_100"} and len(networks) > 50
    code, out, _ = run("check", "samsung_s8", "--space", "fbnet", "--json")
    space, lut = load_space("fbnet"), LatencyTable.load("samsung_s8")
    assert json.loads(out)["space"]["range_ms"] == list(space.latency_range(lut))


# -- the figure ---------------------------------------------------------------------------------------------------


def test_the_figure_holds_every_entry_with_macs() -> None:
    for name in shipped_tables():
        lut = LatencyTable.load(name)
        found = plot.info(lut)
        assert sum(len(p) for p in found.points.values()) + found.left_out == len(lut.entries)
        wanted = sorted((float(op.macs(shape)), e.ms) for key, e in lut.entries.items() for op, shape in [key_op(key)])
        drawn = sorted((m, t) for points in found.points.values() for m, t in points)
        assert set(drawn) <= set(wanted) and found.absolute == (lut.meaning == "absolute")
        axes = plot.draw(found).axes[0]
        assert axes.get_xscale() == "log" and axes.get_yscale() == ("log" if found.absolute else "linear")
    empty = plot.LatencyInfo({}, "empty $x$", True, 3)
    plot.draw(empty).canvas.draw()


def test_kernels_are_told_apart() -> None:
    found = plot.info(LatencyTable.from_dict(body()))
    assert set(found.points) == {"conv 3x3", "ir 5x5", "linear"} and found.left_out == 1
    op = InvertedResidualOp(in_=8, mid=24, out=8, kernel=5, residual=True)
    np.testing.assert_array_equal(found.points["ir 5x5"], [[op.macs(Shape(16, 16, 8)), 2.25]])


def test_an_op_comes_back_from_its_key() -> None:
    for name in ("fbnet_mini", "fbnet_cifar"):
        for slot in load_space(name).slots:
            for candidate in slot.candidates:
                key = candidate.op.price_fields(slot.in_shape)
                op, shape = key_op(key)
                assert op.price_fields(shape) == key and op.macs(shape) == candidate.op.macs(slot.in_shape)
