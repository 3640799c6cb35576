"""A whole search: set-up, the search itself, derivation, a short training, and the files of the run."""

from __future__ import annotations

import dataclasses
import io
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from dnas import derive, loop, supernet
from dnas.arch import Architecture
from dnas.config import SearchConfig
from dnas.data import Dataset
from dnas.data import load as load_data
from dnas.devices import replicate
from dnas.errors import ConfigError, Interrupted, RunError
from dnas.evaluate import Accuracy, accuracy, recalibrate
from dnas.files import write_bytes
from dnas.latency.table import LatencyReport, LatencyTable
from dnas.runs import Journal, read_config
from dnas.search.console import Console, Watcher
from dnas.search.engine import Setup, init, prepare
from dnas.search.phase import SearchPhase, measure
from dnas.space import Genotype, Space, load_space
from dnas.space_files import shadowed
from dnas.train import TrainPhase

UNDECIDED = 0.3  # mean entropy, in units of ln n, above which a search has not decided


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """What a search found.

    ``architecture`` (with metrics and provenance), ``history`` (one dict per epoch), ``accuracy`` on the test images after
    the short training, ``inherited`` on the selection images before it, ``latency`` with its parts, ``warnings`` as sentences,
    ``folder`` (None if nothing was written), ``space`` with the data's classes, trained ``params`` and ``stats``.
    """

    architecture: Architecture
    genotype: Genotype
    history: list[dict[str, Any]]
    accuracy: Accuracy
    inherited: Accuracy
    latency: LatencyReport
    warnings: tuple[str, ...]
    folder: Path | None
    space: Space = dataclasses.field(repr=False)
    params: Any = dataclasses.field(repr=False)
    stats: Any = dataclasses.field(repr=False)

    def plot(self) -> Any:
        """Figure of losses, latency and probabilities over time."""
        from dnas.plot.search import draw, info

        labels = {name: choice.labels for name, choice in self.space.choices.items()}
        return draw(info(self.history, self.architecture.provenance.get("target_ms")), labels)


def run(
    space: Space | str,
    lut: LatencyTable | str,
    data: Dataset | str = "digits",
    *,
    out: str | None = None,
    progress: bool = True,
    **options: Any,
) -> SearchResult:
    """Search ``space`` for the network that is most accurate at a latency, and train it for a short while.

    Arguments: objects, or what the command takes in their place; ``out``: run folder to write (None: no files);
    ``options``: the fields of ``dnas.config.SearchConfig`` (``target_ms=``, ``epochs=``, ``seed=``, ...).
    Errors: ConfigError, SpaceError, LatencyError, DataError, NotFiniteError, RunError, Interrupted.
    """
    unknown = set(options) - {f.name for f in dataclasses.fields(SearchConfig)}
    if unknown:
        raise ConfigError(f"unknown option {sorted(unknown)[0]!r} of dnas.search.run")
    space_object = load_space(space) if isinstance(space, str) else space
    names = {
        "space": space if isinstance(space, str) else space.name, "lut": lut if isinstance(lut, str) else lut.name,
        "data": data if isinstance(data, str) else data.name,
    }  # fmt: skip
    config = SearchConfig(**{**options, **names, "out": out})
    table = LatencyTable.load(lut) if isinstance(lut, str) else lut
    images = load_data(data, data_dir=config.data_dir, resolution=space_object.resolution) if isinstance(data, str) else data
    console = Console(progress)
    setup = prepare(config, space_object, table, images)
    journal = Journal(None)
    if out is not None:
        journal = Journal.create(out, "", config.checkpoint_s)
        journal.write_json("config.json", config_json(setup))
    return finish(setup, journal, console)


def run_config(config: SearchConfig, console: Console) -> SearchResult:
    """What the command does: a new run folder, or the continuation of one. Errors: as ``run``."""
    if config.resume:
        setup, journal = resume(config)
        console.note(f"Resuming {journal.folder}")
    else:
        setup = load_setup(config)
        name = f"{setup.space.name}-{setup.dataset.name.split(':')[0]}-s{config.seed}"
        journal = Journal.create(config.out, name, config.checkpoint_s)
        journal.write_json("config.json", config_json(setup))
    for notice in (setup.lut.notice, shadowed(setup.config.space)):
        if notice:
            console.note(notice)
    console.summary(setup)
    return finish(setup, journal, console)


def load_setup(config: SearchConfig) -> Setup:
    """Load space, table and images by name, and check that they fit. Errors: as ``run``."""
    if not config.lut:
        raise ConfigError("--lut is missing; expected a latency table, such as --lut samsung_s8.json")
    space = load_space(config.space)
    lut = LatencyTable.load(config.lut)
    dataset = load_data(config.data, data_dir=config.data_dir, resolution=space.resolution)
    return prepare(config, space, lut, dataset)


def resume(config: SearchConfig) -> tuple[Setup, Journal]:
    """The set-up and the journal of a run folder. Errors: RunError where anything changed since."""
    assert config.resume is not None
    given = {k: v for k, v in config.to_dict().items() if v != getattr(SearchConfig(), k) and k != "resume"}
    if given:
        flags = ", ".join("--" + k.replace("_", "-") for k in given)
        raise RunError(f"--resume {config.resume} takes its options from the run; drop {flags}, or start a new run")
    body = read_config(config.resume)
    folder = Path(config.resume)
    if (folder / "architecture.json").exists():
        raise RunError(f"--resume {config.resume}: this run is finished; see {folder / 'architecture.json'}")
    fields = {f.name for f in dataclasses.fields(SearchConfig)}
    if extra := sorted(set(body["search"]) - fields):
        raise RunError(f"{folder / 'config.json'}: unknown option {extra[0]!r}; it was written by another version of dnas")
    setup = load_setup(SearchConfig(**body["search"]))
    now = config_json(setup)["inputs"]
    for name, then in body.get("inputs", {}).items():
        if now.get(name) != then:
            raise RunError(f"--resume {config.resume}: {name} has changed since the run began ({then} -> {now.get(name)})")
    return setup, Journal.resume(folder, setup.config.checkpoint_s)


def finish(setup: Setup, journal: Journal, console: Console) -> SearchResult:
    """From wherever ``journal`` stands to the end of the run. Errors: as ``run``."""
    try:
        return _finish(setup, journal, console)
    except KeyboardInterrupt:  # a second Ctrl-C, or one between search and training
        raise Interrupted(loop.how_to_resume(journal, "at once", "what the newest checkpoint has is saved")) from None


def _finish(setup: Setup, journal: Journal, console: Console) -> SearchResult:
    about = journal.about() or {"phase": "search", "epoch": 0, "step": 0, "notes": {}}
    with console.progress() as watcher:
        if about["phase"] == "search":
            notes, phase, state = _search(setup, journal, watcher, about["epoch"], about["step"])
            about = {"epoch": 0, "step": 0}
        else:
            notes = about["notes"]
            phase = _training(setup, notes)
            template = supernet.init(phase.architecture, jax.random.key(0))[1:]
            state = replicate(phase.mesh, journal.load(phase.init(*template)))
        state = loop.run(phase, state, journal, watcher, about["epoch"], about["step"], notes)
    stats = recalibrate(phase.net, state.params, state.stats, setup.feed(setup.splits.train))
    tested = accuracy(phase.net, state.params, stats, setup.feed(setup.splits.test))
    result = _result(setup, journal, notes, phase.architecture, tested, state.params, stats)
    _write(result, console)
    return result


def _search(setup: Setup, journal: Journal, watcher: Watcher, epoch: int, step: int) -> tuple[dict[str, Any], TrainPhase, Any]:
    """Search, derive, inherit: the notes to keep, and the training that follows with its first state."""
    phase = SearchPhase(setup)
    state = init(setup)
    if epoch or step:
        state = replicate(setup.mesh, journal.load(state))
    state = loop.run(phase, state, journal, watcher, epoch, step)
    logits = jax.device_get(state.logits)
    genotype = derive.argmax_genotype(setup.space, logits)
    found = measure(setup, state, genotype)
    if setup.config.derive == "sample":
        drawn = dict.fromkeys(derive.sample(setup.space, logits, setup.config.seed, setup.config.derive_samples))
        ranked = {g: measure(setup, state, g) for g in drawn}
        genotype = max(ranked, key=lambda g: (ranked[g].hits, -ranked[g].loss))
        found = ranked[genotype]
    notes = {"genotype": list(genotype), "inherited": [found.hits, found.n, found.loss]}
    training = _training(setup, notes)
    params = supernet.inherit(setup.space, genotype, state.params)
    stats = supernet.inherit(setup.space, genotype, state.stats)
    stats = recalibrate(training.net, params, stats, setup.feeds["plain"])
    return notes, training, training.init(params, stats)


def _training(setup: Setup, notes: dict[str, Any]) -> TrainPhase:
    config = setup.config
    assert config.train_epochs is not None and config.lr is not None and config.weight_decay is not None and config.augment
    architecture = setup.space.fix(notes["genotype"])
    feed = setup.feed(setup.splits.train, config.augment)
    first = setup.schedule.before(setup.schedule.epochs)
    return TrainPhase(
        architecture,
        feed,
        config.train_epochs,
        config.lr,
        config.weight_decay,
        config.compute_dtype,
        config.remat,
        config.devices,
        first,
    )


def _result(
    setup: Setup, journal: Journal, notes: dict[str, Any], architecture: Architecture, tested: Accuracy, params: Any, stats: Any
) -> SearchResult:
    config = setup.config
    report = setup.lut.report(architecture, config.missing)
    last = next(row for row in reversed(journal.history) if row["phase"] == "search")
    warnings = list(setup.terms.warnings)
    if last["entropy"] > UNDECIDED:
        warnings.append(
            f"The search has not decided: the mean entropy of the choices is {last['entropy']:.2f} of its maximum at the end "
            f"(above {UNDECIDED:g}). Run more epochs, or raise --theta-lr."
        )
    metrics = {
        "params": architecture.params, "macs": architecture.macs, "latency": [report.to_dict()],
        "accuracy": {"data": setup.dataset.name, "split": "test", **tested.to_dict()},
    }  # fmt: skip
    provenance = {
        "space": setup.space.name, "space_options": dict(setup.space.options), "space_sha256": setup.space.fingerprint,
        "method": config.method, "genotype": notes["genotype"], "seed": config.seed, "target_ms": config.target_ms,
        "step": setup.schedule.before(setup.schedule.epochs), "data_sha256": setup.dataset.fingerprint,
        "command": command(config), "versions": versions(), "warnings": warnings,
    }  # fmt: skip
    name = f"{setup.space.name}_{setup.dataset.name.split(':')[0]}_s{config.seed}"
    full = dataclasses.replace(architecture, name=name, metrics=metrics, provenance=provenance)
    return SearchResult(
        full, tuple(notes["genotype"]), journal.history, tested, Accuracy(*notes["inherited"]), report, tuple(warnings),
        journal.folder, setup.space, params, stats,
    )  # fmt: skip


def _write(result: SearchResult, console: Console) -> None:
    if result.folder:
        picture = io.BytesIO()
        result.plot().savefig(picture, dpi=120)
        write_bytes(result.folder / "search.png", picture.getvalue())
        result.architecture.save(result.folder / "architecture.json")  # last: its presence says that the run is finished
    console.result(result)


def command(config: SearchConfig) -> str:
    """The command that repeats this search, every option spelled out, without output paths."""
    words = ["python -m dnas.search"]
    for name, value in config.to_dict().items():
        if value is not None and name not in ("out", "resume", "checkpoint_s", "data_dir"):
            words.append(
                f"--{name.replace('_', '-')} {value!r}" if isinstance(value, float) else f"--{name.replace('_', '-')} {value}"
            )
    return " ".join(words)


def config_json(setup: Setup) -> dict[str, Any]:
    """``config.json``: every option resolved, and fingerprints of what was read."""
    inputs = {"space": setup.space.fingerprint, "lut": setup.lut.sha256, "data": setup.dataset.fingerprint}
    search = setup.config.to_dict() | {"out": None, "resume": None}
    return {"search": search, "inputs": inputs, "versions": versions(), "devices": devices()}


def versions() -> dict[str, str]:
    names: Mapping[str, str] = {n: metadata.version(n) for n in ("jax", "flax", "optax", "numpy")}
    return {"dnas": _own_version(), "python": platform.python_version(), **names}


def devices() -> dict[str, Any]:
    return {"platform": jax.default_backend(), "count": jax.device_count(), "kind": jax.devices()[0].device_kind}


def _own_version() -> str:
    from dnas import __version__

    return __version__
