"""``probe`` and ``collect`` with a made-up ``adb`` and ``benchmark_model``, whose times are known; logs of all forms."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from test_latency_build import LAUNCH_MS, Made, op_ms

from dnas.errors import LatencyError, RunError
from dnas.latency import phone
from dnas.latency.benchmark_logs import parse

ADB = """#!/bin/sh
# the "phone" is this machine
case $1 in
  get-state) echo device ;;
  shell) shift
    case "$*" in
      "getprop ro.product.manufacturer") echo Toy ;;
      "getprop ro.product.model") echo Phone ;;
      getprop*) echo ;;
      *) exec sh -c "$*" ;;
    esac ;;
  push) shift
    for last; do :; done
    while [ $# -gt 1 ]; do cp -r "$1" "$last"; shift; done ;;
  pull) cp -r "$2" "$3" ;;
esac
"""
TOOL = """#!{python}
import json, pathlib, sys
options = dict(a[2:].split("=", 1) for a in sys.argv[1:])
name = pathlib.Path(options["graph"]).stem
known = json.loads(pathlib.Path({times!r}).read_text())
if name not in known:
    print("ERROR: Failed to apply XNNPACK delegate.\\nBenchmarking failed.")
    sys.exit(1)
us, whole, golden = known[name]
print("INFO: STARTING!\\nINFO: Use xnnpack: [1]")
part = "completely executed by the delegate." if whole else "partially executed by the delegate w/ 2 delegate kernels."
print("INFO: Explicitly applied XNNPACK delegate, and the model graph will be " + part)
print("INFO: count=3 first=%d curr=%d min=%d max=%d avg=%g std=1" % (9 * us, us, us, 9 * us, 4 * us))
print("INFO: count=%s first=%d curr=%d min=%d max=%d avg=%g std=7" % (options["num_runs"], us, us, us, 2 * us, us))
print("INFO: Inference timings in us: Init: 855, First inference: 49, Warmup (avg): 34.5, Inference (avg): %g" % us)
if options.get("enable_op_profiling") == "true":
    head = "\\t[node type]\\t[start]\\t[first]\\t[avg ms]\\t[%]\\t[cdf%]\\t[mem KB]\\t[times called]\\t[Name]"
    print("Profiling Info for Benchmark Initialization:")
    print("============================== Run Order ==============================")
    print(head + "\\n\\tModifyGraphWithDelegate\\t0\\t1\\t1\\t50%\\t50%\\t0\\t1\\tModifyGraphWithDelegate/0\\n")
    print("Operator-wise Profiling Info for Regular Benchmark Runs:")
    print("============================== Run Order ==============================")
    left = "" if whole else "\\n\\tCUMSUM\\t0\\t1\\t1\\t50%\\t90%\\t0\\t1\\t[y]:2"
    print(head + "\\n\\tDELEGATE\\t0\\t1\\t1\\t50%\\t50%\\t0\\t1\\t[x]:1" + left)
if "output_filepath" in options and golden:
    assert options["input_layer"] == "images" and options["input_layer_shape"] == "1,8,8,3", options
    assert len(pathlib.Path(options["input_layer_value_files"].split(":")[1]).read_bytes()) == 4 * 8 * 8 * 3
    pathlib.Path(options["output_filepath"]).write_bytes(pathlib.Path(golden).read_bytes())
"""


class Engine(Made):
    """Files that name their network, in place of TensorFlow's."""

    suffix = ".tflite"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(phone, "runtime", lambda name: Engine())
    out = tmp_path / "probes"
    seen: list[tuple[int, int]] = []
    count = phone.write(tiny.plain_space(), out, 4, 3, 0, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (count, count) and len(list((out / "models").iterdir())) == count
    return out


def measure(folder: Path, tmp_path: Path, lacking: str = "", partly: str = "", wrong: str = "") -> str:
    """Run the script as a user does, on the made-up phone; what it said."""
    rows = json.loads((folder / "manifest.json").read_text())["probes"]
    made, known = Engine(), {}
    for row in rows:
        call = made.open(json.dumps(row["architecture"]).encode()).bind  # type: ignore[attr-defined]
        before = made.now
        size = row["architecture"]["input"]
        call(np.zeros((1, size["resolution"], size["resolution"], size["channels"]), np.float32))()
        name = row["name"]
        golden = folder / "golden" / f"{name}.bin"
        if name == wrong:
            other = tmp_path / "wrong.bin"
            other.write_bytes((1.5 * np.fromfile(golden, np.float32)).astype(np.float32).tobytes())
            golden = other
        if name != lacking:
            known[name] = [(made.now - before) / 1000, name != partly, str(golden) if golden.exists() else ""]
    bin_, times = tmp_path / "bin", tmp_path / "times.json"
    bin_.mkdir(exist_ok=True)
    times.write_text(json.dumps(known))
    for name, text in (("adb", ADB), ("benchmark_model", TOOL.format(python=sys.executable, times=str(times)))):
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    remote = tmp_path / "phone"
    more = {"PATH": f"{bin_}:{os.environ['PATH']}", "BENCHMARK_MODEL": str(bin_ / "benchmark_model"), "REMOTE": str(remote)}
    done = subprocess.run(
        ["sh", str(folder / "run.sh")], env=os.environ | more, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_table_comes_back_from_the_phone(folder: Path, tmp_path: Path) -> None:
    measure(folder, tmp_path)
    found = phone.collect(folder, {"runtime": "TFLite 2.16, XNNPACK", "licence": "CC0-1.0"})
    table = found.table
    assert not found.partly and not found.problems and not found.wrong and found.checked == 4
    assert (
        table.device == "Toy Phone"
        and table.threads == 1
        and table.status == "measured"
        and table.runtime.startswith("TFLite 2")
    )
    for key, entry in table.entries.items():
        assert entry.ms == pytest.approx(op_ms(key), rel=1e-3) and entry.count == 3
    assert table.constant_ms == pytest.approx(LAUNCH_MS, rel=1e-3) and table.error["kendall_tau_b"] == 1
    keys = {c.op.price_fields(s.shape_of(c)) for s in tiny.plain_space().slots for c in s.candidates if c.op.primitives()}
    assert set(table.entries) == keys
    assert "there" in measure(folder, tmp_path)  # finished passes are not measured again


def test_what_went_wrong_is_told(folder: Path, tmp_path: Path) -> None:
    measure(folder, tmp_path, lacking="op001", partly="op002", wrong="net01")
    found = phone.collect(folder, {})
    assert dict(found.partly) == {"op002": ("CUMSUM",)} and list(found.wrong) == ["net01"]
    assert any("op001: no time of it in any pass" in p for p in found.problems)
    assert any("Failed to apply XNNPACK delegate" in p for p in found.problems)
    assert found.wrong["net01"] == pytest.approx(0.5, rel=1e-5)
    (folder / "logs" / "pass01" / "op003.txt").write_text("count=x avg=fast\n")
    assert any("a time is no number" in p for p in phone.collect(folder, {}).problems)
    (folder / "logs" / "device.txt").unlink()
    with pytest.raises(LatencyError, match="the logs do not name the phone: say --device"):
        phone.collect(folder, {})
    shutil.rmtree(folder / "logs")
    with pytest.raises(LatencyError, match=r"no logs; run .*run\.sh with a phone connected"):
        phone.collect(folder, {})
    (folder / "manifest.json").write_text('{"format": "dnas-probes/1", "probes": [{}]}')
    with pytest.raises(LatencyError, match="damaged"):
        phone.collect(folder, {})
    with pytest.raises(RunError, match="is not empty; expected a new folder"):
        phone.write(tiny.plain_space(), folder, 0, 1, 0, lambda done, total: None)


@pytest.mark.parametrize(
    ("text", "ms", "calls", "delegated"),
    [
        ("count=9 first=1 curr=1 avg=1 std=0\ncount=50 first=32891 curr=33978 min=32641 max=34005 avg=33209.4 std=450\n"
         "Inference timings in us: Init: 855, First inference: 49060, Warmup (avg): 34825.1, Inference (avg): 33209.4\n",
         33.2094, 50, None),
        ("INFO: count=50 first=9 curr=8 avg=899641 std=1549 p5=898333 median=899281 p95=904305\n", 899.281, 50, None),
        ("INFO: count=1 curr=633430\n", 633.43, 1, None),
        ("Average inference timings in us: Warmup: 76605.9, Init: 9933, no stats: 66767.6\r\n", 66.7676, None, None),
        ("and the model graph will be completely executed by the delegate.\ncount=5 avg=10\n", 0.01, 5, True),
    ],
    ids=["plain", "percentiles", "one call", "old", "delegated"],
)  # fmt: skip
def test_every_form_of_log_is_read(text: str, ms: float, calls: int | None, delegated: bool | None) -> None:
    found = parse(text)
    assert (found.ms, found.calls, found.delegated) == (pytest.approx(ms), calls, delegated)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no time of a call in it: 'it is empty'"), ("count=5 avg=nan\n", "no time of a call"),
        ("count=5 avg=-3\n", "no time of a call"), ("sh: ./benchmark_model: not found\n", "not found"),
        ("Failed to load the model\nBenchmarking failed.\ncount=5 avg=3\n", "says that it failed"),
    ],
)  # fmt: skip
def test_logs_without_a_time_are_refused(text: str, problem: str) -> None:
    with pytest.raises(LatencyError, match=problem):
        parse(text, "some.txt")


def test_the_scripts_are_sound() -> None:
    scripts = [Path(phone.__file__).with_name(name) for name in phone.SCRIPTS]
    for script in scripts:
        subprocess.run(["sh", "-n", str(script)], check=True)
    if tool := shutil.which("shellcheck"):
        subprocess.run([tool, *map(str, scripts)], check=True)
