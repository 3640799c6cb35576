"""From wherever a run stands to its end: the search, one network for each target, its short training, and the files."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any

import jax

from dnas import checkpoint, loop, supernet, weights
from dnas.console import Watcher
from dnas.data import Dataset
from dnas.devices import on_first, replicate
from dnas.evaluate import Accuracy, accuracy, recalibrate
from dnas.files import dump_json, write_bytes, write_text
from dnas.runs import Journal
from dnas.search import record
from dnas.search.choose import choose
from dnas.search.console import Console
from dnas.search.engine import Setup, State
from dnas.search.epoch import telling
from dnas.search.family import Family, begin, rows_of
from dnas.search.phase import SearchPhase
from dnas.search.results import FamilyResult, SearchResult
from dnas.train import TrainPhase
from dnas.train.config import TrainConfig, complete

SUPERNET = "supernet"  # folder of a run with the weights that its search ended with


def finish(setup: Setup, journal: Journal, console: Console) -> SearchResult | FamilyResult:
    """Run ``setup`` to its end. A family has one folder for each target below that of the run."""
    found: SearchResult | FamilyResult
    with console.progress() as watcher:
        if len(setup.members) == 1:
            state = None if _in_training(journal) else _search(setup, journal, watcher).member(0)
            found = _member(setup.members[0], journal, watcher, console, state)
        else:
            found = _family(setup, journal, watcher, console)
    console.result(found)
    return found


def _family(setup: Setup, journal: Journal, watcher: Watcher, console: Console) -> FamilyResult:
    """Every member in turn, after the search that they share."""
    trunk, results = _search(setup, journal, watcher), []
    for index, member in enumerate(setup.members):
        branch = _branch(journal, member, index)
        state = None if _in_training(branch) else trunk.member(index)
        results.append(_member(member, branch, watcher, console, state))
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


def _in_training(journal: Journal) -> bool:
    about = journal.about()
    return about is not None and about["phase"] == "training"


def _branch(trunk: Journal, setup: Setup, index: int) -> Journal:
    """The journal of one member of a family, in a folder of its own, with the rows of the search."""
    rows = rows_of(trunk.history, index)
    if trunk.folder is None:
        journal = Journal(None)
    else:
        where = trunk.folder / f"{setup.config.target_ms:g}ms"
        on_first(partial(_folder, where))
        journal = Journal.resume(where, trunk.checkpoint_s)
        journal.write_json("config.json", record.config_json(setup))
    journal.whole, journal.objects = trunk.whole or trunk.folder, trunk.objects
    if not journal.history:
        journal.begin_with(rows)
    return journal


def _folder(path: Path) -> None:
    path.mkdir(exist_ok=True)


def _member(setup: Setup, journal: Journal, watcher: Watcher, console: Console, state: State | None) -> SearchResult:
    """Choose a network and train it. ``state``: where the search ended; None: the training has begun."""
    if state is None:
        about = journal.about()
        assert about is not None
        notes, epoch, step = about["notes"], about["epoch"], about["step"]
        phase = _training(setup, notes)
        template = supernet.init(phase.architecture, jax.random.key(0))[1:]
        trained = replicate(phase.mesh, journal.load(phase.init(*template)))
    else:
        (notes, phase, trained), epoch, step = _start(setup, state, journal, watcher), 0, 0
    trained = loop.run(phase, trained, journal, watcher, epoch, step, notes, telling(setup, phase, journal))
    stats = recalibrate(phase.net, trained.params, trained.stats, setup.feed(setup.splits.train))
    tested = accuracy(phase.net, trained.params, stats, setup.feed(setup.splits.test))
    if not tested.finite:
        raise loop.not_finite(phase.name, "on the test images", phase.lr, journal)
    report = setup.lut.report(phase.architecture, setup.config.missing)
    last = next(row for row in reversed(journal.history) if row["phase"] == "search")
    architecture, warnings = record.finished(setup, notes, last, phase.architecture, report, tested)
    result = SearchResult(
        architecture, tuple(notes["genotype"]), journal.history, tested, Accuracy(*notes["inherited"]), notes["draws"], report,
        notes["derivation"], warnings, journal.folder, setup.space, trained.params, stats,
    )  # fmt: skip
    if result.folder:
        on_first(partial(_picture, result, result.folder / "search.png", console))
        on_first(partial(_report, result, result.folder / "report.html", console))
        on_first(partial(_keep, result, setup.dataset, result.folder))
        on_first(partial(architecture.save, result.folder / "architecture.json"))  # last: it says that the run is finished
    return result


def _start(setup: Setup, state: State, journal: Journal, watcher: Watcher) -> tuple[dict[str, Any], TrainPhase, Any]:
    """Derive and inherit: the notes to keep, and the training with its first state."""
    notes, found, state = choose(setup, state, watcher, journal.folder)
    if not found.finite:
        raise loop.not_finite("search", "on the selection images", setup.config.lr or 0.0, journal)
    genotype = tuple(notes["genotype"])
    training = _training(setup, notes)
    params = supernet.inherit(setup.space, genotype, state.params)
    stats = supernet.inherit(setup.space, genotype, state.stats)
    stats = recalibrate(training.net, params, stats, setup.feeds["plain"])
    return notes, training, training.init(params, stats)


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
