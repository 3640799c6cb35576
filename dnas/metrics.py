"""How good a classifier is: top-1 and top-5 with intervals, confusion, calibration, and a table of the classes."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils

from dnas import supernet
from dnas.devices import settle
from dnas.evaluate import Accuracy, wilson95

if TYPE_CHECKING:
    from dnas.data import Feed

BINS = 15  # of the calibration error, as in Guo et al. 2017


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """What was measured on ``n`` images.

    ``confusion``: i64[classes, classes], rows are the true class. Per image: ``rank``, how many classes came before the true
    one; ``confidence``, the probability of the predicted class; ``hit``, whether it is the true one. ``loss``: mean
    cross-entropy.
    """

    classes: tuple[str, ...]
    confusion: np.ndarray
    rank: np.ndarray
    confidence: np.ndarray
    hit: np.ndarray
    loss: float

    @property
    def n(self) -> int:
        return len(self.hit)

    @property
    def accuracy(self) -> Accuracy:
        """Top-1, with its interval."""
        return Accuracy(int(self.hit.sum()), self.n, self.loss)

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss)

    def top(self, k: int) -> Accuracy:
        """Share of images whose class is among the ``k`` likeliest."""
        return Accuracy(int((self.rank < k).sum()), self.n, self.loss)

    def calibration(self) -> tuple[float, list[dict[str, float]]]:
        """Expected calibration error, and its bins: sum over bins of n_b / n * |accuracy_b - confidence_b|.

        Guo et al. 2017 (arXiv:1706.04599), 15 bins of equal width.
        """
        place = np.clip((self.confidence * BINS).astype(int), 0, BINS - 1)
        rows, total = [], 0.0
        for b in range(BINS):
            here = place == b
            if count := int(here.sum()):
                sure, right = float(self.confidence[here].mean(dtype=np.float64)), float(self.hit[here].mean())
                total += count / self.n * abs(right - sure)
                rows.append({"from": b / BINS, "to": (b + 1) / BINS, "n": count, "confidence": sure, "accuracy": right})
        return total, rows

    def table(self) -> list[dict[str, Any]]:
        """For each class: images, recall with its 95 % interval, precision and F1 (None where undefined), most common error."""
        rows = []
        for i, name in enumerate(self.classes):
            n, said, right = int(self.confusion[i].sum()), int(self.confusion[:, i].sum()), int(self.confusion[i, i])
            wrong = np.where(np.arange(len(self.classes)) == i, 0, self.confusion[i])
            rows.append({
                "class": name, "n": n, "recall": right / n if n else None, "recall_interval95": list(wilson95(right, n)),
                "precision": right / said if said else None, "f1": 2 * right / (n + said) if n + said else None,
                "mistaken_for": self.classes[int(wrong.argmax())] if wrong.any() else None,
            })  # fmt: skip
        return rows

    def to_dict(self) -> dict[str, Any]:
        """JSON; top-5 only where there are more than five classes."""
        error, bins = self.calibration()
        body: dict[str, Any] = {"n": self.n}
        for k in (1, 5) if len(self.classes) > 5 else (1,):
            found = self.top(k)
            body |= {f"top{k}": found.top1, f"top{k}_interval95": list(found.interval95)}
        return body | {
            "loss": self.loss, "calibration_error": error, "calibration": bins, "classes": self.table(),
            "confusion": self.confusion.tolist(),
        }  # fmt: skip


def evaluate(net: supernet.Net, params: Any, stats: Any, feed: Feed, classes: tuple[str, ...]) -> Evaluation:
    """All images of ``feed``, once, with running statistics."""
    found: list[tuple[np.ndarray, ...]] = []
    for x, y, mask in feed.evaluation():
        values = _judged(net, params, stats, x, y)
        settle(values[0])
        if jax.process_count() > 1:
            values, y, mask = multihost_utils.process_allgather((values, y, mask), tiled=True)
        seen = np.asarray(mask) > 0
        found.append(tuple(np.asarray(v)[seen] for v in (*values, y)))
    said, rank, sure, loss, true = (np.concatenate(parts) for parts in zip(*found, strict=True))
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (true, said), 1)
    return Evaluation(classes, confusion, rank, sure, said == true, float(loss.mean(dtype=np.float64)))


@partial(jax.jit, static_argnums=0)
def _judged(net: supernet.Net, params: Any, stats: Any, x: Any, y: Any) -> tuple[jax.Array, ...]:
    """For each image: predicted class, rank of the true one, confidence, cross-entropy."""
    logits, _ = supernet.apply(net, params, stats, x)
    logits = logits.astype(jnp.float32)
    own, number = jnp.take_along_axis(logits, y[:, None], axis=1), jnp.arange(logits.shape[1])[None]
    ahead = (logits > own) | ((logits == own) & (number < y[:, None]))  # of equal ones the first wins, as in argmax
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return logits.argmax(-1), ahead.sum(-1), jax.nn.softmax(logits).max(-1), loss
