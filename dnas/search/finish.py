"""From wherever a run stands to its end: the search, one network for each target, its short training, and the files."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from dnas import checkpoint, loop, supernet, weights
from dnas.console import Watcher
from dnas.data import Dataset
from dnas.devices import on_first, replicate
from dnas.evaluate import Accuracy, accuracy, recalibrate
from dnas.files import dump_json, write_bytes, write_text
from dnas.runs import Journal
from dnas.search import measured, record
from dnas.search.choose import choose
from dnas.search.console import Console
from dnas.search.engine import Setup, State
from dnas.search.epoch import telling
from dnas.search.family import Family, begin, rows_of
from dnas.search.phase import SearchPhase
from dnas.search.results import FamilyResult, SearchResult
from dnas.space import Genotype
from dnas.train import TrainPhase
from dnas.train.config import TrainConfig, complete

SUPERNET = "supernet"  # folder of a run with the weights that its search ended with


class Chosen(NamedTuple):
    """A network to train: ``notes`` and ``compared`` as ``choose`` has them, and the supernet that it inherits from."""

    notes: dict[str, Any]
    compared: dict[Genotype, Accuracy]
    params: Any
    stats: Any


def finish(setup: Setup, journal: Journal, console: Console) -> SearchResult | FamilyResult:
    """Run ``setup`` to its end. A family has one folder for each target below that of the run."""
    found: SearchResult | FamilyResult
    with console.progress() as watcher:
        if len(setup.members) == 1:
            state = None if in_training(journal) else _search(setup, journal, watcher).member(0)
            found = _member(setup.members[0], journal, watcher, console, state)
        else:
            found = _family(setup, journal, watcher, console)
    console.result(found)
    return found


def _family(setup: Setup, journal: Journal, watcher: Watcher, console: Console) -> FamilyResult:
    """Every member in turn, after the search that they share."""
    trunk, results = _search(setup, journal, watcher), []
    for index, member in enumerate(setup.members):
        inner = branch(journal, member, f"{member.config.target_ms:g}ms", rows_of(journal.history, index))
        state = None if in_training(inner) else trunk.member(index)
        results.append(_member(member, inner, watcher, console, state))
    return family(results, journal, console)


def without_supernet(found: SearchResult | FamilyResult) -> SearchResult | FamilyResult:
    """``found`` without weights that nobody needs any more."""
    if isinstance(found, SearchResult):
        return dataclasses.replace(found, supernet=None)
    return dataclasses.replace(found, results=tuple(dataclasses.replace(r, supernet=None) for r in found.results))


def family(results: Sequence[SearchResult], journal: Journal, console: Console) -> FamilyResult:
    """The members of one, and its files."""
    found = FamilyResult(tuple(results), journal.folder)
    if journal.folder:
        on_first(partial(_picture, found, journal.folder / "pareto.png", console))
        on_first(partial(write_text, journal.folder / "family.json", dump_json(found.to_dict())))  # last
    return found


def _search(setup: Setup, journal: Journal, watcher: Watcher) -> Family:
    """The state after the search; its weights are kept in ``supernet``."""
    about = journal.about() or {"epoch": 0, "step": 0}
    state = begin(setup)
    if about["epoch"] or about["step"]:
        state = replicate(setup.mesh, journal.load(state))
    phase = SearchPhase(setup)
    on_epoch = telling(setup, phase, journal)
    state = loop.run(phase, state, journal, watcher, about["epoch"], about["step"], on_epoch=on_epoch)
    if journal.folder and setup.frozen is None:
        trees = {"params": state.shared.params, "stats": state.shared.stats}
        checkpoint.save(journal.folder / SUPERNET, 0, trees, {"space": setup.space.fingerprint})
    return state


def in_training(journal: Journal) -> bool:
    about = journal.about()
    return about is not None and about["phase"] == "training"


def branch(
    trunk: Journal, setup: Setup, name: str, rows: list[dict[str, Any]], about: Mapping[str, Any] = MappingProxyType({})
) -> Journal:
    """The journal of a part of a run, in the folder ``name`` below it, with ``rows`` of its search. ``about``: what its
    ``config.json`` has besides."""
    if trunk.folder is None:
        journal = Journal(None)
    else:
        where = trunk.folder / name
        on_first(partial(_folder, where))
        journal = Journal.resume(where, trunk.checkpoint_s)
        journal.write_json("config.json", {**record.config_json(setup), **about})
    journal.whole, journal.objects = trunk.whole or trunk.folder, trunk.objects
    if not journal.history:
        journal.begin_with(rows)
    return journal


def _folder(path: Path) -> None:
    path.mkdir(exist_ok=True)


def _member(setup: Setup, journal: Journal, watcher: Watcher, console: Console, state: State | None) -> SearchResult:
    """Choose a network and train it. ``state``: where the search ended; None: the training has begun."""
    return trained(setup, journal, watcher, console, state and _chosen(setup, state, watcher, journal))


def _chosen(setup: Setup, state: State, watcher: Watcher, journal: Journal) -> Chosen:
    notes, compared, state = choose(setup, state, watcher, journal.folder)
    if not compared[tuple(notes["genotype"])].finite:
        raise loop.not_finite("search", "on the selection images", setup.config.lr or 0.0, journal)
    return Chosen(notes, compared, state.params, state.stats)


def trained(setup: Setup, journal: Journal, watcher: Watcher, console: Console, chosen: Chosen | None) -> SearchResult:
    """The network after the short training, with its files. ``chosen``: None where the training has begun."""
    if chosen is None:
        about = journal.about()
        assert about is not None
        notes, epoch, step = about["notes"], about["epoch"], about["step"]
        phase = _training(setup, notes)
        template = supernet.init(phase.architecture, jax.random.key(0))[1:]
        state = replicate(phase.mesh, journal.load(phase.init(*template)))
        compared = measured.read(journal.folder / measured.FILE) if journal.folder else {}
    else:
        (phase, state), epoch, step = _inherited(setup, chosen), 0, 0
        notes, compared = chosen.notes, chosen.compared
    state = loop.run(phase, state, journal, watcher, epoch, step, notes, telling(setup, phase, journal))
    stats = recalibrate(phase.net, state.params, state.stats, setup.feed(setup.splits.train))
    tested = accuracy(phase.net, state.params, stats, setup.feed(setup.splits.test))
    if not tested.finite:
        raise loop.not_finite(phase.name, "on the test images", phase.lr, journal)
    report = setup.lut.report(phase.architecture, setup.config.missing)
    last = next(row for row in reversed(journal.history) if row["phase"] == "search")
    architecture, warnings = record.finished(setup, notes, last, phase.architecture, report, tested)
    result = SearchResult(
        architecture, tuple(notes["genotype"]), journal.history, tested, Accuracy(*notes["inherited"]), notes["draws"], report,
        notes["derivation"], warnings, journal.folder, setup.space, state.params, stats, compared,
        (chosen.params, chosen.stats) if chosen and journal.folder is None else None,
    )  # fmt: skip
    if result.folder:
        on_first(partial(_picture, result, result.folder / "search.png", console))
        on_first(partial(_report, result, result.folder / "report.html", console))
        on_first(partial(_keep, result, setup.dataset, result.folder))
        on_first(partial(architecture.save, result.folder / "architecture.json"))  # last: it says that the run is finished
    return result


def _inherited(setup: Setup, chosen: Chosen) -> tuple[TrainPhase, Any]:
    """The training with its first state."""
    genotype, training = tuple(chosen.notes["genotype"]), _training(setup, chosen.notes)
    params, stats = (supernet.inherit(setup.space, genotype, tree) for tree in (chosen.params, chosen.stats))
    stats = recalibrate(training.net, params, stats, setup.feeds["plain"])
    return training, training.init(params, stats)


def _training(setup: Setup, notes: dict[str, Any]) -> TrainPhase:
    config = setup.config
    assert config.train_epochs is not None and config.lr is not None and config.weight_decay is not None and config.augment
    short = TrainConfig(
        epochs=config.train_epochs, batch_size=config.batch_size, lr=config.lr, weight_decay=config.weight_decay,
        augment=config.augment, compute=config.compute, remat=config.remat, devices=config.devices, seed=config.seed,
    )  # fmt: skip
    return TrainPhase(
        setup.space.fix(notes["genotype"]), setup.feed(setup.splits.train, config.augment), complete(short),
        first_number=setup.schedule.before(setup.schedule.epochs),
    )  # fmt: skip


def _keep(result: SearchResult, dataset: Dataset, folder: Path) -> None:
    """Write the trained weights and what the inputs mean, for ``python -m dnas.export``."""
    about = weights.preprocessing(result.architecture, dataset.classes, dataset.mean, dataset.std)
    write_text(folder / weights.PREPROCESSING, dump_json(about))
    weights.save(folder / weights.FILE, result.architecture, *jax.device_get((result.params, result.stats)))


def _report(result: SearchResult, path: Path, console: Console) -> None:
    """Write ``result``'s page; one that cannot be made costs no result."""
    try:
        text = result.report()
    except Exception as problem:
        console.note(f"{path.name} could not be made ({type(problem).__name__}: {problem})")
        return
    write_text(path, text)


def _picture(result: SearchResult | FamilyResult, path: Path, console: Console) -> None:
    """Write ``result``'s figure; one that cannot be drawn costs no result."""
    picture = io.BytesIO()
    try:
        result.plot().savefig(picture, dpi=120)
    except Exception as problem:
        console.note(f"{path.name} could not be drawn ({type(problem).__name__}: {problem})")
        return
    write_bytes(path, picture.getvalue())
