"""Recalibration of BN statistics, and accuracy with its confidence interval."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from dnas import supernet
from dnas.gates import Gates

if TYPE_CHECKING:
    from dnas.data import Feed

CALIBRATION_IMAGES = 1000


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy (0 to 1) and mean cross-entropy over ``n`` images."""

    hits: int
    n: int
    loss: float

    @property
    def top1(self) -> float:
        return self.hits / self.n

    @property
    def interval95(self) -> tuple[float, float]:
        """Wilson's interval (1927): honest also near 0 and 1, and for few images."""
        z, n, p = 1.959964, self.n, self.top1
        centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max((centre - spread) / (1 + z * z / n), 0.0), min((centre + spread) / (1 + z * z / n), 1.0)

    def to_dict(self) -> dict[str, Any]:
        return {"top1": self.top1, "interval95": list(self.interval95), "n": self.n, "loss": self.loss}

    def __str__(self) -> str:
        low, high = self.interval95
        return f"{self.top1:.2%} (95 % interval {low:.2%} to {high:.2%}, n = {self.n})"


def recalibrate(
    net: supernet.Net, params: Any, stats: Any, feed: Feed, gates: Gates | None = None, images: int = CALIBRATION_IMAGES
) -> Any:
    """BN statistics of the network that ``gates`` select: the mean over at least ``images`` unaugmented images.

    ``feed``: unaugmented batches of the weight split; all of them where there are fewer images.
    """
    for index in range(min(-(-images // feed.batch_size), feed.steps_per_epoch)):
        x, _ = feed.batch(index)
        stats = _calibrate(net, params, stats, gates, x, jnp.float32(index / (index + 1)))
    return stats


def accuracy(net: supernet.Net, params: Any, stats: Any, feed: Feed, gates: Gates | None = None) -> Accuracy:
    """Accuracy with running statistics over all images of ``feed``."""
    totals = [_measure(net, params, stats, gates, *batch) for batch in feed.evaluation()]
    hits, loss, n = (float(sum(jax.device_get(t[i]) for t in totals)) for i in range(3))
    return Accuracy(round(hits), round(n), loss / n)


@partial(jax.jit, static_argnums=0)
def _calibrate(net: supernet.Net, params: Any, stats: Any, gates: Gates | None, x: jax.Array, momentum: jax.Array) -> Any:
    return supernet.apply(net, params, stats, x, gates, train=True, momentum=momentum)[1]


@partial(jax.jit, static_argnums=0)
def _measure(
    net: supernet.Net, params: Any, stats: Any, gates: Gates | None, x: jax.Array, y: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    logits, _ = supernet.apply(net, params, stats, x, gates)
    logits = logits.astype(jnp.float32)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return ((logits.argmax(-1) == y) * mask).sum(), (loss * mask).sum(), mask.sum()
