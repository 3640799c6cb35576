"""Super-blocks and networks: ``init`` and ``apply`` over plain nested dicts.

The supernet of a space and a finished network are one builder: a finished network's layers have one candidate each.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float

from dnas.arch import Architecture, Defaults
from dnas.errors import ConfigError
from dnas.gates import Gates
from dnas.layers import masks
from dnas.layers.op import layer_of
from dnas.layers.paths import chosen, weights_of
from dnas.layers.super_block import SuperBlock, entering, leaving, rolled
from dnas.ops import LinearOp, Shape
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

    @cached_property
    def twin(self) -> dict[int, Slot]:
        """By index, the first slot that has the same candidates between the same shapes."""
        first: dict[Any, Slot] = {}
        return {slot.index: first.setdefault(_pattern(slot), slot) for slot in self.slots}

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
            _, empty_params, empty_stats = layer_of(hull.op, net.defaults)
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
    ``params``: all of them, or what ``on_paths`` found for these gates.
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
        block: Any = partial(_block, net.twin[slots[0].index], net.defaults, train)
        block = jax.checkpoint(block) if remat else block
        paths = [_paths(s, gates and gates.active) for s in slots]
        old = [stats.get(_name(s), {}) for s in slots]
        each = [
            (entering(s, params.get(_name(s), {}), at), entering(s, own, at), weights_of(s, gates))
            for s, own, at in zip(slots, old, paths, strict=True)
        ]
        before = x
        x, found = rolled(block, each, x, decay)
        x = x if after is None else after(slots[-1], before, x)
        moved = map(leaving, slots, old, paths, found)
        yield slots, x, {_name(s): own for s, own in zip(slots, moved, strict=True) if own}


def on_paths(net: Net, tree: Tree, active: dict[str, jax.Array] | None) -> Tree:
    """What ``apply`` needs of ``params`` where only the options ``active`` run, by layer; everything if None.

    Its gradients are as small as it is, whatever the number of candidates; ``jax.vjp`` of this function makes all of them.
    """
    if active is None:
        return tree
    return {_name(s): entering(s, tree[_name(s)], _paths(s, active)) for s in net.slots if _name(s) in tree}


def _paths(slot: Slot, active: dict[str, jax.Array] | None) -> jax.Array | None:
    """i32[k]: the candidate of ``slot`` on each path; None where nothing is sampled."""
    return chosen(slot, active) if active is not None and slot.choices else None


def _block(slot: Slot, defaults: Defaults, train: bool | jax.Array, *operands: Any) -> tuple[jax.Array, Tree]:
    """The super-block of ``slot``: traced and lowered once for all slots that are alike."""
    known = train if isinstance(train, bool) else None
    return _traced_once(slot, defaults, known, None if known is not None else train, *operands)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _traced_once(slot: Slot, defaults: Defaults, known: bool | None, train: Any, *operands: Any) -> tuple[jax.Array, Tree]:
    return SuperBlock(slot, defaults, train if known is None else known)(*operands)


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


def _pattern(slot: Slot) -> Any:
    """Equal for slots that may follow each other in one loop; slots without a choice stay alone."""
    if len(slot.candidates) == 1 or slot.in_shape != slot.out_shape:
        return slot.index
    masked = tuple(n in slot.widths for n in slot.choices)
    return slot.in_shape, slot.hulls, tuple((c.op, c.label) for c in slot.candidates), slot.table.tobytes(), slot.sizes, masked


def _name(slot: Slot) -> str:
    return f"{slot.index:02d}"
