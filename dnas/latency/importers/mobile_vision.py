"""mobile-vision LUT JSON (facebookresearch/mobile-vision): one record per primitive operator, in microseconds.

One JSON object per line (or a list of objects; or a zip that holds such a file): ``op_type, op_args, input_shapes,
input_dtypes, runtime_us_p0 ... p100, device``. A layer is the sum of its primitives, so the ops must be known: the candidates
of ``wanted.spaces``. Median times are taken, duplicates averaged; an int8 convolution without relu falls back to the one
with, as the project does. Records that no layer of the spaces uses are listed, and so are layers that lack a record.
Its data are CC BY-NC 4.0, a separate download. Wu et al., FBNet, CVPR 2019, arXiv:1812.03443.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dnas.errors import LatencyError
from dnas.files import shown
from dnas.latency.importers.common import Found, Left, Record, Wanted, field, figure
from dnas.ops import Op, Shape
from dnas.ops.primitives import Act, Conv, Dense, GlobalPool, Norm, Primitive, Shuffle
from dnas.space import load_space

MICROSECONDS_PER_MS = 1000.0
LARGEST_FILE = 1 << 30  # bytes after unpacking
Query = tuple[str, tuple[int, ...], tuple[int, ...], int, int]  # operator, input, weights, stride, groups


def read(path: Path, wanted: Wanted) -> Found:
    """Candidates of ``wanted.spaces`` in ms. Errors: LatencyError."""
    if not wanted.spaces:
        raise LatencyError("holds primitive operators; give --spaces, whose layers are to be composed of them")
    rows: dict[Query, list[tuple[int, float]]] = {}
    devices, total = set(), 0
    for total, (where, row) in enumerate(_rows(path), 1):
        us = figure(f"{where}: runtime_us_p50", field(row, where, "runtime_us_p50", (int, float)))
        rows.setdefault(_query(where, row), []).append((total, us))
        devices.add(field(row, where, "device", str))
    if len(devices) != 1:
        raise LatencyError(f"holds records of {len(devices)} devices ({', '.join(sorted(devices)[:5])}); expected one")
    median_ms = {q: sum(us for _, us in same) / len(same) / MICROSECONDS_PER_MS for q, same in rows.items()}
    int8 = any(q[0].startswith("Int8") for q in rows)
    records: dict[tuple[Op, Shape], Record] = {}
    left: dict[str, Left] = {}
    used: set[Query] = set()
    for op, shape in _layers(wanted.spaces):
        queries = [next((q for q in options if q in rows), options[0]) for options in _needs(op, shape, int8)]
        lacking = [q for q in queries if q not in rows]
        used.update(q for q in queries if q in rows)
        name = f"{op!r} on {shape.height}x{shape.width}"
        if lacking:
            left[name] = Left(name, f"no record of {_words(lacking[0])}")
        else:
            records[op, shape] = Record(name, op, shape, sum(median_ms[q] for q in queries))
    for query, same in rows.items():
        if query not in used:
            left |= {f"record {n}": Left(f"record {n}: {_words(query)}", "no layer of the spaces uses it") for n, _ in same}
    resolutions = [load_space(s).resolution for s in wanted.spaces]
    about: dict[str, Any] = {
        "device": devices.pop(), "runtime": "Caffe2", "precision": "int8" if int8 else "float32", "status": "measured",
        "meaning": "absolute", "resolutions": (min(resolutions), max(resolutions)),
        "source": {"who": "facebookresearch/mobile-vision", "where": "arXiv:1812.03443", "licence": "CC BY-NC 4.0"},
    }  # fmt: skip
    notes = (
        "Each entry is the sum of the medians of its operators, microseconds / 1000; sums of percentiles would be none.",
        "Normalisation and relu are inside the convolutions of an int8 engine.",
    )
    return Found(tuple(records.values()), tuple(left.values()), about, total, notes)


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """("record 1", object), ... of a JSON file, one object per line or a list, possibly inside a zip. Errors: LatencyError."""
    try:
        data = path.read_bytes()
        if zipfile.is_zipfile(io.BytesIO(data)):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                names = [i for i in archive.infolist() if i.filename.endswith(".json")]
                if len(names) != 1 or names[0].file_size > LARGEST_FILE:
                    raise LatencyError(f"the zip holds {len(names)} .json files; expected one, of at most {LARGEST_FILE} bytes")
                data = archive.read(names[0])
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError, zipfile.BadZipFile, RuntimeError) as problem:
        raise LatencyError(f"cannot be read ({getattr(problem, 'strerror', None) or problem})") from None
    try:
        if text.lstrip().startswith("["):
            yield from ((f"record {n}", row) for n, row in enumerate(json.loads(text), 1))
            return
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield f"record {number}", json.loads(line)
    except (ValueError, RecursionError) as problem:
        raise LatencyError(f"not JSON, one object per line: {problem}") from None


def _query(where: str, row: Any) -> Query:
    """What a record stands for. Errors: LatencyError."""
    kind = field(row, where, "op_type", str)
    shapes = field(row, where, "input_shapes", list)
    whole = all(isinstance(s, list) and all(type(n) is int and n > 0 for n in s) for s in shapes)
    arguments = field(row, where, "op_args", list)
    if not shapes or not whole or not all(isinstance(a, str) for a in arguments):
        raise LatencyError(f"{where}: input_shapes is {shown(shapes)}; expected lists of positive whole numbers")
    found = {}
    for text in arguments:
        name, value = re.search(r'name:\s*"(\w+)"', text), re.search(r"(?m)^\s*(?:i|ints):\s*(\d{1,7})\s*$", text)
        if name and value:
            found[name[1].removesuffix("s") if name[1] in ("strides", "kernels") else name[1]] = int(value[1])
    weights = tuple(shapes[1]) if len(shapes) > 1 else ()
    return kind, tuple(shapes[0]), weights, found.get("stride", 1), found.get("group", 1)


def _layers(spaces: tuple[str, ...]) -> Iterator[tuple[Op, Shape]]:
    for spec in spaces:
        for slot in load_space(spec).slots:
            yield from ((c.op, slot.shape_of(c)) for c in slot.candidates if c.op.primitives())


def _needs(op: Op, shape: Shape, int8: bool) -> list[list[Query]]:
    """For each operator that ``op`` launches, the records that may stand for it, the best first."""
    steps = op.trace(shape)
    needs: list[list[Query]] = []
    for index, (primitive, given) in enumerate(steps):
        after = steps[index + 1][0] if index + 1 < len(steps) else None
        relu = isinstance(after, Norm | Act) and after.act in ("relu", "relu6")
        needs += _operators(primitive, given, relu, int8)
    if op.has_residual:
        out = _map(op.out_shape(shape), int8)
        needs.append([(kind, out, out, 1, 1) for kind in (("Int8Add", "Int8Sum") if int8 else ("Add", "Sum"))])
    return needs


def _operators(primitive: Primitive, given: Shape, relu: bool, int8: bool) -> list[list[Query]]:
    prefix, source = "Int8" if int8 else "", _map(given, int8)
    if isinstance(primitive, Norm):  # folded into the convolution; only a clamp is
        return [] if primitive.act in (None, "relu", "relu6") else [[(f"{prefix}{primitive.act}", source, (), 1, 1)]]
    if isinstance(primitive, Conv):
        k, into = primitive.kernel, primitive.in_ // primitive.groups
        weights: tuple[int, ...] = (primitive.out, k, k, into) if int8 else (primitive.out, into, k, k)
        kinds = ("Int8ConvRelu",) if int8 and relu else ("Int8Conv", "Int8ConvRelu") if int8 else ("Conv",)
        found = [[(kind, source, weights, primitive.stride, primitive.groups) for kind in kinds]]
        out = _map(primitive.out_shape(given), int8)
        return found if int8 or not relu else [*found, [("Relu", out, (), 1, 1)]]
    if isinstance(primitive, Shuffle):
        return [[(f"{prefix}ChannelShuffle", source, (), 1, primitive.groups)]]
    if isinstance(primitive, GlobalPool):
        return [[(f"{prefix}AveragePool", source, (), stride, 1) for stride in (1, given.height)]]
    if isinstance(primitive, Dense):
        shapes: tuple[tuple[int, ...], ...] = ((1, primitive.in_), source)  # flattened, or as the pooling gives it
        return [[(f"{prefix}FC", s, (primitive.out, primitive.in_), 1, 1) for s in shapes]]
    return [[(f"{prefix}{type(primitive).__name__}", source, (), 1, 1)]]


def _map(shape: Shape, int8: bool) -> tuple[int, ...]:
    """The int8 engine stores channels last, the float engine first."""
    height, width, channels = shape
    return (1, height, width, channels) if int8 else (1, channels, height, width)


def _words(query: Query) -> str:
    kind, source, weights, stride, groups = query
    return f"{kind} on {list(source)}" + (f" with weights {list(weights)}, stride {stride}, group {groups}" if weights else "")
