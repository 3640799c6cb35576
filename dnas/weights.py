"""Trained weights in a file: safetensors with the architecture inside; ``python -m dnas.weights`` makes one from PyTorch's.

Tensors are named by their place, ``params/03/k3_e6/depthwise/kernel`` and ``stats/03/k3_e6/depthwise_bn/mean``; kernels are
HWIO, matrices [in, out]. The metadata hold ``format`` ("dnas-weights/1") and ``architecture`` (its dnas-arch/1 JSON).
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from tyro.conf import Positional

from dnas.arch import Architecture
from dnas.cli import command
from dnas.errors import ArchitectureError, ConfigError, WeightsError
from dnas.files import write_bytes
from dnas.interchange.torch_weights import Tree, from_torch, read_safetensors

FORMAT = "dnas-weights/1"
FILE, PREPROCESSING = "weights.safetensors", "preprocessing.json"  # their names in a run folder
__all__ = ["FORMAT", "Weights", "from_torch", "load", "save", "to_bytes"]


class Weights(NamedTuple):
    """A network with its parameters and BN statistics, for ``dnas.apply``."""

    architecture: Architecture
    params: Tree
    stats: Tree


@dataclasses.dataclass(frozen=True)
class WeightsConfig:
    """Turn the weights of a PyTorch model (timm, torchvision) into a file that dnas reads, the architecture inside."""

    network: Positional[str]
    """The network that the weights are of: a shipped name (mobilenetv2_100), a family, or a JSON file."""
    file: Positional[str]
    """A .safetensors file, or one that torch.save wrote (which needs PyTorch)."""
    out: str
    """File to write (.safetensors)."""


def save(path: str | os.PathLike[str], architecture: Architecture, params: Tree, stats: Tree) -> None:
    """Write the file atomically. Errors: WeightsError where the trees are not those of the architecture."""
    try:
        data = to_bytes(architecture, params, stats)
    except WeightsError as problem:
        raise WeightsError(f"{path}: {problem}") from None
    write_bytes(path, data)


def to_bytes(architecture: Architecture, params: Tree, stats: Tree, about: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """The content of the file; ``about``: more metadata. Errors: WeightsError."""
    from safetensors.numpy import save as serialised

    _check(architecture, params, stats, "weights")
    tensors = {name: np.ascontiguousarray(value) for name, value in _flat({"params": params, "stats": stats})}
    return _same_bytes(serialised(tensors, {**about, "format": FORMAT, "architecture": json.dumps(architecture.to_dict())}))


def load(path: str | os.PathLike[str]) -> Weights:
    """Read what ``save`` wrote. Errors: WeightsError that names the file and what is wrong with it."""
    tensors, about = read_safetensors(Path(path))
    if about.get("format") != FORMAT:
        raise WeightsError(
            f"{path}: format is {about.get('format')!r}; expected {FORMAT!r} (for PyTorch's: python -m dnas.weights)"
        )
    try:
        architecture = Architecture.from_dict(json.loads(about["architecture"]))
    except (KeyError, ValueError, ArchitectureError) as problem:
        raise WeightsError(f"{path}: the architecture in its metadata cannot be read ({problem})") from None
    trees: Tree = {"params": {}, "stats": {}}
    for name, value in tensors.items():
        *parts, leaf = name.split("/")
        place = trees
        for part in parts:
            place = place.setdefault(part, {})
        place[leaf] = value
    _check(architecture, trees["params"], trees["stats"], os.fspath(path))
    return Weights(architecture, trees["params"], trees["stats"])


def preprocessing(
    network: Architecture, labels: Sequence[str], mean: Sequence[float], std: Sequence[float], normalise: str = "data"
) -> dict[str, Any]:
    """How an image becomes the input of ``network``, and what its outputs mean: the object in a run's preprocessing.json.

    ``mean``, ``std``: per channel, in units of 0..1; ``normalise``: where they come from, in a word.
    """
    return {
        "format": "dnas-preprocessing/1", "labels": list(labels), "mean": list(mean), "std": list(std), "normalise": normalise,
        "resolution": network.resolution, "channels": network.input_channels,
        "input": "(pixel / 255 - mean) / std; shorter side to resolution (bilinear, antialiased), then the centre square; "
        "grey is repeated to channels",
    }  # fmt: skip


def main(config: WeightsConfig) -> int:
    """Read, check, write."""
    if not config.out.endswith(".safetensors"):
        raise ConfigError(f"--out {config.out}: expected a name that ends in .safetensors")
    architecture = Architecture.load(config.network)
    params, stats = from_torch(architecture, config.file)
    save(config.out, architecture, params, stats)
    print(f"written {config.out}: {architecture}")
    return 0


def _same_bytes(data: bytes) -> bytes:
    """A safetensors file with its metadata in alphabetical order: the library writes them in another one each time."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def _check(architecture: Architecture, params: Tree, stats: Tree, where: str) -> None:
    """Every leaf that the architecture has, with its shape, and no other."""
    import jax

    from dnas import supernet

    shapes = jax.eval_shape(lambda key: supernet.init(architecture, key)[1:], jax.random.key(0))
    wanted, given = (
        {name: tuple(v.shape) for name, v in _flat({"params": p, "stats": s})} for p, s in (shapes, (params, stats))
    )
    wrong = [
        f"{n} is {given.get(n, 'missing')}, expected {wanted.get(n, 'none')}"
        for n in {**wanted, **given}
        if wanted.get(n) != given.get(n)
    ]
    if wrong:
        raise WeightsError(f"{where}: {len(wrong)} tensors are not those of {architecture.name}: {wrong[0]}")


def _flat(tree: Tree, prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in tree.items():
        found += _flat(value, f"{prefix}{name}/") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return found


if __name__ == "__main__":
    sys.exit(command("python -m dnas.weights", WeightsConfig, main))
