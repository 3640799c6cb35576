"""A whole search: ``run`` begins it, ``resume`` continues it; inputs, run folders, and several seeds."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dnas import loop, notebook
from dnas.config import SearchConfig
from dnas.data import Dataset
from dnas.data import load as load_data
from dnas.depth import at_least
from dnas.devices import is_first, on_first, start
from dnas.errors import ConfigError, Interrupted, RunError
from dnas.files import dump_json, kind, write_text
from dnas.latency.table import LatencyTable
from dnas.latency.terms import price
from dnas.runs import Journal, begun_in, read_config
from dnas.search import one_by_one, record, supernets
from dnas.search.console import Console
from dnas.search.engine import Setup, prepare
from dnas.search.epoch import OnEpoch
from dnas.search.finish import finish, without_supernet
from dnas.search.results import FamilyResult, SearchResult, SeedsResult
from dnas.search.together import choose_together
from dnas.space import Space, load_space
from dnas.space_files import shadowed

REPORTED = "samsung_s8.json"
"""The table that prices every op, for searches that hold other costs only."""
Named = str | os.PathLike[str]
Result = SearchResult | FamilyResult | SeedsResult
FINISHED = ("architecture.json", "family.json", "seeds.json")  # of which the last thing that a run writes is one


def run(
    space: Space | Named | None = None,
    lut: LatencyTable | Named | None = None,
    data: Dataset | str | None = None,
    *,
    target_ms: float | Sequence[float] | None = None,
    out: Named | bool | None = None,
    progress: bool = True,
    on_epoch: OnEpoch | None = None,
    **options: Any,
) -> Any:
    """Search ``space`` for the network that is most accurate at a latency, and train it for a short while.

    Arguments: objects, or what the command takes in their place; ``target_ms``: in ms, several make a family; ``out``: run
    folder to write (True: runs/<unique name>, as the command; False: no files, so that nothing is left of an interrupted run;
    None: True in a notebook, elsewhere False); ``progress``: print summary, progress and result; ``on_epoch``: is called at
    the end of each epoch with a ``dnas.search.Epoch`` (what it raises stops the run as Ctrl-C does, with everything saved,
    and is raised here); ``options``: the fields of ``dnas.config.SearchConfig`` (``epochs=``, ``seed=``,
    ``from_supernet=``, ...).
    Several processes that have called ``jax.distributed.initialize``, or give ``distributed=True``, share each batch; all
    return the result: a SearchResult, a FamilyResult of several targets, a SeedsResult with ``seeds=``. All three have
    ``.results`` and ``.architectures``.
    Errors: ConfigError, SpaceError, LatencyError, DataError, NotFiniteError, RunError, Interrupted.
    """
    known = {f.name for f in dataclasses.fields(SearchConfig)} - {"resume"}
    if unknown := sorted(set(options) - known):
        hint = " (call dnas.search.resume)" if "resume" in unknown else ""
        raise ConfigError(f"unknown option {unknown[0]!r} of dnas.search.run{hint}")
    objects = {"space": space, "lut": lut, "data": data}
    names = {k: os.fspath(v) if isinstance(v, str | os.PathLike) else v.name for k, v in objects.items() if v is not None}
    folder = os.fspath(out) if isinstance(out, str | os.PathLike) else None
    for name in ("data_dir", "from_supernet"):
        if options.get(name) is not None:
            options[name] = os.fspath(options[name])
    config = SearchConfig(**{**options, **names, **_targets(target_ms), "out": folder})
    given = {*options, *names, *_targets(target_ms), *(["out"] if folder else [])} - {"from_supernet"}
    if config.from_supernet:
        config = supernets.as_before(config, given, {k for k in names if not isinstance(objects[k], str | os.PathLike)})
    elif space is None:
        raise ConfigError("space is missing; expected one, or its name, such as 'fbnet_mini'")
    if config.distributed:
        start()
    console = Console(progress and is_first())
    with begun_in(f"--from-supernet {config.from_supernet}", _paths(config, given) if config.from_supernet else ()):
        setup = dataclasses.replace(_load(config, objects), on_epoch=on_epoch)
    name = f"{setup.space.name}-{setup.dataset.name.split(':')[0]}-s{setup.config.seed}"
    kept = notebook.running() if out is None else bool(out)
    journal = Journal.create(folder, name, setup.config.checkpoint_s) if kept else Journal(None)
    journal.write_json("config.json", record.config_json(setup))
    return _announce_and_finish(setup, journal, console)


def resume(
    folder: Named,
    *,
    space: Space | None = None,
    lut: LatencyTable | None = None,
    data: Dataset | None = None,
    progress: bool = True,
    on_epoch: OnEpoch | None = None,
    distributed: bool = False,
) -> Any:
    """Continue an interrupted run; it ends with the result of an uninterrupted one.

    Arguments: the run's folder; ``space``, ``lut``, ``data`` if the run was given these as objects; ``progress`` and
    ``on_epoch`` as in ``run``; ``distributed``: join the other processes, which must see the same folder. Their number may be
    another than before.
    Errors: RunError where its inputs have changed since, and those of ``run``.
    """
    if distributed:
        start()
    where = Path(folder)
    body = read_config(os.fspath(folder))
    if "part" in body or "family_ms" in body:
        what = "what several seeds chose together" if "part" in body else "one target of a family"
        whole = where.parent.parent if "part" in body and where.name != body["part"] else where.parent
        raise RunError(f"--resume {folder}: it is {what}; resume the folder above it: --resume {whole}")
    if done := [where / name for name in FINISHED if kind(where / name)]:
        raise RunError(f"--resume {folder}: this run is finished; see {done[0]}")
    objects: dict[str, Any] = {"space": space, "lut": lut, "data": data}
    if missing := [k for k in body.get("objects", []) if objects.get(k) is None]:
        raise RunError(
            f"--resume {folder}: the run was given its {missing[0]} as an object in Python; continue it by "
            f"dnas.search.resume(folder, {', '.join(f'{k}=...' for k in missing)})"
        )
    setup = dataclasses.replace(_as_begun(where, body, objects), on_epoch=on_epoch)
    console = Console(progress and is_first())
    console.note(f"Resuming {where}")
    return _announce_and_finish(setup, _journal(where, setup, console), console)


def _as_begun(where: Path, body: dict[str, Any], objects: Mapping[str, Any], like: Setup | None = None) -> Setup:
    """The set-up that ``config.json`` (``body``) describes. Errors: RunError where what it reads has changed since."""
    fields = {f.name for f in dataclasses.fields(SearchConfig)}
    if extra := sorted(set(body["search"]) - fields):
        raise RunError(f"{where / 'config.json'}: unknown option {extra[0]!r}; it was written by another version of dnas")
    config = SearchConfig(**body["search"])
    several = jax.process_count() > 1
    if several or (config.devices and config.devices > jax.local_device_count()):
        config = dataclasses.replace(config, devices=None)  # the result is the same but for rounding, and is said to be so
    with begun_in(f"--resume {where}", _paths(config)):
        setup = _load(config, objects)
    now = record.config_json(setup)["inputs"]
    for name, then in body.get("inputs", {}).items():
        if now.get(name) != then:
            raise RunError(f"--resume {where}: {name} has changed since the run began ({then} -> {now.get(name)})")
    return dataclasses.replace(setup, remarks=record.elsewhere(body, setup.config.devices), like=like)


def _journal(where: Path, setup: Setup, console: Console) -> Journal:
    journal = Journal.resume(where, setup.config.checkpoint_s)
    for remark in journal.remarks:
        console.note(remark)
    return journal


def _paths(config: SearchConfig, given: Iterable[str] = ()) -> list[str | None]:
    """Names of inputs, of which some are paths, of the options that the run had and that are not ``given`` now."""
    names: dict[str, list[str | None]] = {
        "space": [config.space.partition(":")[0]], "lut": [config.lut], "data": [config.data.partition(":")[2]],
        "data_dir": [config.data_dir], "also": [text.partition("=")[0] for text in config.also],
    }  # fmt: skip
    return [name for option, found in names.items() if option not in given for name in found]


def _targets(target_ms: Any) -> dict[str, Any]:
    """``target_ms`` as fields of the configuration."""
    if not isinstance(target_ms, Sequence | np.ndarray) or isinstance(target_ms, str):
        return {} if target_ms is None else {"target_ms": target_ms}
    values = tuple(v.item() if isinstance(v, np.generic) else v for v in target_ms)
    if not values:
        raise ConfigError("target_ms is empty; expected a number of ms, or several")
    return {"target_ms": values[0]} if len(values) == 1 else {"family_ms": values}


def _load(config: SearchConfig, given: Mapping[str, Any]) -> Setup:
    """Load what is named, and check that everything fits. ``given``: objects, which names stand for otherwise."""
    named = {k: getattr(config, k) if given.get(k) is None else given[k] for k in ("space", "lut", "data")}
    unheld = not named["lut"]
    if unheld and (not config.also or config.target_ms is not None or config.family_ms):
        raise ConfigError(
            "--lut is missing; expected a latency table, such as --lut samsung_s8.json, or another cost to hold, such as "
            "--cost macs --target 100e6"
        )
    if unheld and config.method == "random-search":
        raise ConfigError("--method random-search draws within a band of latency; give it --lut and --target-ms")
    objects = tuple(k for k, v in named.items() if not isinstance(v, str | os.PathLike))
    found = named["space"] if "space" in objects else load_space(named["space"])
    table = named["lut"] if "lut" in objects else LatencyTable.load(named["lut"] or REPORTED)
    data = named["data"]
    if "data" not in objects:
        data = load_data(os.fspath(data), data_dir=config.data_dir, resolution=found.resolution)
    remarks: tuple[str, ...] = ()
    if unheld:
        slowest = price(found.at(num_classes=data.num_classes), table, config.missing).extreme(-1)[0]
        config = dataclasses.replace(config, lut=REPORTED, target_ms=slowest)
        remarks = (f"No --lut: {REPORTED} reports the latency; its target is the slowest network's, which holds nothing.",)
    frozen, sha256, divided_by = None, None, None
    if config.from_supernet:
        divided_by = supernets.split_seed(config.from_supernet)
        classes = found.at(num_classes=data.num_classes)
        deep = at_least(classes, config.min_depth) if config.min_depth else classes
        frozen, sha256 = supernets.read(config.from_supernet, deep)
    setup = prepare(config, found, table, data, frozen, divided_by)
    if setup.method.ends == "best":
        one_by_one.networks(setup)  # a band with too few networks is said before anything is written
    return dataclasses.replace(setup, objects=objects, supernet_sha256=sha256, remarks=remarks)


def _announce_and_finish(setup: Setup, journal: Journal, console: Console) -> Result:
    for notice in (setup.lut.notice, shadowed(setup.config.space) if "space" not in setup.objects else None, *setup.remarks):
        if notice:
            console.note(notice)
    console.summary(setup)
    journal.objects = setup.objects
    try:
        alone = setup.config.seeds == 1
        return without_supernet(finish(setup, journal, console)) if alone else _seeds(setup, journal, console)
    except KeyboardInterrupt:  # a second Ctrl-C, or one between search and training
        raise Interrupted(loop.how_to_resume(journal, "at once", "what the newest checkpoint has is saved")) from None


def _seeds(setup: Setup, journal: Journal, console: Console) -> SeedsResult:
    """One run for each seed, in folders of their own, what their supernets choose together, and their summary."""
    found: list[SearchResult | FamilyResult] = []
    runs: list[Setup] = []
    like, objects = None, {"space": setup.space, "lut": setup.lut, "data": setup.dataset}
    for seed in range(setup.config.seed, setup.config.seed + setup.config.seeds):
        console.note(f"seed     {seed}")
        config = dataclasses.replace(setup.config, seed=seed, seeds=1)
        one = dataclasses.replace(_load(config, objects), objects=setup.objects, remarks=setup.remarks, like=like)
        branch = Journal(None)
        if journal.folder:
            where = journal.folder / f"seed{seed}"
            if kind(where / "config.json"):
                one = _as_begun(where, read_config(str(where)), objects, like)
                branch = _journal(where, one, console)
            else:
                on_first(partial(where.mkdir, exist_ok=True))
                branch = Journal(where, setup.config.checkpoint_s)
                branch.write_json("config.json", record.config_json(one))
            branch.whole, branch.objects = journal.folder, journal.objects
        one = dataclasses.replace(one, on_epoch=setup.on_epoch)
        found.append(finish(one, branch, console))
        runs.append(one)
        like = one
    together = choose_together(setup, runs, found, journal, console)
    result = SeedsResult(tuple(map(without_supernet, found)), journal.folder, together)
    if journal.folder:
        on_first(partial(write_text, journal.folder / "seeds.json", dump_json(result.to_dict())))
    console.result(result)
    return result
