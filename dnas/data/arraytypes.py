"""The array types of this room, with their shapes: n images, h pixels high, w wide, c channels."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, Integer, UInt8

Images = UInt8[np.ndarray, "n h w c"]
Labels = Int32[np.ndarray, "n"]
Indices = Integer[np.ndarray, "n"]
Shape = tuple[int, int, int, int]


@runtime_checkable
class Lazy(Protocol):
    """Images that are decoded when they are asked for, because all of them would not fit into memory."""

    @property
    def shape(self) -> Shape:
        """(n, h, w, c), as an array would say it."""

    def __len__(self) -> int:
        """The number of images."""

    def read(self, indices: Indices) -> Images:
        """The images at these indices; called from several threads at once."""

    def take(self, indices: Indices) -> Lazy:
        """The same images, restricted to these indices and in this order."""


Store = np.ndarray | Lazy
