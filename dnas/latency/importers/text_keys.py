"""What the YAML tables of ProxylessNAS and Once-for-all share: text keys such as ``Conv-input:224x224x3-output:112x112x32``."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dnas.errors import ArchitectureError, LatencyError
from dnas.files import shown
from dnas.latency.importers.common import Found, Left, Record, figure
from dnas.latency.keys import whole
from dnas.ops import ConvOp, GlobalPoolOp, InvertedResidualOp, LinearOp, Op, Shape
from dnas.ops.base import MAX_SIZE

Fields = dict[str, str]
Ops = list[tuple[Op, Shape]]


def read_text_keys(path: Path, block: Callable[[Fields], Ops], act: str, source: dict[str, Any], notes: list[str]) -> Found:
    """Every record of ``path``: key -> count, mean and var or std, in ms. ``block`` maps an ``expanded_conv``.

    ``act``: activation of the convolutions outside of blocks. Errors: LatencyError that names the record.
    """
    body = load_yaml(path)
    records: list[Record] = []
    left: list[Left] = []
    pixels: list[int] = []
    pooled = any(str(name).startswith("AvgPool2D-") for name in body)
    for name, row in body.items():
        if not isinstance(name, str) or not isinstance(row, dict) or "mean" not in row:
            raise LatencyError(f"{shown(name)} is {shown(row)}; expected an object with count and mean, in ms")
        ms, count = figure(f"{name}: mean", row["mean"]), row.get("count")
        count = None if count is None else whole(f"{name}: count", count)
        kind, *rest = name.split("-")
        fields = dict(part.split(":", 1) for part in rest if ":" in part)
        try:
            ops = block(fields) if kind == "expanded_conv" else _outer(kind, fields, act, pooled)
        except (KeyError, ValueError, ArchitectureError) as problem:
            reason = f"lacks {problem}" if isinstance(problem, KeyError) else str(problem)
            left.append(Left(name, f"its key cannot be read ({reason})"))
            continue
        if not ops:
            left.append(Left(name, f"{kind} is no layer that is known here"))
        if kind == "Conv":
            pixels.append(ops[0][1].height)
        if kind == "Logits" and not pooled:
            records += [Record(name, ops[0][0], ops[0][1], 0.0), Record(name, ops[1][0], ops[1][1], ms, runs=count)]
            continue
        records += [Record(name, op, shape, ms, runs=count) for op, shape in ops]
    if not pooled:
        notes = [*notes, "The time of Logits holds the pooling before it: it stands at the linear layer, the pooling costs 0."]
    about: dict[str, Any] = {"status": "measured", "meaning": "absolute", "source": source}
    if pixels:
        about["resolutions"] = (min(pixels), max(pixels))
    return Found(tuple(records), tuple(left), about, len(body), tuple(notes))


def shape(text: str) -> Shape:
    """``112x112x16`` (height, width, channels); a bare number is a vector. Errors: ValueError."""
    sizes = [int(n) for n in text.split("x")]
    sizes = [1, 1, *sizes] if len(sizes) == 1 else sizes
    if len(sizes) != 3 or any(not 1 <= n <= MAX_SIZE for n in sizes):
        raise ValueError(f"{shown(text)} is no height x width x channels")
    return Shape(*sizes)


def flag(fields: Fields, name: str) -> bool:
    """Field ``name``, which is 0 or 1. Errors: KeyError, ValueError."""
    if fields[name] not in ("0", "1"):
        raise ValueError(f"{name} is {shown(fields[name])}; expected 0 or 1")
    return fields[name] == "1"


def placed(op: Op, given: Shape, out: Shape) -> tuple[Op, Shape]:
    """(op, given), checked to give ``out``. Errors: ValueError."""
    if op.out_shape(given) != out:
        raise ValueError(f"{op!r} on {given} gives {op.out_shape(given)}, not {out}")
    return op, given


def inverted(fields: Fields, mid: int, act: str, **more: Any) -> tuple[InvertedResidualOp, Shape]:
    """The block that input, output, kernel, stride and idskip describe. Errors: KeyError, ValueError."""
    given, out = shape(fields["input"]), shape(fields["output"])
    op = InvertedResidualOp(
        in_=given.channels, mid=mid, out=out.channels, kernel=int(fields["kernel"]), stride=int(fields["stride"]),
        expand=mid != given.channels, act=act, residual=flag(fields, "idskip"), **more,
    )  # fmt: skip
    placed(op, given, out)
    return op, given


def _outer(kind: str, fields: Fields, act: str, pooled: bool) -> Ops:
    """Layers outside of the blocks: the stem is 3x3, later convolutions are 1x1."""
    if kind not in ("Conv", "Conv_1", "Conv_2", "AvgPool2D", "Logits"):
        return []
    given, out = shape(fields["input"]), shape(fields["output"])
    if kind == "AvgPool2D":
        return [placed(GlobalPoolOp(), given, out)]
    if kind == "Logits":
        linear = placed(LinearOp(in_=given.channels, out=out.channels), Shape(1, 1, given.channels), out)
        if pooled and given[:2] != (1, 1):
            raise ValueError(f"Logits reads {given}, though the pooling has a record of its own")
        return [linear] if pooled else [(GlobalPoolOp(), given), linear]
    kernel = 3 if kind == "Conv" else 1
    stride = -(-given.height // out.height)
    op = ConvOp(in_=given.channels, out=out.channels, kernel=kernel, stride=stride, act=act)
    return [placed(op, given, out)]


def load_yaml(path: Path) -> dict[Any, Any]:
    """The mapping in ``path``; repeated keys are refused. Errors: LatencyError."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Unique(loader):  # type: ignore[misc, valid-type]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key, _ in getattr(node, "value", []):
                if str(key.value) in seen:
                    raise LatencyError(f"{key.value!r} appears twice (line {key.start_mark.line + 1})")
                seen.add(str(key.value))
            return super().construct_mapping(node, deep)

    try:
        text = path.read_text(encoding="utf-8")
        if re.search(r"(?m)[:\s-][&*]\w", text):
            raise LatencyError("anchors and aliases have no place in a latency table")
        body = yaml.load(text, Loader=Unique)
    except (OSError, UnicodeDecodeError) as problem:
        raise LatencyError(f"cannot be read as text ({getattr(problem, 'strerror', None) or problem})") from None
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise LatencyError(f"not YAML{where}: {getattr(problem, 'problem', None) or type(problem).__name__}") from None
    except (ValueError, RecursionError) as problem:
        raise LatencyError(f"not acceptable YAML: {problem}") from None
    if not isinstance(body, dict):
        raise LatencyError(f"it holds {type(body).__name__}; expected key -> count and mean")
    return body
