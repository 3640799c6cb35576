"""Timing: turns, disturbed samples and rounds, resuming, figures, on a machine that is made up."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnas.errors import LatencyError
from dnas.latency.timing import Clock, Round, Sample, Task, Timing, pinned, take_turns, timings, undisturbed


class Machine:
    """Calls that take given times; some are interrupted, some rounds are slow. Time passes only in calls."""

    def __init__(
        self, slow: Callable[[int], float] = lambda call: 1.0, interrupted: Callable[[int], bool] = lambda call: False
    ):
        self.now = self.switches = 0
        self.slow, self.interrupted = slow, interrupted
        self.log: list[str] = []
        self.clock = Clock(lambda: self.now, lambda: self.switches)

    def task(self, name: str, ms: float) -> Task:
        def call() -> None:
            number = len(self.log)
            self.log.append(name)
            self.now += round(1e6 * ms * self.slow(number))
            if self.interrupted(number):
                self.switches += 1
                self.now += 10**9

        return lambda: call

    def tasks(self, ms: Sequence[float]) -> dict[str, Task]:
        return {f"t{i}": self.task(f"t{i}", value) for i, value in enumerate(ms)}


MS = [0.25 * (i + 1) for i in range(10)]


def test_every_task_runs_once_in_every_round_in_orders_of_their_own() -> None:
    machine = Machine()
    rounds = take_turns(machine.tasks(MS), 5, warm_up=2, clock=machine.clock)
    assert sorted(machine.log[:20]) == sorted(2 * list(machine.tasks(MS)))
    orders = [tuple(machine.log[i : i + 10]) for i in range(20, 70, 10)]
    assert len(machine.log) == 70 and len(set(orders)) > 1
    assert all(sorted(o) == sorted(machine.tasks(MS)) for o in orders)
    assert {n: t.median_ms for n, t in timings(rounds).items()} == pytest.approx({f"t{i}": v for i, v in enumerate(MS)})


def test_untimed_calls_come_directly_before_timed_ones() -> None:
    machine = Machine()
    take_turns(machine.tasks(MS[:3]), 4, warm_up=0, before=2, clock=machine.clock)
    log = machine.log
    assert len(log) == 36 and all(len(set(log[i : i + 3])) == 1 for i in range(0, 36, 3))


def test_interrupted_calls_are_left_out_and_made_up_for() -> None:
    machine = Machine(interrupted=lambda call: call % 4 == 0)
    figures = timings(take_turns(machine.tasks(MS), 6, warm_up=0, clock=machine.clock))
    assert {n: t.p90_ms for n, t in figures.items()} == pytest.approx({f"t{i}": v for i, v in enumerate(MS)})
    assert all(t.count >= 6 for t in figures.values()) and sum(t.dropped for t in figures.values()) > 10


def test_slow_rounds_are_left_out_and_made_up_for() -> None:
    machine = Machine(slow=lambda call: 1.5 if call // 10 in (1, 2) else 1.0)
    rounds = take_turns(machine.tasks(MS), 6, warm_up=0, clock=machine.clock)
    figures = timings(rounds)
    assert len(rounds) == 8 and all((t.count, t.dropped) == (6, 2) for t in figures.values())
    assert {n: t.p90_ms for n, t in figures.items()} == pytest.approx({f"t{i}": v for i, v in enumerate(MS)})


def test_a_task_that_is_always_disturbed_has_no_figure() -> None:
    machine = Machine(interrupted=lambda call: machine.log[call] == "t2")
    rounds = take_turns(machine.tasks(MS[:4]), 5, clock=machine.clock)
    assert len(rounds) == 15
    with pytest.raises(LatencyError, match=r"'t2': 15 of 15 calls were disturbed"):
        timings(rounds)
    more = take_turns(Machine().tasks(MS[:4]), 5, clock=Machine().clock, done=rounds)  # the machine is quiet again
    assert len(more) == 20 and timings(more)["t2"].count == 5


def test_a_stopped_run_goes_on_from_its_rounds() -> None:
    machine, kept = Machine(), list[Round]()

    def stop_after_three(found: Round) -> None:
        kept.append(found)
        if len(kept) == 3:
            raise KeyboardInterrupt

    tasks = machine.tasks(MS)
    with pytest.raises(KeyboardInterrupt):
        take_turns(tasks, 5, clock=machine.clock, each=stop_after_three)
    rounds = take_turns(tasks, 5, clock=machine.clock, done=kept)
    assert rounds[:3] == kept and len(rounds) == 5
    assert take_turns(tasks, 5, clock=machine.clock, done=rounds) == rounds
    more = take_turns(tasks | {"new": machine.task("new", 1.0)}, 5, clock=machine.clock, done=rounds)
    assert [set(r) for r in more[5:]] == [{"new"}] * 5  # the others have theirs


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=50))
def test_figures_are_the_sample_quantiles(ms: list[float]) -> None:
    figure = Timing.of(ms)
    assert figure.least_ms == min(ms) and figure.count == len(ms) and figure.median_ms == statistics.median(ms)
    np.testing.assert_allclose([figure.p10_ms, figure.p90_ms], np.quantile(ms, [0.1, 0.9]), rtol=1e-9)
    assert figure.least_ms <= figure.p10_ms * (1 + 1e-12) and figure.p90_ms <= max(ms) * (1 + 1e-12)


def test_few_tasks_cannot_show_a_slow_round() -> None:
    rounds = [{"only": Sample(1.0 + 0.5 * (i % 2))} for i in range(10)]
    assert undisturbed(rounds)["only"] == [s.ms for r in rounds for s in r.values()]


def test_pinning_is_undone() -> None:
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system pins nothing")
    before = os.sched_getaffinity(0)
    with pinned(1) as cores:
        assert os.sched_getaffinity(0) == set(cores) and len(cores) == 1
    with pinned(len(before) + 1) as cores:
        assert cores == () and os.sched_getaffinity(0) == before
    assert os.sched_getaffinity(0) == before


def test_the_real_clock_counts() -> None:
    figures = timings(take_turns({"sum": lambda: lambda: sum(range(1000))}, 3))
    assert figures["sum"].least_ms > 0 and figures["sum"].count >= 3
