"""From times of probes to a table that has been checked against whole networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dnas.errors import LatencyError
from dnas.latency.calibrate import Row, significant
from dnas.latency.correct import correct
from dnas.latency.keys import Entry, describe_key
from dnas.latency.probes import LAUNCH, Probe
from dnas.latency.table import LatencyTable
from dnas.latency.timing import Timing

LEAST = 3  # networks from which a table is checked


def plain(probes: Sequence[Probe], left: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """``left``, by probe the operators that an accelerator did not take, by what each probe measures."""
    about = {p.name: p.name if p.genotype is not None else p.about for p in probes}
    return {about[name]: list(operators) for name, operators in left.items()}


def uncorrected(probes: Sequence[Probe], figures: Mapping[str, Timing], about: Mapping[str, Any]) -> LatencyTable:
    """The table of ``figures`` as measured: an entry is its probe's median less what an empty call takes, which is added once
    per network (``constant_ms``). ``about``: the other fields of the table."""
    launch = figures[LAUNCH].median_ms if LAUNCH in figures else 0.0

    def rest(ms: float) -> float:
        return significant(max(ms - launch, 0.0))

    entries = {}
    for probe in probes:
        if probe.key is not None and probe.name in figures:
            found = figures[probe.name]
            entries[probe.key] = Entry(rest(found.median_ms), rest(found.p10_ms), rest(found.p90_ms), found.count)
    fields: dict[str, Any] = {
        "precision": "float32",
        "batch": 1,
        "unit": "ms",
        "status": "measured",
        "meaning": "absolute",
    } | dict(about)
    return LatencyTable(**fields, entries=entries, constant_ms=significant(launch))


def unmeasured(table: LatencyTable, probe: Probe) -> list[str]:
    """Ops of a whole network that ``table`` has no entry for, in words."""
    layers = zip(probe.architecture.layers, probe.architecture.shapes, strict=False)
    keys = [op.price_fields(shape) for op, shape in layers if op.primitives()]
    return [describe_key(key) for key in dict.fromkeys(keys) if key not in table.entries]


def assemble(probes: Sequence[Probe], figures: Mapping[str, Timing], about: Mapping[str, Any]) -> LatencyTable:
    """``uncorrected``, then scale and offset from the whole networks among ``probes``, with the errors of both in ``error``.

    Networks with an op that has no figure take no part. Errors: LatencyError if no op took longer than an empty call.
    """
    table = uncorrected(probes, figures, about)
    if table.entries and not any(entry.ms for entry in table.entries.values()):
        raise LatencyError(
            f"none of {len(table.entries)} ops took longer than an empty call, {table.constant_ms:g} ms; measure a space with "
            "larger ops, or again when the machine is quiet"
        )
    measured = [p for p in probes if p.genotype is not None and p.name in figures]
    networks = [p for p in measured if not unmeasured(table, p)]
    if len(networks) < LEAST:
        words = {"summary": "not checked against whole networks"}
        return LatencyTable.from_dict(table.to_dict() | {"error": words}, table.name)
    rows = [Row.of(p.name, p.name, figures[p.name].median_ms, p.architecture) for p in networks]
    return correct(table, rows)
