"""``build``, ``probe`` and ``collect`` of ``python -m dnas.latency``: each prints, and returns the exit code."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from dnas.errors import ConfigError
from dnas.latency.options import Build, Collect, Probe
from dnas.latency.printing import percent, plain_lines, print_json, print_lines
from dnas.latency.table import PLAIN, LatencyTable


def build_table(given: Build) -> int:
    """Measure, write the table, say how far sums of entries are off."""
    from rich.console import Console

    from dnas.latency.build import Wanted, build
    from dnas.space import load_space

    wanted = Wanted(given.runtime, given.threads, given.repeats, given.networks, given.seed)
    about: dict[str, Any] = {"source": {k: v for k in ("who", "licence") if (v := getattr(given, k))}}
    about |= {"device": given.device} if given.device else {}
    start = time.monotonic()
    table = build(load_space(given.space), wanted, given.out, about, None if given.json else Console(stderr=True))
    if given.json:
        return print_json({"out": given.out, "seconds": round(time.monotonic() - start, 1), **_facts(table)})
    _report(table)
    plain_lines(table, 1)
    print(f"{'written':<12}{given.out}: {table.summary()}")
    return 0


def write_probes(given: Probe) -> int:
    """Write the folder, and say what to do with it."""
    from rich.console import Console

    from dnas.console import progress
    from dnas.latency import phone
    from dnas.space import load_space

    for name, least in (("networks", 0), ("passes", 1), ("seed", 0)):
        if not least <= (value := getattr(given, name)) <= 1000:
            raise ConfigError(f"--{name} is {value}; expected a whole number from {least} to 1000")
    space, folder = load_space(given.space), Path(given.out)
    with progress(console=None if given.json else Console(stderr=True)) as shown:
        task = shown.add_task("probes", total=None)

        def each(done: int, total: int) -> None:
            shown.update(task, completed=done, total=total)

        count = phone.write(space, folder, given.networks, given.passes, given.seed, each)
    if given.json:
        return print_json({"out": given.out, "probes": count, "networks": given.networks, "passes": given.passes})
    print(f"{'written':<12}{folder}: {count} probes of {space.name}, {given.networks} of them whole networks")
    print(f"{'next':<12}BENCHMARK_MODEL=path/to/benchmark_model sh {folder / 'run.sh'}   # with the phone connected")
    print(f"{'then':<12}python -m dnas.latency collect {folder} --out mine.json")
    return 0


def collect_logs(given: Collect) -> int:
    """Write the table; 1 if logs were missing or outputs were wrong."""
    from dnas.latency import phone

    about = {k: getattr(given, k) for k in ("device", "runtime", "who", "licence")}
    found = phone.collect(Path(given.folder), about)
    found.table.save(given.out)
    bad = bool(found.problems or found.wrong)
    if given.json:
        print_json({
            "out": given.out, **_facts(found.table), "problems": list(found.problems), "wrong_outputs": dict(found.wrong),
            "outputs_compared": found.checked,
        })  # fmt: skip
        return int(bad)
    _report(found.table)
    plain_lines(found.table)
    print_lines("problem", found.problems)
    print_lines("wrong", [f"{name}: its output is {share:.1%} of the largest off" for name, share in found.wrong.items()])
    print(f"{'outputs':<12}{found.checked} networks compared with the golden ones, {len(found.wrong)} wrong")
    print(f"{'written':<12}{given.out}: {found.table.summary()}")
    return int(bad)


def _facts(table: LatencyTable) -> dict[str, Any]:
    facts = {"device": table.device, "runtime": table.runtime, "entries": len(table.entries), "error": dict(table.error)}
    return facts | {PLAIN: table.source.get(PLAIN, {})}


def _report(table: LatencyTable) -> None:
    """How well sums of entries predict whole networks."""
    threads = "" if table.threads is None else f", {table.threads} thread{'s' if table.threads > 1 else ''}"
    print(f"{'measured':<12}{len(table.entries)} ops on {table.device}, {table.runtime}{threads}")
    if "calibration" not in table.error:
        return
    error, found = table.error, table.error["calibration"]
    ms = [row["measured_ms"] for row in found["networks"].values()]
    print(f"{'networks':<12}{len(ms)}, {min(ms):.4g} to {max(ms):.4g} ms; Kendall tau-b {error['kendall_tau_b']:.3f}")
    print(f"{'bias':<12}{error['bias']:+.1%} (sum of entries / measured - 1, mean)")
    for name, row in found["leave_one_out"].items():
        mark = "  <- used" if name == found["form"] else ""
        print(f"{'error':<12}{name:<16}{percent(row['mean'])} mean, {percent(row['worst'])} worst, leave one out{mark}")
    print_lines("warning", error["warnings"])
