"""Reading JSON with errors that name the place, and writing files whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from dnas.errors import DnasError, RunError, nearest

TEMPORARY = ".part"  # ends the names of files that are not whole


def read_json(path: str | os.PathLike[str], error: type[DnasError]) -> Any:
    """The JSON value in ``path``; NaN, infinities, repeated keys and halves of characters are refused.

    Errors: ``error``, naming the file.
    """

    def no_constant(name: str) -> Any:
        raise ValueError(f"{name} is not a number that JSON allows")

    def finite(text: str) -> float:
        value = float(text)
        return no_constant(text) if math.isinf(value) else value

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            names = [k for k, _ in pairs]
            raise ValueError(f"field {next(n for n in names if names.count(n) > 1)!r} appears twice")
        return result

    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except (OSError, ValueError) as problem:  # ValueError: not UTF-8, or a path with a null character
        raise error(f"{path}: cannot be read as text ({_reason(problem)})") from None
    try:
        value = json.loads(text, parse_constant=no_constant, parse_float=finite, object_pairs_hook=unique)
        if "\\ud" in text.lower():  # half of a character has an escape, and no file can be written with it
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as problem:
        raise error(f"{path}: not JSON at line {problem.lineno}, column {problem.colno}: {problem.msg}") from None
    except (ValueError, RecursionError) as problem:
        raise error(f"{path}: not acceptable JSON: {problem}") from None


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` (UTF-8) to ``path`` as ``write_bytes`` does. Errors: RunError."""
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as problem:
        raise RunError(f"{path}: cannot be written ({_reason(problem)}); nothing was changed") from None
    write_bytes(path, data)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path`` atomically: readers see the old file or the new one. Errors: RunError."""
    target = Path(path)
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        name, folder = f".{target.name}.", target.parent
        with tempfile.NamedTemporaryFile("wb", dir=folder, prefix=name, suffix=TEMPORARY, delete=False) as handle:
            temporary = handle.name
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
        temporary = None
    except (OSError, ValueError) as problem:  # ValueError: a path with a null character
        raise RunError(f"{target}: cannot be written ({_reason(problem)}); nothing was changed") from None
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove from ``folder`` what ``write_bytes`` was writing when its process was killed."""
    for path in Path(folder).glob(".?*.*"):
        if re.fullmatch(rf"\..+\.[a-z0-9_]{{8}}{TEMPORARY}", path.name) and path.is_file():
            path.unlink(missing_ok=True)


def kind(path: str | os.PathLike[str]) -> str:
    """What is at ``path``: "file", "folder", "other", or "" for nothing.

    Unlike ``Path.is_file``, never an error: a path that the system refuses (too long, no access, a null character) is "".
    """
    try:
        if os.path.isfile(path):
            return "file"
        return "folder" if os.path.isdir(path) else "other" if os.path.exists(path) else ""
    except (OSError, ValueError):
        return ""


def expand(path: str | os.PathLike[str]) -> Path:
    """``path`` with ``~`` as the home folder; where that is unknown (``~nobody``), as it is given."""
    try:
        return Path(os.path.expanduser(path))
    except ValueError:  # a null character
        return Path(path)


def dump_json(value: Any, rows: str | None = None) -> str:
    """Indented JSON text; the items of the list field ``rows`` stand on one line each."""
    if rows is None:
        return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    marker = "\u0000rows\u0000"
    text = json.dumps({**value, rows: marker}, indent=1, ensure_ascii=False, allow_nan=False)
    lines = ",\n".join("  " + json.dumps(row, ensure_ascii=False, allow_nan=False) for row in value[rows])
    return text.replace(json.dumps(marker), f"[\n{lines}\n ]" if lines else "[]") + "\n"


def shown(value: Any) -> str:
    """``repr`` of a wrong value for an error, cut to one line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # whole numbers of thousands of digits, endless nesting
        return f"{type(value).__name__} too large to print"
    return text if len(text) <= 200 else text[:197] + "..."


def one_line(problem: BaseException) -> str:
    """The text of an error that others raised, on one line and cut; its type where it has no text."""
    text = " ".join(str(problem).split())
    return (text if len(text) <= 200 else text[:197] + "...") or type(problem).__name__


def sha256(data: bytes | str) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def shipped(folder: str) -> Path:
    """A data folder of this package (``spaces``, ``latency_lut``): inside the wheel, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / folder
    return inside if inside.is_dir() else package.parent / folder


def find_shipped(
    source: str | os.PathLike[str], folder: str, what: str, error: type[DnasError], options: list[str] | None = None
) -> tuple[Path, str | None]:
    """The JSON file that ``source`` means, and a sentence where a bare name could mean two.

    A bare name is a file of ``shipped(folder)``, with or without ``.json``, else one of the working folder; anything with
    a separator is a path. ``options``: names to suggest (default: the shipped files). Errors: ``error`` for an unknown name.
    """
    text = os.fspath(source)
    if not isinstance(source, str) or "/" in text or os.sep in text or (os.altsep or "/") in text:
        return Path(source), None
    known = sorted(p.name for p in shipped(folder).glob("*.json"))
    options = known if options is None else options
    if not text or "\0" in text:
        raise error(f"{text!r} is no name of a {what}; available: {', '.join(options)}")
    names = dict.fromkeys((text, f"{text.removesuffix('.json')}.json"))
    here = next((Path(n) for n in names if kind(n) == "file"), None)
    for name in names:
        if name in known:
            path = shipped(folder) / name
            if here is None or here.resolve() == path.resolve():
                return path, None
            return path, f"{text}: the shipped {what} is used; write ./{here} for the file in the working folder"
    if here is None:
        raise error(f"unknown {what} {shown(text)}{nearest(text, options)} (or give a file's path)")
    return here, None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _reason(problem: Exception) -> str:
    return getattr(problem, "strerror", None) or one_line(problem)
