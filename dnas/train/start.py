"""What a training starts from: its network, first weights, teacher and normalisation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from dnas import checkpoint, supernet, weights
from dnas.arch import Architecture
from dnas.errors import ArchitectureError, ConfigError, RunError, SpaceError, WeightsError
from dnas.files import kind, read_json
from dnas.runs import read_config
from dnas.space import load_space
from dnas.train.config import TrainConfig
from dnas.train.phase import Teacher

if TYPE_CHECKING:
    from dnas.data import Dataset

WEIGHTS, PREPROCESSING, ARCHITECTURE = weights.FILE, weights.PREPROCESSING, "architecture.json"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
Moments = tuple[tuple[float, ...], tuple[float, ...]]


def network(source: Architecture | str | os.PathLike[str]) -> Architecture:
    """What ARCH means: an architecture, a name, a family, a file, or a run folder. Errors: ConfigError, ArchitectureError."""
    if isinstance(source, Architecture):
        return source
    text = os.fspath(source)
    if not text:
        raise ConfigError("the network is missing; expected a name such as fbnet_c, a .json file or a run folder")
    if kind(text) == "folder":
        path = Path(text) / ARCHITECTURE
        if not kind(path):
            raise ArchitectureError(
                f"{text}: it has no {ARCHITECTURE}, which a finished run has; continue it by --resume {text}"
            )
        return Architecture.load(path)
    return Architecture.load(source)


def load_weights(source: str | os.PathLike[str]) -> weights.Weights:
    """Of a .safetensors file of ``dnas.weights``, or of a training's run folder. Errors: WeightsError."""
    path = Path(source)
    if kind(path) == "folder":
        if not kind(path / WEIGHTS):
            raise WeightsError(f"{source}: it has no {WEIGHTS}; expected the folder of a finished training")
        path = path / WEIGHTS
    return weights.load(path)


def first(config: TrainConfig, architecture: Architecture) -> tuple[Any, Any]:
    """(params, stats) before the first step. Errors: WeightsError, RunError."""
    _, params, stats = supernet.init(architecture, jax.random.key(config.seed))
    if not config.init:
        return params, stats
    how, where = config.init
    if how == "supernet":
        return inherited(where, architecture)
    given = load_weights(where)
    return adopted(given, architecture, params, stats, f"--init weights {where}")


def adopted(given: weights.Weights, architecture: Architecture, params: Any, stats: Any, where: str) -> tuple[Any, Any]:
    """The trees of ``given``, with the classifier of ``params`` where the classes differ. Errors: WeightsError."""
    ours, theirs = architecture, given.architecture
    alike = ours.defaults == theirs.defaults and ours.layers == theirs.layers
    body = ours.layers[:-1] == theirs.layers[: len(ours.layers) - 1] and ours.num_classes != theirs.num_classes
    if not alike and not body:
        different = next(
            (i for i, (a, b) in enumerate(zip(ours.layers, theirs.layers, strict=False)) if a != b),
            min(len(ours.layers), len(theirs.layers)),
        )
        raise WeightsError(
            f"{where}: these weights are of another network ({theirs.name}) than {ours.name}; they differ from layer "
            f"{different} on"
        )
    last = f"{len(ours.layers) - 1:02d}"
    result = []
    for own, other in ((params, given.params), (stats, given.stats)):
        tree = jax.tree.map(jnp.asarray, {name: value for name, value in other.items() if alike or name != last})
        result.append(tree if alike else tree | {k: v for k, v in own.items() if k == last})
    return result[0], result[1]


def inherited(folder: str, architecture: Architecture) -> tuple[Any, Any]:
    """What ``architecture`` takes over from the supernet of the search in ``folder``. Errors: RunError."""
    where = Path(folder) / "supernet"
    options = read_config(folder, "--init supernet ")["search"]
    kept = checkpoint.newest(where) if kind(where) == "folder" else None
    if kept is None:
        raise RunError(f"--init supernet {folder}: it has no supernet/, which a search writes at its end; let it finish first")
    space = load_space(options["space"]).at(num_classes=architecture.num_classes)
    if kept.about["space"] != space.fingerprint:
        raise RunError(f"--init supernet {folder}: its weights are of another space or other classes than {space.name}")
    try:
        genotype = space.encode(architecture.at(space.resolution))
    except SpaceError as problem:
        raise RunError(f"--init supernet {folder}: the network is not one of its space {space.name} ({problem})") from None
    like = jax.eval_shape(lambda key: supernet.init(space, key)[1:], jax.random.key(0))
    tree = checkpoint.load(kept, {"params": like[0], "stats": like[1]})
    params, stats = (supernet.inherit(space, genotype, tree[k]) for k in ("params", "stats"))
    return params, stats


def teacher(spec: str, classes: int, shape: tuple[int, int, int]) -> Teacher:
    """``ARCH:WEIGHTS`` or ``WEIGHTS``. ``shape``: (h, w, c) of the images. Errors: ConfigError, WeightsError."""
    named, _, where = spec.rpartition(":")
    if kind(spec):
        named, where = "", spec
    given = load_weights(where)
    if named and network(named).at(num_classes=given.architecture.num_classes).layers != given.architecture.layers:
        raise WeightsError(f"--teacher {spec}: the weights in {where} are of {given.architecture.name}, not of {named}")
    if given.architecture.num_classes != classes:
        raise ConfigError(
            f"--teacher {spec}: it distinguishes {given.architecture.num_classes} classes, and the data have {classes}; "
            "expected a network that was trained on these classes"
        )
    if given.architecture.input_channels != shape[2]:
        raise ConfigError(f"--teacher {spec}: it takes {given.architecture.input_channels} channels, the student {shape[2]}")
    net = supernet.Net.of(given.architecture.at(shape[0]))
    return Teacher(net, *(jax.tree.map(jnp.asarray, tree) for tree in (given.params, given.stats)))


def moments(config: TrainConfig, dataset: Dataset) -> tuple[str, Moments]:
    """What is taken off the images, and where it is from: "data", "imagenet" or "start". Errors: ConfigError."""
    way = config.normalise
    source = Path(config.init[1]) / PREPROCESSING if config.init[:1] == ("weights",) else None
    found = source is not None and bool(kind(source))
    if way == "start" and not found:
        raise ConfigError(f"--normalise start: {source or '--init'} does not exist; expected a training's run folder")
    if way == "imagenet":
        if dataset.channels != 3:
            raise ConfigError(f"--normalise imagenet is for RGB images, and {dataset.name} has {dataset.channels} channels")
        return "imagenet", IMAGENET
    if way in (None, "start") and found and source is not None:
        body = read_json(source, RunError)
        if len(body["mean"]) == dataset.channels:
            return "start", (tuple(body["mean"]), tuple(body["std"]))
        raise ConfigError(
            f"{source} is for {len(body['mean'])} channels, and {dataset.name} has {dataset.channels}; give --normalise data"
        )
    return "data", (dataset.mean, dataset.std)
