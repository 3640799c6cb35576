"""What the training command can be told: every option with its unit and default. No JAX here, so that --help is instant."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_type_hints

from tyro.conf import Positional

from dnas.errors import ConfigError, nearest

# Values of a preset are starting points from the literature; docs/training.md says what was measured with them.
PRESETS: dict[str, dict[str, Any]] = {
    "quick": {  # the short training at the end of a search
        "epochs": 30, "batch_size": 64, "optimiser": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": False,
        "weight_decay": 1e-4, "schedule": "cosine", "warm_up": 0.0, "label_smoothing": 0.0, "clip": 0.0, "ema": 0.0,
        "dropout": 0.0, "drop_path": 0.0, "validation": 0.0,
    },
    "cifar": {  # He et al. 2015 (arXiv:1512.03385) with the cosine of Loshchilov & Hutter 2016 (arXiv:1608.03983)
        "epochs": 200, "batch_size": 128, "optimiser": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True,
        "weight_decay": 5e-4, "schedule": "cosine", "warm_up": 0.025, "label_smoothing": 0.0, "clip": 0.0, "ema": 0.0,
        "dropout": 0.0, "drop_path": 0.0, "validation": 0.04, "augment": "crop+flip",
    },
    "imagenet": {  # timm's recipe of mobilenetv3_large_100 (RMSProp as TensorFlow has it), without noise on the rate
        "epochs": 600, "batch_size": 1024, "optimiser": "rmsprop", "lr": 0.064, "momentum": 0.9, "nesterov": False,
        "weight_decay": 1e-5, "schedule": "step", "step_epochs": 2.4, "step_factor": 0.973, "warm_up": 0.005,
        "label_smoothing": 0.1, "clip": 0.0, "ema": 0.9999, "dropout": 0.2, "drop_path": 0.2, "validation": 0.01,
        "augment": "resized-crop+flip+randaugment=9+erase=0.2",
    },
}  # fmt: skip
_COMMON = {"step_epochs": 2.4, "step_factor": 0.973}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Train a network and measure it.

    Options whose default is "the preset's" take it from --preset; the values in use are written to config.json.
    """

    arch: Positional[str] = ""
    """The network: a shipped name (fbnet_c), a family with options (mobilenetv2:width=0.5), a .json file, or the run folder of
    a search or a training. Its classifier follows the data's classes."""
    data: str = "digits"
    """Images: digits, idx:FOLDER, npz:FILE, folder:PATH or tfds:NAME[:VERSION][@SPLITS]. No unit."""
    data_dir: str | None = None
    """Where relative paths of --data start, and where prepared tfds: sets lie. Default: here; TFDS's own. No unit."""
    resolution: int | None = None
    """Side of the input images, in px. Default: the network's."""
    preset: Literal["quick", "cifar", "imagenet"] = "quick"
    """Values for all options below that are not given: quick is the short training of a search; cifar and imagenet are
    published recipes. No unit."""
    epochs: int | None = None
    """Passes over the training images. Default: the preset's (30, 200, 600)."""
    batch_size: int | None = None
    """Images per update. Default: the preset's (64, 128, 1024). --lr is not scaled with it."""
    accumulate: int = 1
    """Parts in which a batch is computed one after the other, to need less memory: a number that divides --batch-size; BN then
    sees the parts. No unit."""
    optimiser: Literal["sgd", "rmsprop", "adamw"] | None = None
    """Default: the preset's (sgd, sgd, rmsprop). rmsprop is TensorFlow's, with epsilon 0.001 inside the root."""
    lr: float | None = None
    """Learning rate per step after the warm-up. Default: the preset's (0.1, 0.1, 0.064)."""
    momentum: float | None = None
    """Of sgd and rmsprop; the first decay of adamw. Default: the preset's (0.9)."""
    nesterov: bool | None = None
    """Nesterov's momentum (sgd). Default: the preset's (False, True, False)."""
    weight_decay: float | None = None
    """L2 per step (adamw: decoupled, times the learning rate). Default: the preset's (1e-4, 5e-4, 1e-5)."""
    decay_all: bool = False
    """Decay biases and BN's scales and shifts too; by default only kernels decay. No unit."""
    schedule: Literal["cosine", "step"] | None = None
    """Course of the learning rate: cosine falls to 0; step multiplies by --step-factor every --step-epochs. Default: the
    preset's (cosine, cosine, step)."""
    step_epochs: float | None = None
    """Epochs between two steps of --schedule step. Default: the preset's (2.4)."""
    step_factor: float | None = None
    """Factor of a step, 0 to 1. Default: the preset's (0.973)."""
    warm_up: float | None = None
    """Share of the epochs, 0 to 1, in which the rate rises from 0. Default: the preset's (0, 0.025, 0.005)."""
    label_smoothing: float | None = None
    """Share of each label that is spread over all classes, 0 to 1. Default: the preset's (0, 0, 0.1)."""
    clip: float | None = None
    """Largest global norm of a gradient; 0 clips none. Default: the preset's (0)."""
    ema: float | None = None
    """Decay per step of an average of the weights, which is what is measured and saved; 0 keeps none. Default: the preset's
    (0, 0, 0.9999)."""
    dropout: float | None = None
    """Share of the classifier's inputs that is dropped, 0 to 1. Default: the preset's (0, 0, 0.2)."""
    drop_path: float | None = None
    """Share of the images for which the last residual block is left out, rising linearly from 0 at the first block. Default:
    the preset's (0, 0, 0.2)."""
    augment: str | None = None
    """Augmentation: none, or names joined by + with numbers after = (crop+flip, resized-crop=0.08, randaugment=9, erase=0.25,
    mixup=0.2, cutmix=1). Default: the preset's; quick: crop for grey images, crop+flip for others."""
    balance: Literal["none", "weights", "sampling"] = "none"
    """For classes of unequal size: weights counts an image by 1 / size of its class (mean 1); sampling shows every class
    equally often. No unit."""
    normalise: Literal["data", "imagenet", "start"] | None = None
    """Mean and standard deviation that are taken off the images: the data's own, ImageNet's, or those that the run of --init
    weights used. Default: start where --init weights names a run, else data. No unit."""
    validation: float | None = None
    """Share of the training images that are held out and measured after every epoch, 0 to 0.5. Default: the preset's (0, 0.04,
    0.01)."""
    init: tuple[str, ...] = ()
    """First weights: supernet RUN (inherited from a search's run folder) or weights FILE (a .safetensors file of dnas.weights,
    or a training's run folder; the classifier starts afresh where classes differ). Default: random."""
    teacher: str | None = None
    """Distil from a network: ARCH:WEIGHTS, or WEIGHTS alone (file or run folder, as --init weights). Default: none."""
    teacher_weight: float = 0.5
    """Share of the loss that is the teacher's, 0 to 1. No unit."""
    teacher_temperature: float = 4.0
    """Temperature of both softmaxes in the teacher's part (Hinton et al. 2015). No unit."""
    bad_images: Literal["refuse", "skip"] = "refuse"
    """What to do with files of folder: that cannot be read: refuse the set, or leave them out; either way they are listed."""
    workers: int | None = None
    """Threads that decode images of large sets; the result does not depend on it. Default: one for each core, at most 16."""
    compute: Literal["float32", "bfloat16"] = "float32"
    """Type of maps and products; parameters, statistics and logits stay float32. No unit."""
    remat: bool = False
    """Keep only the input of each layer for the backward pass: less memory, more time. No unit."""
    devices: int | None = None
    """Devices that share each batch: a number from 1; a CPU is made as many, up to its cores. Default: as many local ones as
    divide it. No unit."""
    distributed: bool = False
    """Run as one of several processes that share each batch, as in dnas.search. No unit."""
    seed: int = 0
    """Seed of weights, batches and augmentation: a whole number from 0. No unit."""
    out: str | None = None
    """Run folder to write; must be new or empty. Default: runs/train-ARCH-DATA-sSEED-DATE-TIME. No unit."""
    resume: str | None = None
    """Run folder to continue; takes every other option from its config.json. Default: none. No unit."""
    checkpoint_s: float = 60.0
    """Shortest time between two checkpoints, in seconds."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():  # NumPy's numbers become Python's, which JSON can store
            if isinstance(value, numbers.Real) and type(value) not in (bool, int, float):
                object.__setattr__(self, name, int(value) if isinstance(value, numbers.Integral) else float(value))
        if isinstance(self.init, list):  # JSON has lists
            object.__setattr__(self, "init", tuple(self.init))
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and (type(value) not in (int, float) or not low <= value <= high):
                raise ConfigError(f"{flag(name)} is {value!r}; expected a number from {low:g} to {high:g}")
        for name in _WHOLE:
            value = getattr(self, name)
            if value is not None and type(value) is not int:
                raise ConfigError(f"{flag(name)} is {value!r}; expected a whole number")
        for name, words in _words().items():
            value = getattr(self, name)
            if value is not None and value not in words:
                raise ConfigError(f"{flag(name)} is {value!r}{nearest(str(value), words)}")
        if self.init and (len(self.init) != 2 or self.init[0] not in ("supernet", "weights")):
            raise ConfigError(f"--init is {' '.join(map(str, self.init))!r}; expected supernet RUN or weights FILE")

    @property
    def compute_dtype(self) -> str | None:
        """What ``dnas.apply`` takes: None computes in the images' own type."""
        return None if self.compute == "float32" else self.compute

    @property
    def micro_batch(self) -> int:
        """Images that are computed together."""
        assert self.batch_size is not None
        return self.batch_size // self.accumulate

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"init": list(self.init)}


_RANGES = (
    ("epochs", 0, 1e6), ("batch_size", 1, 1e6), ("accumulate", 1, 1e6), ("resolution", 1, 1e5), ("lr", 0, 1e3),
    ("momentum", 0, 1), ("weight_decay", 0, 10), ("step_epochs", 1e-6, 1e6), ("step_factor", 0, 1), ("warm_up", 0, 1),
    ("label_smoothing", 0, 1), ("clip", 0, 1e9), ("ema", 0, 1), ("dropout", 0, 0.999), ("drop_path", 0, 0.999),
    ("validation", 0, 0.5), ("teacher_weight", 0, 1), ("teacher_temperature", 1e-3, 1e3), ("workers", 1, 1024),
    ("devices", 1, 1e6), ("seed", 0, 2**32 - 1), ("checkpoint_s", 0, 1e9),
)  # fmt: skip
_WHOLE = ("epochs", "batch_size", "accumulate", "resolution", "workers", "devices", "seed")


def _words() -> dict[str, tuple[str, ...]]:
    """The fields that are one of several words."""
    found = {}
    for name, hint in get_type_hints(TrainConfig).items():
        options = [a for part in (hint, *get_args(hint)) for a in get_args(part) if isinstance(a, str)]
        if options:
            found[name] = tuple(options)
    return found


def complete(config: TrainConfig, *, grey: bool = False, given: Mapping[str, Any] | None = None) -> TrainConfig:
    """``config`` with the preset's values where none is given (``given`` comes before them), and checked as a whole.

    ``grey``: whether the images are, which decides about mirroring by default. Errors: ConfigError.
    """
    values = (
        {"augment": "crop" if grey else "crop+flip", "normalise": "data"} | _COMMON | PRESETS[config.preset] | dict(given or {})
    )
    full = dataclasses.replace(config, **{k: v for k, v in values.items() if getattr(config, k) is None})
    assert full.batch_size is not None
    if full.batch_size % full.accumulate:
        raise ConfigError(f"--accumulate {full.accumulate} does not divide --batch-size {full.batch_size}")
    if full.normalise == "start" and full.init[:1] != ("weights",):
        raise ConfigError("--normalise start takes mean and std from --init weights, which is not given; use data or imagenet")
    return full


def flag(field: str) -> str:
    return field.upper() if field == "arch" else "--" + field.replace("_", "-")
