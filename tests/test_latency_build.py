"""``python -m dnas.latency build`` on a machine that is made up, whose times are known; and on this one, with XLA."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from rich.console import Console

from dnas.arch import Architecture
from dnas.cli import command
from dnas.errors import ConfigError, Interrupted, LatencyError, RunError
from dnas.latency import LatencyTable, build, probes, timing
from dnas.latency.__main__ import Latency, main
from dnas.latency.check import check
from dnas.latency.options import Show
from dnas.latency.probes import LAUNCH
from dnas.latency.terms import price
from dnas.latency.timing import Clock
from dnas.space import Space

LAUNCH_MS = 0.125
SPACES = [*tiny.SPACES, tiny.width_space]


class Made:
    """A runtime whose calls take ``launch + factor x (sum of the ops' times)``; one op in four is noisy."""

    suffix, own_thread = ".json", False

    def __init__(self, factor: float = 1.0, stop: Callable[[int], bool] = lambda call: False, plain: str = ""):
        self.factor, self.stop, self.now, self.calls, self.written, self.plain = factor, stop, 0, 0, 0, plain
        self.clock = Clock(lambda: self.now, lambda: 0)

    def version(self) -> str:
        return "Made 1"

    def write(self, network: Architecture, params: Any, stats: Any) -> bytes:
        assert params.keys() >= stats.keys()
        self.written += 1
        return network.to_json().encode()

    def open(self, model: bytes, threads: int = 1) -> Any:
        network = Architecture.from_dict(json.loads(model))
        if network.name == LAUNCH:
            work = 0.0
        else:
            work = sum(
                op_ms(op.price_fields(s)) for op, s in zip(network.layers, network.shapes, strict=False) if op.primitives()
            )
        factor = self.factor if network.num_classes else 1.0  # of whole networks
        made = self

        class Runner:
            kernels_left = ("GELU", "GELU") if network.name == made.plain else ()

            def bind(self, images: np.ndarray) -> Callable[[], object]:
                assert images.shape == (1, *network.shapes[0]) and images.dtype == np.float32
                return self.call

            def call(self) -> None:
                made.calls += 1
                if made.stop(made.calls):
                    raise KeyboardInterrupt
                made.now += round(1e6 * (LAUNCH_MS + factor * work))

        return Runner()


def op_ms(key: Any) -> float:
    """Between 0.25 and 1.25 ms, the same in every process."""
    return 0.25 + int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:2]) / 65536


def made_table(
    made: Made, monkeypatch: pytest.MonkeyPatch, out: Path, space: Space | None = None, **wanted: Any
) -> LatencyTable:
    monkeypatch.setattr(build, "runtime", lambda name: made)
    return build.build(
        space or tiny.plain_space(), build.Wanted(**{"repeats": 6, "networks": 5} | wanted), out, clock=made.clock
    )


@pytest.mark.parametrize("make", SPACES, ids=lambda f: f.__name__)
def test_every_op_of_a_space_is_measured_and_the_sums_are_the_networks(
    make: Callable[[], Space], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    space = make()
    table = made_table(Made(), monkeypatch, tmp_path / "t.json", space)
    assert table.status == "measured" and table.constant_ms == LAUNCH_MS and table.resolutions == (8, 8)
    for key, entry in table.entries.items():
        assert entry.ms == entry.ms_p10 == entry.ms_p90 == pytest.approx(op_ms(key), rel=1e-5) and entry.count == 6
    price(space, table)  # no candidate lacks a price
    verdict = check(LatencyTable.load(tmp_path / "t.json"), space)
    assert not [p for p in verdict.problems if "less than the" not in p]  # made-up times may fall as work grows
    error = table.error
    assert error["kendall_tau_b"] == 1 and abs(error["bias"]) < 1e-4 and error["calibration"]["form"] == "as it is"
    assert max(row["worst"] for row in error["calibration"]["leave_one_out"].values() if row["worst"]) > 1e-3
    assert error["calibration"]["leave_one_out"]["as it is"]["worst"] < 1e-4  # a + b x MACs is not as good


def test_a_machine_whose_networks_are_faster_than_their_ops_is_corrected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = made_table(Made(factor=0.75), monkeypatch, tmp_path / "t.json", networks=8)
    found = table.error["calibration"]
    assert found["form"] == "scale + offset" and found["scale"] == pytest.approx(0.75, rel=1e-4)
    assert found["leave_one_out"]["scale + offset"]["mean"] < 1e-4 < found["leave_one_out"]["scale"]["mean"]
    assert 0.2 < table.error["bias"] < 0.34 and table.error["kendall_tau_b"] == 1
    for key, entry in table.entries.items():
        assert entry.ms == pytest.approx(0.75 * op_ms(key), rel=1e-4)
    for name, row in found["networks"].items():
        network = tiny.plain_space().fix(table.source["networks"][name])
        assert table.latency_ms(network) == pytest.approx(row["measured_ms"], rel=1e-4)


def test_ops_lost_in_the_noise_of_an_empty_call_make_no_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys.modules[__name__], "op_ms", lambda key: 0.0)
    with pytest.raises(LatencyError, match=r"none of 9 ops took longer than an empty call, 0\.125 ms; measure"):
        made_table(Made(), monkeypatch, tmp_path / "t.json")
    assert not (tmp_path / "t.json").exists()


def test_a_stopped_build_goes_on_and_gives_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = made_table(Made(), monkeypatch, tmp_path / "whole.json")
    for call in (30, 60, 100):  # in the first rounds, in the others
        with pytest.raises(Interrupted, match=r"stopped after \d+ rounds, which .*t\.json\.build keeps"):
            made_table(Made(stop=lambda n, at=call: n == at), monkeypatch, tmp_path / "t.json")  # type: ignore[misc]
        assert not (tmp_path / "t.json").exists()
    with open(tmp_path / "t.json.build" / "samples.jsonl", "a", encoding="utf-8") as log:
        log.write('{"round": {"op0')  # the machine went down
    last = Made()
    assert made_table(last, monkeypatch, tmp_path / "t.json").to_json() == whole.to_json() and not last.written
    again = Made()
    assert made_table(again, monkeypatch, tmp_path / "t.json").to_json() == whole.to_json() and not again.calls
    assert not (tmp_path / "t.json.build" / "models").exists()


def test_probes_that_plain_kernels_run_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """While it runs, in the table (also of a build that was stopped and went on), and by ``show``."""
    monkeypatch.setattr(build, "runtime", lambda name: made)
    said = Console(file=io.StringIO(), width=200)
    made = Made(plain="op002", stop=lambda call: call == 60)
    wanted, out = build.Wanted(repeats=6, networks=5), tmp_path / "t.json"
    with pytest.raises(Interrupted):
        build.build(tiny.plain_space(), wanted, out, console=said, clock=made.clock)
    what = probes.op_probes(tiny.plain_space())[3].about
    assert f"plain kernels run GELU of op002: {what}" in said.file.getvalue()  # type: ignore[attr-defined]
    made = Made()
    table = build.build(tiny.plain_space(), wanted, out, clock=made.clock)
    assert table.source["not_fully_delegated"] == {what: ["GELU"]}
    assert main(Latency(Show(str(out)))) == 0
    shown = capsys.readouterr().out
    assert f"not whole   {what}: GELU\n" in shown and "1 probe not fully delegated" in shown
    assert main(Latency(Show("pixel1"))) == 0 and "not whole" not in capsys.readouterr().out


def test_a_log_of_another_measurement_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made_table(Made(), monkeypatch, tmp_path / "t.json")
    with pytest.raises(RunError, match=r"is of another measurement: its seed is 0, now 1; delete it, or take another --out"):
        made_table(Made(), monkeypatch, tmp_path / "t.json", seed=1)
    log = tmp_path / "t.json.build" / "samples.jsonl"
    log.write_text(log.read_text().splitlines()[0] + '\n{"round": 3}\n')
    with pytest.raises(RunError, match="line 2 is no line of a log"):
        made_table(Made(), monkeypatch, tmp_path / "t.json")


def test_networks_are_spread_over_the_range() -> None:
    space = tiny.network(
        "deep", *(tiny.OneOf(f"l{i}", tuple(tiny.block(k, e) for k in (3, 5) for e in (1, 4))) for i in range(10))
    )
    terms = price(space, tiny.table_for(space))
    low, high = terms.extreme(1)[0], terms.extreme(-1)[0]
    found = probes.spread(space, terms, 20, seed=3)
    ms = [terms.at(space.assignment(g)) for g in found]
    wanted = low + (np.arange(20) + 0.5) * (high - low) / 20
    np.testing.assert_allclose(ms, wanted, atol=0.6 * (high - low) / 20)
    drawn = [terms.at(space.assignment(space.sample(i))) for i in range(20)]
    assert np.ptp(drawn) < 0.7 * np.ptp(ms)  # what drawing at random would have covered
    assert len(set(found)) == 20 and probes.spread(space, terms, 20, seed=3) == found
    with pytest.raises(LatencyError, match="different networks were found over its range; ask for fewer"):
        probes.spread(tiny.tied_space(), price(tiny.tied_space(), tiny.table_for(tiny.tied_space())), 20, seed=0)


def test_probes_have_the_shapes_of_their_places() -> None:
    space = tiny.plain_space()
    found = probes.op_probes(space)
    assert found[0].name == LAUNCH and found[0].architecture.macs == 1
    keys = {c.op.price_fields(s.shape_of(c)) for s in space.slots for c in s.candidates if c.op.primitives()}
    assert {p.key for p in found[1:]} == keys and len(found) == len(keys) + 1
    for probe in found[1:]:
        (op,) = probe.architecture.layers
        assert op.price_fields(probe.architecture.shapes[0]) == probe.key and probe.architecture.num_classes == 0


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({"repeats": 4}, "--repeats is 4; expected a whole number from 5"), ({"threads": 0}, "--threads is 0"),
        ({"networks": 2}, "--networks is 2; expected 0"), ({"threads": 9999}, "this process may use"),
    ],
)  # fmt: skip
def test_wrong_numbers_are_told(wanted: dict[str, int], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        build.Wanted(**wanted)  # type: ignore[arg-type]


def test_the_figures_of_the_readme_are_those_of_the_tables() -> None:
    from benchmarks.measured_tables import SPACES as MEASURED
    from benchmarks.measured_tables import figures

    text = (Path(__file__).parents[1] / "latency_lut" / "README.md").read_text(encoding="utf-8")
    assert "\n".join(figures([LatencyTable.load(name) for name in MEASURED.values()])) in text


@pytest.mark.slow
def test_the_command_measures_with_xla(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], in_tmp: Path
) -> None:
    dataclasses.replace(tiny.tied_space(), resolution=96).save("space.json")  # ops that take longer than an empty call
    line = "build ./space.json --runtime xla --out t.json --repeats 5 --networks 3 --who me --licence CC0-1.0"
    monkeypatch.setattr(sys, "argv", ["dnas.latency", *line.split()])
    monkeypatch.setattr(build, "clock_for", lambda engine, threads: Clock(switches=lambda: 0))  # on a busy machine, too,
    monkeypatch.setattr(timing, "SLOW", math.inf)  # of which every sample is kept
    assert command("python -m dnas.latency", Latency, main) == 0
    out = capsys.readouterr().out
    assert "Kendall tau-b" in out and "written     t.json: " in out and "leave one out" in out
    table = LatencyTable.load("./t.json")
    assert table.source["who"] == "me" and table.runtime.startswith("XLA of jax") and table.threads == 1
    assert all(e.ms >= 0 and e.count == 5 for e in table.entries.values()) and any(e.ms for e in table.entries.values())
