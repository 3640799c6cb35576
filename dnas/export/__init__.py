"""Trained networks as files for other programs, one module per format; ``run`` writes, runs and compares them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnas.export.trained import Trained
    from dnas.export.whole import Report, run

_HOME = {"Report": "whole", "Trained": "trained", "run": "whole"}
__all__ = ["Report", "Trained", "run"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
