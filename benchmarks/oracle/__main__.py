"""Train every network of the space ``oracle`` on Fashion-MNIST made harder, for ``dnas.oracle.load("fashion-mnist")``.

    python -m benchmarks.oracle pilot       24 networks x 3 seeds, then whether the space is worth training
    python -m benchmarks.oracle train       every network, one seed after the other
    python -m benchmarks.oracle status      what is done, what it cost, what remains
    python -m benchmarks.oracle table       networks with accuracies, counts and ms: benchmarks/results/oracle.csv
    python -m benchmarks.oracle pack        oracles/oracle.npz, once every network has --seeds trainings

Fashion-MNIST: Debian's dataset-fashion-mnist, or another folder of IDX files by --data. Every training is appended to
benchmarks/results/oracle_runs.jsonl when it is done; Ctrl-C stops after the current one, and the same command continues.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Literal

from tyro.conf import Positional

from dnas import process
from dnas.cli import command


@dataclasses.dataclass(frozen=True)
class OracleConfig:
    """Train every network of spaces/oracle.py on Fashion-MNIST made harder; results are appended as they come."""

    stage: Positional[Literal["pilot", "train", "status", "table", "pack"]] = "status"
    """What to do. No unit. Default: say what is done."""
    data: str = "idx:/usr/share/datasets/fashion-mnist"
    """Fashion-MNIST, as a data set of dnas."""
    seeds: int = 3
    """Trainings per network. No unit."""
    lut: tuple[str, ...] = ("epyc_zen4_oracle", "samsung_s8")
    """Latency tables: columns of the table; the first makes the pilot's bands."""
    below_ms: float | None = None
    """Of train: only networks that take at most this long on the first table, ms. Default: all."""
    minutes: float | None = None
    """Stop after this time. Minutes. Default: when all is done."""


def main(config: OracleConfig) -> int:
    """Do one stage."""
    process.set_up("benchmarks.oracle")
    from benchmarks.oracle import pilot, stages
    from benchmarks.oracle.results import RUNS, Results
    from dnas.latency import LatencyTable
    from dnas.space import load_space

    space, luts = load_space("oracle"), [LatencyTable.load(n) for n in config.lut]
    every = stages.genotypes(space)
    if config.stage == "train":
        if config.below_ms is not None:
            every = [g for g in every if luts[0].latency_ms(space.fix(g)) <= config.below_ms]
        stages.train(space, config.data, [(g, s) for s in range(config.seeds) for g in every], config.minutes)
    elif config.stage == "pilot":
        stages.train(space, config.data, stages.pilot_work(space, luts[0]), config.minutes)
        for band in stages.judge(space, luts[0], Results(RUNS)):
            print(f"{band}: {'go on' if band.ratio >= pilot.NEEDED else 'too little'}")
    elif config.stage == "table":
        stages.table(space, Results(RUNS), luts, RUNS.with_name("oracle.csv"))
    elif config.stage == "pack":
        print(f"written   {stages.pack(space, Results(RUNS), config.seeds)}")
    else:
        print("\n".join(stages.status(space, Results(RUNS), config.seeds)))
    return 0


if __name__ == "__main__":
    sys.exit(command("python -m benchmarks.oracle", OracleConfig, main))
