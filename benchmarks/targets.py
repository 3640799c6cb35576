"""Are targets met: searches for targets spread over the reachable range, from several seeds.

    python -m benchmarks.targets                                    # fbnet_mini: 5 targets, 5 seeds
    python -m benchmarks.targets --space fbnet_cifar --targets 1 --seeds 3 --steps 300 --method gdas

Reported for each search: expected latency under softmax(theta) at its end, and latency of the derived network, both relative to
the target. Nothing is trained after the search (``train_epochs=0``): accuracy is not the question here. Targets lie at equal
distances inside the range that networks of the space can have, on the table ``samsung_s8.json``. Results are written to
benchmarks/results/targets.json after every target; a target that is there is not run again (delete the entry to do so), and a
search that was interrupted continues where its run folder stands.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import tyro

import dnas
from benchmarks.machine import machine
from dnas.data import load, split
from dnas.errors import DnasError
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


def searched(options: Options, target_ms: float) -> dict[str, Any]:
    """The searches for one target, continued where they stand."""
    given: dict[str, Any] = {"epochs": epochs(options), "train_epochs": 0}
    given |= {k: getattr(options, k) for k in ("batch_size", "method", "derive_samples")}
    folder = Path(options.runs) / f"{options.space}-{options.method}-{given['epochs']}-{target_ms:g}"
    start, begun = time.perf_counter(), (folder / "config.json").exists()
    if begun:
        result = dnas.search.resume(folder)
    else:
        more: dict[str, Any] = {"target_ms": target_ms, "seeds": options.seeds, "out": folder, "devices": 1}
        result = dnas.search.run(options.space, TABLE, options.data, **more, **given)
    rows = []
    for found in result.results:
        figures = found.figures()
        steps = found.architecture.provenance["step"]
        rows.append({k: figures[k] for k in KEPT} | {"steps": steps, "proven": found.derivation.get("proven")})
    return {
        "space": options.space, "data": found.architecture.metrics["accuracy"]["data"], "target_ms": target_ms, **given,
        "table": TABLE, "table_sha256": found.latency.table.sha256, "space_sha256": found.space.fingerprint,
        "dnas": dnas.__version__, "wall_s": None if begun else round(time.perf_counter() - start, 1), "machine": machine(),
        "seeds": rows,
    }  # fmt: skip


def summary(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The two claims, over all searches of each space and method."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for entry in entries:
        off = [(r["expected_ms"] / entry["target_ms"] - 1, r["latency_ms"] / entry["target_ms"] - 1) for r in entry["seeds"]]
        groups.setdefault(f"{entry['space']}, {entry['method']}, {entry['epochs']} epochs", []).extend(off)
    return {
        name: {
            "searches": len(off), "expected_off_largest": max(abs(e) for e, _ in off),
            "expected_within_2_percent": sum(abs(e) <= 0.02 for e, _ in off),
            "derived_off_range": [min(d for _, d in off), max(d for _, d in off)],
            "derived_above_target": sum(d > 0 for _, d in off),
        } for name, off in groups.items()
    }  # fmt: skip


def main(options: Options) -> None:
    body: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {"entries": []}
    for target_ms in wanted(options):
        asked = (options.space, options.method, epochs(options), target_ms)
        if all(asked != (e["space"], e["method"], e["epochs"], e["target_ms"]) for e in body["entries"]):
            body["entries"].append(searched(options, target_ms))
            body["summary"] = summary(body["entries"])
            RESULT.write_text(json.dumps(body, indent=1) + "\n")
    print(json.dumps(body["summary"], indent=1))


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except DnasError as problem:
        print(f"error: {problem}", file=sys.stderr)
        raise SystemExit(2) from None
