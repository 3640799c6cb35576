"""Are targets met: searches for targets spread over the reachable range, from several seeds.

    python -m benchmarks.targets                                    # fbnet_mini: 5 targets, 5 seeds
    python -m benchmarks.targets --space fbnet_cifar --targets 1 --seeds 3 --steps 300 --method gdas

Reported for each search: expected latency under softmax(theta) at its end, and latency of the derived network, both relative to
the target. Nothing is trained after the search (``train_epochs=0``): accuracy is not the question here. Targets lie at equal
distances inside the range that networks of the space can have, on the table ``samsung_s8.json``. Results are written to
benchmarks/results/targets.json after every search, seed by seed; a search that is there is not run again, and one that was
interrupted continues where its run folder stands.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import tyro

import dnas
from benchmarks.machine import machine
from dnas.config import SearchConfig
from dnas.data import load, split
from dnas.errors import DnasError
from dnas.runs import Journal
from dnas.search import SearchResult, Setup, prepare
from dnas.search.console import Console
from dnas.search.finish import finish
from dnas.space import load_space

RESULT = Path(__file__).parent / "results" / "targets.json"
TABLE = "samsung_s8.json"
KEPT = ("seed", "expected_ms", "argmax_ms", "latency_ms", "entropy", "skip_share", "genotype")


@dataclasses.dataclass(frozen=True)
class Options:
    """Searches for targets spread over the reachable range."""

    space: str = "fbnet_mini"
    """A space that ships."""
    data: str = "digits"
    """Images, as --data of dnas.search."""
    method: str = "gumbel"
    """Search method."""
    targets: int = 5
    """Number of targets: i / (n + 1) of the way from the fastest to the slowest network."""
    seeds: int = 5
    """Seeds per target."""
    epochs: int = 25
    """Epochs of each search."""
    steps: int | None = None
    """Steps of weights and architecture together, about, in place of --epochs."""
    batch_size: int = 64
    """Images per step."""
    derive_samples: int = 32
    """Networks compared at the end of each search."""
    runs: str = "runs/targets"
    """Folder for the runs."""


def wanted(options: Options) -> list[float]:
    """Targets in ms, rounded to four digits."""
    lut = dnas.LatencyTable.load(TABLE)
    fastest, slowest = load_space(options.space).at(num_classes=load(options.data).num_classes).latency_range(lut)
    shares = [(i + 1) / (options.targets + 1) for i in range(options.targets)]
    return [float(f"{fastest + share * (slowest - fastest):.4g}") for share in shares]


def epochs(options: Options) -> int:
    """--epochs, or as many as take about --steps steps (seven tenths of the epochs have architecture steps)."""
    if options.steps is None:
        return options.epochs
    parts = split(load(options.data), 0)
    weights, theta = (max(len(p) // options.batch_size, 1) for p in (parts.weights, parts.architecture))
    return max(round(options.steps / (weights + 0.7 * theta)), 2)


def searched(options: Options, target_ms: float, seed: int, like: Setup | None) -> tuple[dict[str, Any], Setup]:
    """One search, continued where it stands; ``like``: one before, whose compiled programs it shares."""
    given: dict[str, Any] = {"epochs": epochs(options), "train_epochs": 0}
    given |= {k: getattr(options, k) for k in ("space", "data", "batch_size", "method", "derive_samples")}
    config = SearchConfig(lut=TABLE, target_ms=target_ms, seed=seed, devices=1, **given)
    dataset, space = load(config.data), load_space(config.space)
    setup = dataclasses.replace(prepare(config, space, dnas.LatencyTable.load(TABLE), dataset), like=like)
    folder = Path(options.runs) / f"{options.space}-{options.method}-{config.epochs}-{target_ms:g}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    start = time.process_time()
    found = finish(setup, Journal.resume(folder, config.checkpoint_s), Console(False))
    assert isinstance(found, SearchResult)
    figures = found.figures()
    row = {
        **given, "data": dataset.name, "target_ms": target_ms, **{k: figures[k] for k in KEPT},
        "steps": found.architecture.provenance["step"], "proven": found.derivation.get("proven"),
        "cpu_s": round(time.process_time() - start, 1), "table": TABLE, "table_sha256": found.latency.table.sha256,
        "space_sha256": found.space.fingerprint, "dnas": dnas.__version__,
    }  # fmt: skip
    return row, setup


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The two claims, over all searches of each space and method."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(f"{row['space']}, {row['method']}, {row['epochs']} epochs", []).append(row)
    return {
        name: {
            "searches": len(found), "targets": len({r["target_ms"] for r in found}), "seeds": len({r["seed"] for r in found}),
            "expected_off_largest": max(abs(r["expected_ms"] / r["target_ms"] - 1) for r in found),
            "expected_within_2_percent": sum(abs(r["expected_ms"] / r["target_ms"] - 1) <= 0.02 for r in found),
            "derived_off_range": [f(r["latency_ms"] / r["target_ms"] - 1 for r in found) for f in (min, max)],
            "derived_above_target": sum(r["latency_ms"] > r["target_ms"] for r in found),
        } for name, found in groups.items()
    }  # fmt: skip


def main(options: Options) -> None:
    body: dict[str, Any] = {"command": "python -m benchmarks.targets", "machine": machine(), "summary": {}, "searches": []}
    if RESULT.exists():
        body = json.loads(RESULT.read_text())
    like: Setup | None = None
    for seed, target_ms in itertools.product(range(options.seeds), wanted(options)):
        asked = {
            "space": options.space,
            "method": options.method,
            "epochs": epochs(options),
            "target_ms": target_ms,
            "seed": seed,
        }
        if any(all(row[k] == v for k, v in asked.items()) for row in body["searches"]):
            continue
        row, setup = searched(options, target_ms, seed, like)
        like = like or setup
        body["searches"].append(row)
        body["summary"] = summary(body["searches"])
        RESULT.write_text(json.dumps(body, indent=1) + "\n")
        print({k: row[k] for k in ("target_ms", "seed", "expected_ms", "latency_ms", "cpu_s")}, flush=True)
    print(json.dumps(body["summary"], indent=1))


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except DnasError as problem:
        print(f"error: {problem}", file=sys.stderr)
        raise SystemExit(2) from None
