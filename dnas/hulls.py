"""Candidates that share parameters: where masks choose widths, one op of the largest serves all that differ only in them.

The first channels of that hull compute what the candidate computes, so every parameter of a candidate is the leading part of
the hull's. No JAX here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dnas.choices import told_apart
from dnas.errors import ArchitectureError, SpaceError
from dnas.factors import Factor, essential
from dnas.ops import SE, Op
from dnas.ops import primitives as p

if TYPE_CHECKING:
    from dnas.slots import Slot

CHANNELS = ("in_", "mid", "mid_in", "mid_out", "out")  # the fields that a width may change, beside the width inside an SE
MASKABLE = (p.Conv, p.Norm, p.Act, p.SqueezeExcite, p.GlobalPool, p.Dense)
OUTPUT = ""  # the cut after the last step


@dataclasses.dataclass(frozen=True)
class Cut:
    """A place where channels beyond a candidate's are set to zero: before a step that mixes channels, inside a
    squeeze-excite (``<step>.reduce``), or at the end (``OUTPUT``).

    ``channels`` of the hull; ``widths`` per member.
    """

    place: str
    channels: int
    widths: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Hull:
    """One set of parameters. ``members``: indices of the candidates that share it; ``cuts``: what masks them.

    ``varied``: whether a member is narrower than ``op``.
    """

    op: Op
    label: str
    members: tuple[int, ...]
    cuts: tuple[Cut, ...] = ()
    varied: bool = False


def hulls(slot: Slot) -> tuple[Hull, ...]:
    """The hulls of ``slot``, in the order of their first members. Errors: SpaceError that names the layer."""
    groups: dict[Any, list[int]] = {}
    for i, c in enumerate(slot.candidates):
        key = (c.off, frozenset((n, options) for n, options in c.when if n not in slot.widths)) if slot.widths else i
        groups.setdefault(key, []).append(i)
    try:
        found = [_hull([slot.candidates[i].op for i in members]) for members in groups.values()]
    except (ArchitectureError, SpaceError) as problem:
        raise SpaceError(f"layer {slot.index}: {problem}") from None
    names = [slot.candidates[members[0]].label for members in groups.values()]
    if slot.widths:
        off = [slot.candidates[members[0]].off for members in groups.values()]
        names = ["off" if dropped else label for label, dropped in zip(told_apart([op for op, _ in found]), off, strict=True)]
    if len(set(names)) < len(names):
        raise SpaceError(f"layer {slot.index}: two candidates share a label among {names}")
    result = tuple(
        Hull(op, label, tuple(members), cuts, any(slot.candidates[i].op != op for i in members))
        for (op, cuts), label, members in zip(found, names, groups.values(), strict=True)
    )
    decides = essential(Factor(slot.choices, hull_of(slot, result)[slot.table])).names
    if wrong := [n for n in decides if n in slot.widths]:
        raise SpaceError(f"layer {slot.index}: the width {wrong[0]} decides which op runs; expected it to change channels only")
    return result


def hull_table(slot: Slot) -> tuple[tuple[str, ...], np.ndarray]:
    """The choices that are not widths, and the hull that each combination of them selects, i32[sizes]."""
    table = slot.hull_of[slot.table]
    for axis in reversed(range(len(slot.choices))):
        if slot.choices[axis] in slot.widths:
            table = table.take(0, axis)
    return tuple(n for n in slot.choices if n not in slot.widths), table


def width_tables(slot: Slot, number: int) -> dict[str, Factor]:
    """For each cut of hull ``number``, the width that each combination of width choices gives."""
    hull, (names, which) = slot.hulls[number], hull_table(slot)
    there = dict(zip(names, np.argwhere(which == number)[0], strict=True))
    members = slot.table[tuple(there.get(n, slice(None)) for n in slot.choices)]
    return {c.place: essential(Factor(slot.widths, per_candidate(slot, number, c.widths)[members])) for c in hull.cuts}


def per_candidate(slot: Slot, number: int, values: Sequence[Any]) -> np.ndarray:
    """``values`` of the members of hull ``number`` by candidate; 0 for the others."""
    found = np.zeros((len(slot.candidates), *np.shape(values)[1:]), np.int32)
    found[list(slot.hulls[number].members)] = values
    return found


def hull_of(slot: Slot, found: tuple[Hull, ...]) -> np.ndarray:
    """The hull of each candidate, i32[candidates]."""
    index = np.zeros(len(slot.candidates), np.int32)
    for number, hull in enumerate(found):
        index[list(hull.members)] = number
    return index


def _hull(ops: list[Op]) -> tuple[Op, tuple[Cut, ...]]:
    """The op of the largest widths of ``ops``, and its cuts. Errors: SpaceError where they differ otherwise."""
    first = ops[0]
    if all(op == first for op in ops):
        return first, ()
    largest: dict[str, Any] = {}
    for field in dataclasses.fields(first):
        values: list[Any] = [getattr(op, field.name) if type(op) is type(first) else type(op) for op in ops]
        if all(v == values[0] for v in values):
            continue
        if field.name in CHANNELS and all(type(v) is int for v in values):
            largest[field.name] = max(values)
        elif all(
            isinstance(v, SE) and dataclasses.replace(v, reduce=1) == dataclasses.replace(values[0], reduce=1) for v in values
        ):
            largest[field.name] = dataclasses.replace(values[0], reduce=max(v.reduce for v in values))
        else:
            raise SpaceError(f"{first.op}: a width changes {field.name.rstrip('_')}; expected that it changes channels only")
    hull = dataclasses.replace(first, **largest)
    steps = [op.primitives() for op in (hull, *ops)]
    for same in zip(*steps, strict=True):
        if any(type(s) not in MASKABLE or (isinstance(s, p.Conv) and s.groups > 1 and not s.depthwise) for s in same):
            raise SpaceError(f"{first.op}: {same[0].name} cannot be masked; expected no groups, shares or attention")
    return hull, tuple(_cuts(steps))


def _cuts(steps: list[tuple[p.Primitive, ...]]) -> list[Cut]:
    """Where channels that a candidate lacks are not zero by themselves and would be mixed with others, or come out."""
    found: list[Cut] = []
    widths: tuple[int, ...] = ()
    clean = True  # the map holds zeros beyond each candidate's channels; so does what arrives

    def cut(place: str, sizes: tuple[int, ...]) -> None:
        if len(set(sizes)) > 1:
            found.append(Cut(place, sizes[0], sizes[1:]))

    for step, *own in zip(*steps, strict=True):
        every = (step, *own)
        mixes = isinstance(step, p.Dense | p.SqueezeExcite) or (isinstance(step, p.Conv) and not step.depthwise)
        if mixes and not clean:
            cut(step.name, tuple(s.takes or 0 for s in every))
            clean = True
        if isinstance(step, p.SqueezeExcite):
            cut(f"{step.name}.reduce", tuple(s.reduce for s in every))
        elif isinstance(step, p.Conv | p.Dense):
            widths = tuple(s.out for s in every)
            clean = clean and isinstance(step, p.Conv) and step.depthwise and not step.bias
        elif isinstance(step, p.Norm):
            widths, clean = tuple(s.channels for s in every), False
    if not clean:
        cut(OUTPUT, widths)
    return found
