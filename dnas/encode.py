"""Which genotype of a space builds a given architecture."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from dnas.errors import SpaceError
from dnas.ops import Op, SkipOp

if TYPE_CHECKING:
    from dnas.arch import Architecture
    from dnas.slots import Candidate
    from dnas.space import Genotype, Space


def encode(space: Space, architecture: Architecture) -> Genotype:
    """One option index per choice; choices that the architecture leaves open are 0.

    Identities of the space may be written as ``skip`` layers or left out; layers that a depth drops are left out.
    Convolution biases, BN constants and the number of classes are not compared: ``left_out`` says what differs.
    Errors: SpaceError that names the first layer which no candidate builds.
    """
    for field, given, wanted in (
        ("resolution", architecture.resolution, space.resolution),
        ("input channels", architecture.input_channels, space.input_channels),
        ("padding", architecture.defaults.padding, space.defaults.padding),
    ):
        if given != wanted:
            raise SpaceError(f"{architecture.name}: {field} {given}, but {space.name} has {wanted}")
    layers = [_plain(op) for op in architecture.layers]
    if architecture.num_classes != space.num_classes and getattr(layers[-1], "out", None) == architecture.num_classes:
        layers[-1] = dataclasses.replace(layers[-1], out=space.num_classes)  # type: ignore[call-arg]
    furthest = (-1, "")
    # choices that slot i or a later one also uses: only they tie what was picked before to what may be picked now
    ahead = [frozenset(n for s in space.slots[i:] for n in s.choices) for i in range(len(space.slots))]
    failed: set[tuple[int, int, frozenset[tuple[str, frozenset[int]]]]] = set()

    def walk(slot_index: int, layer_index: int, picked: dict[str, frozenset[int]]) -> dict[str, frozenset[int]] | None:
        nonlocal furthest
        if slot_index == len(space.slots):
            if layer_index == len(layers):
                return picked
            furthest = max(furthest, (layer_index, "the space has no layer left for it"))
            return None
        state = (slot_index, layer_index, frozenset((n, picked[n]) for n in ahead[slot_index] if n in picked))
        if state in failed:
            return None
        slot = space.slots[slot_index]
        layer = layers[layer_index] if layer_index < len(layers) else None
        for candidate in sorted(slot.candidates, key=lambda c: _plain(c.op) != layer):
            consumes = not candidate.off and layer is not None and _plain(candidate.op) == layer
            if not consumes and not isinstance(candidate.op, SkipOp):
                continue
            agreed = _agree(candidate, picked)
            if agreed is None:
                continue
            found = walk(slot_index + 1, layer_index + consumes, agreed)
            if found is not None:
                return found
        failed.add(state)
        furthest = max(furthest, (layer_index, f"candidates are {', '.join(c.label for c in slot.candidates)}"))
        return None

    found = walk(0, 0, {})
    if found is None:
        index, reason = furthest
        what = repr(architecture.layers[index]) if index < len(layers) else "nothing left"
        raise SpaceError(f"{architecture.name} is not in {space.name}: layer {index}, {what}: {reason}")
    return tuple(min(found[n]) if n in found else 0 for n in space.choices)


def left_out(space: Space, architecture: Architecture) -> tuple[str, ...]:
    """What ``encode`` does not compare and ``architecture`` has otherwise, as sentences; none if the space builds it exactly.

    Errors: those of ``encode``.
    """
    found = space.fix(encode(space, architecture))
    pairs = list(zip(*([op for op in n.layers if not isinstance(op, SkipOp)] for n in (found, architecture)), strict=True))
    sentences = []
    for bare, biased, words in ((0, 1, "have convolution biases that the space leaves out"), (1, 0, "lack the space's biases")):
        more = [p[biased].params - p[bare].params for p in pairs if _biased(p[biased]) and not _biased(p[bare])]
        if more:
            sentences.append(f"{len(more)} layers {words}: {sum(more):,} parameters.")
    for field, given, own in (
        ("BN eps", architecture.defaults.bn_eps, space.defaults.bn_eps),
        ("BN momentum", architecture.defaults.bn_momentum, space.defaults.bn_momentum),
        ("classes", architecture.num_classes, space.num_classes),
    ):
        if given != own:
            sentences.append(f"{field} {given:g}; {space.name} has {own:g}.")
    return tuple(sentences)


def _agree(candidate: Candidate, picked: dict[str, frozenset[int]]) -> dict[str, frozenset[int]] | None:
    """``picked`` narrowed to the options that select ``candidate``; None if they contradict it."""
    narrowed = dict(picked)
    for name, options in candidate.when:
        narrowed[name] = narrowed.get(name, frozenset(options)) & frozenset(options)
        if not narrowed[name]:
            return None
    return narrowed


def _plain(op: Op) -> Op:
    """``op`` without convolution biases, which are not searched."""
    if _biased(op):
        return dataclasses.replace(op, bias=False)  # type: ignore[call-arg]
    return op


def _biased(op: Op) -> bool:
    return op.op != "linear" and getattr(op, "bias", False)
