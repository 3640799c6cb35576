"""Mangled measurements: the log of ``build``, manifest and logs of ``collect``, the CSV of ``calibrate``: one clear error, or
figures that are finite."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_latency_fuzz import PUT
from test_latency_phone import Engine

from dnas.errors import DnasError, LatencyError, RunError
from dnas.latency import phone
from dnas.latency.benchmark_logs import parse
from dnas.latency.correct import correct
from dnas.latency.measured import read_networks
from dnas.latency.samples import Log

ABOUT = {"space": "x", "threads": 1}
LOG = "".join(
    json.dumps(line) + "\n"
    for line in (
        {"format": "dnas-samples/1", **ABOUT}, {"conditions": {"pinned_cores": 1}}, {"plain": {"op000": ["GELU"]}},
        {"networks": [[0, 1], [1, 0]]}, {"round": {"op000": [0.125, 0], "net00": [1.5, 1]}},
    )
)  # fmt: skip
RUN = "INFO: count=50 first=329 curr=339 min=326 max=340 avg=332.4 std=4 p5=327 median=331 p95=338\n"
NOTES = "# governor=performance pinned=4 khz=1800000 millidegrees=41000 waited_s=0 threads=1\n"
CUTS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from([*PUT, "²", "-1e9", '"a"'])), min_size=1, max_size=3
)
QUICK = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


def mangled(text: str, cuts: list[tuple[float, int, str]]) -> str:
    for at, length, put in cuts:
        place = int(at * len(text))
        text = text[:place] + put + text[place + length :]
    return text


def told(act: Callable[[], Any], *names: str) -> Any:
    """What ``act`` gives, or None where it is a short error that has one of ``names`` in it."""
    try:
        return act()
    except DnasError as problem:
        text = str(problem)
        assert any(name in text for name in names) and "\n" not in text and len(text) < 3000, text
    return None


@QUICK
@given(CUTS)
@example([(0.9, 0, "9" * 5000)])
def test_the_log_of_a_build(tmp_path: Path, cuts: list[tuple[float, int, str]]) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(mangled(LOG, cuts), encoding="utf-8")
    log = told(lambda: Log(path, ABOUT), "samples.jsonl: line ", "is of another measurement: its ", "cannot be used")
    if log is not None:
        assert all(math.isfinite(s.ms) and s.ms >= 0 for found in log.rounds for s in found.values())


def test_a_log_with_a_time_that_is_none_names_its_line(tmp_path: Path) -> None:
    for wrong in ("NaN", "-1", "1e999", "[]", "9" * 400, "true, 0, 0"):
        (tmp_path / "s.jsonl").write_text(LOG.replace("0.125", wrong), encoding="utf-8")
        with pytest.raises(RunError, match="line 5 is no line of a log"):
            Log(tmp_path / "s.jsonl", ABOUT)


@settings(QUICK, max_examples=200)
@given(CUTS)
def test_a_log_of_the_tool(cuts: list[tuple[float, int, str]]) -> None:
    found = told(lambda: parse(mangled(NOTES + RUN, cuts), "op000.txt"), "op000.txt: ")
    assert found is None or 0 < found.ms < 1e9


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of probes with the logs of one pass."""
    folder = tmp_path_factory.mktemp("probed") / "probes"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phone, "runtime", lambda name: Engine())
        phone.write(tiny.tied_space(), folder, 3, 1, 0, lambda done, total: None)
    logs = folder / "logs" / "pass01"
    logs.mkdir(parents=True)
    names = [row["name"] for row in json.loads((folder / "manifest.json").read_text())["probes"]]
    for number, name in enumerate(names):
        (logs / f"{name}.txt").write_text(NOTES + RUN.replace("331", str(100 * (number + 1))), encoding="utf-8")
    (folder / "logs" / "golden").mkdir()
    for path in (folder / "golden").glob("net*.bin"):
        shutil.copy(path, folder / "logs" / "golden")
    return folder


@QUICK
@example([(0.015625, 0, "\\ud800")], "manifest.json")
@given(CUTS, st.sampled_from(["manifest.json", "logs/pass01/op001.txt", "logs/pass01/net00.txt"]))
def test_a_folder_of_probes(probed: Path, cuts: list[tuple[float, int, str]], name: str) -> None:
    path = probed / name
    whole = path.read_text(encoding="utf-8")
    try:
        path.write_text(mangled(whole, cuts), encoding="utf-8")
        found = told(lambda: phone.collect(probed, {"device": "toy"}), Path(name).name)
    finally:
        path.write_text(whole, encoding="utf-8")
    assert found is None or all(0 <= e.ms < 1e9 for e in found.table.entries.values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b["probes"][1].pop("architecture"), r"damaged \(probes\[1\]: architecture is None; expected dict\)"),
        (lambda b: b["probes"][1].update(name="../x"), r"probes\[1\]: name is '\.\./x'; expected letters and digits"),
        (lambda b: b["probes"][1].update(name="launch"), "probes: a name is there twice"),
        (lambda b: b["probes"][-1].update(genotype=[0.5]), r"genotype is \[0\.5\]; expected whole numbers"),
        (lambda b: b["probes"][1]["architecture"].update(layers=[]), r"probes\[1\]: architecture: .*no layers"),
        (lambda b: b["golden"]["net00"].update(largest=0), r"golden\.net00: largest is 0; expected a positive number"),
        (lambda b: b["golden"].update(net99={}), "golden: 'net99' is no probe"),
        (lambda b: b.update(resolution=0.5), r"resolution is 0\.5; expected a whole number"),
        (lambda b: b.pop("versions"), "versions is None; expected dict"),
    ],
)
def test_a_damaged_manifest_names_its_field(probed: Path, change: Callable[[Any], Any], words: str) -> None:
    path = probed / "manifest.json"
    whole = path.read_text(encoding="utf-8")
    body = json.loads(whole)
    change(body)
    try:
        path.write_text(json.dumps(body), encoding="utf-8")
        with pytest.raises(LatencyError, match=words):
            phone.collect(probed, {})
    finally:
        path.write_text(whole, encoding="utf-8")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    space = tiny.tied_space()
    rows = ["architecture,ms,name,family,resolution"]
    for number in range(6):
        space.fix(space.sample(number), f"n{number}").save(folder / f"n{number}.json")
        rows.append(f"n{number}.json,{3.5 + number},net {number},{'ab'[number % 2]},8")
    (folder / "networks.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@QUICK
@given(CUTS)
@example([(0.99, 0, "9" * 5000)])
def test_a_csv_of_networks(measured: Path, cuts: list[tuple[float, int, str]]) -> None:
    text = mangled((measured / "networks.csv").read_text(encoding="utf-8"), cuts)
    (measured / "mangled.csv").write_text(text, encoding="utf-8")
    rows = told(lambda: read_networks(measured / "mangled.csv"), "mangled.csv: line ", "mangled.csv: ")
    if rows is None:
        return
    assert all(0 < row.ms < 1e9 for row in rows)
    table = tiny.table_for(tiny.tied_space())
    found = told(lambda: correct(table, rows), "networks", "no entry for")
    assert found is None or all(math.isfinite(e.ms) and e.ms >= 0 for e in found.entries.values())
