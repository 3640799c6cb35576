"""What a network costs on this machine: ``run`` measures latency, memory and file size beside a table's prediction."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnas.bench.whole import Bench, run

__all__ = ["Bench", "run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.whole"), name)
