"""What a person sees of a search: the summary before, a progress bar and one line per epoch during, tables after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dnas import notebook
from dnas.console import Talker
from dnas.describe import print_table
from dnas.search.results import FamilyResult, SearchResult, SeedsResult

if TYPE_CHECKING:
    from dnas.latency.table import LatencyReport
    from dnas.search.engine import Setup

# heading, field of a history row, format
_COLUMNS = (
    ("epoch", "epoch", "5d"), ("loss", "train_loss", "7.3f"), ("train", "train_accuracy", "6.1%"),
    ("mixture", "mixture_accuracy", "7.1%"), ("argmax", "argmax_accuracy", "6.1%"), ("E[ms]", "expected_ms", "8.4g"),
    ("argmax ms", "argmax_ms", "9.4g"), ("derived", "derived_ms", "7.4g"), ("T", "temperature", "5.2f"),
    ("entropy", "entropy", "7.2f"), ("skips", "skip_share", "5.0%"),
)  # fmt: skip


class Console(Talker):
    """Prints to the terminal; nothing at all if ``talk`` is False."""

    phase, columns = "search", _COLUMNS

    def summary(self, setup: Setup) -> None:
        """Before the start: space, latency range, table, data, target, warnings."""
        config, schedule = setup.config, setup.schedule
        (fastest, _), (slowest, _) = setup.terms.extreme(1), setup.terms.extreme(-1)
        sizes = {k: len(getattr(setup.splits, k)) for k in ("weights", "architecture", "selection", "test")}
        targets = [t for t in (config.target_ms, *config.family_ms) if t]
        goal = f"target {', '.join(f'{t:.4g}' for t in targets)} ms" if targets else "no target"
        goal += "".join(f", {c.target:.4g} {c.unit} ({c.name})" for c in setup.others)
        self.note(f"space    {setup.space}")
        self.note(f"latency  {fastest:.4g} to {slowest:.4g} ms; {goal}; objective {config.objective or 'none'}")
        self.note(f"table    {setup.lut.name}: {setup.lut.summary()}")
        also = {"architecture": " (the weights learn from them, too)"} if config.theta_images == "weights" else {}
        counts = ", ".join(f"{n} {k}{also.get(k, '')}" for k, n in sizes.items())
        self.note(f"data     {setup.dataset.name}: {counts} images")
        self.note(
            f"search   {config.method}, {schedule.epochs} epochs ({schedule.warm_up} of warm-up) of {schedule.weight_steps} "
            f"weight and {schedule.theta_steps} architecture steps, batch {config.batch_size}, seed {config.seed}"
            + (f" to {config.seed + config.seeds - 1}" if config.seeds > 1 else "")
            + (f", on {setup.mesh.size} devices" if setup.mesh else "")
        )
        if config.from_supernet:
            self.note(f"weights  those of {config.from_supernet}, as they are")
        for warning in (w for c in setup.costs for w in (*c.terms.slowest_warnings, *c.terms.warnings)):
            self.note(f"note     {warning}")
        self.note("")

    def result(self, result: SearchResult | FamilyResult | SeedsResult) -> None:
        """After the end: what was found, and the paths."""
        if not self._rich:
            return
        if isinstance(result, SearchResult):
            self._network(result)
            names = ["architecture.json", "report.html", "history.jsonl", "config.json", "search.png", "checkpoint"]
        elif isinstance(result, FamilyResult):
            self._family(result)
            names = ["family.json", "pareto.png", *(f"{r.label}/architecture.json" for r in result.results)]
        else:
            self._seeds(result)
            names = ["seeds.json"]
        for name in names if result.folder else ():
            self.note(f"written   {result.folder}/{name}")

    def _network(self, result: SearchResult) -> None:
        """The chosen layers, totals, accuracy."""
        assert self._rich
        arch, report = result.architecture, result.latency
        if not notebook.running():  # where the result shows its layers itself
            print_table(self._rich, arch, (report,))
            self.note("")
        status = f"{report.table.status} for {report.table.device}"
        off = f", {report.total_ms / result.target_ms - 1:+.1%} from the target" if result.target_ms else ""
        self.note(f"latency   {report.total_ms:.4g} ms{_interval(report)}, {status}{off}")
        for more in arch.metrics["latency"][1:]:
            self.note(f"          {more['latency_ms']:.4g} ms, {more['status']} for {more['device']}")
        for name, cost in arch.metrics["costs"].items():
            self.note(f"{name:<9} {cost['value']:.4g} {cost['unit']}, target {cost['target']:.4g}")
        by, probable = result.derivation, ""
        if result.learned:
            probable = (
                f"; the likeliest would take {by['argmax_ms']:.4g} ms; log-probability given up "
                f"{by['log_probability_given_up']:.3g}; expected {by['expected_ms']:.4g} ms"
            )
        self.note(f"chosen    by {result.chosen_by}, of {by['networks']} networks{probable}")
        trained = any(row["phase"] == "training" for row in result.history)
        how = "after the short training" if trained else "with the supernet's weights"
        self.note(f"accuracy  {result.accuracy} on the test images, {how}")
        self.note(f"          {result.inherited} on the selection images, with the supernet's weights{result.caveat}")
        for warning in result.warnings:
            self.note(f"note      {warning}")

    def _family(self, result: FamilyResult) -> None:
        """A line for each member."""
        self._table(*result.table())
        self.note(f"front     {', '.join(result.to_dict()['front'])}: no other member is both as fast and as accurate")
        for warning in dict.fromkeys(w for r in result.results for w in r.warnings):
            self.note(f"note      {warning}")

    def _seeds(self, result: SeedsResult) -> None:
        """Mean, standard deviation and range of every figure."""
        for caption, headings, rows in result.tables():
            self.note(caption)
            self._table(headings, rows)

    def _table(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        from rich.table import Table

        assert self._rich
        table = Table(show_edge=False, pad_edge=False)
        for heading in headings:
            table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        self._rich.print(table)


def _interval(report: LatencyReport) -> str:
    """Where the measured latency is expected to lie; nothing where the table cannot say."""
    return f" ({report.interval_ms[0]:.4g} to {report.interval_ms[1]:.4g})" if report.interval_ms else ""
