"""A written file beside the network that it was written from: how far outputs and accuracy differ."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from dnas.evaluate import Accuracy

TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "int8": 0.3}
"""Largest |difference| as a share of the largest |output|. float32: rounding is 6e-8, sums in another order through a hundred
layers make it 1e-5 at worst; float16 rounds weights to 5e-4; int8 has steps of 1/255 of each map's range, in every layer."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """Of outputs over ``n`` inputs: ``max_abs``, and ``relative``, its share of the largest |output| of the network."""

    n: int
    max_abs: float
    relative: float

    @classmethod
    def of(cls, got: np.ndarray, wanted: np.ndarray) -> Difference:
        """Outputs of another shape, or that are not finite where the network's are, are infinitely far.

        >>> Difference.of(np.array([[1.0, 2.5]]), np.array([[1.0, 2.0]]))
        Difference(n=1, max_abs=0.5, relative=0.25)
        """
        if got.shape != wanted.shape:
            return cls(len(wanted), math.inf, math.inf)
        worst = float(np.abs(got - wanted).max())
        largest = float(np.abs(wanted).max())
        worst = worst if math.isfinite(worst) else math.inf
        return cls(len(wanted), worst, worst / largest if largest else worst)


@dataclasses.dataclass(frozen=True)
class Lost:
    """Top-1 of the network and of the file on the same images; ``lost`` of it, with a 95 % interval from the pairs."""

    network: Accuracy
    file: Accuracy
    lost: float
    interval95: tuple[float, float]

    @classmethod
    def of(cls, got: np.ndarray, wanted: np.ndarray, labels: np.ndarray) -> Lost:
        """From logits [n, classes]. Images on which both are right, or both wrong, say nothing of the difference."""
        right, was_right = got.argmax(1) == labels, wanted.argmax(1) == labels
        n = len(labels)
        worse, better = int((was_right & ~right).sum()), int((right & ~was_right).sum())
        lost = (worse - better) / n
        spread = 1.959964 * math.sqrt(max(worse + better - (worse - better) ** 2 / n, 0)) / n
        return cls(_accuracy(wanted, labels), _accuracy(got, labels), lost, (lost - spread, lost + spread))

    def to_dict(self) -> dict[str, Any]:
        both = {"network": self.network.to_dict(), "file": self.file.to_dict()}
        return {**both, "lost": self.lost, "interval95": list(self.interval95)}

    def __str__(self) -> str:
        low, high = self.interval95
        return (
            f"top-1 {self.file.top1:.2%}, the network's {self.network.top1:.2%} (n = {self.file.n}): "
            f"{100 * self.lost:.2f} points lost (95 % interval {100 * low:.2f} to {100 * high:.2f})"
        )


def _accuracy(logits: np.ndarray, labels: np.ndarray) -> Accuracy:
    z = logits.astype(np.float64)
    z -= z.max(1, keepdims=True)
    losses = np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), labels]
    return Accuracy(int((logits.argmax(1) == labels).sum()), len(labels), float(losses.mean()))
