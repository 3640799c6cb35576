"""Where a latency table is: shipped with the package, in the working folder, or at a path."""

from __future__ import annotations

import os
from pathlib import Path

from dnas.errors import LatencyError
from dnas.files import find_shipped, shipped


def shipped_tables() -> list[str]:
    """File names of the tables that come with the package."""
    return sorted(p.name for p in shipped("latency_lut").glob("*.json"))


def find(source: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """The file that ``source`` means, and a sentence where a bare name could mean two. Errors: LatencyError."""
    return find_shipped(source, "latency_lut", "latency table", LatencyError)
