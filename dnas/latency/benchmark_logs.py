"""What TFLite's ``benchmark_model`` prints: times of a call, and which operators no delegate took. All its generations.

Lines may begin with ``INFO: ``. Times are microseconds, those of the profile's tables milliseconds:

    count=50 first=32891 curr=33978 min=32641 max=34005 avg=33209.4 std=450 [p5=.. median=.. p95=..]
    Inference timings in us: Init: 855, First inference: 49060, Warmup (avg): 34825.1, Inference (avg): 33209.4
    Average inference timings in us: Warmup: 76605.9, Init: 9933, no stats: 66767.6                        (old)
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dnas.errors import LatencyError
from dnas.files import shown

_PREFIX = re.compile(r"^\s*(?:INFO|WARNING|ERROR): ")
_PAIR = re.compile(r"(\w+)=(\S+)")
_TIMING = re.compile(r"(First inference|Warmup \(avg\)|Inference \(avg\)|Warmup|Init|no stats): ([0-9.eE+-]+)")
_DELEGATES = re.compile(r"DELEGATE|TfLite\w*Delegate", re.IGNORECASE)
_PREPARING = {"ModifyGraphWithDelegate", "AllocateTensors", "Delegate/ModifyGraphWithDelegate"}
_NOTE = "# "


class BenchmarkLog(NamedTuple):
    """One run. Times in ms; ``calls`` that were timed, None where the tool does not say; ``median_ms``: newer tools only.

    ``delegated``: whether the delegate took the whole graph; None where the log does not say. ``left``: operators that
    no delegate took, of logs with a profile. ``notes``: what the script wrote before (``# name=value``).
    """

    mean_ms: float
    median_ms: float | None
    least_ms: float | None
    most_ms: float | None
    std_ms: float | None
    calls: int | None
    delegated: bool | None
    left: tuple[str, ...]
    notes: dict[str, str]

    @property
    def ms(self) -> float:
        """The median where the tool gives it, else the mean."""
        return self.mean_ms if self.median_ms is None else self.median_ms


def parse(text: str, where: str = "log") -> BenchmarkLog:
    """Read what one run printed. Errors: LatencyError that names ``where`` if it holds no time, or says that it failed.

    >>> found = parse("count=5 first=9 curr=9 min=9 max=9 avg=9\\ncount=50 first=33 curr=31 min=30 max=35 avg=32.5 std=1\\n")
    >>> found.ms, found.calls
    (0.0325, 50)
    """
    lines = [_PREFIX.sub("", line.rstrip("\r")) for line in text.split("\n")]
    runs: list[dict[str, str]] = []
    summary: dict[str, str] = {}
    notes: dict[str, str] = {}
    delegated: bool | None = None
    for line in lines:
        if line.startswith(_NOTE):
            notes |= dict(_PAIR.findall(line))
        elif line.startswith("count="):
            runs.append(dict(_PAIR.findall(line)))
        elif "nference timings in us:" in line:
            summary = dict(_TIMING.findall(line))
        elif "executed by the delegate" in line:
            delegated = "completely executed" in line
    left = _left(lines)
    if left:
        delegated = False
    elif left is not None and delegated is None:
        delegated = True
    if "Benchmarking failed." in lines:
        raise LatencyError(f"{where}: the benchmark says that it failed: {shown(_reason(lines))}")
    run = runs[-1] if runs else {}  # those before it are warm-up
    try:
        us = {name: float(value) for name, value in run.items()}
        mean = us.get("avg", us.get("curr"))  # one call only: count=1 curr=633430
        stated = next((float(summary[n]) for n in ("Inference (avg)", "no stats") if n in summary), None)
        mean = stated if mean is None else mean
    except ValueError:
        raise LatencyError(f"{where}: a time is no number: {shown(run or summary)}") from None
    if mean is None or not 0 < mean < 1e12:
        raise LatencyError(f"{where}: no time of a call in it: {shown(_reason(lines))}")
    if wrong := next((n for n in ("count", "median", "min", "max") if n in us and not 0 < us[n] < 1e12), None):
        raise LatencyError(f"{where}: {wrong} is {shown(run[wrong])}; expected a positive number")
    count = int(us["count"]) if "count" in us else None
    parts = (us.get(n) for n in ("median", "min", "max", "std"))
    median, least, most, std = (None if v is None else v / 1000 for v in parts)
    return BenchmarkLog(mean / 1000, median, least, most, std, count, delegated, left or (), notes)


def _left(lines: list[str]) -> tuple[str, ...] | None:
    """Operators outside of a delegate in the profile of the calls; None where there is no profile.

    The first table under ``Run Order`` that holds operators counts: tables of the set-up come before it, and a delegate
    that profiles itself adds tables of its own after it.
    """
    tables: list[list[str]] = []
    reading = inner = False
    for line in lines:
        if "Delegate internal" in line:
            inner = True
        elif "Operator-wise Profiling Info" in line:
            inner = False
        if "= Run Order =" in line:
            reading = True
            tables.append([])
        elif line.startswith("=") or not line.strip():
            reading = reading and not line.startswith("=")
        elif reading and not inner and line.startswith("\t") and "[node type]" not in line:
            tables[-1].append(line.split("\t")[1].strip())
    calls = [[n for n in table if n not in _PREPARING] for table in tables]
    found = next((table for table in calls if table), None)
    return None if found is None else tuple(n for n in found if not _DELEGATES.fullmatch(n))


def _reason(lines: list[str]) -> str:
    """The last lines that may say what went wrong."""
    said = [line.strip() for line in lines if line.strip() and not line.startswith(_NOTE)]
    telling = [line for line in said if re.search(r"fail|error|not found|cannot|no such|denied", line, re.IGNORECASE)]
    return " / ".join((telling or said)[-2:]) or "it is empty"
