"""Paths and reading for the sources, with errors as advice."""

from __future__ import annotations

from pathlib import Path

from dnas.errors import DataError


def resolve(argument: str, data_dir: str | None) -> Path:
    """The path that a spec names; ``~`` is the home folder, relative paths start at ``data_dir`` if there is one."""
    path = Path(argument).expanduser()
    return Path(data_dir).expanduser() / path if data_dir is not None else path


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
        beside = sorted(p.name for p in path.parent.glob("*" + path.suffix))[:5] if path.suffix else []
        hint = f"; {path.parent} has {', '.join(beside)}" if beside else f"; is {path.parent} the right folder?"
        return DataError(f"{path} does not exist{hint}")
    advice = "give yourself read access" if isinstance(error, PermissionError) else "check the path and the disk"
    return DataError(f"{path} cannot be read ({error.strerror or error}); {advice}")
