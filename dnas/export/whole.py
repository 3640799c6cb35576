"""A whole export: load, write each format, run what was written, compare, keep what agrees."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dnas.data import Dataset, Feed
from dnas.data import load as load_data
from dnas.errors import ConfigError, DnasError, ExportError, nearest
from dnas.export import trained
from dnas.export.compare import TOLERANCE, Difference, Lost
from dnas.export.formats import FORMATS, PRECISIONS, Format, find
from dnas.files import dump_json, kind, read_json, sha256, write_bytes, write_text

FEW = 64  # images that float32 files are compared on: they differ by rounding, which a few show


@dataclasses.dataclass(frozen=True)
class Written:
    """One file. ``difference``: None where the format has no weights; ``accuracy``: None in float32, or without labels;
    ``undelegated``: operators that XNNPACK does not take, None where the format is not run by it."""

    format: str
    precision: str
    path: Path
    bytes: int
    sha256: str
    difference: Difference | None
    tolerance: float
    accuracy: Lost | None
    undelegated: tuple[str, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        difference = None if self.difference is None else dataclasses.asdict(self.difference)
        return {
            "format": self.format, "precision": self.precision, "file": self.path.name, "bytes": self.bytes,
            "sha256": self.sha256, "difference": difference, "tolerance": self.tolerance,
            "accuracy": None if self.accuracy is None else self.accuracy.to_dict(),
            "undelegated": None if self.undelegated is None else list(self.undelegated),
        }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Report:
    """``files`` that agree with the network, and ``failed``: a sentence for each that was not kept. ``images``: what they were
    compared on, in words."""

    network: trained.Trained = dataclasses.field(repr=False)
    files: tuple[Written, ...]
    failed: tuple[str, ...]
    images: str

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each latency of the architecture that is of another precision or runtime than a file."""
        rows = self.network.architecture.metrics.get("latency", ())
        found = []
        for row in rows if isinstance(rows, Sequence) else ():
            for file in self.files if isinstance(row, Mapping) else ():
                runtimes = FORMATS[file.format].runtimes
                differs = [f"{row.get('precision')}, not {file.precision}"] * (row.get("precision") != file.precision)
                differs += [f"by {row.get('runtime')}"] * (not str(row.get("runtime")).startswith(runtimes))
                if runtimes and differs:
                    found.append(f"{file.path.name}: the latency by {row.get('table')} is {', '.join(differs)}")
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """``export.json``."""
        about = self.network
        return {
            "format": "dnas-export/1",
            "architecture": {"name": about.architecture.name, "sha256": about.architecture.fingerprint},
            "weights": about.source, "labels": list(about.labels), "mean": list(about.mean), "std": list(about.std),
            "compared_on": self.images, "files": [file.to_dict() for file in self.files], "failed": list(self.failed),
            "notes": list(self.notes), "versions": _versions(),
        }  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """Normalised ``images`` f32[n, h, w, c] to compare on, their ``labels`` (None: unknown), ``about`` them in words, and
    images for ``calibration`` (None: there are none)."""

    images: np.ndarray
    labels: np.ndarray | None
    about: str
    calibration: np.ndarray | None = None


def run(
    network: trained.Trained | str | os.PathLike[str],
    to: str | Sequence[str],
    out: str | os.PathLike[str],
    *,
    weights: str | None = None,
    random_weights: bool = False,
    precision: str | Sequence[str] = "float32",
    data: Dataset | str | None = None,
    data_dir: str | None = None,
    images: int = 1000,
    calibration: int = 200,
    tolerance: float | None = None,
    seed: int = 0,
    each: Callable[[str], object] = lambda doing: None,
) -> Report:
    """Write ``network`` to the folder ``out`` in each format of ``to`` and each ``precision`` that the format has.

    Arguments as the command's options (``dnas.export.config``); ``each``: told what is done next. Files that differ by more
    than the tolerance, or that a format cannot hold, are not kept; ``Report.failed`` says why. ``out/export.json``: the report.
    Errors: ConfigError, ExportError (an extra is missing), ArchitectureError, WeightsError, DataError.
    """
    formats = find(to if isinstance(to, str) else ",".join(to))
    precisions = _precisions(precision, formats)
    for name, value in (("images", images), ("calibration", calibration)):
        if value < 1:
            raise ConfigError(f"--{name} is {value}; expected a number from 1")
    if tolerance is not None and not tolerance > 0:
        raise ConfigError(f"--tolerance is {tolerance}; expected a number above 0")
    modules = [format.load() for format in formats]
    each("reading the network and its images")
    if not isinstance(network, trained.Trained):
        data, data_dir = (data, data_dir) if data is not None else _data_of(weights or os.fspath(network), data_dir)
        network = trained.load(network, weights, random_weights, seed)
    network, inputs = _inputs(network, data, data_dir, images, calibration if "int8" in precisions else 0, seed)
    if "int8" in precisions and inputs.calibration is None:
        raise ConfigError("--precision int8 needs images for calibration; give --data")
    each(f"Flax on {len(inputs.images)} images")
    wanted = network.outputs(inputs.images)
    files, failed = [], []
    for format, module in zip(formats, modules, strict=True):
        for number in (p for p in precisions if p in format.precisions):
            name = format.name if number == "float32" else f"{format.name} {number}"
            try:
                most = tolerance or TOLERANCE[number]
                files.append(_one(format, module, number, network, inputs, wanted, Path(out), most, partial(_say, each, name)))
            except DnasError as problem:
                failed.append(f"{name}: {problem}")
    report = Report(network, tuple(files), tuple(failed), inputs.about)
    write_text(Path(out) / "export.json", dump_json(report.to_dict()))
    return report


def _one(
    format: Format, module: Any, precision: str, network: trained.Trained, inputs: Inputs, wanted: np.ndarray, out: Path,
    tolerance: float, each: Callable[[str], object],
) -> Written:  # fmt: skip
    """Write, run, compare; the file appears only if it agrees."""
    name = "".join(c if c.isalnum() or c in "._-" else "_" for c in network.architecture.name)
    path = out / f"{name}{'' if precision == 'float32' else f'_{precision}'}{format.suffix}"
    more = {} if precision == "float32" else {"precision": precision, "calibration": inputs.calibration}
    about = network.about("NCHW" if format.name == "onnx" else "NHWC")
    for old in (path, path.with_name(f"{path.name}.json")):
        old.unlink(missing_ok=True)  # what an earlier export left must not pass for this one's
    each("writing")
    data = module.write(network.folded if format.folded else network, about, **more)
    n = min(FEW, len(wanted)) if precision == "float32" else len(wanted)
    each(f"running on {n} images")
    got = module.run(data, inputs.images[:n])
    difference = None if got is None else Difference.of(got, wanted[:n])
    if difference and not difference.relative <= tolerance:
        raise ExportError(
            f"the outputs differ from the network's by {difference.relative:.3g} of their largest (above {tolerance:g}), over "
            f"{n} inputs ({inputs.about}); the file was not kept"
        )
    write_bytes(path, data)
    if format.sidecar:
        extra = module.sidecar(network) if hasattr(module, "sidecar") else {}
        write_text(path.with_name(f"{path.name}.json"), dump_json({**about, **extra}))
    accuracy = None
    if precision != "float32" and got is not None and inputs.labels is not None:
        accuracy = Lost.of(got, wanted, inputs.labels)
    left = module.undelegated(data) if hasattr(module, "undelegated") else None
    return Written(format.name, precision, path, len(data), sha256(data), difference, tolerance, accuracy, left)


def _say(each: Callable[[str], object], name: str, doing: str) -> None:
    each(f"{name}: {doing}")


def names_of(given: str | Sequence[str], known: Sequence[str], option: str) -> tuple[str, ...]:
    """The names of a comma list, each once. Errors: ConfigError for an unknown one, or none."""
    names = [name.strip() for name in (given.split(",") if isinstance(given, str) else given) if name.strip()]
    for name in names:
        if name not in known:
            raise ConfigError(f"{option} {name!r}{nearest(name, known)}")
    if not names:
        raise ConfigError(f"{option} is empty; expected {', '.join(known)}")
    return tuple(dict.fromkeys(names))


def _precisions(given: str | Sequence[str], formats: Sequence[Format]) -> tuple[str, ...]:
    names = names_of(given, PRECISIONS, "--precision")
    for name in names:
        if not any(name in format.precisions for format in formats):
            raise ConfigError(f"--precision {name}: none of --to {','.join(f.name for f in formats)} has it; add tflite")
    return names


def _data_of(where: str, data_dir: str | None) -> tuple[str | None, str | None]:
    """The images that a run was made with, by its config.json; None for other files."""
    path = Path(where) / "config.json"
    if kind(path) != "file":
        return None, data_dir
    body = read_json(path, ExportError)
    options: dict[str, Any] = next((body[k] for k in ("train", "search") if isinstance(body.get(k), dict)), {})
    name = options.get("data")
    return (
        (name, data_dir or options.get("data_dir"))
        if isinstance(name, str) and "data" not in body.get("objects", [])
        else (None, data_dir)
    )


def _inputs(
    network: trained.Trained, data: Dataset | str | None, data_dir: str | None, images: int, calibration: int, seed: int
) -> tuple[trained.Trained, Inputs]:
    """``network`` with the labels and the normalisation of ``data`` where it has none of its own, and what to run it on."""
    architecture = network.architecture
    shape = architecture.shapes[0]
    if data is None:
        noise = np.random.default_rng(seed).normal(size=(min(images, FEW), *shape)).astype(np.float32)
        return network, Inputs(noise, None, f"{len(noise)} images of random numbers: no data was given")
    if not isinstance(data, Dataset):
        data = load_data(data, data_dir=data_dir, resolution=architecture.resolution)
    fits = data.num_classes == architecture.num_classes
    network = dataclasses.replace(
        network, labels=network.labels or (data.classes if fits else ()), mean=network.mean or data.mean,
        std=network.std or data.std,
    )  # fmt: skip
    sizes = {"resolution": architecture.resolution, "channels": architecture.input_channels}
    options: dict[str, Any] = {**sizes, "mean": network.mean, "std": network.std, "seed": seed}
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for x, y, mask in Feed(data.test, batch_size=min(images, 100), **options).evaluation():
        kept = np.asarray(mask) > 0
        found.append((np.asarray(x)[kept], np.asarray(y)[kept]))
        if sum(len(y) for _, y in found) >= images:
            break
    pixels, labels = (np.concatenate([pair[i] for pair in found])[:images] for i in (0, 1))
    some = None
    if calibration:
        some = np.asarray(Feed(data.train, batch_size=calibration, **options).batch(0)[0])
    return network, Inputs(pixels, labels if fits else None, f"test images of {data.name}", some)


def _versions() -> dict[str, str]:
    names = ("dnas", "jax", "flax", "numpy", "onnx", "onnxruntime", "tensorflow-cpu", "ai-edge-litert", "safetensors")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
