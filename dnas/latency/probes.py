"""What is measured to make a latency table of a space: one small network per distinct op, and whole networks to check it by."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dnas.arch import Architecture, Defaults
from dnas.errors import LatencyError
from dnas.latency.keys import Key, describe_key
from dnas.latency.terms import Terms
from dnas.ops import ConvOp, Op, Shape
from dnas.space import Genotype, Space

LAUNCH = "launch"
"""The probe that computes next to nothing: what a call costs before any work is done."""

STEPS = 4000  # of the search for a network at a latency; FBNet's ends need some 300
TRIES = 20  # from new beginnings, where the network found was found before


@dataclasses.dataclass(frozen=True)
class Probe:
    """One network to time. ``key``: the table entry that it measures; None for ``launch`` and whole networks.

    ``genotype``: of a whole network.
    """

    name: str
    architecture: Architecture
    key: Key | None = None
    genotype: Genotype | None = None

    @property
    def about(self) -> str:
        """What it measures, in words."""
        return describe_key(self.key) if self.key else "an empty call" if self.name == LAUNCH else "a whole network"

    def images(self, seed: int = 0) -> np.ndarray:
        """Random input, f32[1, height, width, channels]."""
        return np.random.default_rng(seed).normal(size=(1, *self.architecture.shapes[0])).astype(np.float32)


def op_probes(space: Space) -> list[Probe]:
    """``launch``, then one probe per distinct op of ``space`` (``op000``, ``op001``, ...), in the order of its layers.

    Errors: LatencyError for an op on a map that is not square.
    """
    found: dict[Key, tuple[Op, Shape]] = {}
    for slot in space.slots:
        for candidate in slot.candidates:
            op, shape = candidate.op, slot.shape_of(candidate)
            if op.primitives():
                found.setdefault(op.price_fields(shape), (op, shape))
    probes = [Probe(LAUNCH, alone(ConvOp(in_=1, out=1), Shape(1, 1, 1), space.defaults, LAUNCH))]
    for number, (key, (op, shape)) in enumerate(found.items()):
        name = f"op{number:03d}"
        probes.append(Probe(name, alone(op, shape, space.defaults, name), key))
    return probes


def alone(op: Op, shape: Shape, defaults: Defaults, name: str) -> Architecture:
    """The network that is ``op`` on a map of ``shape``, and nothing else."""
    if shape.height != shape.width:
        raise LatencyError(f"{op}: reads a map of {shape}; only square maps can be measured")
    return Architecture((op,), shape.channels, shape.height, 0, defaults, name)


def network_probes(space: Space, genotypes: Sequence[Genotype]) -> list[Probe]:
    """The whole networks ``net00``, ``net01``, ..."""
    names = (f"net{number:02d}" for number in range(len(genotypes)))
    return [Probe(n, space.fix(g, n), genotype=tuple(g)) for n, g in zip(names, genotypes, strict=True)]


def spread(space: Space, terms: Terms, count: int, seed: int) -> list[Genotype]:
    """``count`` different networks of ``space`` whose costs by ``terms`` are spread evenly over its range.

    Networks drawn at random have nearly one latency (a sum of many layers), which would check a table in its middle only. So
    each one starts at random and takes random changes that bring it nearer to a cost of its own.
    Errors: LatencyError where the space has too few networks.
    """
    low, high = terms.extreme(1)[0], terms.extreme(-1)[0]
    step = (high - low) / max(count, 1)
    random = np.random.default_rng(seed)
    found: dict[Genotype, None] = {}
    for number in range(count):
        for _ in range(TRIES):
            genotype = _towards(space, terms, low + (number + 0.5) * step, 0.25 * step, random)
            if genotype not in found:
                break
        else:  # where prices are hardly different, any other network will do
            anywhere = (space.canonical(space.sample(random)) for _ in range(STEPS))
            genotype = next((g for g in anywhere if g not in found), genotype)
        if genotype in found:
            raise LatencyError(
                f"{space.name}: only {len(found)} of {count} different networks were found over its range; ask for fewer"
            )
        found[genotype] = None
    return list(found)


def _towards(space: Space, terms: Terms, target: float, near: float, random: np.random.Generator) -> Genotype:
    """A network whose cost is within ``near`` of ``target``, or as near as 4,000 random changes come."""
    codes = dict(zip(space.choices, space.sample(random), strict=True))
    names, away = list(codes), abs(terms.at(codes) - target)
    for _ in range(STEPS):
        if away <= near:
            break
        name = names[random.integers(len(names))]
        changed = codes | {name: int(random.integers(len(space.choices[name].options)))}
        new = abs(terms.at(changed) - target)
        if new <= away:
            codes, away = changed, new
    return space.canonical(tuple(codes.values()))


def weights(architecture: Architecture, seed: int = 0) -> tuple[Any, Any]:
    """Random ``(params, stats)`` in NumPy, of the usual size: latency does not depend on them, and nothing is compiled."""
    import jax

    from dnas import supernet

    random = np.random.default_rng(seed)

    def fill(path: Any, leaf: Any) -> np.ndarray:
        name = path[-1].key
        if name == "kernel":
            size = math.sqrt(2 / math.prod(leaf.shape[:-1]))
            return (size * random.standard_normal(leaf.shape, np.float32)).astype(np.float32)
        return np.full(leaf.shape, float(name in ("scale", "var")), np.float32)

    shapes = jax.eval_shape(lambda key: supernet.init(architecture, key)[1:], jax.random.key(0))
    params, stats = jax.tree_util.tree_map_with_path(fill, shapes)
    return params, stats
