"""Whole networks that were measured: ``networks.csv`` -> rows to calibrate with."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path

from dnas.arch import Architecture
from dnas.errors import ArchitectureError, LatencyError, nearest
from dnas.files import shown
from dnas.latency.calibrate import Row
from dnas.latency.keys import LARGEST_MS

NEEDED = ("architecture", "ms")
COLUMNS = (*NEEDED, "name", "family", "resolution")


def read_networks(path: str | os.PathLike[str]) -> list[Row]:
    """Rows of a CSV file with the columns ``architecture`` (a JSON file, relative to the CSV file) and ``ms``, and optionally
    ``name`` (default: the file's), ``family`` (networks that are held out together; default: each alone) and ``resolution``
    in pixels (default: the architecture's). Lines that begin with # are comments.

    Errors: LatencyError that names the line and the column.
    """
    file = Path(path)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as problem:  # ValueError: not UTF-8, or a null character in the path
        raise LatencyError(f"{file}: cannot be read as text ({getattr(problem, 'strerror', None) or problem})") from None
    numbered = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    try:
        table = [(n, [cell.strip() for cell in next(csv.reader([line], strict=True))]) for n, line in numbered]
    except (csv.Error, StopIteration) as problem:
        raise LatencyError(f"{file}: not CSV: {problem}") from None
    if not table:
        raise LatencyError(f"{file}: empty; expected a line with the columns {', '.join(COLUMNS)}")
    columns = table[0][1]
    for column in columns:
        if column not in COLUMNS or columns.count(column) > 1:
            raise LatencyError(f"{file}: column {shown(column)} is unknown or there twice{nearest(column, COLUMNS)}")
    if lacking := [c for c in NEEDED if c not in columns]:
        raise LatencyError(f"{file}: no column {lacking[0]!r}; expected {', '.join(COLUMNS)}")
    rows: list[Row] = []
    for number, cells in table[1:]:
        where = f"{file}: line {number}"
        if len(cells) != len(columns):
            raise LatencyError(f"{where} has {len(cells)} cells; expected {len(columns)} ({', '.join(columns)})")
        rows.append(_row(file, where, dict(zip(columns, cells, strict=True))))
        if any(row.name == rows[-1].name for row in rows[:-1]):
            raise LatencyError(f"{where}: the name {shown(rows[-1].name)} is there twice; give another in a column 'name'")
    if not rows:
        raise LatencyError(f"{file}: no network; expected one per line")
    return rows


def _row(file: Path, where: str, cells: dict[str, str]) -> Row:
    try:
        ms = float(cells["ms"])
    except ValueError:
        ms = math.nan
    if not 0 < ms <= LARGEST_MS:
        raise LatencyError(f"{where}: ms is {shown(cells['ms'])}; expected a positive number of ms")
    try:
        network = Architecture.load(file.parent / cells["architecture"])
        if px := cells.get("resolution"):
            if not px.isascii() or not px.isdigit():
                raise LatencyError(f"{where}: resolution is {shown(px)}; expected a whole number of pixels")
            network = network.at(int(px[:12]))
    except ArchitectureError as problem:
        raise LatencyError(f"{where}: {problem}") from None
    name = cells.get("name") or Path(cells["architecture"]).stem + (f"@{px}" if px else "")
    return Row.of(name, cells.get("family") or name, ms, network)
