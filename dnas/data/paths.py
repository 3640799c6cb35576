"""Paths and reading for the sources, with errors as advice."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from dnas.errors import DataError
from dnas.files import expand


def resolve(argument: str, data_dir: str | None) -> Path:
    """The path that a spec names; ``~`` is the home folder, relative paths start at ``data_dir`` if there is one."""
    path = expand(argument)
    return expand(data_dir) / path if data_dir is not None else path


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> DataError:
    """The error that says why a file cannot be read, and what to do."""
    if isinstance(error, FileNotFoundError):
        beside: list[str] = []
        with contextlib.suppress(OSError):
            beside = sorted(n for n in os.listdir(path.parent) if path.suffix and n.endswith(path.suffix))[:5]
        hint = f"; {path.parent} has {', '.join(beside)}" if beside else f"; is {path.parent} the right folder?"
        return DataError(f"{path} does not exist{hint}")
    advice = "give yourself read access" if isinstance(error, PermissionError) else "check the path and the disk"
    return DataError(f"{path} cannot be read ({error.strerror or error}); {advice}")
