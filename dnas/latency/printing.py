"""What the subcommands of ``python -m dnas.latency`` print alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dnas.errors import LatencyError
from dnas.files import shown
from dnas.latency.table import PLAIN, LatencyTable

MOST = 20  # lines of one kind that are printed; --json has all


def coverage_lines(facts: dict[str, Any]) -> None:
    for op, row in facts["ops"].items():
        (small, large), (low, high) = row["height"], row["ms"]
        print(f"{'entries':<12}{row['entries']} {op}, {small} to {large} px high, {low:.4g} to {high:.4g} ms")
    if facts["constant_ms"]:
        print(f"{'constant':<12}{facts['constant_ms']:.6g} ms, which covers {len(facts['constant_covers'])} ops")
    if facts["energies"]:
        print(f"{'energies':<12}of {facts['energies']} of {facts['entries']} entries, in mJ")
    if facts["cost_model"]:
        words = " + ".join(f"{v:.3g} x {k}" for k, v in facts["cost_model"]["coefficients"].items())
        print(f"{'cost model':<12}{words} ms")


def print_lines(label: str, lines: Any) -> None:
    for line in lines[:MOST]:
        print(f"{label:<12}{line}")
    if len(lines) > MOST:
        print(f"{label:<12}... and {len(lines) - MOST} more; --json lists all")


def plain_lines(table: LatencyTable, least: int = 0) -> None:
    """Probes that an accelerator did not take whole, with what plain kernels ran; nothing below ``least`` of them."""
    found = table.source.get(PLAIN)
    if not isinstance(found, Mapping) or len(found) < least:
        return
    for what, left in list(found.items())[:MOST]:
        print(f"{'not whole':<12}{what}: {', '.join(map(str, left)) if left and isinstance(left, list) else 'not said which'}")
    print(f"{'not whole':<12}{len(found)} probe{'s' * (len(found) != 1)} not fully delegated; plain kernels ran the rest")


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def print_json(value: Any) -> int:
    try:
        print(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))
    except ValueError:
        raise LatencyError(f"a figure is not finite: {shown(value)}") from None
    return 0
