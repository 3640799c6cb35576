"""Differentiable search: ``prepare``, ``init``, ``step``, and ``run``, which does all of it. ``python -m dnas.search``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnas.search.engine import Info, Setup, State, init, prepare, step
    from dnas.search.whole import SearchResult, run

_HOME = {
    "Info": "engine", "Setup": "engine", "State": "engine", "init": "engine", "prepare": "engine", "step": "engine",
    "SearchResult": "whole", "run": "whole",
}  # fmt: skip
__all__ = ["Info", "SearchResult", "Setup", "State", "init", "prepare", "run", "step"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
