"""A search space: a network description in which some layers are ``OneOf``."""

from __future__ import annotations

import dataclasses
import operator
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from dnas.arch import Architecture, Defaults
from dnas.errors import ArchitectureError, SpaceError
from dnas.factors import Factor, count
from dnas.files import dump_json, sha256, shown, write_text
from dnas.ops import GlobalPoolOp, LinearOp, Op, Shape, SkipOp
from dnas.ops.base import MAX_SIZE
from dnas.slots import Candidate, Follow, Layer, OneOf, Slot, Stage, Template, Width, build_slots, choices_of

if TYPE_CHECKING:
    from dnas.latency.table import LatencyTable

__all__ = ["Follow", "Genotype", "OneOf", "Space", "Stage", "Template", "Width", "load_space"]

Genotype = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Space:
    """All architectures that a description with ``OneOf`` stands for.

    Arguments: ``layers`` (ops, ``OneOf``, ``Template`` with field choices, ``Stage`` with a depth choice), in order;
    ``resolution`` in pixels; ``options`` are the named options that made it (kept as provenance).
    Errors: SpaceError that names the layer.

    >>> from dnas.ops import ConvOp, GlobalPoolOp, LinearOp
    >>> block = OneOf("l1", (ConvOp(in_=8, out=8, kernel=3), ConvOp(in_=8, out=8, kernel=5)))
    >>> layers = (ConvOp(in_=3, out=8, kernel=3), block, GlobalPoolOp(), LinearOp(in_=8, out=10))
    >>> space = Space("toy", layers, resolution=8, num_classes=10)
    >>> space.size, space.fix((1,)).layers[1].kernel
    (2, 5)
    """

    name: str
    layers: tuple[Layer, ...]
    input_channels: int = 3
    resolution: int = 224
    num_classes: int = 1000
    defaults: Defaults = Defaults()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        for field in ("input_channels", "resolution", "num_classes"):
            value, least = getattr(self, field), int(field != "num_classes")
            if type(value) is not int or not least <= value <= MAX_SIZE:
                raise SpaceError(f"{self.name}: {field} is {shown(value)}; expected a whole number from {least} to {MAX_SIZE}")
        if all(len(c.options) < 2 for c in self.choices.values()):
            raise SpaceError(f"{self.name}: nothing to choose; expected at least one OneOf with two options")
        try:
            self.fix([0] * len(self.choices))
        except ArchitectureError as problem:
            raise SpaceError(str(problem)) from None
        used = {n for slot in self.slots for n in slot.choices}
        if idle := [n for n in self.choices if n not in used]:
            raise SpaceError(
                f"{self.name}: no layer depends on the choice {idle[0]!r} with the options {self.choices[idle[0]].labels}; "
                "expected one that changes a layer: add a smaller depth, or write its layers without a Stage"
            )

    @cached_property
    def choices(self) -> dict[str, OneOf]:
        """Every choice by name, in traversal order: the order of a genotype."""
        return choices_of(self.layers)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """One per layer: candidates, shapes, and which options select which candidate."""
        shape = Shape(self.resolution, self.resolution, self.input_channels)
        try:
            return build_slots(self.layers, shape, self.choices)
        except SpaceError as problem:
            raise SpaceError(f"{self.name}: {problem}") from None

    @cached_property
    def size(self) -> int:
        """Number of genotypes, not counting options of choices that the rest of the genotype switches off."""
        return count([self._free(name) for name in self.choices])

    def assignment(self, genotype: Sequence[int]) -> dict[str, int]:
        """Option index by choice name. Errors: SpaceError for a wrong length or an index out of range."""
        try:
            codes = [operator.index(i) for i in genotype]
        except TypeError:
            raise SpaceError(f"{self.name}: genotype {shown(genotype)}; expected whole numbers") from None
        if len(codes) != len(self.choices):
            raise SpaceError(f"{self.name}: a genotype has {len(self.choices)} indices, got {len(codes)}")
        for code, choice in zip(codes, self.choices.values(), strict=True):
            if not 0 <= code < len(choice.options):
                raise SpaceError(f"{choice.name}: index {code}; expected 0 to {len(choice.options) - 1}")
        return dict(zip(self.choices, codes, strict=True))

    def picked(self, genotype: Sequence[int]) -> tuple[Candidate, ...]:
        """The candidate of every slot that ``genotype`` selects."""
        assignment = self.assignment(genotype)
        return tuple(slot.candidates[slot.pick(assignment)] for slot in self.slots)

    def fix(self, genotype: Sequence[int], name: str | None = None) -> Architecture:
        """The architecture that ``genotype`` (one option index per choice) stands for."""
        ops = tuple(c.op for c in self.picked(genotype) if not c.off)
        return Architecture(ops, self.input_channels, self.resolution, self.num_classes, self.defaults, name or self.name)

    def positions(self, genotype: Sequence[int]) -> tuple[int, ...]:
        """For every layer of ``fix(genotype)``, the index of the slot that it comes from."""
        return tuple(i for i, c in enumerate(self.picked(genotype)) if not c.off)

    def active(self, genotype: Sequence[int]) -> frozenset[str]:
        """Names of the choices that make a difference, given the rest of ``genotype``."""
        return frozenset(name for c in self.picked(genotype) for name, _ in c.when)

    def canonical(self, genotype: Sequence[int]) -> Genotype:
        """A genotype of the same network: choices that are switched off become 0, and among neighbouring layers with the
        same candidates identities go last.

        Codes that build the same network become equal where layers that may be identities have the same candidates as
        their neighbours, as in all shipped spaces.
        """
        active, assignment = self.active(genotype), self.assignment(genotype)
        codes = {n: i if n in active else 0 for n, i in assignment.items()}
        for run in self.interchangeable:
            picked = [codes[self.slots[i].choices[0]] for i in run]
            ops = self.slots[run[0]].candidates
            kept = [p for p in picked if not isinstance(ops[p].op, SkipOp)]
            skips = [p for p in picked if isinstance(ops[p].op, SkipOp)]
            for i, p in zip(run, kept + skips, strict=True):
                codes[self.slots[i].choices[0]] = p
        return tuple(codes.values())

    def encode(self, architecture: Architecture) -> Genotype:
        """The genotype that builds ``architecture`` (biases, BN constants, name and class count apart: ``left_out``).

        Errors: SpaceError that names the first layer which is not in the space.
        """
        from dnas.encode import encode

        return encode(self, architecture)

    def left_out(self, architecture: Architecture) -> tuple[str, ...]:
        """Sentences on what ``encode`` does not compare and ``architecture`` has otherwise. Errors: those of ``encode``."""
        from dnas.encode import left_out

        return left_out(self, architecture)

    def sample(self, rng: np.random.Generator | int) -> Genotype:
        """A genotype drawn uniformly over the options of every choice; ``rng`` is a generator or a seed."""
        generator = np.random.default_rng(rng)
        return tuple(int(generator.integers(len(c.options))) for c in self.choices.values())

    def latency_range(self, lut: LatencyTable, missing: str | None = None) -> tuple[float, float]:
        """(fastest, slowest) architecture in ms, exactly. Errors: LatencyError for an op that ``lut`` lacks."""
        from dnas.latency.terms import price

        terms = price(self, lut, missing)
        return terms.extreme(1)[0], terms.extreme(-1)[0]

    def at(self, resolution: int | None = None, num_classes: int | None = None) -> Space:
        """The same space for other images: pixels, or number of classes (the classifier's width follows).

        A space whose output is a feature map gets a global pool and a classifier.
        """
        layers = self.layers
        if num_classes is not None and num_classes != self.num_classes:
            last = layers[-1]
            if self.num_classes and (not isinstance(last, Op) or getattr(last, "out", None) != self.num_classes):
                raise SpaceError(f"{self.name}: its last layer is not a classifier of {self.num_classes} classes")
            try:
                if self.num_classes:
                    layers = (*layers[:-1], dataclasses.replace(last, out=num_classes))  # type: ignore[call-arg]
                else:
                    pooled = LinearOp(in_=self.slots[-1].out_shape.channels, out=num_classes)
                    layers = (*layers, GlobalPoolOp(), pooled)
            except ArchitectureError as problem:
                raise SpaceError(f"{self.name}: num_classes {shown(num_classes)}: {problem}") from None
        return dataclasses.replace(
            self,
            layers=layers,
            resolution=self.resolution if resolution is None else resolution,
            num_classes=self.num_classes if num_classes is None else num_classes,
        )

    def to_json(self) -> dict[str, Any]:
        """The ``dnas-space/1`` object."""
        from dnas.space_files import to_json

        return to_json(self)

    @classmethod
    def from_json(cls, given: Any) -> Space:
        """Inverse of ``to_json``. Errors: SpaceError that names the layer and the field."""
        from dnas.space_files import from_json

        return from_json(given)

    def save(self, path: str | os.PathLike[str]) -> None:
        write_text(path, dump_json(self.to_json(), rows="layers"))

    @property
    def fingerprint(self) -> str:
        """sha256 of the canonical JSON."""
        return sha256(dump_json(self.to_json()))

    def _repr_html_(self) -> str:
        """What a notebook shows: the candidates of each layer."""
        from dnas import html

        return html.space(self)

    def __str__(self) -> str:
        layers = sum(len(s.candidates) > 1 for s in self.slots)
        most = max(len(s.candidates) for s in self.slots)
        return (
            f"{self.name}: {layers} searchable of {len(self.slots)} layers, up to {most} candidates each, "
            f"{self.size:.3g} architectures, {self.resolution} px, {self.num_classes} classes"
        )

    def matters(self, name: str) -> Factor:
        """Whether choice ``name`` makes a difference, bool over its options and those of the choices that decide it."""
        slots = [s for s in self.slots if name in s.choices]
        names = (name, *(n for n in self.choices if n != name and any(n in s.choices for s in slots)))
        if all(name in dict(c.when) for s in slots for c in s.candidates):
            return Factor((name,), np.ones(len(self.choices[name].options), bool))
        sizes = [len(self.choices[n].options) for n in names]
        found = np.zeros(sizes, bool)
        for slot in slots:
            matters = np.array([name in dict(c.when) for c in slot.candidates])[slot.table]
            order = sorted(range(len(slot.choices)), key=lambda i: names.index(slot.choices[i]))
            shape = [s if n in slot.choices else 1 for n, s in zip(names, sizes, strict=True)]
            found = found | matters.transpose(order).reshape(shape)
        return Factor(names, found)

    def _free(self, name: str) -> Factor:
        """1 where choice ``name`` matters or is 0, over the choices that decide whether it matters."""
        names, matters = self.matters(name)
        free = matters.astype(int)
        free[0] = 1
        return Factor(names, free)

    @cached_property
    def interchangeable(self) -> tuple[tuple[int, ...], ...]:
        """Runs of neighbouring slots with equal candidates, each decided by one choice of its own."""
        uses = [n for s in self.slots for n in s.choices]
        runs: list[list[int]] = []
        for slot in self.slots:
            own = len(slot.choices) == 1 and uses.count(slot.choices[0]) == 1
            ops = [c.op for c in slot.candidates]
            if runs and own and runs[-1] and [c.op for c in self.slots[runs[-1][-1]].candidates] == ops:
                runs[-1].append(slot.index)
            else:
                runs.append([slot.index] if own else [])
        return tuple(tuple(r) for r in runs if len(r) > 1)


def load_space(spec: str | os.PathLike[str]) -> Space:
    """A space by name, file, or name with options: ``fbnet``, ``fbnet:expand1=true``, ``./mine.py``, ``mine.json``.

    A ``.py`` space is code and is run. Errors: SpaceError with the nearest names.
    """
    from dnas.space_files import load

    return load(str(spec))
