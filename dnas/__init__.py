"""Differentiable neural architecture search in JAX and Flax.

Importing this starts nothing: names are loaded when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnas import data, derive, gates, latency, oracle, search
    from dnas.arch import Architecture
    from dnas.backbone import features
    from dnas.latency.table import LatencyTable
    from dnas.space import Follow, OneOf, Space, Stage, Template, Width, load_space
    from dnas.supernet import apply, inherit, init

__version__ = "0.1.0"

_HOME = {
    "Architecture": "dnas.arch", "Follow": "dnas.space", "LatencyTable": "dnas.latency.table", "OneOf": "dnas.space",
    "Space": "dnas.space", "Stage": "dnas.space", "Template": "dnas.space", "Width": "dnas.space", "load_space": "dnas.space",
    "apply": "dnas.supernet", "features": "dnas.backbone", "inherit": "dnas.supernet", "init": "dnas.supernet",
}  # fmt: skip
_MODULES = (
    "bench",
    "data",
    "derive",
    "errors",
    "evaluate",
    "export",
    "families",
    "gates",
    "latency",
    "methods",
    "objective",
    "ops",
    "oracle",
    "search",
    "supernet",
    "train",
    "weights",
    "zoo",
)
__all__ = [
    "Architecture", "Follow", "LatencyTable", "OneOf", "Space", "Stage", "Template", "Width", "__version__", "apply", "data",
    "derive", "features", "gates", "inherit", "init", "latency", "load_space", "oracle", "search",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"dnas.{name}")
    raise AttributeError(f"module 'dnas' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES})
