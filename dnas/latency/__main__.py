"""``python -m dnas.latency``."""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated

import tyro

from dnas.cli import command
from dnas.latency.options import Build, Calibrate, Check, Collect, Import, List, Probe, Show

Commands = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Show, tyro.conf.subcommand("show")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Build, tyro.conf.subcommand("build")]
    | Annotated[Probe, tyro.conf.subcommand("probe")]
    | Annotated[Collect, tyro.conf.subcommand("collect")]
    | Annotated[Import, tyro.conf.subcommand("import")]
    | Annotated[Calibrate, tyro.conf.subcommand("calibrate")]
)


@dataclasses.dataclass(frozen=True)
class Latency:
    """Latency tables: what ships, whether a table is sound, measuring one here or on a phone, tables of other projects, and
    calibration by whole networks."""

    run: Annotated[tyro.conf.OmitSubcommandPrefixes[tyro.conf.OmitArgPrefixes[Commands]], tyro.conf.arg(name="")]


def main(options: Latency) -> int:
    """What the subcommand asks for; returns the exit code."""
    from dnas.latency.commands import RUN

    return RUN[type(options.run)](options.run)


if __name__ == "__main__":
    sys.exit(command("python -m dnas.latency", Latency, main))
