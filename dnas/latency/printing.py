"""What the subcommands of ``python -m dnas.latency`` print alike."""

from __future__ import annotations

import json
from typing import Any

from dnas.errors import LatencyError
from dnas.files import shown

MOST = 20  # lines of one kind that are printed; --json has all


def coverage_lines(facts: dict[str, Any]) -> None:
    for op, row in facts["ops"].items():
        (small, large), (low, high) = row["height"], row["ms"]
        print(f"{'entries':<12}{row['entries']} {op}, {small} to {large} px high, {low:.4g} to {high:.4g} ms")
    if facts["constant_ms"]:
        print(f"{'constant':<12}{facts['constant_ms']:.6g} ms, which covers {len(facts['constant_covers'])} ops")
    if facts["cost_model"]:
        words = " + ".join(f"{v:.3g} x {k}" for k, v in facts["cost_model"]["coefficients"].items())
        print(f"{'cost model':<12}{words} ms")


def print_lines(label: str, lines: Any) -> None:
    for line in lines[:MOST]:
        print(f"{label:<12}{line}")
    if len(lines) > MOST:
        print(f"{label:<12}... and {len(lines) - MOST} more; --json lists all")


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def print_json(value: Any) -> int:
    try:
        print(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))
    except ValueError:
        raise LatencyError(f"a figure is not finite: {shown(value)}") from None
    return 0
