"""What a network is made of, layer by layer, and how two networks differ: ``python -m dnas.describe NAME [OTHER]``."""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tyro.conf import Positional, UseAppendAction

from dnas import zoo
from dnas.arch import Architecture
from dnas.cli import command
from dnas.errors import ConfigError
from dnas.latency.table import LatencyReport, LatencyTable
from dnas.ops import Op, Shape

if TYPE_CHECKING:
    from rich.console import Console


@dataclasses.dataclass(frozen=True)
class DescribeConfig:
    """Print the layers of a network with their shapes, parameters, MACs and latencies, or what differs between two networks."""

    network: Positional[str] = ""
    """A network that ships (fbnet_c), a family (mobilenetv2:width=0.5,resolution=160), or a JSON file (./found.json).
    Default: list those that ship."""
    other: Positional[str] = ""
    """Another one: list what differs, in place of the layers. Default: none."""
    lut: UseAppendAction[tuple[str, ...]] = ()
    """Latency table, a shipped name or a path: a column of ms per layer; several: --lut A --lut B. Default: none."""
    missing: Literal["error", "cost-model"] | None = None
    """What to do for an op without a table entry. No unit. Default: the cost model of an estimated table, else an error."""
    resolution: int | None = None
    """Side of the input image, in pixels. Default: the network's own."""
    json: bool = False
    """Print JSON. No unit."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer: ``text`` as in a paper's table, shapes of its input and output, ``ms`` by each table's name."""

    index: int
    op: str
    text: str
    input: Shape
    output: Shape
    stride: int
    params: int
    macs: int
    ms: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def cells(self) -> tuple[str, ...]:
        counts = (f"{self.params:,}", f"{self.macs:,}")
        return (
            str(self.index),
            self.text,
            str(self.output),
            str(self.stride),
            *counts,
            *(f"{v:.4f}" for v in self.ms.values()),
        )


HEADINGS = ("#", "layer", "output", "stride", "params", "MACs")


def rows(network: Architecture, reports: Sequence[LatencyReport] = ()) -> list[Row]:
    """The layers of ``network`` in order, priced by ``reports`` of that network."""
    found = []
    for index, (op, before, after) in enumerate(zip(network.layers, network.shapes, network.shapes[1:], strict=False)):
        ms = {report.table.name: report.layers_ms[index] for report in reports}
        found.append(Row(index, op.op, str(op), before, after, getattr(op, "stride", 1), op.params, op.macs(before), ms))
    return found


def totals(network: Architecture, reports: Sequence[LatencyReport] = ()) -> tuple[str, ...]:
    """The last line of the table."""
    return ("", "total", "", "", f"{network.params:,}", f"{network.macs:,}", *(f"{r.total_ms:.4f}" for r in reports))


def to_dict(network: Architecture, reports: Sequence[LatencyReport] = ()) -> dict[str, Any]:
    """The answer of ``--json``: layers, totals, latencies per table, and what is known of the network's origin."""
    layers = [
        dataclasses.asdict(row) | {"input": row.input._asdict(), "output": row.output._asdict(), "fields": op.to_dict()}
        for row, op in zip(rows(network, reports), network.layers, strict=True)
    ]
    return {
        "name": network.name, "resolution": network.resolution, "num_classes": network.num_classes,
        "defaults": network.defaults.to_dict(), "params": network.params, "macs": network.macs,
        "peak_activation_bytes": network.peak_activation_bytes,
        "latency": {report.table.name: report.to_dict() for report in reports},
        "provenance": dict(network.provenance), "layers": layers,
    }  # fmt: skip


def origin(network: Architecture) -> str | None:
    """One line on a published network's accuracy and source; None where its file says nothing."""
    published = network.provenance.get("published")
    if not isinstance(published, Mapping):
        return None
    return f"published: {published.get('metric')} {published.get('value')} ({published.get('source')})"


class Difference(NamedTuple):
    """``where``: a field of the network, or a layer ("layer 3", "layer 3 / 4" where the two count differently)."""

    where: str
    first: str | None
    second: str | None

    def __str__(self) -> str:
        if self.second is None:
            return f"{self.where}: only in the first: {self.first}"
        if self.first is None:
            return f"{self.where}: only in the second: {self.second}"
        return f"{self.where}: {self.first} -> {self.second}"


def differences(first: Architecture, second: Architecture) -> list[Difference]:
    """What differs between two networks: input, classes, BN, padding, then layers; empty for equal networks."""
    found = []
    for where, one, two in (
        ("input channels", first.input_channels, second.input_channels),
        ("resolution", first.resolution, second.resolution), ("classes", first.num_classes, second.num_classes),
        ("BN eps", first.defaults.bn_eps, second.defaults.bn_eps),
        ("BN momentum", first.defaults.bn_momentum, second.defaults.bn_momentum),
        ("padding", first.defaults.padding, second.defaults.padding),
    ):  # fmt: skip
        if one != two:
            found.append(Difference(where, str(one), str(two)))
    for a, b in _aligned(first.layers, second.layers):
        left = None if a is None else first.layers[a]
        right = None if b is None else second.layers[b]
        where = f"layer {b if a is None else a}" if a is None or b is None or a == b else f"layer {a} / {b}"
        if left is not None and right is not None and left.op == right.op:
            changed = [f for f in dataclasses.fields(left) if getattr(left, f.name) != getattr(right, f.name)]
            pairs = ([f"{f.name.rstrip('_')}={getattr(op, f.name)}" for f in changed] for op in (left, right))
            one_text, two_text = (", ".join(pair) for pair in pairs)
            found.append(Difference(f"{where} ({left.op})", one_text, two_text))
        else:
            found.append(Difference(where, None if left is None else repr(left), None if right is None else repr(right)))
    return found


def print_table(console: Console, network: Architecture, reports: Sequence[LatencyReport] = ()) -> None:
    """The layer table, with a column of ms per report."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    for heading in (*HEADINGS, *(_heading(r, alone=len(reports) == 1) for r in reports)):
        table.add_column(heading, justify="left" if heading == "layer" else "right", no_wrap=True)
    for row in rows(network, reports):
        table.add_row(*row.cells())
    table.add_section()
    if any(report.constant_ms for report in reports):
        once = (f"{r.constant_ms:.4f}" if r.constant_ms else "" for r in reports)
        table.add_row("", "once per network", "", "", "", "", *once)
    table.add_row(*totals(network, reports), style="bold")
    endless = Console(file=console.file, width=1000, force_jupyter=False)  # a file has no right edge
    (console if console.is_terminal else endless).print(table)


def main(config: DescribeConfig) -> int:
    """Print the description."""
    if not config.network:
        return _list(config)
    with warnings.catch_warnings(record=True) as notices:
        warnings.simplefilter("always")
        networks = [Architecture.load(name) for name in (config.network, config.other) if name]
    for notice in notices:
        print(f"note: {notice.message}", file=sys.stderr)
    if config.resolution is not None:
        networks = [network.at(config.resolution) for network in networks]
    tables = [LatencyTable.load(name) for name in config.lut]
    if len({table.name for table in tables}) < len(tables):
        raise ConfigError(f"--lut {' '.join(config.lut)}: two tables of one name; rename one, columns are told apart by it")
    for table in tables:
        if table.notice:
            print(f"note: {table.notice}", file=sys.stderr)
    reports = [[table.report(network, config.missing) for table in tables] for network in networks]
    found = differences(*networks) if config.other else []
    if config.json:
        both = [to_dict(n, r) for n, r in zip(networks, reports, strict=True)]
        answer = {"networks": both, "differences": [d._asdict() for d in found]} if config.other else both[0]
        print(json.dumps(answer, indent=1, ensure_ascii=False))
    elif config.other:
        for network, priced in zip(networks, reports, strict=True):
            print(", ".join([str(network), *(f"{r.total_ms:.4g} ms ({r.table.name})" for r in priced)]))
        print("\n".join(map(str, found)) if found else "no difference")
    else:
        _print(networks[0], reports[0])
    return 0


def _print(network: Architecture, reports: Sequence[LatencyReport]) -> None:
    from rich.console import Console

    console = Console(soft_wrap=True)
    lines = [str(network), origin(network), *network.provenance.get("notes", [])]
    print("\n".join(line for line in lines if isinstance(line, str)))
    print_table(console, network, reports)
    print(f"memory   {network.peak_activation_bytes:,} bytes of feature maps at most (batch 1, float32)")
    for report in reports:
        print(f"table    {report.table.name}: {report.table.summary()}")
        for warning in report.warnings:
            print(f"note     {warning}")


def _list(config: DescribeConfig) -> int:
    """The networks that ship, one per line."""
    networks = [Architecture.load(name) for name in zoo.names()]
    if config.json:
        about = [
            {"name": n.name, "resolution": n.resolution, "params": n.params, "macs": n.macs, **dict(n.provenance)}
            for n in networks
        ]  # fmt: skip
        print(json.dumps(about, indent=1, ensure_ascii=False))
        return 0
    for n in networks:
        published = n.provenance.get("published")
        accuracy = f"{published['metric']} {published['value']:.1f}" if published else ""
        sizes = f"{n.resolution:>4} px {n.params / 1e6:>6.2f} M params {n.macs / 1e6:>7.1f} M MACs"
        print(f"{n.name:<34}{sizes}  {accuracy}".rstrip())
    return 0


def _heading(report: LatencyReport, alone: bool) -> str:
    return "ms" if alone else f"ms {report.table.name.removesuffix('.json')}"


def _aligned(first: Sequence[Op], second: Sequence[Op]) -> Iterator[tuple[int | None, int | None]]:
    """Pairs of layers that differ, by the alignment with the fewest different fields; None where one has no counterpart."""
    gap = 0.5

    def cost(a: Op, b: Op) -> float:
        if type(a) is not type(b):
            return 2 * gap
        fields = dataclasses.fields(a)
        return sum(getattr(a, f.name) != getattr(b, f.name) for f in fields) / max(len(fields), 1)

    best = [[gap * (i + j) for j in range(len(second) + 1)] for i in range(len(first) + 1)]
    for i, a in enumerate(first, 1):
        for j, b in enumerate(second, 1):
            best[i][j] = min(best[i - 1][j - 1] + cost(a, b), best[i - 1][j] + gap, best[i][j - 1] + gap)
    pairs: list[tuple[int | None, int | None]] = []
    i, j = len(first), len(second)
    while i or j:
        if i and j and best[i][j] == best[i - 1][j - 1] + cost(first[i - 1], second[j - 1]):
            i, j = i - 1, j - 1
            pairs += [(i, j)] * (first[i] != second[j])
        elif i and best[i][j] == best[i - 1][j] + gap:
            i -= 1
            pairs.append((i, None))
        else:
            j -= 1
            pairs.append((None, j))
    yield from reversed(pairs)


if __name__ == "__main__":
    sys.exit(command("python -m dnas.describe", DescribeConfig, main))
