"""The two tables that were measured on a server, and their figures as latency_lut/README.md states them.

    python -m benchmarks.measured_tables --out FOLDER   # measure both (extra: litert; some ten minutes, on a quiet machine)
    python -m benchmarks.measured_tables                # print the figures of those that ship

After an interruption the same command goes on. A measurement does not come out the same twice.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from dnas.errors import DnasError
from dnas.latency import LatencyTable
from dnas.latency.__main__ import Latency
from dnas.latency.__main__ import main as latency
from dnas.latency.options import Build

SPACES = {"fbnet": "epyc_zen4_fbnet.json", "fbnet_cifar": "epyc_zen4_fbnet_cifar.json"}


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure the tables, or print what they say of themselves."""

    out: str | None = None
    """Folder to write the tables to. Default: none is measured, those that ship are read."""
    networks: int = 40
    """Whole networks that check each table."""
    repeats: int = 40
    """Undisturbed samples of every probe."""
    who: str = "the dnas authors"
    """Who measured, for the tables."""


def figures(tables: Sequence[LatencyTable]) -> list[str]:
    """The rows of README's table, one column for each of ``tables``."""
    rows: list[tuple[str, ...]] = [("", *(f"{table.resolutions[0] if table.resolutions else '?'} px" for table in tables))]
    rows.append(tuple("---" for _ in rows[0]))
    columns = [_column(table) for table in tables]
    rows += [(name, *(column[name] for column in columns)) for name in columns[0]]
    return ["| " + " | ".join(row) + " |" for row in rows]


def _column(table: LatencyTable) -> dict[str, str]:
    error: dict[str, Any] = dict(table.error)
    found = error["calibration"]
    ms = [row["measured_ms"] for row in found["networks"].values()]
    spreads = [e.ms_p90 / e.ms_p10 - 1 for e in table.entries.values() if e.ms_p10 and e.ms_p90]
    left_out = found["leave_one_out"]

    def off(form: str) -> str:
        return f"{left_out[form]['mean']:.1%} ({left_out[form]['worst']:.1%})".replace("%", " %")

    return {
        "whole networks, spread over": f"{len(ms)}, {min(ms):.3g} to {max(ms):.3g} ms",
        "90th percentile of an op's samples above the 10th, median": f"{statistics.median(spreads):.0%}".replace("%", " %"),
        "sum of entries / measured - 1, mean (bias)": f"{error['bias']:+.1%}".replace("%", " %"),
        "Kendall's tau-b": f"{error['kendall_tau_b']:.3f}",
        "mean (worst) error as measured": off("as it is"),
        "... with scale, leave one out": off("scale"),
        "... with scale and offset, leave one out": off("scale + offset"),
        "... a + b x MACs, leave one out": off("a + b x MACs"),
        "used: scale, offset": f"{found['scale']:.3f}, {found['offset_ms']:.3g} ms",
    }


def main(options: Options) -> int:
    """Measure, if a folder is given; print the figures."""
    folder = Path(options.out) if options.out else None
    for space, name in SPACES.items() if folder else ():
        assert folder
        build = Build(
            space, str(folder / name), repeats=options.repeats, networks=options.networks, who=options.who, licence="Apache-2.0"
        )
        latency(Latency(build))
    print("\n".join(figures([LatencyTable.load(folder / name if folder else name) for name in SPACES.values()])))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(tyro.cli(Options, description=__doc__)))
    except DnasError as problem:
        print(f"error: {problem}", file=sys.stderr)
        raise SystemExit(2) from None
