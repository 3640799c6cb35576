"""python -m dnas.describe: rows add up to totals, prices to latencies; what differs between two networks; notebooks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from dnas import zoo
from dnas.arch import Architecture
from dnas.cli import command
from dnas.describe import DescribeConfig, differences, main, rows
from dnas.latency import LatencyTable
from dnas.ops import OPS
from dnas.space import load_space


def run(capsys: pytest.CaptureFixture[str], *words: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command."""
    monkeypatch.setattr("sys.argv", ["describe", *words])
    code = command("describe", DescribeConfig, main)
    return code, *capsys.readouterr()


def test_rows_of_every_network_add_up() -> None:
    seen = set()
    for name in zoo.names():
        network = Architecture.load(name)
        table = rows(network)
        assert sum(r.params for r in table) == network.params and sum(r.macs for r in table) == network.macs
        assert [r.input for r in table[1:]] == [r.output for r in table[:-1]]
        assert all(r.text.startswith(r.op) for r in table)
        seen |= {r.op for r in table}
    assert seen == set(OPS)


def test_rows_read_like_the_paper() -> None:
    texts = [r.text for r in rows(Architecture.load("mobilenetv3_large_100"))]
    assert texts[:6] == [
        "conv k3 hswish", "ds_conv k3 relu +", "ir k3 e4 relu", "ir k3 e3 relu +", "ir k5 e3 se24 relu", "ir k5 e3 se32 relu +",
    ]  # fmt: skip
    assert "tucker k3 i0.25 o0.75 relu6 +" in [r.text for r in rows(Architecture.load("mobiledet_dsp"))]


def test_table_json_and_files(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, in_tmp: Path) -> None:
    lut = tiny.table_for(tiny.plain_space(), constant_ms=0.25)
    lut.save("toy.json")
    network = tiny.plain_space().fix((0, 0))
    network.save("net.json")
    code, text, _ = run(capsys, "net.json", "--lut", "./toy.json", monkeypatch=monkeypatch)
    assert code == 0 and f"{lut.latency_ms(network):.4f}" in text and "once per network" in text
    assert len(max(text.splitlines(), key=len)) < 1000 and "…" not in text
    code, text, _ = run(capsys, "net.json", "--lut", "./toy.json", "--json", monkeypatch=monkeypatch)
    body: dict[str, Any] = json.loads(text)
    assert code == 0 and body["params"] == network.params == sum(row["params"] for row in body["layers"])
    ms = sum(row["ms"]["toy.json"] for row in body["layers"])
    assert ms + 0.25 == pytest.approx(body["latency"]["toy.json"]["latency_ms"]) == pytest.approx(lut.latency_ms(network))
    assert Architecture.from_dict(network.to_dict() | {"layers": [row["fields"] for row in body["layers"]]}) == network
    code, text, _ = run(capsys, "mobilenetv2_100", "--resolution", "96", "--json", monkeypatch=monkeypatch)
    assert json.loads(text)["macs"] == Architecture.load("mobilenetv2_100").at(96).macs


def test_list_of_networks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _, text, _ = run(capsys, monkeypatch=monkeypatch)
    assert [line.split()[0] for line in text.splitlines()] == zoo.names()
    _, text, _ = run(capsys, "--json", monkeypatch=monkeypatch)
    assert [row["name"] for row in json.loads(text)] == zoo.names()


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, in_tmp: Path) -> None:
    Path("broken.json").write_text("{", encoding="utf-8")
    for words, wanted in (
        (("fbnet_d",), "did you mean"), (("./none.json",), "no such file"), (("broken.json",), "not JSON"),
        (("fbnet_c", "--lut", "s9"), "unknown latency table"), (("fbnet_c", "--resolution", "0"), "resolution is 0"),
        (("fbnet_c", "--lut", "pixel1.json"), "has no entry for"),
        (("fbnet_c", "--lut", "pixel1", "--lut", "pixel1"), "two tables"),
    ):  # fmt: skip
        code, out, error = run(capsys, *words, monkeypatch=monkeypatch)
        assert (code, out) == (2, "") and wanted in error and error.count("\n") == 1, words


def test_differences() -> None:
    network = Architecture.load("fbnet_c")
    assert differences(network, network) == [] == differences(network, dataclasses.replace(network, name="other"))
    smaller = network.at(192)
    assert [str(d) for d in differences(network, smaller)] == ["resolution: 224 -> 192"]
    changed = dataclasses.replace(network.layers[5], kernel=7)
    layers = (*network.layers[:3], *network.layers[4:5], changed, *network.layers[6:])  # without the skip at 3
    found = differences(network, dataclasses.replace(network, layers=layers))
    assert [str(d) for d in found] == [
        "layer 3: only in the first: skip(in=24, out=24)", f"layer 5 / 4 (ir): kernel={network.layers[5].kernel} -> kernel=7",
    ]  # fmt: skip


def test_two_networks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _, text, _ = run(capsys, "mobilenetv2_100", "mobilenetv2:width=1.0", monkeypatch=monkeypatch)
    assert text.splitlines()[-1] == "no difference"
    _, text, _ = run(capsys, "fbnet_c", "fbnetc_100", "--json", monkeypatch=monkeypatch)
    body = json.loads(text)
    assert [n["name"] for n in body["networks"]] == ["fbnet_c", "fbnetc_100"]
    assert any(d["where"] == "layer 3" and d["second"] is None for d in body["differences"])


def test_notebooks_show_tables() -> None:
    network = Architecture.load("fbnet_c")
    shown = network._repr_html_()
    assert shown.count("<tr>") == len(network.layers) + 2 and f"{network.params:,}" in shown and "75.2499" in shown
    space = load_space("fbnet_mini")
    assert space._repr_html_().count("<tr>") == len(space.slots) + 1
    assert "Galaxy S8" in LatencyTable.load("samsung_s8")._repr_html_()
    odd = dataclasses.replace(network, name="<script>")
    assert "<script>" not in odd._repr_html_()


def test_a_search_result_shows_itself() -> None:
    from dnas.evaluate import Accuracy
    from dnas.search.results import SearchResult

    network, table = Architecture.load("fbnet_c"), LatencyTable.load("samsung_s8")
    report = table.report(network)
    found = SearchResult(
        network, (0,), [], Accuracy(90, 100, 0.3), Accuracy(40, 50, 0.5), 32, report, {"by": "budget"}, ("<odd>",), None,
        load_space("fbnet"), {}, {},
    )  # fmt: skip
    assert repr(found).startswith("SearchResult(fbnet_c: ") and "90.00%" in repr(found) and len(repr(found)) < 250
    shown = found._repr_html_()
    assert f"{report.total_ms:.4g} ms ({report.interval_ms[0]:.4g} to" in shown and "&lt;odd&gt;" in shown
    assert shown.count("<table>") == 2 and "the best of 32" in shown and network._repr_html_() in shown


def test_figures_show_themselves_in_a_notebook() -> None:
    from dnas.plot.style import new_figure

    assert new_figure(1, 1)._repr_png_()[:4] == b"\x89PNG"  # type: ignore[attr-defined]
