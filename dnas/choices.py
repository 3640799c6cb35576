"""What a space's description is made of beside ops: choices, fields that follow them, layers with open fields, stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dnas.errors import SpaceError, nearest
from dnas.files import shown
from dnas.ops import SE, Op


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
        one_se = sum(isinstance(o, SE) for o in self.options) == 1
        return tuple(
            o.label if isinstance(o, Op | Template | Follow)
            else o.name if isinstance(o, OneOf)
            else "se" if isinstance(o, SE) and one_se  # tied with or without, whatever its width
            else str(o)
            for o in self.options
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Width(OneOf):
    """A choice of a number of channels by masks: all share one op of the largest width, of which the first channels run.

    FBNetV2's channel search (Wan et al. 2020, arXiv:2004.05565, 3.1). The fields of other layers that depend on it ``Follow``.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(type(o) is not int or o < 1 for o in self.options):
            raise SpaceError(f"{self.name}: widths {shown(self.options)}; expected whole numbers from 1")


@dataclasses.dataclass(frozen=True)
class Follow:
    """A field whose value depends on a choice made elsewhere: ``options[i]`` where ``choice`` takes its option i.

    ``label``: its name where it is itself an option of a choice, such as an expansion of 3 times a width.
    """

    choice: str
    options: tuple[Any, ...]
    label: str = "follows"

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(self.options))


@dataclasses.dataclass(frozen=True, init=False)
class Template:
    """An op some of whose fields are open: ``Template(InvertedResidualOp, in_=16, kernel=OneOf("k1", (3, 5)), ...)``.

    A field may be a ``OneOf``, a ``Width``, a ``Follow``, or a ``OneOf`` with a ``Follow`` among its options.
    ``label``: its name where it is itself an option of a choice; default: the op's.
    """

    kind: type[Op]
    fields: tuple[tuple[str, Any], ...]
    label: str

    def __init__(self, kind: type[Op], *, label: str = "", **fields: Any) -> None:
        known = {f.name: f.default for f in dataclasses.fields(kind)}
        for name in fields:
            if name not in known:
                raise SpaceError(f"{kind.op}: unknown field {name!r}{nearest(name, known)}")
        full = {n: fields.get(n, default) for n, default in known.items()}
        if missing := [n for n, value in full.items() if value is dataclasses.MISSING]:
            raise SpaceError(f"{kind.op}: missing field {missing[0]!r}")
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "fields", tuple(full.items()))
        object.__setattr__(self, "label", label or kind.op)

    @property
    def choices(self) -> tuple[OneOf, ...]:
        return tuple(v for _, v in self.fields if isinstance(v, OneOf))

    def builds(self, when: Mapping[str, int]) -> Iterator[tuple[Op, dict[str, int]]]:
        """Every op that it may become where the choices of ``when`` are made, with all choices that decide it."""

        def fill(done: dict[str, Any], when: dict[str, int]) -> Iterator[tuple[Op, dict[str, int]]]:
            if len(done) == len(self.fields):
                yield self.kind(**done), when
                return
            name, value = self.fields[len(done)]
            for plain, narrowed in _values(value, when):
                yield from fill({**done, name: plain}, narrowed)

        yield from fill({}, dict(when))


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


def choices_of(layers: tuple[Layer, ...]) -> dict[str, OneOf]:
    """All choices by name, in traversal order. Errors: SpaceError where tied choices, or what follows one, do not match."""
    found: dict[str, OneOf] = {}
    follows: list[Follow] = []

    def visit(item: Any) -> None:
        if isinstance(item, OneOf):
            tied = found.setdefault(item.name, item)
            if tied.labels != item.labels or type(tied) is not type(item):
                raise SpaceError(f"{item.name}: tied choices have options {tied.labels} and {item.labels}")
        if isinstance(item, OneOf | Follow):
            for option in item.options:
                visit(option)
        if isinstance(item, Follow):
            follows.append(item)
        elif isinstance(item, Template):
            for _, value in item.fields:
                visit(value)
        elif isinstance(item, Stage):
            visit(item.depth)
            for layer in item.layers:
                visit(layer)

    for layer in layers:
        visit(layer)
    for follow in follows:
        if follow.choice not in found:
            raise SpaceError(f"a field follows the choice {shown(follow.choice)}{nearest(str(follow.choice), found)}")
        if len(follow.options) != (n := len(found[follow.choice].options)):
            raise SpaceError(f"{follow.choice}: a field has {len(follow.options)} values for its {n} options")
    return found


def told_apart(ops: Sequence[Op]) -> tuple[str, ...]:
    """Short names of ``ops``, all different: with the family, and with the fields that differ, where labels alone do not do."""
    labels = [op.label for op in ops]
    if len(set(labels)) < len(labels) and len({op.op for op in ops}) > 1:  # several families in one layer: say which
        labels = [f"{op.op}_{op.label}" for op in ops]
    alike: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        alike.setdefault(label, []).append(i)
    for label, places in alike.items():
        if len(places) > 1:
            fields = dataclasses.fields(ops[places[0]])
            told = [f.name for f in fields if len({getattr(ops[i], f.name) for i in places}) > 1]
            for i in places:
                labels[i] = "_".join([label, *(_said(name, getattr(ops[i], name)) for name in told)])
    return tuple(labels)


def _said(name: str, value: Any) -> str:
    """hswish, residual, no_se, se24, out24."""
    if value is None or value is False:
        return f"no_{name}"
    if isinstance(value, SE):
        return f"se{value.reduce}"
    return value if isinstance(value, str) else name if value is True else f"{name.rstrip('_')}{value}"


def _values(value: Any, when: dict[str, int]) -> Iterator[tuple[Any, dict[str, int]]]:
    """Every plain value that a field may take, with all choices that decide it."""
    if not isinstance(value, OneOf | Follow):
        yield value, when
        return
    name = value.name if isinstance(value, OneOf) else value.choice
    for index, option in enumerate(value.options):
        if when.get(name, index) == index:
            yield from _values(option, {**when, name: index})
