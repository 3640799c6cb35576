"""Differentiable search: ``run`` does all of it, ``resume`` continues it; ``prepare``, ``init``, ``step`` are its parts."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnas.search.engine import Info, Setup, State, init, prepare, step
    from dnas.search.epoch import Epoch
    from dnas.search.results import FamilyResult, SearchResult, SeedsResult
    from dnas.search.whole import resume, run

_HOME = {
    "Epoch": "epoch", "Info": "engine", "Setup": "engine", "State": "engine", "init": "engine", "prepare": "engine",
    "step": "engine",
    "FamilyResult": "results", "SearchResult": "results", "SeedsResult": "results", "resume": "whole", "run": "whole",
}  # fmt: skip
__all__ = [
    "Epoch", "FamilyResult", "Info", "SearchResult", "SeedsResult", "Setup", "State", "init", "prepare", "resume", "run",
    "step",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
