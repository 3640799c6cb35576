"""A whole search: set-up, the search itself, derivation, a short training, and the files of the run."""

from __future__ import annotations

import dataclasses
import io
import os
from functools import partial
from pathlib import Path
from typing import Any

import jax

from dnas import loop, supernet, weights
from dnas.arch import Architecture
from dnas.config import SearchConfig
from dnas.data import Dataset
from dnas.data import load as load_data
from dnas.devices import is_first, on_first, replicate, start
from dnas.errors import ConfigError, Interrupted, RunError, WeightsError
from dnas.evaluate import Accuracy, accuracy, recalibrate
from dnas.files import dump_json, kind, write_bytes, write_text
from dnas.latency.table import LatencyReport, LatencyTable
from dnas.runs import Journal, read_config
from dnas.search import record
from dnas.search.choose import choose
from dnas.search.console import Console, Watcher
from dnas.search.engine import Setup, init, prepare
from dnas.search.phase import SearchPhase
from dnas.space import Genotype, Space, load_space
from dnas.space_files import shadowed
from dnas.train import TrainPhase

Named = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """What a search found.

    ``architecture`` (with metrics and provenance), ``history`` (one dict per epoch), ``accuracy`` on the test images after
    the short training, ``inherited`` on the selection images before it (the best of ``draws`` networks chosen by these
    images), ``latency`` with its parts, ``derivation`` (how it was chosen, and what the likeliest network would have been),
    ``warnings`` as sentences, ``folder`` (None if nothing was written), ``space``
    with the data's classes, trained ``params`` and ``stats``.
    """

    architecture: Architecture
    genotype: Genotype
    history: list[dict[str, Any]]
    accuracy: Accuracy
    inherited: Accuracy
    draws: int
    latency: LatencyReport
    derivation: dict[str, Any]
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
    space: Space | Named,
    lut: LatencyTable | Named,
    data: Dataset | str = "digits",
    *,
    out: Named | bool | None = None,
    progress: bool = True,
    **options: Any,
) -> SearchResult:
    """Search ``space`` for the network that is most accurate at a latency, and train it for a short while.

    Arguments: objects, or what the command takes in their place; ``out``: run folder to write (True: runs/<unique name>, as
    the command; None: no files); ``progress``: print summary, progress and result; ``options``: the fields of
    ``dnas.config.SearchConfig`` (``target_ms=``, ``epochs=``, ``seed=``, ...). Several processes that have called
    ``jax.distributed.initialize``, or give ``distributed=True``, share each batch; all return the result.
    Errors: ConfigError, SpaceError, LatencyError, DataError, NotFiniteError, RunError, Interrupted.
    """
    known = {f.name for f in dataclasses.fields(SearchConfig)} - {"resume"}
    if unknown := sorted(set(options) - known):
        hint = " (call dnas.search.resume)" if "resume" in unknown else ""
        raise ConfigError(f"unknown option {unknown[0]!r} of dnas.search.run{hint}")
    given: dict[str, Any] = {"space": space, "lut": lut, "data": data}
    names = {k: os.fspath(v) if isinstance(v, str | os.PathLike) else v.name for k, v in given.items()}
    folder = os.fspath(out) if isinstance(out, str | os.PathLike) else None
    if options.get("data_dir") is not None:
        options["data_dir"] = os.fspath(options["data_dir"])
    config = SearchConfig(**{**options, **names, "out": folder})
    if config.distributed:
        start()
    console = Console(progress and is_first())
    setup = _load(config, **given)
    journal = Journal(None)
    if out:
        name = f"{setup.space.name}-{setup.dataset.name.split(':')[0]}-s{setup.config.seed}"
        journal = Journal.create(folder, name, setup.config.checkpoint_s)
        journal.write_json("config.json", record.config_json(setup))
    return _announce_and_finish(setup, journal, console)


def resume(
    folder: Named,
    *,
    space: Space | None = None,
    lut: LatencyTable | None = None,
    data: Dataset | None = None,
    progress: bool = True,
    distributed: bool = False,
) -> SearchResult:
    """Continue an interrupted run; it ends with the result of an uninterrupted one.

    Arguments: the run's folder; ``space``, ``lut``, ``data`` if the run was given these as objects; ``distributed``: join the
    other processes, which must see the same folder. Their number may be another than before.
    Errors: RunError where its inputs have changed since, and those of ``run``.
    """
    if distributed:
        start()
    where = Path(folder)
    body = read_config(os.fspath(folder))
    if kind(where / "architecture.json"):
        raise RunError(f"--resume {folder}: this run is finished; see {where / 'architecture.json'}")
    given: dict[str, Any] = {"space": space, "lut": lut, "data": data}
    if missing := [k for k in body.get("objects", []) if given.get(k) is None]:
        raise RunError(
            f"--resume {folder}: the run was given its {missing[0]} as an object in Python; continue it by "
            f"dnas.search.resume(folder, {', '.join(f'{k}=...' for k in missing)})"
        )
    fields = {f.name for f in dataclasses.fields(SearchConfig)}
    if extra := sorted(set(body["search"]) - fields):
        raise RunError(f"{where / 'config.json'}: unknown option {extra[0]!r}; it was written by another version of dnas")
    config = SearchConfig(**body["search"])
    several = jax.process_count() > 1
    if several or (config.devices and config.devices > jax.local_device_count()):
        config = dataclasses.replace(config, devices=None)  # the result is the same but for rounding, and is said to be so
    setup = _load(config, **{k: getattr(config, k) if v is None else v for k, v in given.items()})
    now = record.config_json(setup)["inputs"]
    for name, then in body.get("inputs", {}).items():
        if now.get(name) != then:
            raise RunError(f"--resume {folder}: {name} has changed since the run began ({then} -> {now.get(name)})")
    setup = dataclasses.replace(setup, remarks=record.elsewhere(body, setup.config.devices))
    console = Console(progress and is_first())
    console.note(f"Resuming {where}")
    return _announce_and_finish(setup, Journal.resume(where, config.checkpoint_s), console)


def _load(config: SearchConfig, space: Space | Named, lut: LatencyTable | Named, data: Dataset | Named) -> Setup:
    """Load what was given by name, and check that everything fits."""
    if not config.lut:
        raise ConfigError("--lut is missing; expected a latency table, such as --lut samsung_s8.json")
    objects = tuple(k for k, v in (("space", space), ("lut", lut), ("data", data)) if not isinstance(v, str | os.PathLike))
    found = space if isinstance(space, Space) else load_space(space)
    table = lut if isinstance(lut, LatencyTable) else LatencyTable.load(lut)
    if not isinstance(data, Dataset):
        data = load_data(os.fspath(data), data_dir=config.data_dir, resolution=found.resolution)
    return dataclasses.replace(prepare(config, found, table, data), objects=objects)


def _announce_and_finish(setup: Setup, journal: Journal, console: Console) -> SearchResult:
    for notice in (setup.lut.notice, shadowed(setup.config.space) if "space" not in setup.objects else None, *setup.remarks):
        if notice:
            console.note(notice)
    console.summary(setup)
    try:
        return _finish(setup, journal, console)
    except KeyboardInterrupt:  # a second Ctrl-C, or one between search and training
        raise Interrupted(loop.how_to_resume(journal, "at once", "what the newest checkpoint has is saved")) from None


def _finish(setup: Setup, journal: Journal, console: Console) -> SearchResult:
    """From wherever ``journal`` stands to the end of the run."""
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
    if not tested.finite:
        raise loop.not_finite(phase.name, "on the test images", phase.lr, journal)
    report = setup.lut.report(phase.architecture, setup.config.missing)
    last = next(row for row in reversed(journal.history) if row["phase"] == "search")
    architecture, warnings = record.finished(setup, notes, last, phase.architecture, report, tested)
    result = SearchResult(
        architecture, tuple(notes["genotype"]), journal.history, tested, Accuracy(*notes["inherited"]), notes["draws"], report,
        notes["derivation"], warnings, journal.folder, setup.space, state.params, stats,
    )  # fmt: skip
    if result.folder:
        on_first(partial(_draw, result, result.folder, console))
        on_first(partial(_keep, result, setup.dataset, result.folder, console))
        on_first(partial(architecture.save, result.folder / "architecture.json"))  # last: it says that the run is finished
    console.result(result)
    return result


def _search(setup: Setup, journal: Journal, watcher: Watcher, epoch: int, step: int) -> tuple[dict[str, Any], TrainPhase, Any]:
    """Search, derive, inherit: the notes to keep, and the training that follows with its first state."""
    phase = SearchPhase(setup)
    state = init(setup)
    if epoch or step:
        state = replicate(setup.mesh, journal.load(state))
    state = loop.run(phase, state, journal, watcher, epoch, step)
    notes, found = choose(setup, state, watcher)
    if not found.finite:
        raise loop.not_finite(phase.name, "on the selection images", phase.lr, journal)
    genotype = tuple(notes["genotype"])
    training = _training(setup, notes)
    params = supernet.inherit(setup.space, genotype, state.params)
    stats = supernet.inherit(setup.space, genotype, state.stats)
    stats = recalibrate(training.net, params, stats, setup.feeds["plain"])
    return notes, training, training.init(params, stats)


def _training(setup: Setup, notes: dict[str, Any]) -> TrainPhase:
    config = setup.config
    assert config.train_epochs is not None and config.lr is not None and config.weight_decay is not None and config.augment
    return TrainPhase(
        setup.space.fix(notes["genotype"]), setup.feed(setup.splits.train, config.augment), epochs=config.train_epochs,
        lr=config.lr, weight_decay=config.weight_decay, compute=config.compute_dtype, remat=config.remat,
        devices=config.devices, first_number=setup.schedule.before(setup.schedule.epochs),
    )  # fmt: skip


def _keep(result: SearchResult, dataset: Dataset, folder: Path, console: Console) -> None:
    """Write the trained weights and what the inputs mean, for ``python -m dnas.export``."""
    about = weights.preprocessing(result.architecture, dataset.classes, dataset.mean, dataset.std)
    write_text(folder / weights.PREPROCESSING, dump_json(about))
    try:
        weights.save(folder / weights.FILE, result.architecture, *jax.device_get((result.params, result.stats)))
    except WeightsError as problem:  # safetensors is an extra
        console.note(f"The trained weights were not written: {problem}")


def _draw(result: SearchResult, folder: Path, console: Console) -> None:
    """Write search.png; a figure that cannot be drawn costs no result."""
    picture = io.BytesIO()
    try:
        result.plot().savefig(picture, dpi=120)
    except Exception as problem:
        console.note(f"search.png could not be drawn ({type(problem).__name__}: {problem})")
        return
    write_bytes(folder / "search.png", picture.getvalue())
