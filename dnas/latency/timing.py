"""How long calls take, on a machine that others use too.

All calls take turns: a **round** runs each of them once, in an order of its own, so that whatever drifts (clock frequency,
temperature, other jobs) meets all alike, and so that no call finds its weights in the caches because it ran just before. A call
during which the kernel gave its core to another job is a **disturbed** sample; a round in which calls were slower in general
is disturbed as a whole. Both are kept in the record, left out of the figures, and made up for by further rounds.

Figures are the median and the 10th and 90th percentile over undisturbed samples: a mean would follow the few slow ones, and
a minimum depends on how often one looks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from dnas.errors import LatencyError
from dnas.files import shown

Call = Callable[[], object]
Task = Callable[[], Call]
"""Makes the input ready (not timed) and returns the call to time: ``partial(runner.bind, images)``."""

SLOW = 1.1  # a round is disturbed if its calls took this many times what they usually take, in the median
JUDGED = 8  # samples from which a round can be judged as a whole
MORE = 3  # at most so many times the rounds that were wanted, in one go
LOST = 0.05  # of a call's time without a core, by which it is disturbed
HAND_OVER_NS = 30_000  # what handing a call to another thread and back may take
LEAST = 3  # undisturbed samples below which there is no figure


@dataclasses.dataclass(frozen=True)
class Sample:
    """One timed call. ``disturbed``: another job had the core in between."""

    ms: float
    disturbed: bool = False


Round = Mapping[str, Sample]
"""Sample by task name, of the tasks that ran in this round."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """ms per call over ``count`` undisturbed samples; ``dropped`` others are not in the figures."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    least_ms: float
    count: int
    dropped: int = 0

    @classmethod
    def of(cls, ms: Sequence[float], dropped: int = 0) -> Timing:
        """From one or more undisturbed samples.

        >>> Timing.of([3.0, 1.0, 2.0, 9.0, 2.5]).median_ms
        2.5
        """
        tenths = statistics.quantiles(ms, n=10, method="inclusive") if len(ms) > 1 else [ms[0]] * 9
        return cls(statistics.median(ms), tenths[0], tenths[-1], min(ms), len(ms), dropped)

    def to_dict(self) -> dict[str, Any]:
        return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in dataclasses.asdict(self).items()}


@dataclasses.dataclass(frozen=True)
class Clock:
    """Where times come from: ``ns``, and ``switches``, how often the kernel took a core from this process.

    ``cpu_ns``: CPU time of this process, by which a call is judged instead where it is given: for runtimes that compute in a
    thread of their own, between which and the caller's the kernel switches anyway. One core only.
    """

    ns: Callable[[], int] = time.perf_counter_ns
    switches: Callable[[], int] = lambda: _switches()
    cpu_ns: Callable[[], int] | None = None


def take_turns(
    tasks: Mapping[str, Task],
    wanted: int,
    *,
    warm_up: int = 1,
    before: int = 0,
    done: Sequence[Round] = (),
    each: Callable[[Round], None] | None = None,
    clock: Clock | None = None,
    seed: int = 0,
) -> list[Round]:
    """Rounds until every task has ``wanted`` undisturbed samples; those in ``done`` count. At most three times ``wanted`` are
    added, so that what was given up on a busy machine goes on when it is quiet.

    Arguments: ``warm_up``, untimed calls of each task at first; ``before``, untimed calls of a task directly before each timed
    one: 0 finds its weights where the other tasks left them, as in a network, 1 finds them in the caches. ``each`` is told of
    every round as it ends (to keep it: a run that is stopped goes on from ``done``).
    """
    clock = clock or Clock()
    rounds, order = list(done), list(tasks)
    shuffle = random.Random(f"{seed}/{len(rounds)}")
    wanting = lacking(tasks, rounds, wanted)
    for name in sorted(wanting):
        call = tasks[name]()
        for _ in range(warm_up):
            call()
    while wanting and len(rounds) - len(done) < MORE * wanted:
        shuffle.shuffle(order)
        found = {name: _timed(tasks[name](), before, clock) for name in order if name in wanting}
        rounds.append(found)
        if each:
            each(found)
        wanting = lacking(tasks, rounds, wanted)
    return rounds


def timings(rounds: Sequence[Round]) -> dict[str, Timing]:
    """Figures of every task that ran in ``rounds``. Errors: LatencyError for one that was disturbed (nearly) always."""
    kept = undisturbed(rounds)
    figures = {}
    for name in dict.fromkeys(n for found in rounds for n in found):
        ms, seen = kept.get(name, []), sum(name in found for found in rounds)
        if len(ms) < min(LEAST, seen):
            raise LatencyError(
                f"{shown(name)}: {seen - len(ms)} of {seen} calls were disturbed by other jobs; stop those, or run this again "
                "when the machine is quiet"
            )
        figures[name] = Timing.of(ms, seen - len(ms))
    return figures


def undisturbed(rounds: Sequence[Round]) -> dict[str, list[float]]:
    """ms of the undisturbed samples of each task, those of rounds that were slow as a whole left out."""
    calm: dict[str, list[float]] = {}
    for found in rounds:
        for name, sample in found.items():
            if not sample.disturbed:
                calm.setdefault(name, []).append(sample.ms)
    usual = {name: statistics.quantiles(ms, n=4)[0] if len(ms) > 2 else min(ms) for name, ms in calm.items()}
    kept: dict[str, list[float]] = {}
    for found in rounds:
        good = {name: s.ms for name, s in found.items() if not s.disturbed}
        ratios = [ms / usual[name] for name, ms in good.items() if usual[name]]
        if len(ratios) >= JUDGED and statistics.median(ratios) > SLOW:
            continue
        for name, ms in good.items():
            kept.setdefault(name, []).append(ms)
    return kept


def lacking(tasks: Collection[str], rounds: Sequence[Round], wanted: int) -> set[str]:
    """Names of ``tasks`` that have fewer than ``wanted`` undisturbed samples."""
    kept = undisturbed(rounds)
    return {name for name in tasks if len(kept.get(name, [])) < wanted}


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[tuple[int, ...]]:
    """This thread, and those that it starts, on ``threads`` cores (the last of those it may use); yields their numbers.

    Where the system cannot (macOS, Windows), or has fewer cores, nothing is pinned and () is yielded.
    """
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    cores = tuple(allowed[-threads:]) if threads <= len(allowed) else ()
    try:
        if cores:
            os.sched_setaffinity(0, cores)
        yield cores
    finally:
        if cores:
            os.sched_setaffinity(0, allowed)


@contextlib.contextmanager
def first_in_line(threads: int) -> Iterator[bool]:
    """Real-time priority for this thread and those that it starts, so that other jobs wait for it; yields whether it has it.

    Only where the system lets the process have it (Linux; root, or ``CAP_SYS_NICE``), and a core is left for the others.
    """
    policy = None
    if hasattr(os, "sched_setscheduler") and threads < (os.cpu_count() or 1):
        with contextlib.suppress(OSError):
            policy = os.sched_getscheduler(0)
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield policy is not None and os.sched_getscheduler(0) == os.SCHED_FIFO
    finally:
        if policy is not None:
            with contextlib.suppress(OSError):
                os.sched_setscheduler(0, policy, os.sched_param(0))


def _timed(call: Call, before: int, clock: Clock) -> Sample:
    for _ in range(before):
        call()
    switches, busy = clock.switches(), clock.cpu_ns and clock.cpu_ns()
    start = clock.ns()
    call()
    end = clock.ns()
    if clock.cpu_ns is None:
        disturbed = clock.switches() != switches
    else:
        lost = end - start - (clock.cpu_ns() - (busy or 0))
        disturbed = lost > LOST * (end - start) + HAND_OVER_NS
    return Sample((end - start) / 1e6, disturbed)


def _switches() -> int:
    """Involuntary context switches of this process so far; 0 where the system does not count them (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
