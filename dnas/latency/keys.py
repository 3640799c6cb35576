"""Entries of a latency table: from JSON to the keys of ``Op.price_fields`` and back, and which keys are near."""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from dnas.errors import ArchitectureError, LatencyError, nearest
from dnas.files import shown
from dnas.ops import OPS, SE, Op, Shape
from dnas.ops.base import ACTIVATIONS, LABELS, MAX_SIZE, POSITIVE

Key = tuple[tuple[str, Any], ...]
"""``(("op", "ir"), ("in", 16), ..., ("height", 112), ("width", 112))``; fields at their default are left out."""

LARGEST_MS = 1e9
_SIZES = ("height", "width")
_FIGURES = frozenset({"ms", "ms_p10", "ms_p90", "count", "mj"})


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """Latency of one op: ms, and where they were measured the 10th and 90th percentile, the number of runs, and the energy in
    millijoules."""

    ms: float
    ms_p10: float | None = None
    ms_p90: float | None = None
    count: int | None = None
    mj: float | None = None

    def to_dict(self) -> dict[str, Any]:
        given = dataclasses.asdict(self)
        return {k: v for k, v in given.items() if v is not None}


class _Field(NamedTuple):
    """How one field of an op is read."""

    types: frozenset[type]
    expected: str
    least: int
    required: bool
    default: Any
    priced: bool
    words: tuple[str, ...]


_PLAIN = frozenset({int, bool, str, float, type(None)})
_Seen = dict[Any, tuple[str, Any] | None]  # of values of one type, so that 1 is not taken for true


def read_key(entry: Mapping[str, Any], others: frozenset[str] = frozenset()) -> Key:
    """The key of a JSON entry, equal to ``op.price_fields(shape)`` of the op that it describes.

    No op is built, so that tables of 100,000 entries load quickly. ``others``: fields that are not part of the key.
    Errors: LatencyError that names the field and what was expected.
    """
    name = entry.get("op")
    if not isinstance(name, str) or name not in OPS:
        raise LatencyError(f"op is {shown(name)}; expected an op type{nearest(shown(name), OPS)}")
    key: list[tuple[str, Any]] = [("op", name)]
    for field, seen in _present(name, tuple(entry), tuple(map(type, entry.values())), others):
        value = entry[field]
        if seen is None:
            pair = _pair(name, field, value)
        else:
            try:
                pair = seen[value]
            except KeyError:
                pair = seen[value] = _pair(name, field, value)
        if pair is not None:
            key.append(pair)
    return tuple(key)


def write_key(key: Key) -> dict[str, Any]:
    """The JSON fields of ``key``: the inverse of ``read_key``."""
    return {k: _json(k, v) for k, v in key}


def describe_key(key: Key) -> str:
    """``ir(in=16, mid=96, out=24, kernel=5, stride=2) on 112x112``."""
    fields = write_key(key)
    op, height, width = (fields.pop(k) for k in ("op", *_SIZES))
    inner = ", ".join(f"{k}={v}" for k, v in fields.items())
    return f"{op}({inner}) on {height}x{width}"


def key_op(key: Key) -> tuple[Op, Shape]:
    """The op that ``key`` describes, and the shape that it reads. Errors: ArchitectureError if no such op is possible."""
    fields = dict(key)
    kind = OPS[fields.pop("op")]
    height, width = (fields.pop(n) for n in _SIZES)
    channels = fields.pop("channels", None)
    if isinstance(fields.get("se"), tuple):
        fields["se"] = SE(**dict(fields["se"]))
    names = {f.name.rstrip("_"): f.name for f in dataclasses.fields(kind)}
    op = kind(**{names[n]: v for n, v in fields.items()})
    return op, Shape(height, width, channels or op.in_channels or 1)


def nearest_keys(key: Key, keys: Iterable[Key], n: int = 3) -> list[Key]:
    """The ``n`` most similar keys: the same op first, then the closest field values (ratios for numbers)."""
    wanted = dict(key)

    def distance(other: Key) -> float:
        given = dict(other)
        total = 0.0 if given["op"] == wanted["op"] else 1e6
        for field in wanted.keys() | given.keys():
            a, b = wanted.get(field), given.get(field)
            if type(a) is int and type(b) is int and a > 0 and b > 0:
                total += abs(math.log(a / b)) + 0.05 * (a != b)
            elif a != b:
                total += 1.0
        return total

    return heapq.nsmallest(n, keys, key=distance)


def read_entries(given: Any, negative: bool) -> dict[Key, Entry]:
    """Key -> figures. ``negative``: whether figures below 0 make sense. Errors: LatencyError, with the index."""
    entries: dict[Key, Entry] = {}
    for index, (key, row) in enumerate(_rows(given, "entries", _FIGURES)):
        try:
            entry = _figures(row, negative)
        except LatencyError as problem:
            raise LatencyError(f"entries[{index}]: {describe_key(key)}: {problem}") from None
        if key in entries:
            first = list(entries).index(key)
            raise LatencyError(f"entries[{index}]: {describe_key(key)} was given before, as entries[{first}]")
        entries[key] = entry
    return entries


def read_covers(given: Any) -> tuple[Key, ...]:
    """The keys of ``constant_covers``. Errors: LatencyError, with the index."""
    return tuple(key for key, _ in _rows(given, "constant_covers", frozenset()))


def number(where: str, value: Any, negative: bool = False, unit: str = "ms") -> float:
    """A finite figure in ``unit``. Errors: LatencyError."""
    if type(value) not in (int, float) or not (-LARGEST_MS if negative else 0) <= value <= LARGEST_MS:
        kind = "a number" if negative else "a number that is not negative"
        raise LatencyError(f"{where} is {shown(value)}; expected {kind}, at most {LARGEST_MS:g} {unit}")
    return float(value)


def whole(where: str, value: Any) -> int:
    """A positive whole number. Errors: LatencyError."""
    if type(value) is not int or not 1 <= value <= MAX_SIZE:
        raise LatencyError(f"{where} is {shown(value)}; expected a whole number from 1 to {MAX_SIZE}")
    return value


def _rows(given: Any, field: str, others: frozenset[str]) -> Iterator[tuple[Key, Mapping[str, Any]]]:
    if not isinstance(given, list | tuple):
        raise LatencyError(f"{field} is {shown(given)}; expected a list of objects")
    for index, row in enumerate(given):
        if type(row) is not dict and not isinstance(row, Mapping):
            raise LatencyError(f"{field}[{index}] is {shown(row)}; expected an object")
        try:
            key = read_key(row, others)
        except LatencyError as problem:
            raise LatencyError(f"{field}[{index}]: {problem}") from None
        yield key, row


def _figures(row: Mapping[str, Any], negative: bool) -> Entry:
    if "ms" not in row:
        raise LatencyError("missing field 'ms'")
    ms = number("ms", row["ms"], negative)
    if "ms_p10" not in row and "ms_p90" not in row and "count" not in row and "mj" not in row:
        return Entry(ms)
    low, high, count, mj = (row.get(name) for name in ("ms_p10", "ms_p90", "count", "mj"))
    low = None if low is None else number("ms_p10", low, negative)
    high = None if high is None else number("ms_p90", high, negative)
    if low is not None and high is not None and low > high:
        raise LatencyError(f"ms_p10 is {low} and ms_p90 is {high}; expected the 10th percentile to be the smaller")
    mj = None if mj is None else number("mj", mj, negative, "mJ")
    return Entry(ms, low, high, None if count is None else whole("count", count), mj)


_CACHE: dict[str, dict[str, _Field]] = {}


@lru_cache(maxsize=1024)
def _present(
    name: str, given: tuple[str, ...], types: tuple[type, ...], others: frozenset[str]
) -> tuple[tuple[str, _Seen | None], ...]:
    """Those of the fields ``given`` that op ``name`` has, in the key's order, each with the parts that it has given.

    ``types``: of the values of ``given``. Large tables hold few distinct values of few types, so that equal parts of keys
    become one object; None for values that cannot be looked up. Errors: LatencyError.
    """
    fields = _fields(name)
    for field in given:
        if field not in fields and field != "op" and field not in others and field not in LABELS:
            raise LatencyError(f"{name}: unknown field {shown(field)}{nearest(shown(field), [*fields, *others])}")
    for field, rule in fields.items():
        if rule.required and field not in given:
            raise LatencyError(f"{name}: missing field {field!r}; expected {rule.expected}")
    kinds = dict(zip(given, types, strict=True))
    return tuple((field, {} if kinds[field] in _PLAIN else None) for field in fields if field in given)


def _pair(name: str, field: str, value: Any) -> tuple[str, Any] | None:
    """One part of a key: (field, value), or None at the default or where it costs nothing. Errors: LatencyError."""
    rule, kind = _fields(name)[field], type(value)
    if kind not in rule.types:
        raise LatencyError(f"{name}: {field} is {shown(value)}; expected {rule.expected}")
    if kind is int and not rule.least <= value <= MAX_SIZE:
        raise LatencyError(f"{name}: {field} is {shown(value)}; expected {rule.least} to {MAX_SIZE}")
    if rule.words and value is not None and value not in rule.words:
        raise LatencyError(f"{name}: {field} is {shown(value)}{nearest(shown(value), rule.words)}")
    if kind is list:
        value = _sizes(name, field, value)
    elif kind is dict:
        value = _squeeze_excite(name, value)
    return (field, value) if rule.priced and value != rule.default else None


def _fields(name: str) -> dict[str, _Field]:
    """The fields of op type ``name`` by JSON name, then height and width."""
    if name in _CACHE:
        return _CACHE[name]
    kind, result = OPS[name], {}
    for field in dataclasses.fields(kind):
        words = str(field.type)
        types = {t for name, t in _TYPES.items() if name in words} | ({type(None)} if "None" in words else set())
        expected = " or ".join(_WORDS[t] for t in sorted(types, key=lambda t: t.__name__))
        least = 1 if field.name in POSITIVE else 0
        default = None if field.default is dataclasses.MISSING else field.default
        priced, required = field.name not in kind.unpriced, field.default is dataclasses.MISSING
        options = ACTIVATIONS if field.name in ("act", "pw_act") else ()
        result[field.name.rstrip("_")] = _Field(frozenset(types), expected, least, required, default, priced, options)
    size = _Field(frozenset({int}), "a whole number of pixels", 1, True, None, True, ())
    channels = {} if "in" in result else {"channels": size._replace(expected="a whole number of channels")}
    _CACHE[name] = result | channels | dict.fromkeys(_SIZES, size)
    return _CACHE[name]


_TYPES: dict[str, type] = {"int": int, "bool": bool, "str": str, "float": float, "tuple": list, "SE": dict}
_WORDS: dict[type, str] = {
    int: "a whole number", bool: "true or false", str: "text", float: "a number", list: "a list of whole numbers",
    dict: "an object with reduce and gate", type(None): "null",
}  # fmt: skip


def _sizes(op: str, field: str, given: list[Any]) -> tuple[int, ...]:
    if not given or any(type(v) is not int or not 1 <= v <= MAX_SIZE for v in given):
        raise LatencyError(f"{op}: {field} is {shown(given)}; expected a list of positive whole numbers")
    return tuple(given)


def _squeeze_excite(op: str, given: dict[str, Any]) -> Key:
    """Width and gate: what the price depends on; the inner activation and the bias may be given and are dropped."""
    reduce = given.get("reduce")
    if type(reduce) is not int or not 1 <= reduce <= MAX_SIZE:
        raise LatencyError(f"{op}: se.reduce is {shown(reduce)}; expected a positive whole number")
    try:
        se = SE(**given)
    except (TypeError, ArchitectureError):
        raise LatencyError(f"{op}: se is {shown(given)}; expected fields reduce, act, gate, bias") from None
    return (("reduce", se.reduce), ("gate", se.gate))


def _json(field: str, value: Any) -> Any:
    if isinstance(value, tuple):
        return dict(value) if field == "se" else list(value)
    return value
