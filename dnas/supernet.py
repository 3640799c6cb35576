"""Super-blocks and networks: ``init`` and ``apply`` over plain nested dicts.

The supernet of a space and a finished network are one builder: a finished network's layers have one candidate each. This is
the one file that knows ``nnx.split`` and ``nnx.merge``.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jax import lax
from jaxtyping import Array, Float

from dnas.arch import Architecture, Defaults
from dnas.errors import ConfigError
from dnas.gates import Gates
from dnas.layers import masks
from dnas.layers.fused import Member, Record, alone, fusible, in_blocks, mixture, numbers_of
from dnas.layers.op import OpLayer
from dnas.layers.paths import Weights, chosen, weights_of
from dnas.layers.switch import switch
from dnas.ops import LinearOp, Op, Shape
from dnas.ops.primitives import Conv
from dnas.slots import Candidate, Slot
from dnas.space import Space

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Net:
    """What ``apply`` needs besides numbers: the slots, and the options per choice. Hashable."""

    slots: tuple[Slot, ...]
    defaults: Defaults
    input_shape: Shape
    num_outputs: int

    @classmethod
    def of(cls, description: Architecture | Space) -> Net:
        if isinstance(description, Space):
            slots = description.slots
        else:
            slots = tuple(
                Slot(i, before, after, (Candidate(op, op.label, ()),), (), ())
                for i, (op, before, after) in enumerate(
                    zip(description.layers, description.shapes, description.shapes[1:], strict=False)
                )
            )
        return cls(slots, description.defaults, slots[0].in_shape, slots[-1].out_shape.channels)

    @cached_property
    def choices(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(n for s in self.slots for n in s.choices))

    @cached_property
    def alike(self) -> tuple[tuple[Slot, ...], ...]:
        """The slots in order; neighbours that have the same candidates between the same shapes are together."""
        return tuple(tuple(group) for _, group in itertools.groupby(self.slots, _pattern))

    def check_gates(self, gates: Gates | None) -> None:
        """Raise ConfigError where choices are open and ``gates`` lacks them."""
        if self.choices and (gates is None or set(self.choices) - set(gates.weights)):
            raise ConfigError(
                f"this network has {len(self.choices)} open choices and needs gates for them, e.g. dnas.gates.uniform(space)"
            )

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.slots, self.defaults))


def init(description: Architecture | Space, key: jax.Array, dtype: Any = jnp.float32) -> tuple[Net, Tree, Tree]:
    """``(net, params, stats)`` with plain nested dicts ``{layer: {candidate: {primitive: {kernel, ...}}}}``.

    Convolutions: normal with variance 2 / fan-out (He et al. 2015, arXiv:1502.01852); linear: 1 / fan-in; BN: scale 1, bias 0
    (also the last one of a residual block: a zero would make every candidate equal to skip); biases 0.
    """
    net = Net.of(description)
    params: Tree = {}
    stats: Tree = {}
    fan_out: dict[tuple[str, ...], int] = {}
    for slot in net.slots:
        for hull in slot.hulls:
            for conv in (p for p in hull.op.primitives() if isinstance(p, Conv)):
                place = (_name(slot), hull.label, conv.name, "kernel")
                fan_out[place] = conv.kernel**2 * conv.out // conv.groups
            _, empty_params, empty_stats = _layer(hull.op, net.defaults)
            if empty_params:
                params.setdefault(_name(slot), {})[hull.label] = empty_params
            if empty_stats:
                stats.setdefault(_name(slot), {})[hull.label] = empty_stats
    flat = traverse_util.flatten_dict(params)
    kernels = [path for path in flat if path[-1] == "kernel"]
    normal: Any = jax.random.normal(key, (sum(math.prod(flat[p].shape) for p in kernels),), dtype)
    xp: Any = jnp if isinstance(normal, jax.core.Tracer) else np  # slicing and filling on the host compiles nothing
    normal = xp.asarray(normal)
    start = 0
    for path in flat:
        shape = flat[path].shape
        if path[-1] == "kernel":
            size = math.prod(shape)
            flat[path] = normal[start : start + size].reshape(shape) * xp.asarray(
                math.sqrt(2 / fan_out[path] if path in fan_out else 1 / shape[0]), dtype
            )
            start += size
        else:
            flat[path] = xp.full(shape, float(path[-1] == "scale"), dtype)
    filled = {p: xp.full(v.shape, float(p[-1] == "var"), dtype) for p, v in traverse_util.flatten_dict(stats).items()}
    params, stats = (jax.tree.map(jnp.asarray, traverse_util.unflatten_dict(t)) for t in (flat, filled))
    return net, params, stats


def apply(
    net: Net,
    params: Tree,
    stats: Tree,
    x: Float[Array, "batch height width channels"],
    gates: Gates | None = None,
    train: bool | jax.Array = False,
    momentum: float | jax.Array | None = None,
    *,
    compute: Any = None,
    remat: bool = False,
    after: Callable[[Slot, jax.Array, jax.Array], jax.Array] | None = None,
) -> tuple[Float[Array, "batch outputs"], Tree]:
    """Logits f32[batch, outputs] (a feature map for a network without classifier) and the statistics after this call.

    ``train``: BN uses the batch and moves its running statistics by ``momentum`` (their decay; default: the network's).
    ``compute``: dtype of maps and products (``jnp.bfloat16``); parameters, statistics and logits keep theirs.
    ``remat``: keep only the input of every layer and compute it again in the backward pass.
    ``gates``: needed where there are choices. Every candidate that runs updates its own statistics; others keep theirs.
    ``after``: (slot, its input, its output) -> what goes on to the next slot, such as dropout.
    Errors: ConfigError where gates are missing, or images are of another shape.
    """
    if x.ndim != 4 or x.shape[1:] != tuple(net.input_shape):
        raise ConfigError(f"images of shape {x.shape[1:]}; this network takes {net.input_shape}")
    net.check_gates(gates)
    y = x
    new_stats: Tree = {}
    for _, y, moved in maps(net, params, stats, x, gates, train, momentum, compute, remat, after):  # noqa: B007
        new_stats |= moved
    return (y.reshape(y.shape[0], -1) if y.shape[1:3] == (1, 1) else y).astype(x.dtype), new_stats


def maps(
    net: Net,
    params: Tree,
    stats: Tree,
    x: jax.Array,
    gates: Gates | None,
    train: bool | jax.Array,
    momentum: float | jax.Array | None = None,
    compute: Any = None,
    remat: bool = False,
    after: Callable[[Slot, jax.Array, jax.Array], jax.Array] | None = None,
) -> Iterator[tuple[tuple[Slot, ...], jax.Array, Tree]]:
    """Slots that run together, their last output and {name: new statistics}, in order; arguments as in ``apply``, unchecked."""
    decay = net.defaults.bn_momentum if momentum is None else momentum
    logits_dtype = x.dtype
    x = x if compute is None else x.astype(compute)
    roll = remat or (gates is not None and gates.active is not None)  # what a loop keeps for the backward pass is copied
    for slots in net.alike if roll else [(slot,) for slot in net.slots]:
        if isinstance(slots[0].candidates[0].op, LinearOp):
            x = x.astype(logits_dtype)
        block: Any = _SuperBlock(slots[0], net.defaults, train)
        block = jax.checkpoint(block) if remat else block
        each = [(params.get(_name(s), {}), stats.get(_name(s), {}), weights_of(s, gates)) for s in slots]
        before = x
        x, found = _rolled(block, each, x, decay)
        x = x if after is None else after(slots[-1], before, x)
        yield slots, x, {_name(s): own for s, own in zip(slots, found, strict=True) if own}


def inherit(space: Space, genotype: tuple[int, ...], tree: Tree) -> Tree:
    """The part of a supernet's ``params`` or ``stats`` that the network ``space.fix(genotype)`` uses."""
    taken: Tree = {}
    assignment = space.assignment(genotype)
    picked = [(s, s.pick(assignment)) for s in space.slots]
    kept = [(s, i) for s, i in picked if not s.candidates[i].off]
    for index, (slot, number) in enumerate(kept):
        hull, op = slot.hulls[slot.hull_of[number]], slot.candidates[number].op
        found = tree.get(_name(slot), {}).get(hull.label)
        if found is not None:
            taken[f"{index:02d}"] = {op.label: masks.leading(op, found) if hull.varied else jax.tree.map(jnp.copy, found)}
    return taken


def ran(net: Net, params: Tree, gates: Gates) -> Tree | None:
    """bool[] for every leaf of ``params``: whether its candidate ran under ``gates``; None if everything did."""
    if gates.active is None:
        return None
    marks: Tree = {}
    for slot in net.slots:
        own = params.get(_name(slot), {})
        if not slot.choices:
            marks |= {_name(slot): jax.tree.map(lambda _: jnp.asarray(True), own)} if own else {}
            continue
        paths = chosen(slot, gates.active)
        for number, hull in enumerate(slot.hulls):
            if hull.label in own:
                marks.setdefault(_name(slot), {})[hull.label] = masks.ran(slot, number, paths, own[hull.label])
    return marks


@dataclasses.dataclass(frozen=True)
class _SuperBlock:
    """All candidates of one slot, those that masks tell apart in one hull."""

    slot: Slot
    defaults: Defaults
    train: bool | jax.Array

    def __call__(
        self, params: Tree, stats: Tree, weights: Weights | None, x: jax.Array, momentum: float | jax.Array
    ) -> tuple[jax.Array, Tree]:
        """``weights``: None where there is one candidate."""
        if weights is None:
            y, new = self.run(0, params, stats, x, momentum)
            return y, stats | new
        if weights.chosen is not None:
            return self.sampled(params, stats, x, weights.gates, weights.chosen, momentum)
        return self.soft(params, stats, x, weights, momentum)

    def soft(
        self, params: Tree, stats: Tree, x: jax.Array, weights: Weights, momentum: float | jax.Array
    ) -> tuple[jax.Array, Tree]:
        """Every hull runs, masked and weighted; those that can share their wide operations do."""
        hulls = self.slot.hulls
        shaped = {h.label: _per_sample(weights.gates[..., i], x) for i, h in enumerate(hulls)}
        members = fusible([(h.label, h.op) for h in hulls if not h.cuts])
        parts, new_stats = [], stats
        if members:
            y, new = mixture(members, params, stats, x, shaped, self.defaults, self.train, momentum)
            parts, new_stats = [y], stats | new
        others = {h.label for h in hulls} - {m.label for m in members}
        for number, hull in enumerate(hulls):
            if hull.label in others:
                y, new = self.run(number, params, stats, x, momentum, weights.masks[number])
                parts.append(y * shaped[hull.label])
                new_stats = new_stats | new
        return sum(parts[1:], parts[0]), new_stats

    def run(
        self,
        number: int,
        params: Tree,
        stats: Tree,
        x: jax.Array,
        momentum: float | jax.Array,
        widths: masks.Masks | None = None,
    ) -> tuple[jax.Array, Tree]:
        """Hull ``number`` alone, under the masks ``widths``: its output, and {label: its new statistics}."""
        hull = self.slot.hulls[number]
        own = stats.get(hull.label, {})
        if not widths and in_blocks(hull.op, self.train, x.dtype):
            return alone(Member(hull.label, hull.op), params, stats, x, self.defaults, momentum)[:2]
        graph, _, _ = _layer(hull.op, self.defaults)
        layer = nnx.merge(graph, params.get(hull.label, {}), own)
        y = layer(x, self.train, momentum, widths)
        y = y.reshape(y.shape[0], 1, 1, -1) if y.ndim == 2 else y
        return y, {hull.label: nnx.to_pure_dict(nnx.state(layer, nnx.BatchStat))} if own else {}

    def candidate(
        self,
        number: int,
        index: jax.Array,
        params: Tree,
        stats: Tree,
        x: jax.Array,
        momentum: jax.Array,
        record: Record | None = None,
    ) -> tuple[jax.Array, Tree, Record | None]:
        """Candidate ``index`` alone, a member of hull ``number``; channels that it lacks keep their statistics.

        Also what it leaves to its backward pass, padded to the slot's longest; ``record``: that of the call before.
        """
        hull, longest = self.slot.hulls[number], self.longest_record(x)
        if self.records(number, x):
            member = Member(hull.label, hull.op)  # type: ignore[arg-type]
            y, new, own = alone(member, params, stats, x, self.defaults, momentum, record)
            return y, new, Record(own.projection, jnp.pad(own.numbers, (0, longest - own.numbers.size)))
        if hull.varied:
            y, new = self.run(number, params, stats, x, momentum, masks.hard(self.slot, number, index))
            new = {label: masks.settled(self.slot, number, index, stats[label], own) for label, own in new.items()}
        else:
            y, new = self.run(number, params, stats, x, momentum)
        nothing = Record(jnp.zeros((y.size // y.shape[-1], y.shape[-1]), y.dtype), jnp.zeros(longest, y.dtype))
        return y, new, nothing if longest else None

    def records(self, number: int, x: jax.Array) -> bool:
        """Whether hull ``number`` leaves a record."""
        hull = self.slot.hulls[number]
        return not hull.varied and in_blocks(hull.op, self.train, x.dtype)

    def longest_record(self, x: jax.Array) -> int:
        hulls: Any = [h for i, h in enumerate(self.slot.hulls) if self.records(i, x)]
        return max((numbers_of(h.op) for h in hulls), default=0)

    def sampled(
        self,
        params: Tree,
        stats: Tree,
        x: jax.Array,
        gates: jax.Array,
        chosen: jax.Array,
        momentum: float | jax.Array,
    ) -> tuple[jax.Array, Tree]:
        """Only the candidates on the active paths run, forward and backward. ``gates``: f32[k], ``chosen``: i32[k]."""
        total = jnp.zeros((*x.shape[:1], *self.slot.out_shape), x.dtype)
        for j in range(chosen.shape[0]):
            again = (chosen[:j] == chosen[j]).any() if j else False  # two paths may meet in one candidate
            decay = jnp.where(again, 1, momentum)  # whose statistics move once
            y, stats = switch(self, chosen[j], params, stats, x, decay)
            total = total + y * jnp.where(again, 0, gates[j]).astype(y.dtype)
        return total, stats


def _rolled(
    block: Any, each: list[tuple[Tree, Tree, Weights | None]], x: jax.Array, momentum: Any
) -> tuple[jax.Array, list[Tree]]:
    """``block`` over and over, with each slot's (params, stats, weights): traced and compiled once.

    Returns the last output and each slot's new statistics.
    """
    if len(each) == 1:
        x, new = block(*each[0], x, momentum)
        return x, [new]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    x, new = lax.scan(lambda x, own: block(*own, x, momentum), x, stacked)
    return x, [jax.tree.map(lambda leaf, i=i: leaf[i], new) for i in range(len(each))]


def _pattern(slot: Slot) -> Any:
    """Equal for slots that may follow each other in one loop; slots without a choice stay alone."""
    if len(slot.candidates) == 1 or slot.in_shape != slot.out_shape:
        return slot.index
    masked = tuple(n in slot.widths for n in slot.choices)
    return slot.in_shape, slot.hulls, tuple((c.op, c.label) for c in slot.candidates), slot.table.tobytes(), slot.sizes, masked


def _per_sample(gate: jax.Array, y: jax.Array) -> jax.Array:
    """A gate of shape [] or [batch] with as many axes as ``y``."""
    return gate.astype(y.dtype).reshape((*gate.shape, *(1,) * (y.ndim - gate.ndim)))


@lru_cache(maxsize=8192)
def _layer(op: Op, defaults: Defaults) -> tuple[Any, Tree, Tree]:
    """Graph definition of an op's layer, and the shapes of its parameters and statistics."""
    layer = nnx.eval_shape(lambda: OpLayer(op, defaults))
    parts: Any = nnx.split(layer, nnx.Param, nnx.BatchStat)
    graph, params, stats = parts
    return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def _name(slot: Slot) -> str:
    return f"{slot.index:02d}"
