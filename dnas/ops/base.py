"""What every op type is: a frozen dataclass that expands to primitives.

An op (a row of the paper's block table) is *defined* by its list of steps in execution order. Parameters, MACs,
shapes, the features of a latency cost model and the Flax layer are all computed from that list, so a new op type is
one dataclass with one method. Nothing here imports JAX.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar

from dnas.errors import ArchitectureError, nearest
from dnas.files import shown
from dnas.ops.memory import alive
from dnas.ops.primitives import Primitive, Shape, SqueezeExcite

ACTIVATIONS = ("relu", "relu6", "hswish", "swish", "gelu")
GATES = ("sigmoid", "hsigmoid")
PADDINGS = ("symmetric", "tf_same")
MAX_SIZE = 1 << 24  # of any width, kernel or map: far above every network, far below what arithmetic would choke on
# Labels of published files: informative, never part of an op's identity.
LABELS = frozenset({"part", "from", "expansion", "endpoint", "input_ratio", "output_ratio"})
# JSON fields that are written only where they differ from the default, and those that may be absent when read.
_QUIET = frozenset({"pad", "expand_groups", "project_groups", "shuffle", "expand_splits", "project_splits", "layer_scale"})
OPTIONAL = _QUIET | {"bias", "se", "groups", "norm", "pw_act"}


OPS: dict[str, type[Op]] = {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Op:
    """One layer of a network. Subclasses set ``op`` (the JSON name) and implement ``steps``.

    Field names are those of the JSON, with a trailing underscore where Python reserves the word (``in_``).
    """

    op: ClassVar[str]
    unpriced: ClassVar[frozenset[str]] = frozenset({"bias", "norm"})  # not part of the latency key

    def __init_subclass__(cls) -> None:
        if "op" in cls.__dict__:
            OPS[cls.op] = cls

    # -- what a subclass says -------------------------------------------------------------------------------------

    def steps(self) -> tuple[Primitive, ...]:
        """What the op does, in order; a step may itself be made of primitives (``Residual``, ``Split``, ``Mean``)."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise ValueError, in words, where the fields contradict each other."""

    @property
    def label(self) -> str:
        """Short name among the candidates of one layer, as the paper writes it (k3_e6)."""
        return self.op

    @property
    def in_channels(self) -> int | None:
        """Input channels that the op needs; None if any will do."""
        return getattr(self, "in_", None)

    # -- what follows from it -------------------------------------------------------------------------------------

    def __post_init__(self) -> None:
        _check_types(self)
        try:
            self.check()
        except ValueError as problem:
            raise ArchitectureError(f"{self.op}: {problem}") from None

    def primitives(self) -> tuple[Primitive, ...]:
        """The primitives of all steps in execution order; their names are places in the parameter tree."""
        return tuple(leaf for step in self.steps() for leaf in step.leaves())

    @property
    def has_residual(self) -> bool:
        return bool(getattr(self, "residual", False))

    @property
    def params(self) -> int:
        """Trainable parameters: weights, biases, BN gamma and beta."""
        return sum(p.params for p in self.primitives())

    def trace(self, shape: Shape) -> tuple[tuple[Primitive, Shape], ...]:
        """Each primitive with the shape that it reads. Errors: ArchitectureError where the shapes cannot work."""
        return _walk(self, shape)[0]

    def out_shape(self, shape: Shape) -> Shape:
        return _walk(self, shape)[1]

    def macs(self, shape: Shape) -> int:
        return sum(p.macs(s) for p, s in self.trace(shape))

    def peak_activation_bytes(self, shape: Shape) -> int:
        """The most memory that maps take at one time, batch 1, float32 (``dnas.ops.memory``); input and output are counted."""
        return 4 * alive(self.steps(), shape, self.has_residual)

    def to_dict(self) -> dict[str, Any]:
        """JSON object: ``op`` and all fields, in order; rare ones only where they differ from their default."""
        fields = [f for f in dataclasses.fields(self) if f.name not in _QUIET or not _is_default(self, f)]
        return {"op": self.op} | {_json_name(f): _json_value(getattr(self, f.name)) for f in fields}

    def price_fields(self, shape: Shape) -> tuple[tuple[str, Any], ...]:
        """What the latency of this op on ``shape`` depends on, as (field, value): the key of a latency table.

        Fields at their default are left out; so are convolution biases and normalisation, which cost nothing once folded.
        """
        fields = [f for f in dataclasses.fields(self) if f.name not in self.unpriced and not _is_default(self, f)]
        values = ((_json_name(f), getattr(self, f.name)) for f in fields)
        priced = ((k, (("reduce", v.reduce), ("gate", v.gate)) if isinstance(v, SE) else v) for k, v in values)
        channels = () if self.in_channels is not None else (("channels", shape.channels),)
        return (("op", self.op), *priced, *channels, ("height", shape.height), ("width", shape.width))

    def __str__(self) -> str:
        """As a row of a paper's table: ``ir k5 e6 se24 hswish +`` (+: adds its input)."""
        own = self.op.split("_")
        words = [w for w in self.label.split("_") if w not in own and w != "se"]
        se = getattr(self, "se", None)
        act = (getattr(self, "act", None), getattr(self, "pw_act", None))
        words += [f"se{se.reduce}"] if se else []
        return " ".join([self.op, *words, *(a for a in act if a), *["+"] * self.has_residual])

    def __repr__(self) -> str:
        fields = [f for f in dataclasses.fields(self) if not _is_default(self, f)]
        return f"{self.op}({', '.join(f'{_json_name(f)}={getattr(self, f.name)}' for f in fields)})"


@dataclasses.dataclass(frozen=True)
class SE:
    """Squeeze-excite of a layer: exact ``reduce`` width, inner activation and gate."""

    reduce: int
    act: str = "relu"
    gate: str = "hsigmoid"
    bias: bool = True

    def __post_init__(self) -> None:
        sized = type(self.reduce) is int and 1 <= self.reduce <= MAX_SIZE
        if not sized or self.act not in ACTIVATIONS or self.gate not in GATES or type(self.bias) is not bool:
            raise ArchitectureError(
                f"se is {shown(vars(self))}; expected a width of at least 1, an activation of {', '.join(ACTIVATIONS)}, "
                f"a gate of {', '.join(GATES)}, and a bias of true or false"
            )

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def primitive(self, channels: int) -> SqueezeExcite:
        return SqueezeExcite("se", channels, self.reduce, self.act, self.gate, self.bias)


def op_from_dict(given: Mapping[str, Any]) -> Op:
    """Inverse of ``Op.to_dict``; labels of published files are dropped. Errors: ArchitectureError."""
    if not isinstance(given, Mapping) or not isinstance(given.get("op"), str):
        raise ArchitectureError(f"a layer must be an object with a field 'op', got {shown(given)}")
    kind = OPS.get(given["op"])
    if kind is None:
        raise ArchitectureError(f"unknown op {given['op']!r}{nearest(given['op'], OPS)}")
    known = {_json_name(f): f for f in dataclasses.fields(kind)}
    values = {}
    for name, value in given.items():
        if name == "op" or name in LABELS:
            continue
        if name not in known:
            raise ArchitectureError(f"{kind.op}: unknown field {shown(name)}{nearest(str(name), known)}")
        if name == "se" and isinstance(value, Mapping):
            try:
                value = SE(**value)
            except TypeError:
                raise ArchitectureError(
                    f"{kind.op}: se has fields {', '.join(map(str, value))}; expected reduce, act, gate, bias"
                ) from None
        values[known[name].name] = tuple(value) if isinstance(value, list) else value
    missing = [n for n, f in known.items() if f.name not in values and f.name not in OPTIONAL]
    if missing:
        raise ArchitectureError(f"{kind.op}: missing field {missing[0]!r}")
    return kind(**values)


@lru_cache(maxsize=65536)
def _walk(op: Op, shape: Shape) -> tuple[tuple[tuple[Primitive, Shape], ...], Shape]:
    """Every primitive with the shape that it reads, and the output shape."""
    found: list[tuple[Primitive, Shape]] = []
    out = shape
    for step in op.steps():
        try:
            found += step.walk(out)
        except ArchitectureError as problem:
            raise ArchitectureError(f"{op.op}: {problem}") from None
        out = step.out_shape(out)
    if op.has_residual and out != shape:
        raise ArchitectureError(f"{op.op}: a residual needs equal shapes, got {shape} -> {out}")
    if not found and op.in_channels not in (None, shape.channels):
        raise ArchitectureError(f"{op.op}: takes {op.in_channels} channels but is given {shape.channels} ({shape})")
    return tuple(found), out


def _json_name(field: dataclasses.Field[Any]) -> str:
    return field.name.rstrip("_")


def _json_value(value: Any) -> Any:
    return value.to_dict() if isinstance(value, SE) else list(value) if isinstance(value, tuple) else value


def _is_default(op: Op, field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING and getattr(op, field.name) == field.default


POSITIVE = frozenset({
    "in_", "mid", "mid_in", "mid_out", "out", "kernel", "stride", "groups", "expand_groups", "project_groups",
    "shuffle", "expand_splits", "project_splits", "dim", "hidden", "pool", "heads", "key_dim", "value_dim", "resolution",
})  # fmt: skip
KERNELS = frozenset({"kernel", "pool", "dw_start", "dw_mid", "dw_end"})  # 0: there is none


def _check_types(op: Op) -> None:
    """Fields by their annotation: int, bool, str, ...; sizes must be positive."""
    for field in dataclasses.fields(op):
        value = getattr(op, field.name)
        name, kinds = _json_name(field), str(field.type)
        fits = (
            (value is None and "None" in kinds)
            or (isinstance(value, bool) and "bool" in kinds)
            or (isinstance(value, int) and not isinstance(value, bool) and "int" in kinds)
            or (isinstance(value, float) and "float" in kinds)
            or (isinstance(value, str) and "str" in kinds)
            or (isinstance(value, SE) and "SE" in kinds)
            or (isinstance(value, tuple) and "tuple" in kinds and all(type(v) is int for v in value) and value)
        )
        if not fits:
            raise ArchitectureError(f"{op.op}: {name} is {shown(value)}; expected {kinds}")
        sizes = value if isinstance(value, tuple) else (value,)
        least = 1 if field.name in POSITIVE else 0
        if any(type(v) is int and not least <= v <= MAX_SIZE for v in sizes):
            raise ArchitectureError(f"{op.op}: {name} is {shown(value)}; expected {least} to {MAX_SIZE}")
        if field.name in KERNELS and any(v and v % 2 == 0 for v in sizes) and getattr(op, "pad", None) is None:
            raise ArchitectureError(f"{op.op}: {name} is {shown(value)}; an even kernel has no middle: give pad as well")
        if field.name in ("act", "pw_act") and value is not None and value not in ACTIVATIONS:
            raise ArchitectureError(f"{op.op}: {name} is {shown(value)}{nearest(str(value), ACTIVATIONS)}")
