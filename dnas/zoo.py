"""The published networks that come with the package: ``spaces/zoo/NAME.json``, each with its accuracy and source."""

from __future__ import annotations

import os
from pathlib import Path

from dnas.errors import ArchitectureError
from dnas.files import find_shipped, shipped

FOLDER = "spaces/zoo"


def names() -> list[str]:
    """Names of all networks: ``fbnet_c``, ``mobilenetv2_100``, ..."""
    return sorted(p.stem for p in shipped(FOLDER).glob("*.json"))


def find(source: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """The file that ``source`` means, and a sentence where a bare name could mean two. Errors: ArchitectureError."""
    return find_shipped(source, FOLDER, "network", ArchitectureError, names())
