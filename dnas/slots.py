"""From a space's description to slots: for each layer its candidates, and which options of which choices select them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from dnas.choices import Follow, Layer, OneOf, Stage, Template, Width, choices_of, told_apart
from dnas.errors import ArchitectureError, SpaceError
from dnas.factors import LARGEST_TABLE, Factor, essential
from dnas.files import shown
from dnas.hulls import Hull, hull_of, hulls
from dnas.ops import Op, Shape, SkipOp

__all__ = ["Candidate", "Follow", "Layer", "OneOf", "Slot", "Stage", "Template", "Width", "build_slots", "choices_of"]


When = tuple[tuple[str, tuple[int, ...]], ...]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One op that a slot may become. It runs if every choice named in ``when`` takes one of the listed options.

    ``channels``: of the map that it reads, where they depend on a choice before; None: those of the slot.
    """

    op: Op
    label: str
    when: When
    off: bool = False  # stands for a layer that the stage's depth drops
    channels: int | None = None


@dataclasses.dataclass(frozen=True)
class Slot:
    """One position of the network: its candidates and the (largest) shapes between which they work.

    ``widths``: those of its ``choices`` that are made by masks.
    """

    index: int
    in_shape: Shape
    out_shape: Shape
    candidates: tuple[Candidate, ...]
    choices: tuple[str, ...]
    sizes: tuple[int, ...]
    widths: tuple[str, ...] = ()

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

    @cached_property
    def hulls(self) -> tuple[Hull, ...]:
        """What has parameters: one per candidate, or per candidates that differ only in masked widths."""
        return hulls(self)

    @cached_property
    def hull_of(self) -> np.ndarray:
        """The hull of each candidate, i32[candidates]."""
        return hull_of(self, self.hulls)

    def pick(self, assignment: Mapping[str, int]) -> int:
        """Index of the candidate that ``assignment`` selects."""
        return int(self.table[tuple(assignment[n] for n in self.choices)])

    def shape_of(self, candidate: Candidate) -> Shape:
        """The shape that ``candidate`` reads."""
        return self.in_shape if candidate.channels is None else self.in_shape._replace(channels=candidate.channels)


def build_slots(layers: tuple[Layer, ...], shape: Shape, choices: Mapping[str, OneOf]) -> tuple[Slot, ...]:
    """One slot per layer. Errors: SpaceError that names the layer whose candidates do not fit."""
    slots: list[Slot] = []
    channels = Factor((), np.array(shape.channels))  # of the map that arrives, by the choices that decide them
    varied = ""  # which layer made them depend on choices
    for given, dropped in _flatten(layers):
        index = len(slots)
        candidates = [placed for c in given for placed in _arrive(c, channels, index, varied)]
        if dropped:
            candidates += [
                Candidate(SkipOp(in_=n, out=n), "off" if not channels.names else f"off_{n}", when, True, n)
                for when, n in _each((dropped,), channels)
            ]
        names = tuple(n for n in choices if any(n == m for c in candidates for m, _ in c.when))
        sizes = tuple(len(choices[n].options) for n in names)
        widths = tuple(n for n in names if isinstance(choices[n], Width))
        outs = []
        for candidate in candidates:
            try:
                outs.append(candidate.op.out_shape(shape._replace(channels=candidate.channels or shape.channels)))
            except ArchitectureError as problem:
                raise SpaceError(f"layer {index} ({', '.join(names)}), candidate {candidate.label}: {problem}") from None
        shapes = ", ".join(f"{c.label}: {out}" for c, out in zip(candidates[:100], outs, strict=False))
        different = f"layer {index} ({', '.join(names)}): candidates give different shapes ({shapes})"
        if len({out[:2] for out in outs}) != 1:
            raise SpaceError(different)
        out = outs[0]._replace(channels=max(out.channels for out in outs))
        slot = Slot(index, shape, out, tuple(candidates), names, sizes, widths)
        before, channels = channels, essential(Factor(names, np.array([out.channels for out in outs])[slot.table]))
        varied = "" if not channels.names else varied if channels.names == before.names else different
        slot.hulls  # noqa: B018  checks that candidates can share what they are said to share
        slots.append(slot)
        shape = out
    if varied:
        raise SpaceError(varied)
    return tuple(slots)


def _arrive(candidate: Candidate, channels: Factor, index: int, varied: str) -> Iterator[Candidate]:
    """``candidate`` with the channels that it reads: one for each number of them, if it takes any."""
    needed = candidate.op.in_channels
    if not channels.names:
        yield candidate
    elif needed is None:
        for when, found in _each(candidate.when, channels):
            yield dataclasses.replace(candidate, label=f"{candidate.label}_{found}", when=when, channels=found)
    else:
        for _, found in _each(candidate.when, channels):
            if found != needed:
                reads = f"layer {index}, candidate {candidate.label}, takes {needed} channels and is given {found}"
                raise SpaceError(f"{varied}; {reads}")
        yield dataclasses.replace(candidate, channels=needed)


def _each(when: When, channels: Factor) -> Iterator[tuple[When, int]]:
    """Every combination of options on which the channels depend, within ``when``, and the channels."""
    given = dict(when)
    ranges = [given.get(n, range(s)) for n, s in zip(channels.names, channels.values.shape, strict=True)]
    for options in itertools.product(*ranges):
        pinned = {n: (i,) for n, i in zip(channels.names, options, strict=True)}
        yield tuple((given | pinned).items()), int(channels.values[options])


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


def _expand(item: Any, when: dict[str, int]) -> Iterator[tuple[Op, dict[str, int]]]:
    if isinstance(item, Op):
        yield item, when
    elif isinstance(item, OneOf):
        for index, option in enumerate(item.options):
            if when.get(item.name, index) == index:
                yield from _expand(option, {**when, item.name: index})
    elif isinstance(item, Template):
        yield from item.builds(when)
    else:
        raise SpaceError(f"a layer must be an op, a OneOf of ops, a Template or a Stage, got {shown(item)}")
