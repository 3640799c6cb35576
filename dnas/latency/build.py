"""``python -m dnas.latency build``: measures a table of a space on this machine, and checks it against whole networks."""

from __future__ import annotations

import dataclasses
import datetime
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich import progress as bars
from rich.console import Console

import dnas
from dnas import machine
from dnas.console import progress
from dnas.errors import ConfigError, Interrupted
from dnas.files import write_bytes
from dnas.latency.assemble import LEAST, assemble, plain, uncorrected
from dnas.latency.probes import Probe, network_probes, op_probes, spread, weights
from dnas.latency.samples import Log
from dnas.latency.table import PLAIN, LatencyTable
from dnas.latency.terms import price
from dnas.latency.timing import Clock, Round, Task, first_in_line, lacking, pinned, take_turns, timings
from dnas.runtimes import Runner, Runtime, runtime
from dnas.space import Space

FIRST = 3  # rounds of the ops, by which networks that span the range are chosen
TOGETHER = 200  # probes that are held in memory and take turns
WARM = 1  # untimed calls directly before a timed one


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What to measure: ``runtime`` (a name), ``threads``, ``repeats`` (undisturbed samples of each probe), ``networks`` (whole
    ones for the check), ``seed`` of what is random. Errors: ConfigError."""

    runtime: str = "litert"
    threads: int = 1
    repeats: int = 30
    networks: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("threads", 1), ("repeats", 5), ("networks", 0), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= 10_000:
                raise ConfigError(f"--{name} is {value}; expected a whole number from {least} to 10000")
        if 0 < self.networks < LEAST:
            raise ConfigError(f"--networks is {self.networks}; expected 0 (no check), or {LEAST} or more")
        if self.threads > machine.cores():
            raise ConfigError(f"--threads is {self.threads}; this process may use {machine.cores()} cores")


def build(
    space: Space,
    wanted: Wanted,
    out: str | Path,
    about: dict[str, Any] | None = None,
    console: Console | None = None,
    clock: Clock | None = None,
) -> LatencyTable:
    """Measure a table of every op of ``space``, and write it to ``out``; ``about``: fields of the table (device, source).

    What was measured is kept in the folder ``OUT.build`` beside it, so that a run that was stopped goes on.
    Errors: Interrupted (with what is kept), ConfigError, RunError, LatencyError.
    """
    engine, folder = runtime(wanted.runtime), Path(f"{out}.build")
    with pinned(wanted.threads) as cores, _bars(console) as shown:
        header = {"space": space.fingerprint, "runtime": engine.version()}  # which may start threads: on these cores
        header |= {"processor": machine.processor()} | {n: getattr(wanted, n) for n in ("threads", "networks", "seed")}
        log = Log(folder / "samples.jsonl", header)
        try:
            probes = _Measurement(space, wanted, engine, log, folder / "models", shown, clock, len(cores)).run()
        except KeyboardInterrupt:
            words = f"stopped after {len(log.rounds)} rounds, which {folder} keeps: the same command goes on from there"
            raise Interrupted(words) from None
    fields: dict[str, Any] = {"runtime": engine.version(), "threads": wanted.threads, "resolutions": (space.resolution,) * 2}
    fields |= {"device": machine.device(), "source": source(space, wanted, probes, log) | {PLAIN: plain(probes, log.plain)}}
    given = dict(about or {})
    fields["source"] |= given.pop("source", {})
    table = assemble(probes, timings(log.rounds), fields | given)
    table.save(out)
    shutil.rmtree(folder / "models", ignore_errors=True)
    return table


def source(space: Space, wanted: Wanted, probes: Sequence[Probe], log: Log) -> dict[str, Any]:
    """Who, how and when; and which networks the check measured."""
    options = "".join(f" --{k} {getattr(wanted, k)}" for k in ("runtime", "threads", "repeats", "networks", "seed"))
    networks = {p.name: list(p.genotype) for p in probes if p.genotype is not None}
    return {
        "who": "measured by whoever ran the command",
        "licence": "none stated",
        "date": datetime.date.today().isoformat(),
        "how": f"python -m dnas.latency build {space.name}{options}",
        "versions": {"dnas": dnas.__version__, "runtime": runtime(wanted.runtime).version()},
        "space": {"name": space.name, "options": dict(space.options), "sha256": space.fingerprint},
        "conditions": log.conditions,
        "networks": networks,
    }


def clock_for(engine: Runtime, threads: int) -> Clock:
    """How a disturbed call is recognised: by switches, or where the runtime's own threads make these, by CPU time (of one
    core), or not at all (several cores; slow rounds still are)."""
    if not engine.own_thread:
        return Clock()
    return Clock(cpu_ns=time.process_time_ns) if threads == 1 else Clock(switches=lambda: 0)


class _Measurement:
    """Writes, opens and times the probes of one table."""

    def __init__(
        self,
        space: Space,
        wanted: Wanted,
        engine: Runtime,
        log: Log,
        folder: Path,
        shown: bars.Progress,
        clock: Clock | None,
        cores: int,
    ):
        self._space, self._wanted, self._engine, self._log = space, wanted, engine, log
        self._folder, self._shown, self._cores = folder, shown, cores
        self._clock = clock or clock_for(engine, wanted.threads)
        self._runners: dict[str, Runner] = {}

    def run(self) -> list[Probe]:
        """All probes; their rounds are in the log."""
        ops, log = op_probes(self._space), self._log
        if not self._wanted.networks:
            self._rounds(ops, self._wanted.repeats, "ops")
            return ops
        if log.networks is None:
            self._rounds(ops, FIRST, "ops, first")
            nameless = {"device": "this", "runtime": "this", "source": {}}
            terms = price(self._space, uncorrected(ops, timings(log.rounds), nameless))
            log.choose(spread(self._space, terms, self._wanted.networks, self._wanted.seed))
        probes = [*ops, *network_probes(self._space, log.networks or [])]
        self._rounds(probes, self._wanted.repeats, "ops and networks")
        return probes

    def _rounds(self, probes: Sequence[Probe], repeats: int, words: str) -> None:
        """Time ``probes`` in groups that fit into memory."""
        for start in range(0, len(probes), TOGETHER):
            group = {p.name: p for p in probes[start : start + TOGETHER]}
            done = [r for r in self._log.rounds if group.keys() & r.keys()]
            if not lacking(group, done, repeats):
                continue
            self._runners = {n: r for n, r in self._runners.items() if n in group}
            models = {n: self._model(p) for n, p in self._each(group, f"probes of {words}") if n not in self._runners}
            timed = self._shown.add_task(f"rounds of {words}", total=repeats, completed=min(len(done), repeats))

            def keep(found: Round, timed: bars.TaskID = timed) -> None:
                self._log.add(found)
                self._shown.advance(timed)

            with first_in_line(self._wanted.threads) as real_time:
                self._log.note({
                    "pinned_cores": self._cores, "real_time_priority": real_time, "governor": machine.governor(),
                    "virtual_machine": machine.virtual(), "untimed_calls_before_each": WARM,
                })  # fmt: skip
                self._runners |= {n: self._engine.open(model, self._wanted.threads) for n, model in models.items()}
                self._name_plain(group)
                tasks: dict[str, Task] = {n: partial(self._runners[n].bind, p.images()) for n, p in group.items()}
                take_turns(tasks, repeats, before=WARM, done=done, each=keep, clock=self._clock, seed=self._wanted.seed)

    def _name_plain(self, group: Mapping[str, Probe]) -> None:
        """Say and keep which probes the accelerator did not take whole."""
        known = len(self._log.plain)
        self._log.name_plain({n: self._runners[n].kernels_left for n in group})
        for name, left in list(self._log.plain.items())[known:] if not self._shown.disable else ():
            self._shown.console.print(f"plain kernels run {', '.join(left)} of {name}: {group[name].about}")

    def _each(self, group: Mapping[str, Probe], words: str) -> Iterator[tuple[str, Probe]]:
        """The probes of ``group``, with a progress bar."""
        task = self._shown.add_task(words, total=len(group))
        for item in group.items():
            yield item
            self._shown.advance(task)

    def _model(self, probe: Probe) -> bytes:
        """The file of ``probe``, written once."""
        path = self._folder / f"{probe.name}{self._engine.suffix}"
        if not path.exists():
            write_bytes(path, self._engine.write(probe.architecture, *weights(probe.architecture)))
        return path.read_bytes()


def _bars(console: Console | None) -> bars.Progress:
    columns = (
        bars.TextColumn("{task.description:<26}"), bars.BarColumn(), bars.MofNCompleteColumn(), bars.TimeElapsedColumn(),
        bars.TextColumn("left"), bars.TimeRemainingColumn(),
    )  # fmt: skip
    return progress(*columns, console=console)
