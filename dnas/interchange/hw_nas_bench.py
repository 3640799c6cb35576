"""HW-NAS-Bench's FBNet networks: {"dataset": "cifar100", "num_classes": 100, "op_idx_list": [22 indices 0 to 8], ...}.

Li et al., HW-NAS-Bench, ICLR 2021, arXiv:2103.10584; GATECH-EIC/HW-NAS-Bench, MIT License. The index is the candidate's place
in FBNet's list (k3_e1, k3_e1_g2, k3_e3, k3_e6, k5_e1, k5_e1_g2, k5_e3, k5_e6, skip). An expansion-1 block keeps its
expansion convolution; a skip that changes the shape is a 1x1 convolution with BN and ReLU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from dnas.arch import Architecture
from dnas.errors import ArchitectureError, SpaceError
from dnas.files import shown
from dnas.ops import ConvOp, Op
from dnas.space import Space, load_space

SPACES = {"cifar100": "fbnet_cifar", "ImageNet": "fbnet:expand1=true"}
"""Data set -> the space whose points its networks are, skips that change a shape apart."""
SKIP = 8
_LABELS = {"num_classes", "arch_str"}


def read(given: Any, name: str = "network") -> Architecture:
    """The network of a config. Errors: ArchitectureError that names the field."""
    if not isinstance(given, Mapping) or set(given) - _LABELS != {"dataset", "op_idx_list"}:
        raise ArchitectureError(
            f"{shown(given)}: expected an object with dataset ({' or '.join(SPACES)}) and op_idx_list (22 indices)"
        )
    if given["dataset"] not in SPACES:
        raise ArchitectureError(f"dataset is {shown(given['dataset'])}; expected one of {', '.join(SPACES)}")
    space, codes = load_space(SPACES[given["dataset"]]), given["op_idx_list"]
    count = len(space.choices)
    if not isinstance(codes, list) or len(codes) != count or not all(type(c) is int and 0 <= c <= SKIP for c in codes):
        raise ArchitectureError(f"op_idx_list is {shown(codes)}; expected {count} whole numbers from 0 to {SKIP}")
    if given.get("num_classes", space.num_classes) != space.num_classes:
        raise ArchitectureError(f"num_classes is {shown(given['num_classes'])}; {given['dataset']} has {space.num_classes}")
    reduced = [i for i, c in enumerate(codes) if c == SKIP and i in _reducing(space)]
    network = space.fix(tuple(0 if i in reduced else c for i, c in enumerate(codes)))
    layers = list(network.layers)
    for i in reduced:
        layers[i + 1] = _skip(layers[i + 1])
    return dataclasses.replace(network, layers=tuple(layers), name=name, provenance={})


def write(network: Architecture) -> dict[str, Any]:
    """The config of ``network``, for the data set whose input size and classes it has. Errors: ArchitectureError."""
    spaces = {name: load_space(spec) for name, spec in SPACES.items()}
    size = (network.resolution, network.num_classes)
    fitting = [name for name, space in spaces.items() if (space.resolution, space.num_classes) == size]
    if not fitting:
        raise ArchitectureError(
            f"{network.name} has {network.resolution} px and {network.num_classes} classes; HW-NAS-Bench has 32 px and 100 "
            "(cifar100), or 224 px and 1000 (ImageNet)"
        )
    dataset, space = fitting[0], spaces[fitting[0]]
    plain, layers = space.fix((0,) * len(space.choices)).layers, list(network.layers)
    reduced = [i for i in _reducing(space) if layers[i + 1 : i + 2] == [_skip(plain[i + 1])]]
    for i in reduced:
        layers[i + 1] = plain[i + 1]
    try:
        codes = list(space.encode(dataclasses.replace(network, layers=tuple(layers))))
    except (SpaceError, ArchitectureError) as problem:
        raise ArchitectureError(f"{network.name} is no point of HW-NAS-Bench's FBNet space: {problem}") from None
    found: dict[str, Any] = {"dataset": dataset, "num_classes": space.num_classes, "op_idx_list": codes}
    for i in reduced:
        codes[i] = SKIP
    if read(found) != network:
        raise ArchitectureError(
            f"{network.name}: its indices would read back as another network: identities, biases, BN or padding differ"
        )
    return found


def _reducing(space: Space) -> list[int]:
    """Choices of layers that change the shape."""
    searched = [slot for slot in space.slots if slot.choices]
    return [i for i, slot in enumerate(searched) if slot.in_shape != slot.out_shape]


def _skip(block: Any) -> Op:
    """The skip in the place of ``block``, where shapes differ."""
    return ConvOp(in_=block.in_, out=block.out, stride=block.stride)
