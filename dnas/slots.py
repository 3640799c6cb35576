"""From a space's description to slots: for each layer its candidates, and which options of which choices select them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from dnas.errors import ArchitectureError, SpaceError, nearest
from dnas.factors import LARGEST_TABLE
from dnas.files import shown
from dnas.ops import Op, Shape, SkipOp


@dataclasses.dataclass(frozen=True)
class OneOf:
    """A choice. Options are ops (a layer choice) or values of one field (a field choice).

    The same ``name`` twice means tied: one logit vector decides both places.
    """

    name: str
    options: tuple[Any, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(self.options))
        if not isinstance(self.name, str) or not self.name:
            raise SpaceError(f"a OneOf needs a name, got {shown(self.name)}")
        if len(self.options) < 1:
            raise SpaceError(f"{self.name}: no options; expected at least one")
        try:
            distinct = len(set(self.options))
        except TypeError:
            raise SpaceError(f"{self.name}: options {shown(self.options)}; expected ops, or plain values of a field") from None
        if distinct != len(self.options):
            raise SpaceError(f"{self.name}: the same option appears twice in {self.labels}")

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the options: k3_e6 for an op, its name for a choice within a choice, the value itself for a field."""
        if all(isinstance(o, Op) for o in self.options):
            return told_apart(self.options)
        return tuple(
            o.label if isinstance(o, Op | Template) else o.name if isinstance(o, OneOf) else str(o) for o in self.options
        )


@dataclasses.dataclass(frozen=True, init=False)
class Template:
    """An op some of whose fields are ``OneOf``: ``Template(InvertedResidualOp, in_=16, kernel=OneOf("k1", (3, 5)), ...)``."""

    kind: type[Op]
    fields: tuple[tuple[str, Any], ...]

    def __init__(self, kind: type[Op], **fields: Any) -> None:
        known = {f.name: f.default for f in dataclasses.fields(kind)}
        for name in fields:
            if name not in known:
                raise SpaceError(f"{kind.op}: unknown field {name!r}{nearest(name, known)}")
        full = {n: fields.get(n, default) for n, default in known.items()}
        if missing := [n for n, value in full.items() if value is dataclasses.MISSING]:
            raise SpaceError(f"{kind.op}: missing field {missing[0]!r}")
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "fields", tuple(full.items()))

    @property
    def label(self) -> str:
        return self.kind.op

    @property
    def choices(self) -> tuple[OneOf, ...]:
        return tuple(v for _, v in self.fields if isinstance(v, OneOf))

    def build(self, picked: Mapping[str, int]) -> Op:
        return self.kind(**{k: v.options[picked[v.name]] if isinstance(v, OneOf) else v for k, v in self.fields})


@dataclasses.dataclass(frozen=True)
class Stage:
    """Layers of which the first d run; ``depth`` chooses d. Layers that may be dropped must keep their shape."""

    depth: OneOf
    layers: tuple[Op | OneOf | Template, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        depths = self.depth.options
        if not all(type(d) is int and 0 <= d <= len(self.layers) for d in depths):
            raise SpaceError(f"{self.depth.name}: depths {depths}; expected whole numbers from 0 to {len(self.layers)}")


Layer = Op | OneOf | Template | Stage


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One op that a slot may become. It runs if every choice named in ``when`` takes one of the listed options."""

    op: Op
    label: str
    when: tuple[tuple[str, tuple[int, ...]], ...]
    off: bool = False  # stands for a layer that the stage's depth drops


@dataclasses.dataclass(frozen=True)
class Slot:
    """One position of the network: its candidates and the shapes between which they work."""

    index: int
    in_shape: Shape
    out_shape: Shape
    candidates: tuple[Candidate, ...]
    choices: tuple[str, ...]
    sizes: tuple[int, ...]

    @cached_property
    def table(self) -> np.ndarray:
        """Index of the candidate that each combination of options selects, i32[sizes]."""
        if len(self.sizes) > 32 or math.prod(self.sizes) > LARGEST_TABLE:
            raise SpaceError(
                f"layer {self.index}: {len(self.sizes)} choices decide it together; expected fewer, or fewer options"
            )
        table = np.full(self.sizes, -1, np.int32)
        for number, candidate in enumerate(self.candidates):
            when = dict(candidate.when)
            index = np.ix_(*(when.get(n, range(s)) for n, s in zip(self.choices, self.sizes, strict=True)))
            if (table[index] >= 0).any():
                raise SpaceError(f"layer {self.index}: candidate {candidate.label} is selected twice")
            table[index] = number
        if (table < 0).any():
            raise SpaceError(f"layer {self.index}: some combination of {', '.join(self.choices)} selects no candidate")
        return table

    def pick(self, assignment: Mapping[str, int]) -> int:
        """Index of the candidate that ``assignment`` selects."""
        return int(self.table[tuple(assignment[n] for n in self.choices)])


def choices_of(layers: tuple[Layer, ...]) -> dict[str, OneOf]:
    """All choices by name, in traversal order. Errors: SpaceError where tied choices do not match."""
    found: dict[str, OneOf] = {}

    def visit(item: Any) -> None:
        if isinstance(item, OneOf):
            tied = found.setdefault(item.name, item)
            if tied.labels != item.labels:
                raise SpaceError(f"{item.name}: tied choices have options {tied.labels} and {item.labels}")
            for option in item.options:
                visit(option)
        elif isinstance(item, Template):
            for choice in item.choices:
                visit(choice)
        elif isinstance(item, Stage):
            visit(item.depth)
            for layer in item.layers:
                visit(layer)

    for layer in layers:
        visit(layer)
    return found


def build_slots(layers: tuple[Layer, ...], shape: Shape, choices: Mapping[str, OneOf]) -> tuple[Slot, ...]:
    """One slot per layer. Errors: SpaceError that names the layer whose candidates do not fit."""
    slots: list[Slot] = []
    for candidates, dropped in _flatten(layers):
        index = len(slots)
        if dropped:
            skip = SkipOp(in_=shape.channels, out=shape.channels)
            candidates = [*candidates, Candidate(skip, "off", (dropped,), off=True)]
        names = tuple(n for n in choices if any(n == m for c in candidates for m, _ in c.when))
        outs = {}
        for candidate in candidates:
            try:
                outs[candidate.label] = candidate.op.out_shape(shape)
            except ArchitectureError as problem:
                raise SpaceError(f"layer {index} ({', '.join(names)}), candidate {candidate.label}: {problem}") from None
        if len(outs) != len(candidates):
            raise SpaceError(f"layer {index}: two candidates share a label among {[c.label for c in candidates]}")
        if len(set(outs.values())) != 1:
            shapes = ", ".join(f"{k}: {v}" for k, v in outs.items())
            raise SpaceError(f"layer {index} ({', '.join(names)}): candidates give different shapes ({shapes})")
        sizes = tuple(len(choices[n].options) for n in names)
        out = next(iter(outs.values()))
        slots.append(Slot(index, shape, out, tuple(candidates), names, sizes))
        slots[-1].table  # noqa: B018  checks that every combination selects exactly one candidate
        shape = out
    return tuple(slots)


def _flatten(layers: tuple[Layer, ...]) -> Iterator[tuple[list[Candidate], tuple[str, tuple[int, ...]] | None]]:
    """Candidates of each layer, and the depth options (choice, indices) that drop it."""
    index = 0
    for layer in layers:
        if not isinstance(layer, Stage):
            yield _candidates(layer, index), None
            index += 1
            continue
        name, depths = layer.depth.name, layer.depth.options
        for position, inner in enumerate(layer.layers):
            on = tuple(i for i, d in enumerate(depths) if d > position)
            off = tuple(i for i, d in enumerate(depths) if d <= position)
            kept = _candidates(inner, index)
            index += 1
            if off:
                kept = [dataclasses.replace(c, when=((name, on), *c.when)) for c in kept]
            yield kept, (name, off) if off else None


def _candidates(item: Op | OneOf | Template, index: int) -> list[Candidate]:
    try:
        expanded = list(_expand(item, {}))
    except (ArchitectureError, SpaceError) as problem:
        raise SpaceError(f"layer {index}: {problem}") from None
    labels = told_apart([op for op, _ in expanded])
    return [
        Candidate(op, label, tuple((n, (i,)) for n, i in when.items()))
        for (op, when), label in zip(expanded, labels, strict=True)
    ]


def told_apart(ops: Sequence[Op]) -> tuple[str, ...]:
    """Short names of ``ops``, all different: with the family, and with the fields that differ, where labels alone do not do."""
    labels = [op.label for op in ops]
    if len(set(labels)) < len(labels) and len({op.op for op in ops}) > 1:  # several families in one layer: say which
        labels = [f"{op.op}_{op.label}" for op in ops]
    for label in {x for x in labels if labels.count(x) > 1}:
        alike = [i for i, x in enumerate(labels) if x == label]
        fields = dataclasses.fields(ops[alike[0]])
        told = [f.name for f in fields if len({getattr(ops[i], f.name) for i in alike}) > 1]
        for i in alike:
            labels[i] = "_".join([label, *(_said(name, getattr(ops[i], name)) for name in told)])
    return tuple(labels)


def _said(name: str, value: Any) -> str:
    """hswish, residual, no_se, out24."""
    if value is None or value is False:
        return f"no_{name}"
    return value if isinstance(value, str) else name if value is True else f"{name.rstrip('_')}{value}"


def _expand(item: Any, when: dict[str, int]) -> Iterator[tuple[Op, dict[str, int]]]:
    if isinstance(item, Op):
        yield item, when
    elif isinstance(item, OneOf):
        for index, option in enumerate(item.options):
            if when.get(item.name, index) == index:
                yield from _expand(option, {**when, item.name: index})
    elif isinstance(item, Template):
        choices = {c.name: c for c in item.choices}
        free = [c for n, c in choices.items() if n not in when]
        for picked in itertools.product(*(range(len(c.options)) for c in free)):
            full = {**when, **dict(zip((c.name for c in free), picked, strict=True))}
            yield item.build(full), full
    else:
        raise SpaceError(f"a layer must be an op, a OneOf of ops, a Template or a Stage, got {shown(item)}")
