"""Image sets: load one, divide it into the four splits of a search, and feed batches to the device.

    dataset = dnas.data.load("digits")
    splits = dnas.data.split(dataset, seed=0)
    feed = dnas.data.Feed(splits.weights, batch_size=64, resolution=16, channels=1, mean=dataset.mean, std=dataset.std)
    x, y = feed.batch(0)

The names are imported when they are first used: importing this package starts neither JAX nor TFDS nor scikit-learn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnas.data.dataset import Dataset, Split, Splits, split
    from dnas.data.feed import Feed
    from dnas.data.sources import load

__all__ = ["Dataset", "Feed", "Split", "Splits", "load", "split"]

_HOME = {
    "Dataset": "dnas.data.dataset",
    "Split": "dnas.data.dataset",
    "Splits": "dnas.data.dataset",
    "split": "dnas.data.dataset",
    "load": "dnas.data.sources",
    "Feed": "dnas.data.feed",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOME))
