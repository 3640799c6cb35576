"""The network's own weights file (``dnas.weights``): unfolded, to go on training with, the architecture inside."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dnas import weights
from dnas.export.trained import Trained, outputs


def write(network: Trained, about: Mapping[str, str] | None = None) -> bytes:
    """What ``dnas.weights.save`` writes, with ``about`` in its header."""
    return weights.to_bytes(network.architecture, network.params, network.stats, about or {})


def run(data: bytes, images: np.ndarray) -> np.ndarray:
    """Outputs f32[n, ...] of the network that the file holds, read back."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        path.write_bytes(data)
        return outputs(*weights.load(path), images)
