"""What ``python -m benchmarks.oracle`` does, stage by stage."""

from __future__ import annotations

import csv
import io
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.oracle import pilot
from benchmarks.oracle.results import RUNS, Results, Run, of_trainer
from benchmarks.oracle.trainer import Recipe, Trainer
from dnas.errors import Interrupted, RunError
from dnas.files import shipped, write_bytes, write_text
from dnas.latency import LatencyTable
from dnas.loop import interruptible
from dnas.space import Genotype, Space

IMAGES = 10_000 + Recipe().held_out  # that networks are tested on


def genotypes(space: Space) -> list[Genotype]:
    """All of ``space``, in the order of ``dnas.oracle.Oracle.codes``."""
    return list(itertools.product(*(range(len(c.options)) for c in space.choices.values())))


def code_of(genotype: Sequence[int]) -> str:
    return "".join(map(str, genotype))


def train(space: Space, data: str, work: Sequence[tuple[Genotype, int]], minutes: float | None, path: Path = RUNS) -> Results:
    """Do those (genotype, seed) of ``work`` that are not done yet. Errors: Interrupted, after the training under way."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from benchmarks.oracle.images import fashion

    trainer = Trainer(space, fashion(data), Recipe())
    results = of_trainer(trainer, path)
    left = [(g, s) for g, s in work if (code_of(g), s) not in results.done]
    until = None if minutes is None else time.monotonic() + 60 * minutes
    columns = (TextColumn("trainings"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, speed_estimate_period=300) as bar, interruptible() as interrupted:
        task = bar.add_task("", total=len(work), completed=len(work) - len(left))
        for number, (genotype, seed) in enumerate(left):
            compile_s = trainer.compile() if number == 0 else None
            cpu, wall = time.process_time(), time.perf_counter()
            outcome = trainer(genotype, seed)
            seconds = round(time.process_time() - cpu, 2), round(time.perf_counter() - wall, 2)
            results.add(Run(code_of(genotype), seed, *outcome, *seconds, compile_s))
            bar.advance(task)
            if interrupted():
                raise Interrupted(f"{len(results.runs)} trainings are saved; the same command continues")
            if until is not None and time.monotonic() > until:
                break
    return results


def pilot_work(space: Space, table: LatencyTable) -> list[tuple[Genotype, int]]:
    chosen = [g for _, networks in pilot.choose(space, table, genotypes(space)) for g in networks]
    return [(g, seed) for seed in range(pilot.SEEDS) for g in chosen]


def judge(space: Space, table: LatencyTable, results: Results) -> list[pilot.Band]:
    """The bands of the pilot, with what is done of them (networks with two trainings or more)."""
    hits, bands = results.by_code(), []
    for low, networks in pilot.choose(space, table, genotypes(space)):
        runs = [[h * 100 / IMAGES for h in hits.get(code_of(g), [])][: pilot.SEEDS] for g in networks]
        runs = [r for r in runs if len(r) >= 2]
        if len(runs) >= 2:
            bands.append(pilot.spread((low, low * pilot.WIDTH), runs))
    return bands


def status(space: Space, results: Results, seeds: int) -> list[str]:
    """What is done, what it cost, and what remains."""
    total, wanted = len(genotypes(space)), sum(r.seed < seeds for r in results.runs)
    lines = [f"{len(results.runs)} trainings of {len(results.by_code())} networks of {total}"]
    if results.runs:
        cpu, left = np.array([r.cpu_s for r in results.runs]), total * seeds - wanted
        hours = cpu.sum() / 3600, left * cpu.mean() / 3600
        lines += [
            f"{cpu.mean():.1f} CPU-s each (sd {cpu.std():.1f}); {hours[0]:.2f} CPU-hours so far",
            f"{left} left for {seeds} seeds of every network: about {hours[1]:.1f} CPU-hours",
        ]
    return lines


def pack(space: Space, results: Results, seeds: int, folder: Path | None = None) -> Path:
    """``oracles/oracle.npz``: hits i16[codes, seeds]. Errors: RunError where a network has fewer trainings."""
    done = {(r.code, r.seed): r.hits for r in results.runs}
    codes = [code_of(g) for g in genotypes(space)]
    missing = [(c, s) for c in codes for s in range(seeds) if (c, s) not in done]
    if missing:
        raise RunError(
            f"{len(missing)} of {len(codes) * seeds} trainings are missing (first: network {missing[0][0]}, seed "
            f"{missing[0][1]}); run: python -m benchmarks.oracle train --seeds {seeds}"
        )
    buffer = io.BytesIO()
    np.savez_compressed(buffer, hits=np.array([[done[c, s] for s in range(seeds)] for c in codes], np.int16))
    target = (folder or shipped("oracles")) / "oracle.npz"
    write_bytes(target, buffer.getvalue())
    return target


def table(space: Space, results: Results, luts: Sequence[LatencyTable], path: Path) -> None:
    """A CSV of the networks that are done: accuracy in percent with n and spread, costs, ms on each table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"{lut.name.removesuffix('.json')}_ms" for lut in luts]
    writer.writerow(["code", "accuracy", "sd", "n", "params", "macs", *names])
    hits = results.by_code()
    for genotype in genotypes(space):
        runs = np.array(hits.get(code_of(genotype), [])) * 100 / IMAGES
        if len(runs):
            network = space.fix(genotype)
            sd = f"{runs.std(ddof=1):.3f}" if len(runs) > 1 else ""
            ms = [f"{lut.latency_ms(network):.5f}" for lut in luts]
            writer.writerow([code_of(genotype), f"{runs.mean():.3f}", sd, len(runs), network.params, network.macs, *ms])
    write_text(path, text.getvalue())
