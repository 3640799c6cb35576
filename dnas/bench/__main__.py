"""``python -m dnas.bench NETWORK --runtime litert,onnxruntime --threads 1,2 --lut TABLE``."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from dnas.bench.config import BenchConfig
from dnas.cli import command

if TYPE_CHECKING:
    from dnas.bench.whole import Bench


def main(config: BenchConfig) -> int:
    """Measure, print."""
    from rich.console import Console

    from dnas.bench.whole import run

    options = {k: v for k, v in dataclasses.asdict(config).items() if k != "json"}
    with Console(stderr=True, force_terminal=None if sys.stderr.isatty() else False).status("bench") as status:
        found = run(**options, each=status.update)
    if config.json:
        print(json.dumps(found.to_dict(), indent=1, ensure_ascii=False))
    else:
        show(found)
    for problem in found.refused:
        print(problem, file=sys.stderr)
    return 2 if found.refused else 0


def show(found: Bench) -> None:
    """The rows as a table; below it, what a prediction was made for if that is something else."""
    from rich.console import Console
    from rich.table import Table

    from dnas.runtimes import counted

    print(f"{found.network.architecture}\nmeasured on {found.device}, batch 1, weights: {found.network.source}")
    table = Table(show_edge=False, pad_edge=False)
    headings = ("runtime", "precision", "threads", "ms (median)", "p10", "p90", "n", "peak MB", "file MB")
    reports = [p.report for p in found.rows[0].predictions]
    for heading in (*headings, *(f"predicted ms {r.table.name.removesuffix('.json')}" for r in reports)):
        table.add_column(heading, justify="left" if heading in headings[:2] else "right")
    for row in found.rows:
        t = row.timing
        ms = [f"{v:.3f}" for v in (t.median_ms, t.p10_ms, t.p90_ms)]
        memory = "?" if row.peak_mb is None else f"{row.peak_mb:.1f}"
        cells = [f"{p.ms:.3f}{'*' if p.differs else ''}" for p in row.predictions]
        table.add_row(row.version, row.precision, str(row.threads), *ms, str(t.count), memory, f"{row.file_mb:.2f}", *cells)
    console = Console()
    (console if console.is_terminal else Console(width=1000)).print(table)
    for row in found.rows:
        where = f"{row.runtime}, {row.precision}, {row.threads} thread{'s' if row.threads > 1 else ''}"
        for prediction in row.predictions:
            if prediction.differs:
                print(f"* {where}: {prediction.report.table.name} was made for {'; '.join(prediction.differs)}")
        if row.kernels_left:
            print(f"{where}: operators that XNNPACK leaves to LiteRT: {counted(row.kernels_left)}")
    for report in reports:
        for warning in report.warnings:
            print(f"note: {warning}")


if __name__ == "__main__":
    sys.exit(command("python -m dnas.bench", BenchConfig, main))
