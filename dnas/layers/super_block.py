"""One super-block: all candidates of a slot, mixed, or only those on the sampled paths."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from dnas.arch import Defaults
from dnas.layers import masks, taken
from dnas.layers.fused import Member, Record, alone, fusible, in_blocks, mixture, numbers_of
from dnas.layers.op import layer_of
from dnas.layers.paths import Weights
from dnas.layers.switch import switch
from dnas.layers.taken import Taken
from dnas.slots import Slot

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class SuperBlock:
    """All candidates of one slot, those that masks tell apart in one hull."""

    slot: Slot
    defaults: Defaults
    train: bool | jax.Array

    def __call__(
        self, params: Any, stats: Any, weights: Weights | None, x: jax.Array, momentum: float | jax.Array
    ) -> tuple[jax.Array, Any]:
        """``params``, ``stats``: of the slot, or where paths are sampled what they need of them (``entering``). The output, and
        ``stats`` after it. ``weights``: None where there is one candidate."""
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
        each = jnp.unstack(weights.gates, axis=-1)
        shaped = {h.label: _per_sample(gate, x) for h, gate in zip(hulls, each, strict=True)}
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
        graph, _, _ = layer_of(hull.op, self.defaults)
        layer = nnx.merge(graph, params.get(hull.label, {}), own)
        y = layer(x, self.train, momentum, widths)
        y = y.reshape(y.shape[0], 1, 1, -1) if y.ndim == 2 else y
        return y, {hull.label: nnx.to_pure_dict(nnx.state(layer, nnx.BatchStat))} if own else {}

    def candidate(
        self,
        number: int,
        index: jax.Array,
        params: Taken,
        stats: Taken,
        x: jax.Array,
        momentum: jax.Array,
        record: Record | None = None,
    ) -> tuple[jax.Array, Taken, Record | None]:
        """Candidate ``index`` alone, a member of hull ``number``; channels that it lacks keep their statistics.

        Also what it leaves to its backward pass, padded to the slot's longest; ``record``: that of the call before.
        """
        hull, longest = self.slot.hulls[number], self.longest_record(x)
        _, *shapes = layer_of(hull.op, self.defaults)
        own, own_stats = ({hull.label: taken.own(taken.shapes_of(s), t)} for s, t in zip(shapes, (params, stats), strict=True))
        if self.records(number, x):
            member = Member(hull.label, hull.op)  # type: ignore[arg-type]
            y, new, left = alone(member, own, own_stats, x, self.defaults, momentum, record)
            found: Any = Record(left.projection, jnp.pad(left.numbers, (0, longest - left.numbers.size)))
        else:
            widths = masks.hard(self.slot, number, index) if hull.varied else None
            y, new = self.run(number, own, own_stats, x, momentum, widths)
            if hull.varied:
                new = {label: masks.settled(self.slot, number, index, own_stats[label], v) for label, v in new.items()}
            nothing = Record(jnp.zeros((y.size // y.shape[-1], y.shape[-1]), y.dtype), jnp.zeros(longest, y.dtype))
            found = nothing if longest else None
        return y, taken.given(stats, new.get(hull.label, {})), found

    def records(self, number: int, x: jax.Array) -> bool:
        """Whether hull ``number`` leaves a record."""
        hull = self.slot.hulls[number]
        return not hull.varied and in_blocks(hull.op, self.train, x.dtype)

    def longest_record(self, x: jax.Array) -> int:
        hulls: Any = [h for i, h in enumerate(self.slot.hulls) if self.records(i, x)]
        return max((numbers_of(h.op) for h in hulls), default=0)

    def sampled(
        self,
        params: tuple[Taken, ...],
        stats: tuple[Taken, ...],
        x: jax.Array,
        gates: jax.Array,
        chosen: jax.Array,
        momentum: float | jax.Array,
    ) -> tuple[jax.Array, tuple[Taken, ...]]:
        """Only the candidates on the active paths run, forward and backward; each tuple has one for every path.

        ``gates``: f32[k], ``chosen``: i32[k].
        """
        total = jnp.zeros((*x.shape[:1], *self.slot.out_shape), x.dtype)
        hulls = jnp.asarray(self.slot.hull_of)[chosen]
        new: list[Taken] = []
        for j, own in enumerate(stats):
            again = (chosen[:j] == chosen[j]).any() if j else False  # two paths may meet in one candidate
            decay = jnp.where(again, 1, momentum)  # whose statistics move once
            for i, before in enumerate(new):  # or in one hull
                own = jax.tree.map(partial(jnp.where, hulls[i] == hulls[j]), before, own)
            y, moved = switch(self, chosen[j], params[j], own, x, decay)
            new.append(moved)
            total = total + y * jnp.where(again, 0, gates[j]).astype(y.dtype)
        return total, tuple(new)


def entering(slot: Slot, tree: Any, paths: jax.Array | None) -> Any:
    """What the super-block of ``slot`` takes of its ``tree`` for the candidate on each of ``paths`` (i32[k]), where these are
    sampled. What has been taken already stays as it is."""
    if paths is None or isinstance(tree, tuple):
        return tree
    each = tuple(tree.get(h.label, {}) for h in slot.hulls)
    return tuple(taken.take(each, n) for n in jnp.unstack(jnp.asarray(slot.hull_of)[paths]))


def leaving(slot: Slot, tree: Tree, paths: jax.Array | None, found: Any) -> Tree:
    """The statistics ``tree`` of ``slot`` after its super-block returned ``found``."""
    if paths is None:
        return found
    each = tuple(tree.get(h.label, {}) for h in slot.hulls)
    for n, own in zip(jnp.unstack(jnp.asarray(slot.hull_of)[paths]), found, strict=True):
        each = taken.put(each, n, own)
    return {h.label: own for h, own in zip(slot.hulls, each, strict=True) if own}


def rolled(
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


def _per_sample(gate: jax.Array, y: jax.Array) -> jax.Array:
    """A gate of shape [] or [batch] with as many axes as ``y``."""
    return gate.astype(y.dtype).reshape((*gate.shape, *(1,) * (y.ndim - gate.ndim)))
