"""What ``python -m dnas.bench`` can be told. No JAX here, so that --help is instant."""

from __future__ import annotations

import dataclasses
from typing import Literal

from tyro.conf import Positional, UseAppendAction


@dataclasses.dataclass(frozen=True)
class BenchConfig:
    """Measure a network on this machine: latency, memory and file size, beside what a latency table predicts.

    Weights are random unless a run folder is given: they change no latency.
    """

    network: Positional[str]
    """A network that ships (fbnet_c), a family, a JSON file, or the folder of a finished run."""
    runtime: str = "litert"
    """What runs it, separated by commas: litert, onnxruntime, xla."""
    threads: str = "1"
    """Threads, separated by commas: whole numbers from 1."""
    precision: str = "float32"
    """Of the numbers in the file, separated by commas: float32, float16, int8. The last two: litert only."""
    lut: UseAppendAction[tuple[str, ...]] = ()
    """Latency table whose prediction is shown, a shipped name or a path; several: --lut A --lut B. Default: none."""
    missing: Literal["error", "cost-model"] | None = None
    """What to do for an op without a table entry. Default: the cost model of an estimated table, else an error."""
    resolution: int | None = None
    """Side of the input image, in pixels. Default: the network's own."""
    repeats: int = 50
    """Timed calls: a number from 3."""
    json: bool = False
    """Print JSON. No unit."""
