"""What ``python -m dnas.latency`` can be told: one frozen dataclass per subcommand. No JAX here, so that --help is instant."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import tyro

Table = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TABLE")]
Space = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SPACE")]
File = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
# a default of None is told in words by the option's own help
Text = Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")]
Path = Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
Number = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
Several = Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint="")]
Act = Annotated[
    Literal["relu", "relu6", "hswish", "swish"] | None,
    tyro.conf.arg(metavar="relu|relu6|hswish|swish", help_behavior_hint=""),
]
Missing = Annotated[Literal["error", "cost-model"] | None, tyro.conf.arg(metavar="error|cost-model", help_behavior_hint="")]
Runtime = Literal["litert", "onnxruntime", "xla"]
Format = Literal["proxylessnas", "ofa", "mobile-vision", "single-path-nas", "hw-nas-bench", "tunas"]


@dataclasses.dataclass(frozen=True)
class List:
    """Tables that ship with the package, and those in the working folder."""

    json: bool = False
    """Print JSON. No unit."""


@dataclasses.dataclass(frozen=True)
class Show:
    """What a table says about itself: device, runtime, precision, status, source, licence, error, and what it covers."""

    table: Table
    """A shipped name (samsung_s8.json) or a path (./mine.json)."""
    plot: Path = None
    """Image file to write: ms against multiply-accumulates, one point per entry. Default: none."""
    json: bool = False
    """Print JSON. No unit."""


@dataclasses.dataclass(frozen=True)
class Check:
    """Whether a table is sound, and whether it covers a space. Exit code 1 with a list if anything is wrong."""

    table: Table
    """A shipped name (samsung_s8.json) or a path (./mine.json)."""
    space: Text = None
    """Search space whose candidates must all have a price: a shipped name (fbnet), or a .py (is run) or .json file.
    Default: none."""
    networks: Several = ()
    """Architecture files (JSON), or folders of them: which of them the table can price is listed. Default: none."""
    json: bool = False
    """Print JSON. No unit."""


@dataclasses.dataclass(frozen=True)
class Import:
    """A table of another project as one of this format: units become ms, what could not be mapped is listed and counted."""

    file: File
    """The table to read."""
    from_: Annotated[Format, tyro.conf.arg(name="from")]
    """Its format."""
    out: str
    """Table to write (JSON)."""
    part: Text = None
    """Which device of a file that holds several (hw-nas-bench). Default: the only one."""
    spaces: Several = ()
    """Spaces whose candidates are composed of primitive operators (mobile-vision). Default: none."""
    act: Act = None
    """Activation of the blocks, where the keys do not state it. Default: that of the format's own networks."""
    device: Text = None
    """What was measured. Default: what the format says."""
    runtime: Text = None
    """Engine, with its generation. Default: what the format says."""
    precision: Text = None
    """Precision, as float32 or int8. Default: what the format says."""
    threads: Number = None
    """Threads used: a number from 1. Default: what the format says."""
    licence: Text = None
    """Licence of the file. Default: that of the format's project."""
    networks: Path = None
    """CSV of whole networks that were measured (architecture, ms): the table's error on them is written into it. Default:
    none."""
    check: bool = False
    """Write nothing; exit code 1 if --out is not what would be written. No unit."""
    json: bool = False
    """Print JSON. No unit."""


@dataclasses.dataclass(frozen=True)
class Calibrate:
    """Whole networks that were measured correct a table's scale and offset, or fit a cost model from scratch (--fit)."""

    table: Table
    """The table to correct; with --fit a header: a table whose entries are []."""
    measured: str
    """CSV file with the columns architecture (JSON file, relative to the CSV) and ms; optional: name, family, resolution."""
    out: str
    """Table to write (JSON)."""
    fit: bool = False
    """Fit a cost model from scratch, by non-negative least squares. No unit."""
    forms: Several = ()
    """With --fit: forms of cost model to compare, as 'MACs + operators'. No unit. Default: those that ship."""
    spaces: Several = ()
    """With --fit: spaces whose candidates get entries. Default: none, only the cost model."""
    blocks: Path = None
    """With --fit: a file of single-block times; the ratio of depthwise to dense MACs' cost is fitted to them. Default: none."""
    blocks_from: Annotated[Format | None, tyro.conf.arg(metavar="FORMAT", help_behavior_hint="")] = None
    """Format of --blocks, as in import --from. Default: none."""
    missing: Missing = None
    """Without --fit: what to do for an op without an entry. No unit. Default: the cost model of an estimated table, else an
    error."""
    device: Text = None
    """Without --fit: what the networks were measured on, if not the table's device. Default: the table's."""
    runtime: Text = None
    """Without --fit: engine that they were measured with. Default: the table's."""
    precision: Text = None
    """Without --fit: precision that they were measured in. Default: the table's."""
    threads: Number = None
    """Without --fit: threads that they were measured with: a number from 1. Default: the table's."""
    check: bool = False
    """Write nothing; exit code 1 if --out is not what would be written. No unit."""
    json: bool = False
    """Print JSON. No unit."""


@dataclasses.dataclass(frozen=True)
class Build:
    """Measure a table of a space on this machine: every distinct op, then whole networks to check their sums by.

    Calls take turns and are timed warm, on cores of their own where the system lets a process choose them; those that other
    jobs disturbed are left out and made up for. After Ctrl-C the same command goes on.
    """

    space: Space
    """Search space: a shipped name (fbnet), with options (fbnet:resolution=160), or a .py (is run) or .json file."""
    out: str
    """Table to write (JSON). What is measured is kept in the folder OUT.build until then, and after."""
    runtime: Runtime = "litert"
    """What runs the networks: litert (TensorFlow Lite and XNNPACK, as on phones), onnxruntime, xla. No unit."""
    threads: int = 1
    """Threads, each on a core of its own: a number from 1."""
    repeats: int = 30
    """Undisturbed samples of every probe: a number from 5."""
    networks: int = 30
    """Whole networks that check the table, spread over its range: 0 (no check), or a number from 3."""
    seed: int = 0
    """Seed of networks, weights and orders: a whole number from 0. No unit."""
    device: Text = None
    """How the table names this machine. Default: processor, cores, and whether it is a virtual machine."""
    who: Text = None
    """Who measured, for the table. Default: whoever ran the command."""
    licence: Text = None
    """Licence of the table. Default: none stated."""
    json: bool = False
    """Print JSON. No unit."""


@dataclasses.dataclass(frozen=True)
class Probe:
    """Write a folder for measuring on a phone: .tflite probes, whole networks, golden outputs, and the script run.sh (adb)."""

    space: Space
    """Search space: a shipped name (fbnet), with options (fbnet:resolution=160), or a .py (is run) or .json file."""
    out: str
    """Folder to write; must be new or empty."""
    networks: int = 30
    """Whole networks that check the table: 0 (no check), or a number from 3."""
    passes: int = 5
    """How often the script runs every probe: a number from 1."""
    seed: int = 0
    """Seed of networks, weights, images and orders: a whole number from 0. No unit."""
    json: bool = False
    """Print JSON. No unit."""


@dataclasses.dataclass(frozen=True)
class Collect:
    """A table from the logs that run.sh brought from the phone. Exit code 1 if logs are missing or outputs are wrong."""

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """What probe wrote, with the logs in it."""
    out: str
    """Table to write (JSON)."""
    device: Text = None
    """How the table names the phone. Default: as the phone names itself."""
    runtime: Text = None
    """Engine, with its generation, as in 'TFLite 2.16, XNNPACK'; the logs do not state it. Default: not stated."""
    who: Text = None
    """Who measured, for the table. Default: whoever ran the script."""
    licence: Text = None
    """Licence of the table. Default: none stated."""
    json: bool = False
    """Print JSON. No unit."""
