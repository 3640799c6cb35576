"""A whole training: set-up, epochs, evaluation, and the files of the run."""

from __future__ import annotations

import dataclasses
import io
import os
import shlex
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dnas import loop, notebook, supernet, weights
from dnas.arch import Architecture
from dnas.data import Dataset, Feed, Split, split
from dnas.data import load as load_data
from dnas.data.folder import unreadable
from dnas.devices import is_first, on_first, replicate, shared_mesh, start
from dnas.errors import ConfigError, Interrupted, RunError
from dnas.evaluate import Accuracy, recalibrate
from dnas.files import dump_json, kind, write_bytes, write_text
from dnas.metrics import Evaluation, evaluate
from dnas.provenance import elsewhere, machine, versions
from dnas.runs import Journal, begun_in, read_config
from dnas.train import start as begin
from dnas.train.config import TrainConfig, complete
from dnas.train.console import Console
from dnas.train.epoch import Epoch, OnEpoch
from dnas.train.phase import Teacher, TrainPhase

Named = str | os.PathLike[str]
CALIBRATION_IMAGES = 4096


@dataclasses.dataclass(frozen=True, eq=False)
class TrainResult:
    """A trained network.

    ``architecture`` (with metrics and provenance), ``params`` and ``stats`` for ``dnas.apply``, ``evaluation`` on the test
    images, ``history`` (one dict per epoch), ``preprocessing`` (labels, mean, std, size), ``folder`` (None if nothing was
    written), ``warnings`` as sentences.
    """

    architecture: Architecture
    params: Any = dataclasses.field(repr=False)
    stats: Any = dataclasses.field(repr=False)
    evaluation: Evaluation = dataclasses.field(repr=False)
    history: list[dict[str, Any]] = dataclasses.field(repr=False)
    preprocessing: dict[str, Any] = dataclasses.field(repr=False)
    folder: Path | None
    warnings: tuple[str, ...]

    @property
    def accuracy(self) -> Accuracy:
        """Top-1 on the test images, with its interval."""
        return self.evaluation.accuracy

    def plot(self) -> Any:
        """Figure of loss, accuracy and learning rate over the epochs, and the confusion of the classes."""
        from dnas.plot.train import draw, info

        return draw(info(self.history, self.evaluation))


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """A training that is ready to start: what does not change while it runs."""

    config: TrainConfig
    architecture: Architecture
    dataset: Dataset
    normalise: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    objects: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @cached_property
    def parts(self) -> tuple[Split, Split | None]:
        """Images to train on, and those that are held out to measure after each epoch."""
        if not self.config.validation:
            return self.dataset.train, None
        found = split(self.dataset, self.config.seed, architecture=0.0, selection=self.config.validation)
        return found.weights, found.selection

    def feed(self, part: Split, augment: str = "none") -> Feed:
        config, network = self.config, self.architecture
        assert config.batch_size is not None
        return Feed(
            part, batch_size=config.batch_size, resolution=network.resolution, channels=network.input_channels, mean=self.mean,
            std=self.std, augment=augment, seed=config.seed, balanced=config.balance == "sampling" and augment != "none",
            classes=self.dataset.num_classes, mesh=shared_mesh(), workers=config.workers,
        )  # fmt: skip

    @cached_property
    def phase(self) -> TrainPhase:
        config, (train, held) = self.config, self.parts
        assert config.augment is not None
        factors = None
        if config.balance == "weights":
            counts = np.bincount(train.labels, minlength=self.dataset.num_classes)
            factors = tuple(float(len(train) / ((counts > 0).sum() * max(c, 1))) for c in counts)
        return TrainPhase(
            self.architecture, self.feed(train, config.augment), config, None if held is None else self.feed(held),
            self.teacher, factors,
        )  # fmt: skip

    @cached_property
    def teacher(self) -> Teacher | None:
        network = self.architecture
        if self.config.teacher is None:
            return None
        return begin.teacher(
            self.config.teacher, network.num_classes, (network.resolution, network.resolution, network.input_channels)
        )

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How an image becomes the network's input, and what its outputs mean; as in preprocessing.json."""
        size = {"resolution": self.architecture.resolution, "channels": self.architecture.input_channels}
        return {
            "format": "dnas-preprocessing/1", "labels": list(self.dataset.classes), "mean": list(self.mean),
            "std": list(self.std), "normalise": self.normalise, **size,
            "input": "(pixel / 255 - mean) / std; shorter side to resolution (bilinear, antialiased), then the centre square; "
            "grey is repeated to channels",
        }  # fmt: skip

    def config_json(self) -> dict[str, Any]:
        inputs = {"architecture": self.architecture.fingerprint, "data": self.dataset.fingerprint}
        return {
            "train": self.config.to_dict() | {"out": None, "resume": None}, "objects": list(self.objects), "inputs": inputs,
            "architecture": self.architecture.to_dict(), "preprocessing": self.preprocessing,
            "skipped": list(self.dataset.skipped), "machine": machine(),
        }  # fmt: skip


def run(
    arch: Architecture | Named,
    data: Dataset | str = "digits",
    *,
    out: Named | bool | None = None,
    progress: bool = True,
    on_epoch: OnEpoch | None = None,
    start_from: tuple[Any, Any] | None = None,
    **options: Any,
) -> TrainResult:
    """Train ``arch`` on ``data`` and measure it on the test images.

    Arguments: objects, or what the command takes in their place; ``out``: run folder to write (True: runs/<unique name>;
    False: no files, so that nothing is left of an interrupted run; None: True in a notebook, elsewhere False); ``progress``:
    print; ``on_epoch``: is called at the end of each epoch with a ``dnas.train.Epoch`` (what it raises stops the run as
    Ctrl-C does, with everything saved, and is raised here); ``start_from``: first (params, stats), as ``dnas.init`` gives
    them; ``options``: the fields of ``dnas.train.TrainConfig`` (``preset=``, ``epochs=``, ``seed=``, ...).
    Errors: ConfigError, ArchitectureError, WeightsError, DataError, NotFiniteError, RunError, Interrupted.
    """
    known = {f.name for f in dataclasses.fields(TrainConfig)} - {"resume"}
    if unknown := sorted(set(options) - known):
        raise ConfigError(f"unknown option {unknown[0]!r} of dnas.train.run")
    for name, value in options.items():
        options[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
    network = begin.network(arch)
    name = network.name if isinstance(arch, Architecture) else os.fspath(arch)
    folder = os.fspath(out) if isinstance(out, str | os.PathLike) else None
    config = TrainConfig(**{**options, "arch": name, "data": data.name if isinstance(data, Dataset) else data, "out": folder})
    if config.distributed:
        start()
    console = Console(progress and is_first())
    setup = prepare(config, network, data)
    if isinstance(arch, Architecture):
        setup = dataclasses.replace(setup, objects=("arch", *setup.objects))
    if start_from is not None:
        setup = dataclasses.replace(setup, objects=(*setup.objects, "start_from"))
    journal = Journal(None)
    if notebook.running() if out is None else out:
        title = f"train-{setup.architecture.name}-{setup.dataset.name.split(':')[0]}-s{config.seed}"
        journal = Journal.create(folder, title, config.checkpoint_s)
        journal.write_json("config.json", setup.config_json())
    console.summary(setup)
    phase = setup.phase
    params, stats = begin.first(setup.config, setup.architecture) if start_from is None else start_from
    state = phase.init(*(jax.tree.map(jnp.array, tree) for tree in (params, stats)))  # copies: a step gives its state away
    if journal.folder:
        journal.save(phase.name, 0, 0, 0, state, {})  # what it started from need not be there when it is resumed
    return _guarded(setup, state, journal, console, 0, 0, on_epoch)


def resume(
    folder: Named,
    *,
    data: Dataset | None = None,
    progress: bool = True,
    on_epoch: OnEpoch | None = None,
    distributed: bool = False,
) -> TrainResult:
    """Continue an interrupted training; it ends with the result of an uninterrupted one.

    ``data`` if the run was given it as an object; ``progress`` and ``on_epoch`` as in ``run``.
    Errors: RunError where its inputs have changed since, and those of ``run``.
    """
    if distributed:
        start()
    where = Path(folder)
    body = read_config(os.fspath(folder), fields="train")
    if kind(where / begin.ARCHITECTURE):
        raise RunError(f"--resume {folder}: this run is finished; see {where / begin.ARCHITECTURE}")
    if "data" in body.get("objects", []) and data is None:
        raise RunError(f"--resume {folder}: the run was given its data as an object in Python; continue it by "
                       "dnas.train.resume(folder, data=...)")  # fmt: skip
    known = {f.name for f in dataclasses.fields(TrainConfig)}
    if extra := sorted(set(body["train"]) - known):
        raise RunError(f"{where / 'config.json'}: unknown option {extra[0]!r}; it was written by another version of dnas")
    config = TrainConfig(**body["train"])
    if jax.process_count() > 1 or (config.devices and config.devices > jax.local_device_count()):
        config = dataclasses.replace(config, devices=None)  # the result is the same but for rounding, and is said to be so
    given = body["preprocessing"]
    with begun_in(f"--resume {folder}", (config.data.partition(":")[2], config.data_dir)):
        setup = prepare(config, Architecture.from_dict(body["architecture"]), config.data if data is None else data, given)
    for name, then in body["inputs"].items():
        if (now := setup.config_json()["inputs"][name]) != then:
            raise RunError(f"--resume {folder}: {name} has changed since the run began ({then} -> {now})")
    setup = dataclasses.replace(
        setup, objects=tuple(body.get("objects", ())), remarks=(*setup.remarks, *elsewhere(body, setup.config.devices, "train"))
    )
    console = Console(progress and is_first())
    console.note(f"Resuming {where}")
    console.summary(setup)
    journal = Journal.resume(where, config.checkpoint_s)
    about = journal.about()
    if about is None:
        raise RunError(f"--resume {folder}: it stopped before its first checkpoint; start it again, in a new folder")
    template = supernet.init(setup.architecture, jax.random.key(0))[1:]
    state = replicate(setup.phase.mesh, journal.load(setup.phase.init(*template)))
    return _guarded(setup, state, journal, console, about["epoch"], about["step"], on_epoch)


def prepare(
    config: TrainConfig, network: Architecture, data: Dataset | Named, preprocessing: Mapping[str, Any] | None = None
) -> Setup:
    """Resolve every default and check that the training can work, before anything is computed.

    ``preprocessing``: of the run that is resumed. Errors: ConfigError, DataError, WeightsError.
    """
    network = network if config.resolution is None else network.at(config.resolution)
    objects = () if isinstance(data, str | os.PathLike) else ("data",)
    if not isinstance(data, Dataset):
        data = load_data(os.fspath(data), data_dir=config.data_dir, resolution=network.resolution, bad_images=config.bad_images)
    network = network.at(num_classes=data.num_classes)
    if preprocessing is None:
        normalise, (mean, std) = begin.moments(config, data)
    else:
        normalise = preprocessing["normalise"]
        mean, std = tuple(preprocessing["mean"]), tuple(preprocessing["std"])
    config = complete(config, grey=data.channels == 1, given={"normalise": normalise})
    setup = Setup(config, network, data, normalise, mean, std, objects)
    remarks = [f"Left out: {unreadable(data.skipped)}."] if data.skipped else []
    if setup.phase.feed.batch_size % config.accumulate:
        raise ConfigError(
            f"--accumulate {config.accumulate} does not divide the {setup.phase.feed.batch_size} images that {data.name} has"
        )
    if config.init[:1] == ("weights",) and normalise == "data":
        remarks.append(
            "The images are normalised by their own mean and standard deviation; if the first weights were trained with "
            "others, give --normalise imagenet."
        )
    mesh = setup.phase.mesh
    config = dataclasses.replace(config, devices=mesh.size if mesh else 1, distributed=jax.process_count() > 1)
    return Setup(config, network, data, normalise, mean, std, objects, tuple(remarks))


def command(setup: Setup) -> str | None:
    """The command that repeats this training, every option spelled out, without output paths; None if objects were given."""
    if setup.objects:
        return None
    words = ["python", "-m", "dnas.train", setup.config.arch]
    for name, value in setup.config.to_dict().items():
        flag = "--" + name.replace("_", "-")
        if value is None or value == [] or name in ("arch", "out", "resume", "checkpoint_s"):
            continue
        if isinstance(value, bool):
            words += [flag, str(value)] if name == "nesterov" else [flag if value else f"--no-{flag[2:]}"]
        else:
            words += (
                [flag, *value] if isinstance(value, list) else [flag, repr(value) if isinstance(value, float) else str(value)]
            )
    return shlex.join(words)


def _guarded(
    setup: Setup, state: Any, journal: Journal, console: Console, epoch: int, step: int, on_epoch: OnEpoch | None
) -> TrainResult:
    journal.command, journal.objects = "dnas.train", tuple(name for name in setup.objects if name == "data")

    def tell(done: int) -> None:
        assert on_epoch is not None
        on_epoch(Epoch(setup.phase.name, done, setup.phase.epochs, tuple(journal.history)))

    try:
        return _finish(setup, state, journal, console, epoch, step, tell if on_epoch else None)
    except KeyboardInterrupt:  # a second Ctrl-C, or one after the last epoch
        raise Interrupted(loop.how_to_resume(journal, "at once", "what the newest checkpoint has is saved")) from None


def _finish(
    setup: Setup, state: Any, journal: Journal, console: Console, epoch: int, step: int, tell: Callable[[int], object] | None
) -> TrainResult:
    """From (epoch, step) to the end of the run."""
    phase = setup.phase
    with console.progress() as watcher:
        state = loop.run(phase, state, journal, watcher, epoch, step, on_epoch=tell)
        params, stats = state.measured
        if setup.config.epochs or setup.config.init[:1] == ("supernet",):  # whose statistics are of many networks
            stats = recalibrate(phase.net, params, stats, setup.feed(setup.parts[0]), images=CALIBRATION_IMAGES)
        found = evaluate(phase.net, params, stats, setup.feed(setup.dataset.test), setup.dataset.classes)
    if not found.finite:
        raise loop.not_finite(phase.name, "on the test images", phase.lr, journal)
    score = {"data": setup.dataset.name, "split": "test", **found.accuracy.to_dict()}
    metrics = {"params": setup.architecture.params, "macs": setup.architecture.macs, "accuracy": score}
    provenance = dict(setup.architecture.provenance) | {"training": {
        "architecture_sha256": setup.architecture.fingerprint, "data_sha256": setup.dataset.fingerprint,
        "command": command(setup), "seed": setup.config.seed, "steps": int(state.step), "versions": versions(),
        "preprocessing": setup.preprocessing, "warnings": list(setup.remarks),
    }}  # fmt: skip
    architecture = dataclasses.replace(setup.architecture, metrics=metrics, provenance=provenance)
    result = TrainResult(
        architecture, params, stats, found, journal.history, setup.preprocessing, journal.folder, setup.remarks
    )
    if journal.folder:
        on_first(partial(_write, result, journal.folder, console))
    console.result(result)
    return result


def _write(result: TrainResult, folder: Path, console: Console) -> None:
    """The files of a finished run; architecture.json comes last and says that it is finished."""
    trees = (jax.device_get(tree) for tree in (result.params, result.stats))
    weights.save(folder / begin.WEIGHTS, result.architecture, *trees)
    write_text(folder / begin.PREPROCESSING, dump_json(result.preprocessing))
    body = {"architecture_sha256": result.architecture.fingerprint, **result.evaluation.to_dict()}
    write_text(folder / "evaluation.json", dump_json(body, rows="confusion"))
    picture = io.BytesIO()
    try:
        result.plot().savefig(picture, dpi=120)
        write_bytes(folder / "train.png", picture.getvalue())
    except Exception as problem:  # a figure that cannot be drawn costs no result
        console.note(f"train.png could not be drawn ({type(problem).__name__}: {problem})")
    result.architecture.save(folder / begin.ARCHITECTURE)
