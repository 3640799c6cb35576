"""What is exported: a network with its weights, and what its inputs and outputs mean."""

from __future__ import annotations

import dataclasses
import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dnas import fold, supernet, weights
from dnas.arch import Architecture
from dnas.errors import ConfigError, ExportError, RunError, WeightsError
from dnas.files import kind, read_json, shown

ARCHITECTURE = "architecture.json"


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """``params``, ``stats`` as ``dnas.init`` gives them; ``source``: where they come from, in words.

    ``labels``: name of each output, () if unknown; ``mean``, ``std`` per channel in units of 0..1, () if unknown.
    """

    architecture: Architecture
    params: Any
    stats: Any
    source: str
    labels: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @cached_property
    def folded(self) -> fold.Folded:
        return fold.fold(self.architecture, self.params, self.stats)

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """What Flax computes for ``images``."""
        return outputs(self.architecture, self.params, self.stats, images)

    def about(self, layout: str = "NHWC") -> dict[str, str]:
        """What travels in a file: texts, JSON where they are lists or objects."""
        known = bool(self.mean)
        rule = "(pixel / 255 - mean) / std" if known else "unknown: the weights came without their normalisation"
        return {
            "format": "dnas-export/1", "architecture": json.dumps(self.architecture.to_dict()),
            "architecture_sha256": self.architecture.fingerprint, "weights": self.source, "labels": json.dumps(self.labels),
            "mean": json.dumps(self.mean), "std": json.dumps(self.std), "input": rule, "layout": layout,
        }  # fmt: skip


def load(source: str | os.PathLike[str], where: str | None = None, random: bool = False, seed: int = 0) -> Trained:
    """``source``: a network's name or JSON file, or the folder of a finished run, whose weights are taken.

    ``where``: other weights (a run folder, or a .safetensors file of ``dnas.weights``); ``random``: weights of a fresh network.
    Errors: ConfigError where it has no weights, ArchitectureError, WeightsError.
    """
    text = os.fspath(source)
    if not text:
        raise ConfigError("the network is missing; expected a name such as fbnet_c, a .json file or a run folder")
    folder = text if kind(text) == "folder" else None
    if folder and kind(Path(folder) / ARCHITECTURE) != "file":
        raise RunError(f"{folder}: it has no {ARCHITECTURE}, so it is not the folder of a finished run")
    architecture = Architecture.load(Path(folder) / ARCHITECTURE if folder else source)
    if where and random:
        raise ConfigError("--weights and --random-weights contradict each other; give one")
    if random:
        return fresh(architecture, seed)
    where = where or folder
    if where is None:
        raise ConfigError(f"{text} is a network without weights; give --weights (a run folder or a .safetensors file)")
    path, about = Path(where), {}
    if kind(path) == "folder":
        about = _preprocessing(path / weights.PREPROCESSING)
        path = path / weights.FILE
        if kind(path) != "file":
            raise WeightsError(f"{where}: it has no {weights.FILE}, which a finished run has")
    found = weights.load(path)
    if found.architecture != architecture:
        raise WeightsError(
            f"{path}: these weights are of another network ({found.architecture.name}) than {architecture.name}; to see what "
            "differs: python -m dnas.describe A B"
        )
    return Trained(architecture, found.params, found.stats, str(path), **about)


def fresh(architecture: Architecture, seed: int = 0) -> Trained:
    """With random weights."""
    _, params, stats = supernet.init(architecture, jax.random.key(seed))
    return Trained(architecture, params, stats, f"random, seed {seed}")


def outputs(architecture: Architecture, params: Any, stats: Any, images: np.ndarray, batch: int = 100) -> np.ndarray:
    """What Flax computes: f32[n, outputs], or a feature map f32[n, h, w, c]."""
    net = supernet.Net.of(architecture)
    apply = jax.jit(lambda p, s, x: supernet.apply(net, p, s, x)[0])
    size, found = min(batch, len(images)), []
    for start in range(0, len(images), size):
        part = images[start : start + size]
        filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), 0)])  # one shape, one compilation
        found.append(np.asarray(apply(params, stats, jnp.asarray(filled)))[: len(part)])
    return np.concatenate(found)


def _preprocessing(path: Path) -> dict[str, Any]:
    """Labels, mean and std of a run; nothing where it has no such file."""
    if kind(path) != "file":
        return {}
    body = read_json(path, ExportError)
    try:
        return {
            "labels": tuple(map(str, body["labels"])), "mean": tuple(map(float, body["mean"])),
            "std": tuple(map(float, body["std"])),
        }  # fmt: skip
    except (KeyError, TypeError, ValueError):
        raise ExportError(f"{path}: {shown(body)}; expected an object with the lists labels, mean and std") from None
