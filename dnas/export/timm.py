"""timm: the model's block strings and arguments, and its ``state_dict`` as safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from dnas.arch import Architecture
from dnas.export.trained import Trained, outputs
from dnas.interchange import timm_write
from dnas.interchange.torch_weights import from_torch, to_timm


def write(network: Trained, about: Mapping[str, str] | None = None) -> bytes:
    """Tensors by timm's names; ``recipe`` (block strings, arguments) in the header.

    Errors: ArchitectureError with the layer that timm's strings cannot hold.
    """
    from safetensors.numpy import save

    tensors = to_timm(network.architecture, network.params, network.stats)
    return save(tensors, {**(about or {}), **sidecar(network)})


def sidecar(network: Trained) -> dict[str, str]:
    """What timm builds the model from: ``dnas.interchange.timm.build`` reads it."""
    recipe, notes = timm_write.write(network.architecture)
    return {"recipe": json.dumps(recipe.to_dict()), "notes": json.dumps(notes)}


def run(data: bytes, images: np.ndarray) -> np.ndarray:
    """Outputs f32[n, ...] of the network with these tensors, read back by their names (timm itself is not needed)."""
    from safetensors.numpy import load

    (size,) = np.frombuffer(data[:8], "<u8")
    header = json.loads(data[8 : 8 + int(size)])["__metadata__"]
    architecture = Architecture.from_dict(json.loads(header["architecture"]))
    return outputs(architecture, *from_torch(architecture, load(data)), images)
