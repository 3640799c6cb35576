"""What all importers share: records in ms with their source's name for them, and the table that they make."""

from __future__ import annotations

import dataclasses
import importlib
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dnas.errors import ArchitectureError, LatencyError, nearest
from dnas.files import read_json, sha256, shown
from dnas.latency.keys import Entry, Key, number
from dnas.latency.table import LatencyTable
from dnas.ops import DsConvOp, InvertedResidualOp, Op, Shape

FORMATS = {
    "proxylessnas": "proxylessnas", "ofa": "ofa", "mobile-vision": "mobile_vision", "single-path-nas": "single_path_nas",
    "hw-nas-bench": "hw_nas_bench", "tunas": "tunas",
}  # fmt: skip
"""Name of a format -> the module of this package that reads it."""
NAMES_KEPT = 20  # names of records that were not mapped, per reason, that are written into the table


class Record(NamedTuple):
    """One figure of the source: ``name`` as the source calls it, the op on the input ``shape`` that it prices, ms."""

    name: str
    op: Op
    shape: Shape
    ms: float
    ms_p10: float | None = None
    ms_p90: float | None = None
    runs: int | None = None


class Left(NamedTuple):
    """A record that was not mapped, and why."""

    name: str
    why: str


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What an importer may be told: ``act`` of the blocks (None: the format's own), which ``part`` of a file that holds
    several devices, and ``spaces`` whose candidates are composed from primitive records."""

    act: str | None = None
    part: str | None = None
    spaces: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Found:
    """What a file says. ``about``: fields of the table that the format states or implies (device, status, source, ...).

    ``total``: records in the file, mapped or not. ``notes``: what was assumed, as sentences.
    """

    records: tuple[Record, ...]
    left: tuple[Left, ...]
    about: Mapping[str, Any]
    total: int
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Imported:
    """``table``; ``left``, records that were not mapped; ``averaged``, keys that several records share; ``notes``."""

    table: LatencyTable
    left: tuple[Left, ...]
    averaged: int
    total: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Counts, and every record that was not mapped with its reason."""
        return {
            "records": self.total, "entries": len(self.table.entries), "averaged": self.averaged,
            "not_mapped": [r._asdict() for r in self.left], "notes": list(self.notes),
        }  # fmt: skip


def import_table(
    path: str | os.PathLike[str], form: str, wanted: Wanted | None = None, given: Mapping[str, Any] | None = None
) -> Imported:
    """The table in ``path``, which has the format ``form`` (a name in ``FORMATS``); every unit becomes ms.

    ``given``: fields that override what the file says or that it cannot say (device, runtime, precision, threads, licence).
    Records with one key are averaged. Percentiles of averages are dropped: they are no percentiles.
    Errors: LatencyError that names the file, and the record or the field that is missing.
    """
    if form not in FORMATS:
        raise LatencyError(f"unknown format {shown(form)}{nearest(str(form), FORMATS)}")
    path = Path(path)
    found = read(path, form, wanted)
    about = dict(found.about) | {k: v for k, v in (given or {}).items() if v is not None and k != "licence"}
    source = dict(about.pop("source"))
    about.setdefault("error", {"summary": "not checked against whole networks"})
    if given and given.get("licence"):
        source["licence"] = given["licence"]
    if lacking := [f for f in ("device", "runtime", "precision") if f not in about]:
        raise LatencyError(f"{path}: the format {form} does not say {' and '.join(lacking)}; give --{lacking[0]} and the like")
    entries, averaged = merged(found.records)
    if not entries:
        raise LatencyError(f"{path}: none of its {found.total} records could be mapped; first: {_first(found.left)}")
    source["imported"] = {
        "format": form, "file": path.name, "sha256": sha256(path.read_bytes()), "records": found.total,
        "entries": len(entries), "averaged": averaged, "not_mapped": summary(found.left), "notes": list(found.notes),
    }  # fmt: skip
    try:
        table = LatencyTable(**about, source=source, entries=entries)
    except LatencyError as problem:
        raise LatencyError(f"{path}: {problem}") from None
    table = LatencyTable.from_dict(table.to_dict(), path.name)
    return Imported(table, found.left, averaged, found.total, found.notes)


def read(path: str | os.PathLike[str], form: str, wanted: Wanted | None = None) -> Found:
    """The records of ``path`` before any are merged. Errors: LatencyError that names the file and the record."""
    module = importlib.import_module(f"dnas.latency.importers.{FORMATS[form]}")
    try:
        found: Found = module.read(Path(path), wanted or Wanted())
        return found
    except LatencyError as problem:
        text = str(problem)
        raise LatencyError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    except ArchitectureError as problem:
        raise LatencyError(f"{path}: {problem}") from None


def merged(records: Sequence[Record]) -> tuple[dict[Key, Entry], int]:
    """Entries by key, and how many keys several records share: their ms are averaged and their counts added."""
    groups: dict[Key, list[Record]] = {}
    for record in records:
        groups.setdefault(record.op.price_fields(record.shape), []).append(record)
    entries = {}
    for key, same in groups.items():
        only = same[0] if len(same) == 1 else None
        counts = [r.runs for r in same if r.runs]
        entries[key] = Entry(
            math.fsum(r.ms for r in same) / len(same), only.ms_p10 if only else None, only.ms_p90 if only else None,
            sum(counts) if len(counts) == len(same) else None,
        )  # fmt: skip
    return entries, sum(len(same) > 1 for same in groups.values())


def summary(left: Sequence[Left]) -> list[dict[str, Any]]:
    """Reasons with their counts and the first names."""
    counts = Counter(r.why for r in left)
    return [{"why": w, "count": n, "names": [r.name for r in left if r.why == w][:NAMES_KEPT]} for w, n in counts.items()]


def spellings(block: InvertedResidualOp) -> tuple[Op, ...]:
    """``block``; without expansion also as the depthwise separable convolution that it is, which networks call it too."""
    if block.expand or block.expand_groups > 1 or block.project_groups > 1:
        return (block,)
    twin = DsConvOp(
        in_=block.in_, out=block.out, kernel=block.kernel, stride=block.stride, act=block.act, se=block.se,
        residual=block.residual,
    )  # fmt: skip
    return (block, twin)


def figure(name: str, value: Any, negative: bool = False) -> float:
    """A finite figure. Errors: LatencyError that names the record."""
    return number(shown(name), value, negative)


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``. Errors: LatencyError."""
    body = read_json(path, LatencyError)
    if not isinstance(body, dict):
        raise LatencyError(f"{path} holds {type(body).__name__}; expected an object")
    return body


def field(given: Any, where: str, name: str, kind: type | tuple[type, ...]) -> Any:
    """Field ``name`` of the object ``given``. Errors: LatencyError that names both."""
    value = given.get(name) if isinstance(given, Mapping) else None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        words = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise LatencyError(f"{where}: {name} is {shown(value)}; expected {words}")
    return value


def _first(left: Sequence[Left]) -> str:
    return f"{left[0].name}: {left[0].why}" if left else "the file is empty"
