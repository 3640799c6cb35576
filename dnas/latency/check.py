"""What is wrong with a latency table, and what it covers: ``python -m dnas.latency check``."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dnas.arch import Architecture
from dnas.errors import ArchitectureError, DnasError, LatencyError
from dnas.files import kind, shipped
from dnas.latency.keys import Key, describe_key, key_op
from dnas.latency.table import LatencyTable
from dnas.ops import OPS
from dnas.space import Space

FALL = 0.05  # of the larger figure: how far an entry may lie below one that does less
SLOWEST, FASTEST = 1e4, 1e10  # MACs per ms of the median entry: 10 MMAC/s to 10 TMAC/s; beyond, the unit is hardly ms
COUNTED = 100_000  # MACs from which an entry's time says something about the unit


@dataclasses.dataclass(frozen=True)
class Verdict:
    """``problems``: sentences, none if the table is sound. ``facts``: what it covers, ready for JSON."""

    problems: tuple[str, ...]
    facts: dict[str, Any]


def check(table: LatencyTable, space: Space | None = None, networks: Sequence[str | Path] | None = None) -> Verdict:
    """Judge ``table`` by its meaning; with ``space``, whether all of its candidates have a price, and its range in ms.

    ``networks``: files and folders of architectures (None: the published ones that ship, if any); those that the table can
    price are listed, and the others are no problem. Errors: LatencyError for a file that is no architecture.
    """
    problems = [*_header(table), *_impossible(table), *_falling(table)]
    facts: dict[str, Any] = coverage(table)
    if space is not None:
        missing, facts["space"] = _space(table, space)
        problems += missing
    priced: dict[str, Any] = {}
    for path in _files(networks):
        try:
            network = Architecture.load(path)
        except ArchitectureError as problem:
            raise LatencyError(str(problem)) from None
        try:
            report = table.report(network)
        except LatencyError:
            priced[network.name] = None
            continue
        priced[network.name] = {
            "latency_ms": report.total_ms, "modelled_ms": report.modelled_ms, "extrapolated": report.extrapolated
        }  # fmt: skip
    facts["networks"] = priced
    return Verdict(tuple(problems), facts)


def coverage(table: LatencyTable) -> dict[str, Any]:
    """Entries by op type, and the ranges of their input sizes (pixels) and times (ms)."""
    by_op: dict[str, dict[str, Any]] = {}
    for key, entry in table.entries.items():
        fields = dict(key)
        row = by_op.setdefault(fields["op"], {"entries": 0, "height": [fields["height"]] * 2, "ms": [entry.ms] * 2})
        row["entries"] += 1
        for name, value in (("height", fields["height"]), ("ms", entry.ms)):
            row[name] = [min(row[name][0], value), max(row[name][1], value)]
    return {
        "entries": len(table.entries), "energies": sum(e.mj is not None for e in table.entries.values()), "ops": by_op,
        "constant_ms": table.constant_ms, "constant_mj": table.constant_mj,
        "constant_covers": [describe_key(k) for k in table.constant_covers],
        "cost_model": table.cost_model.to_dict() if table.cost_model else None,
        "resolutions": list(table.resolutions) if table.resolutions else None,
    }  # fmt: skip


def _header(table: LatencyTable) -> Iterator[str]:
    for field, words in (("who", "who made the figures"), ("licence", "under which licence they are")):
        value = table.source.get(field)
        if not isinstance(value, str) or not value.strip():
            yield f"source.{field} is missing: say {words}"
    if (table.status == "regression") != (table.meaning == "regression"):
        yield f"status is {table.status}, but meaning is {table.meaning}: a regression is both"
    if not table.entries and table.cost_model is None:
        yield "it has neither entries nor a cost model"
    if not table.entries and table.status == "measured":
        yield "status is measured, but it has no entries"
    if table.constant_covers and not table.constant_ms:
        yield f"constant_ms is 0, but constant_covers makes {len(table.constant_covers)} ops free"
    for key in table.constant_covers:
        if key in table.entries:
            yield f"{describe_key(key)} is in constant_covers, so that its entry is never used"
    if "summary" not in table.error:
        yield "error.summary is missing: say how the table was checked against whole networks, or that it was not"


def _impossible(table: LatencyTable) -> Iterator[str]:
    """Entries of ops that cannot be, that take no time, or whose figures contradict each other; a unit that is hardly ms."""
    rates = []
    for key, entry in table.entries.items():
        try:
            op, shape = key_op(key)
            macs = op.macs(shape)
        except ArchitectureError as problem:
            yield f"{describe_key(key)}: no such op is possible: {problem}"
            continue
        for name, value, sign in (("ms_p10", entry.ms_p10, 1), ("ms_p90", entry.ms_p90, -1)):
            if value is not None and sign * (value - entry.ms) > 0:
                yield f"{describe_key(key)}: {name} is {value:g}, on the wrong side of ms, {entry.ms:g}"
        if table.meaning != "absolute":
            continue
        lost = entry.ms_p90 and macs < COUNTED  # in the noise of its measurement
        if macs and not entry.ms and not lost:
            yield f"{describe_key(key)}: {macs:,} MACs in 0 ms"
        elif macs >= COUNTED:
            rates.append(macs / entry.ms)
    if rates and not SLOWEST <= statistics.median(rates) <= FASTEST:
        yield f"the median entry does {statistics.median(rates):.3g} MACs per ms: are its times in ms?"


def _falling(table: LatencyTable) -> Iterator[str]:
    """Entries that cost clearly less than one that differs in one size only and does less.

    Relative tables and regressions compare only inside a layer, where alone their differences mean something.
    """
    sizes = ("kernel", "mid") if table.meaning != "absolute" else ("kernel", "mid", "out", "height")
    groups: dict[tuple[Any, ...], list[tuple[int, Key]]] = {}
    for key in table.entries:
        fields = dict(key)
        for name in sizes:
            if name == "height" and fields["height"] != fields["width"]:
                continue
            value = fields.get(name, _default(fields["op"], name))
            if type(value) is int:  # several kernels side by side have no order
                away = {"height", "width"} if name == "height" else {name}
                groups.setdefault((name, tuple(p for p in key if p[0] not in away)), []).append((value, key))
    for (name, _), members in groups.items():
        for (_, small), (_, large) in itertools.pairwise(sorted(members, key=lambda m: m[0])):
            a, b = table.entries[small].ms, table.entries[large].ms
            if a - b > FALL * max(abs(a), abs(b)):
                yield f"{describe_key(large)} takes {b:.4g} ms, less than the {a:.4g} ms with the smaller {name}"


def _default(op: str, name: str) -> int | None:
    value = next((f.default for f in dataclasses.fields(OPS[op]) if f.name == name), None)
    return value if type(value) is int else None  # dataclasses.MISSING: the field has none, and is in the key


def _space(table: LatencyTable, space: Space) -> tuple[list[str], dict[str, Any]]:
    """Candidates without a price, and the range in ms where all have one."""
    lacking: dict[Key, None] = {}
    modelled: dict[Key, None] = {}
    keys: dict[Key, None] = {}
    for slot in space.slots:
        for candidate in slot.candidates:
            key = candidate.op.price_fields(slot.shape_of(candidate))
            keys[key] = None
            try:
                price = table.op_ms(candidate.op, slot.shape_of(candidate))
            except LatencyError:
                lacking[key] = None
                continue
            if price.source == "cost-model":
                modelled[key] = None
    facts: dict[str, Any] = {
        "name": space.name, "ops": len(keys), "missing": len(lacking), "from_the_cost_model": len(modelled),
        "range_ms": None if lacking else list(space.latency_range(table)),
    }  # fmt: skip
    return [f"{space.name}: no entry for {describe_key(key)}" for key in lacking], facts


def _files(networks: Sequence[str | Path] | None) -> Iterable[Path]:
    if networks is None:
        zoo = shipped("spaces") / "zoo"
        return sorted(zoo.glob("*.json")) if kind(zoo) == "folder" else []
    found: list[Path] = []
    for given in networks:
        if kind(given) == "":
            raise DnasError(f"{given}: no such file or folder of architectures")
        found += sorted(Path(given).glob("*.json")) if kind(given) == "folder" else [Path(given)]
    return found
