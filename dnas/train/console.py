"""What a person sees of a training: the summary before, one line per epoch, the evaluation after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from dnas.console import Talker

if TYPE_CHECKING:
    from dnas.train.whole import Setup, TrainResult

FILES = (
    "architecture.json", "weights.safetensors", "preprocessing.json", "evaluation.json", "history.jsonl", "config.json",
    "train.png", "checkpoint",
)  # fmt: skip
SHOWN = 20  # classes; of more, only the worst are printed


class Console(Talker):
    """Prints to the terminal; nothing at all if ``talk`` is False."""

    phase = "training"
    columns = (
        ("epoch", "epoch", "5d"), ("lr", "lr", "9.3g"), ("loss", "train_loss", "7.3f"), ("train", "train_accuracy", "6.1%"),
        ("held loss", "validation_loss", "9.3f"), ("held out", "validation_accuracy", "8.2%"),
    )  # fmt: skip

    def summary(self, setup: Setup) -> None:
        """Before the start: network, data, recipe."""
        config, (train, held) = setup.config, setup.parts
        test = f", {len(held)} held out" if held is not None else ""
        self.note(f"network  {setup.architecture}; sha256 {setup.architecture.fingerprint[:16]}")
        self.note(
            f"data     {setup.dataset.name}: {len(train)} training images{test}, {len(setup.dataset.test)} test images, "
            f"{setup.dataset.num_classes} classes; normalised by {setup.normalise}"
        )
        devices = f", on {setup.phase.mesh.size} devices" if setup.phase.mesh else ""
        self.note(
            f"training {config.preset}: {config.epochs} epochs of {setup.phase.feed.steps_per_epoch} steps, batch "
            f"{setup.phase.feed.batch_size}, {config.optimiser}, lr {config.lr:g}, {config.augment}, seed {config.seed}"
            f"{devices}"
        )
        for remark in setup.remarks:
            self.note(f"note     {remark}")
        self.note("")

    def result(self, result: TrainResult) -> None:
        """After the end: accuracies, classes, paths."""
        if not self._rich:
            return
        found = result.evaluation
        rows = found.table()
        worst = sorted(rows, key=lambda r: (r["recall"] is None, r["recall"] or 0.0))
        if len(rows) > 1:
            table = Table(title=None if len(rows) <= SHOWN else f"the {SHOWN} classes with the lowest recall")
            for head, side in (("class", "left"), ("n", "right"), ("recall", "right"), ("precision", "right"), ("F1", "right")):
                table.add_column(head, justify=side)  # type: ignore[arg-type]
            table.add_column("mistaken for")
            for row in rows if len(rows) <= SHOWN else worst[:SHOWN]:
                figures = ("-" if row[k] is None else f"{row[k]:.1%}" for k in ("recall", "precision", "f1"))
                table.add_row(row["class"], str(row["n"]), *figures, row["mistaken_for"] or "")
            self._rich.print(table, markup=False)
        self.note(f"accuracy  {found.accuracy} on the test images")
        if len(rows) > 5:
            self.note(f"          {found.top(5)} top-5")
        self.note(f"          cross-entropy {found.loss:.4f}, calibration error {found.calibration()[0]:.2%}")
        for warning in result.warnings:
            self.note(f"note      {warning}")
        if result.folder:
            for name in FILES:
                if (result.folder / name).exists():
                    self.note(f"written   {result.folder / name}")
