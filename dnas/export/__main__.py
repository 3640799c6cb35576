"""``python -m dnas.export NETWORK --to onnx,tflite --out FOLDER``."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from dnas.cli import command
from dnas.errors import ExportError
from dnas.export.config import ExportConfig

if TYPE_CHECKING:
    from dnas.export.whole import Report


def main(config: ExportConfig) -> int:
    """Export, print the report; an error if any file was not kept."""
    from rich.console import Console

    from dnas.export.whole import run

    options = {k: v for k, v in dataclasses.asdict(config).items() if k != "json"}
    with Console(stderr=True).status("export") as status:
        report = run(**options, each=status.update)
    if config.json:
        print(json.dumps(report.to_dict(), indent=1, ensure_ascii=False))
    else:
        show(report)
    if report.failed:
        raise ExportError("; ".join(report.failed))
    return 0


def show(report: Report) -> None:
    """The files as a table, and what accuracy they lost."""
    from rich.console import Console
    from rich.table import Table

    from dnas.runtimes import counted

    print(f"{report.network.architecture}\nweights: {report.network.source}; compared on {report.images}")
    table = Table(show_edge=False, pad_edge=False)
    for heading in ("file", "precision", "MB", "max |difference|", "relative", "tolerance", "n"):
        table.add_column(heading, justify="left" if heading in ("file", "precision") else "right", no_wrap=True)
    for file in report.files:
        difference = file.difference
        cells = ("no weights", "", "", "")
        if difference:
            cells = (f"{difference.max_abs:.2e}", f"{difference.relative:.2e}", f"{file.tolerance:g}", str(difference.n))
        table.add_row(str(file.path), file.precision, f"{file.bytes / 1e6:.2f}", *cells)
    console = Console()
    (console if console.is_terminal else Console(width=1000)).print(table)
    for file in report.files:
        if file.accuracy:
            print(f"{file.path.name}: {file.accuracy}")
        if file.undelegated:
            print(f"{file.path.name}: operators that XNNPACK leaves to LiteRT: {counted(file.undelegated)}")
    for note in report.notes:
        print(f"note: {note}")


if __name__ == "__main__":
    sys.exit(command("python -m dnas.export", ExportConfig, main))
