"""Training of finished networks: ``run`` does all of it, ``resume`` continues it; ``python -m dnas.train``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnas.train.config import TrainConfig
    from dnas.train.epoch import Epoch
    from dnas.train.phase import State, TrainPhase
    from dnas.train.whole import TrainResult, resume, run

_HOME = {
    "Epoch": "epoch", "State": "phase", "TrainPhase": "phase", "TrainConfig": "config",
    "TrainResult": "whole", "resume": "whole", "run": "whole",
}  # fmt: skip
__all__ = ["Epoch", "State", "TrainConfig", "TrainPhase", "TrainResult", "resume", "run"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
