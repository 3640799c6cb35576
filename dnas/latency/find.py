"""Where a latency table is: shipped with the package, in the working folder, or at a path."""

from __future__ import annotations

import os
from pathlib import Path

from dnas.errors import LatencyError, nearest
from dnas.files import kind, shipped, shown


def shipped_tables() -> list[str]:
    """File names of the tables that come with the package."""
    return sorted(p.name for p in shipped("latency_lut").glob("*.json"))


def find(source: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """The file that ``source`` means, and a sentence where a bare name could mean two. Errors: LatencyError."""
    text = os.fspath(source)
    if not isinstance(source, str) or "/" in text or os.sep in text or (os.altsep or "/") in text:
        return Path(source), None
    if not text or "\0" in text:
        raise LatencyError(f"{text!r} is no name of a latency table; available: {', '.join(shipped_tables())}")
    names = dict.fromkeys((text, f"{text.removesuffix('.json')}.json"))
    here = next((Path(n) for n in names if kind(n) == "file"), None)
    for name in names:
        if name in shipped_tables():
            path = shipped("latency_lut") / name
            if here is None or here.resolve() == path.resolve():
                return path, None
            return path, f"{text}: the shipped table is used; write ./{here} for the one in the working folder"
    if here is None:
        raise LatencyError(f"unknown latency table {shown(text)}{nearest(text, shipped_tables())} (or give a file's path)")
    return here, None
