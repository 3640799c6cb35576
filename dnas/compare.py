"""Several finished searches side by side: ``python -m dnas.compare RUN...`` prints a table, writes a figure, or gives JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from dnas.arch import Architecture
from dnas.cli import command
from dnas.errors import RunError
from dnas.files import dump_json, kind, write_bytes
from dnas.runs import read_config, read_history


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """Compare finished searches: accuracy with its interval, latency, size, and what differs between their options."""

    runs: Positional[tuple[str, ...]] = ()
    """Run folders of dnas.search. No unit. At least one."""
    figure: str | None = None
    """Where to write a figure (.png, .pdf, .svg). A path. Default: none is drawn."""
    json: bool = False
    """Print JSON. No unit."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished search: its network with metrics and provenance, its options, its history."""

    name: str
    architecture: Architecture
    options: dict[str, Any]
    history: list[dict[str, Any]]

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Run:
        """Errors: RunError for a folder that is no run, or whose search is not finished (and how to finish it)."""
        where = Path(folder)
        options = read_config(os.fspath(folder), "")["search"]
        options = {**options, "theta_images": options.get("theta_images") or "own"}  # earlier versions do not say it
        if several := [p.parent.name for p in sorted(where.glob("*/config.json"))]:
            raise RunError(f"{where} holds several searches; give them one by one: {', '.join(several)} below it")
        if not kind(where / "architecture.json"):
            raise RunError(f"{where}: this search is not finished; run: python -m dnas.search --resume {where}")
        network = Architecture.load(where / "architecture.json")
        if missing := {"accuracy", "latency"} - set(network.metrics):
            raise RunError(
                f"{where / 'architecture.json'} has no {' and no '.join(sorted(missing))}; expected a search's result"
            )
        return cls(where.name, network, options, read_history(where))

    def to_dict(self) -> dict[str, Any]:
        """The row of the table, as data; latencies as ``metrics`` has them."""
        found, by = self.architecture, self.architecture.provenance
        last: dict[str, Any] = next((r for r in reversed(self.history) if r["phase"] == "search"), {})
        return {
            "run": self.name, "space": by.get("space"), "method": by.get("method"), "seed": by.get("seed"),
            "target_ms": by.get("target_ms"), "accuracy": found.metrics["accuracy"], "latency": found.metrics["latency"],
            "params": found.params, "macs": found.macs, "entropy": last.get("entropy"), "data_sha256": by.get("data_sha256"),
        }  # fmt: skip


def differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Options that are not equal in all runs (seeds apart), with the value of each run."""
    names = dict.fromkeys(k for run in runs for k in run.options if k not in ("seed", "out", "resume", "checkpoint_s"))
    values = {k: [run.options.get(k) for run in runs] for k in names}
    return {k: v for k, v in values.items() if any(other != v[0] for other in v)}


def groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs whose options are equal but for the seed."""
    found: dict[str, list[Run]] = {}
    names = list(differences(runs))
    for run in runs:
        found.setdefault(json.dumps([run.options.get(k) for k in names]), []).append(run)
    return list(found.values())


def summary(group: Sequence[Run]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds of one group (None for one seed)."""
    figures = {
        "accuracy": [r.architecture.metrics["accuracy"]["top1"] for r in group],
        "latency_ms": [r.architecture.metrics["latency"][0]["latency_ms"] for r in group],
    }
    return {
        "runs": [r.name for r in group], "seeds": [r.options.get("seed") for r in group], "n": len(group),
        **{k: {"mean": statistics.mean(v), "sd": statistics.stdev(v) if len(v) > 1 else None} for k, v in figures.items()},
    }  # fmt: skip


def warnings(runs: Sequence[Run]) -> list[str]:
    """What makes the figures of these runs incomparable."""
    found = []
    if len({r.architecture.provenance.get("data_sha256") for r in runs}) > 1:
        found.append("The runs are on different images: accuracies cannot be compared.")
    tables = {(p["table"], p["sha256"]) for r in runs for p in r.architecture.metrics["latency"][:1]}
    if len(tables) > 1:
        found.append(f"Latencies are by {len(tables)} different tables ({', '.join(sorted(n for n, _ in tables))}).")
    return found


def to_dict(runs: Sequence[Run]) -> dict[str, Any]:
    """The answer of ``--json``."""
    return {
        "runs": [run.to_dict() for run in runs], "groups": [summary(g) for g in groups(runs)],
        "differences": differences(runs), "warnings": warnings(runs),
    }  # fmt: skip


def main(config: CompareConfig) -> int:
    """Print the comparison, and draw it."""
    if not config.runs:
        raise RunError("no run was given; expected run folders, such as: python -m dnas.compare runs/a runs/b")
    runs = [Run.load(folder) for folder in config.runs]
    if config.figure:
        _draw(runs, config.figure)
    if config.json:
        print(dump_json(to_dict(runs)), end="")
        return 0
    _print(runs)
    return 0


def _draw(runs: Sequence[Run], path: str) -> None:
    import io

    from dnas.plot.compare import draw, info

    picture, form = io.BytesIO(), Path(path).suffix.lstrip(".").lower()
    if form not in ("png", "pdf", "svg"):
        raise RunError(f"--figure {path}: expected a name that ends in .png, .pdf or .svg")
    draw(info(runs)).savefig(picture, format=form, dpi=150)
    write_bytes(path, picture.getvalue())


def _print(runs: Sequence[Run]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    for heading in ("run", "space", "method", "seed", "target ms", "ms", "params", "MACs", "accuracy, 95 % interval", "n"):
        table.add_column(heading, justify="left" if heading in ("run", "space", "method") else "right", no_wrap=True)
    for row in map(Run.to_dict, runs):
        accuracy, target = row["accuracy"], row["target_ms"]
        low, high = accuracy["interval95"]
        table.add_row(
            row["run"], str(row["space"]), str(row["method"]), str(row["seed"]), f"{target:.4g}" if target else "-",
            f"{row['latency'][0]['latency_ms']:.4g}", f"{row['params']:,}", f"{row['macs']:,}",
            f"{accuracy['top1']:.2%} ({low:.2%} to {high:.2%})", str(accuracy["n"]),
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 1000).print(table)
    for group in groups(runs):
        if len(group) > 1:
            found = summary(group)
            means = f"{found['accuracy']['mean']:.2%} (sd {found['accuracy']['sd']:.2%}), {found['latency_ms']['mean']:.4g} ms"
            print(f"mean      of {found['n']} seeds ({', '.join(found['runs'])}): {means}")
    for name, values in differences(runs).items():
        print(f"differs   --{name.replace('_', '-')}: {', '.join(map(str, values))}")
    for warning in warnings(runs):
        print(f"note      {warning}")


if __name__ == "__main__":
    sys.exit(command("python -m dnas.compare", CompareConfig, main))
