"""What a person sees of a search: the summary before, a progress bar and one line per epoch during, tables after."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich import progress as bars
from rich.console import Console as RichConsole

from dnas.describe import print_table

if TYPE_CHECKING:
    from dnas.latency.table import LatencyReport
    from dnas.search.engine import Setup
    from dnas.search.whole import SearchResult

# heading, field of a history row, format
_COLUMNS = (
    ("epoch", "epoch", "5d"), ("loss", "train_loss", "7.3f"), ("train", "train_accuracy", "6.1%"),
    ("mixture", "mixture_accuracy", "7.1%"), ("argmax", "argmax_accuracy", "6.1%"), ("E[ms]", "expected_ms", "8.4g"),
    ("argmax ms", "argmax_ms", "9.4g"), ("derived", "derived_ms", "7.4g"), ("T", "temperature", "5.2f"),
    ("entropy", "entropy", "7.2f"), ("skips", "skip_share", "5.0%"),
)  # fmt: skip


class Watcher:
    """Progress bars, one per phase, and one line per epoch; says nothing if ``console`` is None."""

    def __init__(self, console: RichConsole | None):
        self._console = console
        self._tasks: dict[str, bars.TaskID] = {}
        self._headed = False
        columns = (
            bars.TextColumn("{task.description:<9}"), bars.BarColumn(), bars.TaskProgressColumn(),
            bars.MofNCompleteColumn(), bars.TimeElapsedColumn(), bars.TextColumn("left"), bars.TimeRemainingColumn(),
        )  # fmt: skip
        self.bars = bars.Progress(*columns, console=console, disable=console is None, speed_estimate_period=120)

    def begin(self, phase: str, total: int, done: int) -> None:
        self._tasks[phase] = self.bars.add_task(phase, total=total, completed=done)

    def advance(self, phase: str) -> None:
        self.bars.advance(self._tasks[phase])

    def row(self, row: dict[str, Any]) -> None:
        if self._console is None:
            return
        if row["phase"] != "search":
            self.bars.update(self._tasks[row["phase"]], description=f"{row['phase']} {row['train_accuracy']:.1%}")
            return
        if not self._headed:
            self._headed = True
            self.bars.console.print(
                "  ".join(f"{h:>{_width(f)}}" for h, _, f in _COLUMNS), style="bold", highlight=False, markup=False
            )
        cells = (f"{'-':>{_width(f)}}" if row[k] is None else format(row[k], f) for _, k, f in _COLUMNS)
        self.bars.console.print("  ".join(cells), highlight=False, markup=False)


class Console:
    """Prints to the terminal; nothing at all if ``talk`` is False."""

    def __init__(self, talk: bool):
        self._rich = RichConsole(soft_wrap=True) if talk else None

    def note(self, text: str) -> None:
        if self._rich:
            self._rich.print(text, highlight=False, markup=False)

    def summary(self, setup: Setup) -> None:
        """Before the start: space, latency range, table, data, target, warnings."""
        config, schedule = setup.config, setup.schedule
        (fastest, _), (slowest, _) = setup.terms.extreme(1), setup.terms.extreme(-1)
        sizes = {k: len(getattr(setup.splits, k)) for k in ("weights", "architecture", "selection", "test")}
        goal = f"target {config.target_ms:.4g} ms" if config.target_ms else "no target"
        goal += "".join(f", {c.target:.4g} {c.unit} ({c.name})" for c in setup.others)
        self.note(f"space    {setup.space}")
        self.note(f"latency  {fastest:.4g} to {slowest:.4g} ms; {goal}; objective {config.objective}")
        self.note(f"table    {setup.lut.name}: {setup.lut.summary()}")
        self.note(f"data     {setup.dataset.name}: " + ", ".join(f"{n} {k}" for k, n in sizes.items()) + " images")
        self.note(
            f"search   {config.method}, {schedule.epochs} epochs ({schedule.warm_up} of warm-up) of {schedule.weight_steps} "
            f"weight and {schedule.theta_steps} architecture steps, batch {config.batch_size}, seed {config.seed}"
            + (f", on {setup.mesh.size} devices" if setup.mesh else "")
        )
        for warning in (w for c in setup.costs for w in (*c.terms.slowest_warnings, *c.terms.warnings)):
            self.note(f"note     {warning}")
        self.note("")

    @contextlib.contextmanager
    def progress(self) -> Iterator[Watcher]:
        watcher = Watcher(self._rich)
        with watcher.bars:
            yield watcher

    def result(self, result: SearchResult) -> None:
        """After the end: the chosen layers, totals, accuracy, paths."""
        if not self._rich:
            return
        arch, report = result.architecture, result.latency
        print_table(self._rich, arch, (report,))
        self.note("")
        status = f"{report.table.status} for {report.table.device}"
        target = arch.provenance.get("target_ms")
        off = f", {report.total_ms / target - 1:+.1%} from the target" if target else ""
        self.note(f"latency   {report.total_ms:.4g} ms{_interval(report)}, {status}{off}")
        for more in arch.metrics["latency"][1:]:
            self.note(f"          {more['latency_ms']:.4g} ms, {more['status']} for {more['device']}")
        by = result.derivation
        self.note(
            f"chosen    by {by['by']}, of {by['networks']} networks; the likeliest would take {by['argmax_ms']:.4g} ms; "
            f"log-probability given up {by['log_probability_given_up']:.3g}; expected {by['expected_ms']:.4g} ms"
        )
        trained = any(row["phase"] == "training" for row in result.history)
        how = "after the short training" if trained else "with the supernet's weights"
        chosen = f"; the best of {result.draws} networks on these images, so optimistic" if result.draws > 1 else ""
        self.note(f"accuracy  {result.accuracy} on the test images, {how}")
        self.note(f"          {result.inherited} on the selection images, with the supernet's weights{chosen}")
        for warning in result.warnings:
            self.note(f"note      {warning}")
        if result.folder:
            for name in ("architecture.json", "history.jsonl", "config.json", "search.png", "checkpoint"):
                self.note(f"written   {result.folder / name}")


def _interval(report: LatencyReport) -> str:
    """Where the measured latency is expected to lie; nothing where the table cannot say."""
    return f" ({report.interval_ms[0]:.4g} to {report.interval_ms[1]:.4g})" if report.interval_ms else ""


def _width(spec: str) -> int:
    return max(int(spec.split(".")[0].rstrip("d%")), 0)
