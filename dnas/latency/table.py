"""Latency tables (``dnas-lut/1``): ms per op and input size on one device; a network's latency is their sum."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from dnas.arch import Architecture
from dnas.errors import LatencyError, nearest
from dnas.files import dump_json, read_json, sha256, shown, write_text
from dnas.latency.cost_model import CostModel
from dnas.latency.find import find
from dnas.latency.intervals import LEVEL, Residuals
from dnas.latency.keys import (
    LARGEST_MS,
    Entry,
    Key,
    describe_key,
    nearest_keys,
    number,
    read_covers,
    read_entries,
    whole,
    write_key,
)
from dnas.ops import Op, Shape

FORMAT = "dnas-lut/1"
STATUSES = ("measured", "recovered", "regression", "estimated")
MEANINGS = ("absolute", "relative_to_skip", "regression")
MISSING = ("error", "cost-model")
PLAIN = "not_fully_delegated"  # of ``source``: probes that an accelerator did not take whole, with the operators left
_NEEDED = ("device", "runtime", "precision", "batch", "unit", "status", "meaning", "source", "entries")
_OPTIONAL = ("threads", "error", "resolutions", "constant_ms", "constant_mj", "constant_covers", "cost_model")


class Price(NamedTuple):
    """``source``: "entry", "cost-model", "constant" (already in ``constant_ms``) or "free" (an identity)."""

    ms: float
    source: str


@dataclasses.dataclass(frozen=True)
class LatencyReport:
    """Latency of one network: total, layers, and how much of it to believe."""

    total_ms: float
    layers_ms: tuple[float, ...]
    sources: tuple[str, ...]
    constant_ms: float
    modelled_ms: float
    extrapolated: bool
    interval_ms: tuple[float, float] | None
    warnings: tuple[str, ...]
    table: LatencyTable = dataclasses.field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """What an architecture's ``metrics`` keep of it."""
        table = self.table
        return {
            "latency_ms": self.total_ms, "interval_ms": list(self.interval_ms) if self.interval_ms else None,
            "interval_level": LEVEL if self.interval_ms and "residuals" in table.error else None,
            "modelled_ms": self.modelled_ms, "extrapolated": self.extrapolated, "table": table.name,
            "sha256": table.sha256, "device": table.device, "runtime": table.runtime, "precision": table.precision,
            "status": table.status, "meaning": table.meaning, "error": table.error.get("summary"),
            "warnings": list(self.warnings),
        }  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """ms per op key on one device. Sizes in pixels; ``resolutions`` is the range (lowest, highest) it was made for.

    ``entries``: key (``op.price_fields(shape)``) -> Entry. ``constant_ms`` is added once per network and stands for
    the keys in ``constant_covers``, which are not added again, and ``constant_mj`` (millijoules) for their energy.
    ``cost_model`` prices the latency of keys without an entry.
    ``source``: who, where, licence, date; ``error``: how the table was checked, and the figures. Errors: LatencyError.
    """

    device: str
    runtime: str
    precision: str
    status: str
    meaning: str
    entries: Mapping[Key, Entry] = dataclasses.field(hash=False, repr=False)
    source: Mapping[str, Any] = dataclasses.field(hash=False, repr=False)
    threads: int | None = None
    batch: int = 1
    unit: str = "ms"
    error: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False, repr=False)
    resolutions: tuple[int, int] | None = None
    constant_ms: float = 0.0
    constant_mj: float = dataclasses.field(default=0.0, repr=False)
    constant_covers: tuple[Key, ...] = dataclasses.field(default=(), repr=False)
    cost_model: CostModel | None = None
    name: str = dataclasses.field(default="table", compare=False)
    sha256: str = dataclasses.field(default="", compare=False, repr=False)
    path: Path | None = dataclasses.field(default=None, compare=False, repr=False)
    notice: str | None = dataclasses.field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for field in ("device", "runtime", "precision"):
            value = getattr(self, field)
            if not isinstance(value, str) or not value.strip():
                raise LatencyError(f"{field} is {shown(value)}; expected text")
        for field, words in (("status", STATUSES), ("meaning", MEANINGS)):
            value = getattr(self, field)
            if value not in words:
                raise LatencyError(f"{field} is {shown(value)}; expected one of {', '.join(words)}")
        if self.unit != "ms":
            raise LatencyError(f"unit is {shown(self.unit)}; expected 'ms' (1 ms = 1000 us): convert the figures first")
        if self.threads is not None:
            whole("threads", self.threads)
        whole("batch", self.batch)
        for field, unit in (("constant_ms", "ms"), ("constant_mj", "mJ")):
            number(field, getattr(self, field), self.meaning != "absolute", unit)
        if self.cost_model is not None and self.meaning != "absolute":
            raise LatencyError(f"cost_model: a table whose meaning is {self.meaning} prices only its own entries")
        for field in ("source", "error"):
            _json_object(field, getattr(self, field))
        if "measured_over_estimated" in self.error:
            _ratios(self.error["measured_over_estimated"])
        if "residuals" in self.error:
            Residuals.from_dict(self.error["residuals"])
        if self.resolutions is not None:
            pair = self.resolutions
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise LatencyError(f"resolutions is {shown(pair)}; expected [lowest, highest] in pixels")
            low, high = (whole("resolutions", v) for v in pair)
            if low > high:
                raise LatencyError(f"resolutions is {shown(list(pair))}; expected the lowest first")

    # -- prices ---------------------------------------------------------------------------------------------------

    def op_ms(self, op: Op, shape: Shape, missing: str | None = None) -> Price:
        """Latency of ``op`` on an input of ``shape``, batch ``self.batch``, in ms.

        ``missing``: what to do for a key without an entry: "error", "cost-model", or None for the table's nature (the
        cost model of an estimated table that has one, else an error).
        Errors: LatencyError that names the op, the device and the nearest keys.
        """
        if missing is not None and missing not in MISSING:
            raise LatencyError(f"missing is {shown(missing)}; expected 'error', 'cost-model' or None")
        key = op.price_fields(shape)
        if key in self._covered:
            return Price(0.0, "constant")
        entry = self.entries.get(key)
        if entry is not None:
            return Price(entry.ms, "entry")
        if not op.primitives():
            return Price(0.0, "free")
        asked = missing == "cost-model" or (missing is None and self.status == "estimated")
        if asked and self.cost_model is not None:
            return Price(self.cost_model.op_ms(op, shape), "cost-model")
        raise LatencyError(self._lacks(key, asked_model=missing == "cost-model"))

    @cached_property
    def has_energies(self) -> bool:
        """Whether an entry states its energy."""
        return any(entry.mj is not None for entry in self.entries.values())

    def op_mj(self, op: Op, shape: Shape) -> float:
        """Energy of ``op`` on an input of ``shape``, batch ``self.batch``, in millijoules.

        Errors: LatencyError for an op whose entry states none, or that has no entry: nothing models energies.
        """
        key = op.price_fields(shape)
        entry = self.entries.get(key)
        if key in self._covered or (entry is None and not op.primitives()):
            return 0.0
        if entry is None or entry.mj is None:
            raise LatencyError(f"{self.name} ({self.device}) states no energy (mj) for {describe_key(key)}; add what it takes")
        return entry.mj

    def latency_ms(self, architecture: Architecture, missing: str | None = None) -> float:
        """Sum over the layers plus ``constant_ms``, in ms; ``missing`` as in ``op_ms``. Errors: LatencyError."""
        return math.fsum([self.constant_ms, *(p.ms for p in self._prices(architecture, missing))])

    def report(self, architecture: Architecture, missing: str | None = None) -> LatencyReport:
        """``latency_ms`` with its layers, the part from the cost model, and warnings as sentences."""
        prices = self._prices(architecture, missing)
        total = math.fsum([self.constant_ms, *(p.ms for p in prices)])
        modelled = math.fsum(p.ms for p in prices if p.source == "cost-model")
        low, high = self.resolutions or (0, math.inf)
        px = architecture.resolution
        warnings: list[str] = []
        if self.meaning != "absolute":
            kind = "relative to skip" if self.meaning == "relative_to_skip" else "coefficients of a regression"
            warnings.append(f"The entries of {self.name} are {kind}: only differences between networks mean anything.")
        if extrapolated := not low <= px <= high:
            warnings.append(f"Extrapolated: {px} px is outside the {low} to {high} px that {self.name} was made for.")
        if modelled:
            share = f"{modelled:.3g} of {total:.3g} ms ({modelled / total:.0%})"
            warnings.append(f"{share} come from the cost model of {self.name}, not from entries.")
        if self.constant_ms and self.constant_covers and all(p.source != "constant" for p in prices):
            warnings.append(
                f"The {self.constant_ms:g} ms that {self.name} adds to each network are for layers that this one lacks."
            )
        return LatencyReport(
            total, tuple(p.ms for p in prices), tuple(p.source for p in prices), self.constant_ms, modelled,
            extrapolated, None if extrapolated else self.interval(total), tuple(warnings), self,
        )  # fmt: skip

    def interval(self, predicted_ms: float, level: float = LEVEL) -> tuple[float, float] | None:
        """Where the measured latency of a network lies with probability ``level``, in ms, given its sum of entries.

        From the residuals of whole networks (``error.residuals``; see ``dnas.latency.intervals``). Tables without them give
        the range of measured / predicted that their check showed, whatever the level, or None: sums of an op's percentiles
        would be no interval. Errors: LatencyError for a level outside of 0 to 1.
        """
        if "residuals" in self.error and predicted_ms > 0:
            return Residuals.from_dict(self.error["residuals"]).interval(predicted_ms, level)
        ratios = self.error.get("measured_over_estimated")
        return (predicted_ms * ratios[0], predicted_ms * ratios[1]) if ratios else None

    # -- text -----------------------------------------------------------------------------------------------------

    def summary(self) -> str:
        """One sentence: device, runtime, status and error."""
        checked = self.error.get("summary")
        how = f"{self.status} ({checked})" if isinstance(checked, str) and checked else self.status
        threads = "" if self.threads is None else f", {self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.device}, {self.runtime}, {self.precision}{threads}: {how}"

    def __str__(self) -> str:
        return f"{self.name}: {len(self.entries)} entries; {self.summary()}"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from dnas import html

        return html.latency_table(self)

    # -- files ----------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, source: str | os.PathLike[str] | Mapping[str, Any]) -> LatencyTable:
        """From a name (``samsung_s8``), a path (``./mine.json``) or an object.

        A bare name means the shipped table, then a file of that name in the working folder; where both exist,
        ``notice`` says how to address the other. Errors: LatencyError that names file, entry and field.
        """
        if isinstance(source, Mapping):
            return cls.from_dict(source)
        path, notice = find(source)
        body = read_json(path, LatencyError)
        try:
            table = cls.from_dict(body, path.name, sha256(path.read_bytes()))
        except LatencyError as problem:
            raise LatencyError(f"{path}: {problem}") from None
        except OSError as problem:
            raise LatencyError(f"{path}: cannot be read ({problem.strerror})") from None
        return dataclasses.replace(table, path=path, notice=notice)

    @classmethod
    def from_dict(cls, given: Any, name: str = "table", digest: str | None = None) -> LatencyTable:
        """Read a ``dnas-lut/1`` object. ``digest``: sha256 of its file (default: of what ``save`` would write)."""
        if not isinstance(given, Mapping):
            raise LatencyError(f"a latency table is {type(given).__name__}; expected an object")
        if given.get("format") != FORMAT:
            raise LatencyError(f"format is {shown(given.get('format'))}; expected {FORMAT!r}")
        for field in given:
            if field not in (*_NEEDED, *_OPTIONAL, "format"):
                raise LatencyError(f"unknown field {shown(field)}{nearest(shown(field), (*_NEEDED, *_OPTIONAL))}")
        if lacking := [f for f in _NEEDED if f not in given]:
            raise LatencyError(f"missing field {lacking[0]!r}")
        body = {f: given[f] for f in given if f != "format"}
        model, sizes = body.get("cost_model"), body.get("resolutions")
        body["cost_model"] = None if model is None else CostModel.from_dict(model)
        body["resolutions"] = tuple(sizes) if isinstance(sizes, list) else sizes
        body["entries"] = read_entries(body["entries"], negative=body["meaning"] != "absolute")
        body["constant_covers"] = read_covers(body.get("constant_covers", []))
        table = cls(name=name, sha256=digest or "", **body)
        return table if digest else dataclasses.replace(table, sha256=sha256(table.to_json()))

    def to_dict(self) -> dict[str, Any]:
        """The ``dnas-lut/1`` object."""
        body: dict[str, Any] = {"format": FORMAT}
        for field in (*_NEEDED[:-1], *_OPTIONAL):
            body[field] = getattr(self, field)
        body |= {"source": dict(self.source), "error": dict(self.error)}
        body["resolutions"] = list(self.resolutions) if self.resolutions else None
        if not self.constant_mj:
            del body["constant_mj"]  # few tables state energies
        body["constant_covers"] = [write_key(k) for k in self.constant_covers]
        body["cost_model"] = self.cost_model.to_dict() if self.cost_model else None
        return body | {"entries": [write_key(k) | e.to_dict() for k, e in self.entries.items()]}

    def to_json(self) -> str:
        """The text of the file: one entry per line."""
        return dump_json(self.to_dict(), rows="entries")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON atomically; the same table gives the same text."""
        write_text(path, self.to_json())

    # -- helpers --------------------------------------------------------------------------------------------------

    @cached_property
    def _covered(self) -> frozenset[Key]:
        return frozenset(self.constant_covers)

    def _prices(self, architecture: Architecture, missing: str | None) -> list[Price]:
        pairs = zip(architecture.layers, architecture.shapes, strict=False)
        return [self.op_ms(op, shape, missing) for op, shape in pairs]

    def _lacks(self, key: Key, asked_model: bool) -> str:
        """The sentence for a key without an entry: which op, which device, what is near, what to do."""
        near = "; ".join(describe_key(k) for k in nearest_keys(key, self.entries)) or "none, the table is empty"
        if self.cost_model is not None:
            advice = "pass missing='cost-model' for an estimate, or measure it and add the entry"
        else:
            advice = "measure it and add the entry, or take a table with a cost model"
        model = " and has no cost model" if asked_model else ""
        return f"{self.name} ({self.device}) has no entry for {describe_key(key)}{model}; nearest: {near}; {advice}"


def _ratios(given: Any) -> None:
    numbers = isinstance(given, list | tuple) and len(given) == 2 and all(type(r) in (int, float) for r in given)
    if not numbers or not 0 < given[0] <= given[1] <= LARGEST_MS:
        raise LatencyError(
            f"error.measured_over_estimated is {shown(given)}; expected [low, high], two positive numbers, the lowest first"
        )


def _json_object(field: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise LatencyError(f"{field} is {shown(value)}; expected an object")
    try:
        json.dumps(dict(value), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise LatencyError(f"{field} holds something that JSON cannot store (infinity, NaN, endless nesting)") from None
