"""The study's cheap parts, which train nothing: minutes on one core.

    python -m benchmarks.study ideal        methods and controls on NAS-Bench-Macro's true accuracies: study_ideal.json, .png
    python -m benchmarks.study hardware     do two devices rank networks alike: study_hardware.json

Results are written to benchmarks/results/, figures to docs/.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tyro.conf import Positional

from dnas import process
from dnas.cli import command
from dnas.files import dump_json, write_text

RESULTS = Path(__file__).parents[1] / "results"
DOCS = Path(__file__).parents[2] / "docs"
SHARES = (0.25, 0.5, 0.75)  # of the way from the fastest to the slowest network
TRIES = (8, 32, 128)  # trainings of the random searches


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """Remake a part of the study that needs no training."""

    part: Positional[Literal["ideal", "hardware"]]
    """What to remake. No unit."""
    seeds: int = 20
    """Seeds per method and target. No unit."""
    lut: str = "samsung_s8"
    """The latency table of the targets."""


def ideal(config: StudyConfig) -> dict[str, Any]:
    """Regret in percentage points per target, method and seed."""
    from benchmarks.study import controls
    from benchmarks.study.ideal import DRAWS, Problem, derived, likeliest, search
    from dnas.latency import LatencyTable
    from dnas.oracle import load

    oracle, table, targets = load("nas-bench-macro"), LatencyTable.load(config.lut), []
    for share in SHARES:
        problem = Problem.of(oracle, table, share)
        rows: dict[str, Any] = {}
        for name, draw in DRAWS.items():
            found = search(problem, draw, config.seeds)
            costs = [float(problem.costs[oracle._index(likeliest(problem, f))]) for f in found]
            within = sum(c <= problem.target_ms for c in costs)
            for best_of in (1, 32):
                regrets = [problem.regret(derived(problem, f, best_of)) for f in found]
                rows[f"{name}, best of {best_of}"] = {"regret": regrets, "likeliest_within_target": within}
        rows["random theta"] = {"regret": controls.random_theta(problem, config.seeds).tolist()}
        for tries in TRIES:
            rows[f"random search, {tries}"] = {"regret": controls.random_search(problem, tries, config.seeds).tolist()}
        rows["most MACs"] = {"regret": [controls.most_macs(problem)]}
        rows["best uniform op"] = {"regret": [controls.uniform_op(problem)]}
        targets.append({"share": share, "target_ms": problem.target_ms, "best_accuracy": problem.best, "methods": rows})
        print(
            f"{problem.target_ms:.3f} ms: " + ", ".join(f"{k} {np.mean(v['regret']):.2f}" for k, v in rows.items()), flush=True
        )
    return {"table": table.name, "table_sha256": table.sha256, "seeds": config.seeds, "targets": targets}


def hardware(config: StudyConfig) -> dict[str, Any]:
    """Kendall's tau-b between devices over random networks of fbnet_cifar, and inside bands of equal MACs."""
    from scipy.stats import kendalltau

    from dnas.latency import LatencyTable
    from dnas.latency.terms import price
    from dnas.plot.ranking import info
    from dnas.space import load_space

    space, rng = (
        load_space(
            "fbnet_cifar",
        ),
        np.random.default_rng(0),
    )
    names = ("pixel3_fbnet_cifar", "raspi4_fbnet_cifar")
    genotypes = [space.sample(rng) for _ in range(1000)]
    terms = [price(space.at(num_classes=100), LatencyTable.load(n), None) for n in names]
    ms = np.array([[t.at(space.assignment(g)) for g in genotypes] for t in terms])
    macs = np.array([space.fix(g).macs for g in genotypes], float)
    inside = info(ms[0].tolist(), ms[1], macs.tolist(), width=1.1, cost="MACs")
    return {
        "tables": names, "networks": len(genotypes), "tau_between_devices": float(kendalltau(*ms).statistic),
        "tau_in_bands_of_10_percent_macs": inside.tau, "bands": len(inside.bands),
        "tau_macs": {n: float(kendalltau(macs, v).statistic) for n, v in zip(names, ms, strict=True)},
    }  # fmt: skip


def draw(body: dict[str, Any]) -> Any:
    """Regret of each method per target: every seed a dot, the mean a bar."""
    from dnas.plot.style import colour, marker, new_figure, tidy

    figure = new_figure(11, 3.6)
    panels: Any = figure.subplots(1, len(body["targets"]), sharey=True)
    for axes, target in zip(panels, body["targets"], strict=True):
        names = list(target["methods"])[::-1]
        for place, name in enumerate(names):
            regrets = np.array(target["methods"][name]["regret"])
            spread = np.linspace(-0.25, 0.25, len(regrets)) if len(regrets) > 1 else np.zeros(1)
            axes.plot(
                regrets, place + spread, linestyle="none", marker=marker(place), markersize=3, alpha=0.6, color=colour(place)
            )
            axes.plot([regrets.mean()] * 2, [place - 0.35, place + 0.35], color="black", linewidth=1.6)
        axes.set_yticks(range(len(names)), names)
        axes.set_xscale("symlog", linthresh=0.1)
        axes.set_xlim(left=-0.01)
        axes.xaxis.set_major_formatter("{x:g}")
        tidy(axes, f"{target['target_ms']:.2f} ms, best {target['best_accuracy']:.2f} %", "regret, points")
    return figure


def main(config: StudyConfig) -> int:
    """Compute a part, and write its result (and figure)."""
    process.set_up("benchmarks.study")
    from benchmarks.machine import machine

    wall, cpu = time.perf_counter(), time.process_time()
    body = {"ideal": ideal, "hardware": hardware}[config.part](config)
    spent = {"wall_s": round(time.perf_counter() - wall, 1), "cpu_s": round(time.process_time() - cpu, 1)}
    about = {
        "command": f"python -m benchmarks.study {config.part} --seeds {config.seeds} --lut {config.lut}",
        "machine": machine(),
        **spent,
    }
    write_text(RESULTS / f"study_{config.part}.json", dump_json(about | body))
    if config.part == "ideal":
        draw(body).savefig(DOCS / "study_ideal.png", dpi=110)
    else:
        print(dump_json(body), end="")
    return 0


if __name__ == "__main__":
    sys.exit(command("python -m benchmarks.study", StudyConfig, main))
