"""A minimum depth for each stage: the space without its shallower networks."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from dnas.choices import Follow, OneOf, Stage, Template
from dnas.errors import SpaceError
from dnas.ops import SkipOp
from dnas.space import Space


def at_least(space: Space, depth: int) -> Space:
    """``space`` without networks that have a stage of fewer than ``depth`` layers, or than all of the stage's layers.

    Depths of a ``Stage`` below ``depth`` are left out. Elsewhere a stage is a run of layers with choices that give maps of one
    shape, and none of its first ``depth`` layers may be an identity: where its layers have the same candidates, that leaves
    out no deeper network, because identities may as well come last. Genotypes are those of the new space.
    Errors: SpaceError where ``depth`` is no whole number from 1, or nothing is left to choose.
    """
    if type(depth) is not int or depth < 1:
        raise SpaceError(f"a minimum depth of {depth!r}; expected a whole number from 1")
    barred: dict[str, set[int]] = {}
    staged = {i.name for layer in space.layers if isinstance(layer, Stage) for i in (layer.depth,)}
    searched = [slot for slot in space.slots if slot.choices]
    for _, group in itertools.groupby(searched, key=lambda slot: slot.out_shape):
        for slot in list(group)[:depth]:
            for candidate in slot.candidates:
                if isinstance(candidate.op, SkipOp) and not candidate.off and not staged & set(slot.choices):
                    name, options = candidate.when[0]
                    barred.setdefault(name, set()).update(options)
    for layer in space.layers:
        if isinstance(layer, Stage):
            least = min(depth, max(layer.depth.options))
            barred.setdefault(layer.depth.name, set()).update(i for i, d in enumerate(layer.depth.options) if d < least)
    kept = {n: [i for i in range(len(space.choices[n].options)) if i not in out] for n, out in barred.items() if out}
    if not kept:
        return space
    layers = tuple(itertools.chain.from_iterable(_layer(layer, kept) for layer in space.layers))
    return dataclasses.replace(space, layers=layers, options={**space.options, "min_depth": depth})


def _layer(layer: Any, kept: dict[str, list[int]]) -> tuple[Any, ...]:
    """``layer`` with the options that are kept; plain layers where nothing is left to choose."""
    if isinstance(layer, Stage):
        depth, inner = _narrowed(layer.depth, kept), [x for one in layer.layers for x in _layer(one, kept)]
        return (Stage(depth, tuple(inner)),) if len(depth.options) > 1 else tuple(inner[: depth.options[0]])
    found = _narrowed(layer, kept)
    return (found.options[0] if isinstance(found, OneOf) and len(found.options) == 1 else found,)


def _narrowed(item: Any, kept: dict[str, list[int]]) -> Any:
    if isinstance(item, Template):
        return Template(item.kind, label=item.label, **{n: _narrowed(v, kept) for n, v in item.fields})
    if not isinstance(item, OneOf | Follow):
        return item
    name = item.name if isinstance(item, OneOf) else item.choice
    options = [_narrowed(o, kept) for o in item.options]
    return dataclasses.replace(item, options=tuple(options[i] for i in kept.get(name, range(len(options)))))
