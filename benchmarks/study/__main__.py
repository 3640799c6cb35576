"""The parts of the study.

    python -m benchmarks.study ideal        methods and controls on NAS-Bench-Macro's true accuracies: study_ideal.json, .png
    python -m benchmarks.study hardware     do two devices rank networks alike: study_hardware.json
    python -m benchmarks.study searches     searches in the oracle's space, a row each: study_searches.jsonl; resumable
    python -m benchmarks.study verdict      what they found, by the oracle's accuracies: study_verdict.json, .png

Results are written to benchmarks/results/, figures to docs/. All but searches take minutes on one core.
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
SEARCHES = RESULTS / "study_searches.jsonl"
LEVELS = tuple(85 + i / 20 for i in range(161))  # accuracies, percent, that devices are compared at
AGAIN = RESULTS / "xeon_nas_bench_macro_again.json"  # the same machine, minutes before
MACRO_TABLES = ("samsung_s8", "xeon_nas_bench_macro", AGAIN)
TRIES = (8, 32, 128)  # trainings of the random searches


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """Remake a part of the study."""

    part: Positional[Literal["ideal", "hardware", "searches", "verdict"]]
    """What to remake. No unit."""
    seeds: int = 20
    """Seeds per method and target. No unit."""
    lut: str = "samsung_s8"
    """The latency table of the targets; verdict takes that of the searches."""
    data: str = "idx:/usr/share/datasets/fashion-mnist"
    """Of searches: Fashion-MNIST, as a data set of dnas. No unit."""
    cases: tuple[str, ...] = ()
    """Of searches: methods and ablations by name. No unit. Default: all methods."""
    shares: tuple[float, ...] = SHARES
    """Of searches: where targets lie between the fastest (0) and the slowest (1) network. No unit."""
    epochs: int = 10
    """Of searches: passes over the weight split of each. No unit."""
    minutes: float | None = None
    """Of searches: stop after this time. Minutes. Default: when all is done."""


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
    """Kendall's tau-b between devices over random networks of fbnet_cifar, and inside bands of equal MACs; and the fastest
    networks of NAS-Bench-Macro by several devices."""
    from scipy.stats import kendalltau

    from benchmarks.study import devices as d
    from dnas.latency import LatencyTable
    from dnas.latency.terms import price
    from dnas.oracle import load
    from dnas.plot.ranking import info
    from dnas.space import load_space

    space, rng = load_space("fbnet_cifar"), np.random.default_rng(0)
    names = ("pixel3_fbnet_cifar", "raspi4_fbnet_cifar")
    genotypes = [space.sample(rng) for _ in range(1000)]
    phones, oracle = [LatencyTable.load(n) for n in names], load("nas-bench-macro")
    terms = [price(space.at(num_classes=100), t, None) for t in phones]
    ms = np.array([[t.at(space.assignment(g)) for g in genotypes] for t in terms])
    macs = np.array([space.fix(g).macs for g in genotypes], float)
    inside = info(ms[0].tolist(), ms[1], macs.tolist(), width=1.1, cost="MACs")
    tables = [
        *(LatencyTable.load(n) for n in MACRO_TABLES), *(d.regression(t, space.at(num_classes=100)) for t in phones)
    ]  # fmt: skip
    choices, errors = d.chosen(oracle, tables, LEVELS), {t.name: d.error_of(t) for t in tables}
    longer = d.penalties(choices, errors, oracle.canonical)
    print(d.table(longer))
    return {
        "tables": names, "networks": len(genotypes), "tau_between_devices": float(kendalltau(*ms).statistic),
        "tau_in_bands_of_10_percent_macs": inside.tau, "bands": len(inside.bands),
        "tau_macs": {n: float(kendalltau(macs, v).statistic) for n, v in zip(names, ms, strict=True)},
        "nas_bench_macro": {
            "tables": {t.name: {"status": t.status, "error": errors[t.name], "checked": t.error["summary"]} for t in tables},
            "accuracies": len(LEVELS), "penalties": longer, "choices": d.changes(choices),
        },
    }  # fmt: skip


def searches(config: StudyConfig) -> None:
    """Do what is missing of the searches; every row is on the disk when it is done."""
    import jax

    from benchmarks.oracle.images import fashion
    from benchmarks.oracle.trainer import Recipe, training_images
    from benchmarks.rows import Rows
    from benchmarks.study.searches import CASES, METHODS, run, tasks
    from dnas.errors import ConfigError, nearest
    from dnas.latency import LatencyTable
    from dnas.space import load_space

    jax.config.update("jax_enable_compilation_cache", False)  # whose help each search would have, or not, by chance
    cases = config.cases or tuple(METHODS)
    if wrong := [c for c in cases if c not in CASES]:
        raise ConfigError(f"--cases {wrong[0]!r}{nearest(wrong[0], CASES)}")
    data, recipe = fashion(config.data), Recipe()
    data = dataclasses.replace(data, train=training_images(data, recipe))
    space, table = load_space("oracle").at(num_classes=data.num_classes), LatencyTable.load(config.lut)
    made_with = {
        "space_sha256": space.fingerprint, "data_sha256": data.fingerprint, "images": recipe.images, "table": table.name,
        "table_sha256": table.sha256, "epochs": config.epochs,
    }  # fmt: skip
    rows = Rows(SEARCHES, ("case", "share", "seed"), made_with)
    run(tasks(cases, config.shares, config.seeds), rows, space, table, data, config.epochs, config.minutes)


def verdict(config: StudyConfig) -> dict[str, Any]:
    """What the searches found, by the accuracies of the oracle's networks."""
    from benchmarks.oracle.results import RUNS, Results
    from benchmarks.rows import Rows
    from benchmarks.study.devices import accuracies_within, chosen
    from benchmarks.study.verdict import Cost, judged, judges_of, oracle_of
    from dnas.errors import RunError
    from dnas.latency import LatencyTable
    from dnas.space import load_space

    space, results, found = load_space("oracle"), Results(RUNS), Rows(SEARCHES, ("case", "share", "seed"))
    if not found.rows:
        raise RunError(f"{SEARCHES} has no searches; run: python -m benchmarks.study searches")
    recipe, table = results.about["recipe"], LatencyTable.load(found.about["table"])
    processor = found.about["machine"]["processor"]
    runs = results.on(processor)
    if not runs:
        raise RunError(f"the searches ran on {processor}, where no training was timed; run: python -m benchmarks.oracle train")
    compiled = max((r.compile_s for r in runs if r.compile_s), default=0.0)
    each = Cost(float(np.mean([r.cpu_s for r in runs])), recipe["images"] * recipe["epochs"], compiled)
    body = judged(found.rows, judges_of(found.rows, space, results, table), each)
    whole = oracle_of(space, results, table, np.inf)
    levels = accuracies_within(whole, table, SHARES)
    devices = chosen(whole, [table, LatencyTable.load("samsung_s8")], levels)
    return {"made_with": found.about, "training": each._asdict(), "devices": devices, **body}


def main(config: StudyConfig) -> int:
    """Compute a part, and write its result (and figure)."""
    process.set_up("benchmarks.study")
    from benchmarks.machine import machine
    from benchmarks.study import figures
    from benchmarks.study.verdict import table

    if config.part == "searches":
        searches(config)
        return 0
    wall, cpu = time.perf_counter(), time.process_time()
    body = {"ideal": ideal, "hardware": hardware, "verdict": verdict}[config.part](config)
    spent = {"wall_s": round(time.perf_counter() - wall, 1), "cpu_s": round(time.process_time() - cpu, 1)}
    about = {
        "command": f"python -m benchmarks.study {config.part}"
        + (f" --seeds {config.seeds} --lut {config.lut}" if config.part == "ideal" else ""),
        "machine": machine(),
        **spent,
    }
    write_text(RESULTS / f"study_{config.part}.json", dump_json(about | body))
    if config.part == "ideal":
        figures.ideal(body).savefig(DOCS / "study_ideal.png", dpi=110)
    elif config.part == "verdict":
        figures.verdict(body).savefig(DOCS / "study_verdict.png", dpi=110)
        print(table(body))
    else:
        print(dump_json(body), end="")
    return 0


if __name__ == "__main__":
    sys.exit(command("python -m benchmarks.study", StudyConfig, main))
