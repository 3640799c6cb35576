"""Recalibration of BN statistics, and accuracy with its confidence interval."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from dnas import supernet
from dnas.ahead import Program
from dnas.devices import mesh_of, settle, split_batch, spread_over
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
    def finite(self) -> bool:
        return math.isfinite(self.loss)

    @property
    def interval95(self) -> tuple[float, float]:
        return wilson95(self.hits, self.n)

    def to_dict(self) -> dict[str, Any]:
        return {"top1": self.top1, "interval95": list(self.interval95), "n": self.n, "loss": self.loss}

    def __str__(self) -> str:
        low, high = self.interval95
        return f"{self.top1:.2%} (95 % interval {low:.2%} to {high:.2%}, n = {self.n})"


def wilson95(hits: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share by Wilson (1927): honest also near 0 and 1, and for few images; (0, 1) for none."""
    if not n:
        return 0.0, 1.0
    z, p = 1.959964, hits / n
    centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max((centre - spread) / (1 + z * z / n), 0.0), min((centre + spread) / (1 + z * z / n), 1.0)


def recalibrate(
    net: supernet.Net, params: Any, stats: Any, feed: Feed, gates: Gates | None = None, images: int = CALIBRATION_IMAGES
) -> Any:
    """BN statistics of the network that ``gates`` select: the mean over at least ``images`` unaugmented images.

    ``feed``: unaugmented batches of the weight split; where it has fewer images, about as many as it has.
    """
    for index in range(-(-min(images, len(feed.split)) // feed.batch_size)):
        mesh, batch = _calibration(params, feed, index)
        stats, _ = _program(net, mesh, params, stats, gates, *batch)
        settle(stats)
    return stats


def _calibration(params: Any, feed: Feed, index: int) -> tuple[Mesh | None, tuple[Any, ...]]:
    """Devices, and images, labels, mask, whether to train, and momentum: i / (i + 1) makes the statistics the mean of all
    batches so far."""
    x, y = feed.batch(index)
    mesh, shared = _shared(params, (x, y, jnp.ones(y.shape)))
    return mesh, (*shared, jnp.bool_(True), jnp.float32(index / (index + 1)))


def _shared(params: Any, batch: tuple[Any, ...]) -> tuple[Mesh | None, tuple[Any, ...]]:
    """The devices that hold ``params``, and ``batch`` split over them where they divide it."""
    mesh = mesh_of(params)
    mesh = None if mesh is None or batch[0].shape[0] % mesh.size else mesh
    return mesh, split_batch(mesh, batch)


def ahead(net: supernet.Net, params: Any, stats: Any, feed: Feed, gates: Gates | None = None) -> None:
    """Begin to compile what ``recalibrate`` and ``accuracy`` run, in a thread."""
    mesh, batch = _calibration(params, feed, 0)
    _program.ahead(net, mesh, params, stats, gates, *batch)


def accuracy(net: supernet.Net, params: Any, stats: Any, feed: Feed, gates: Gates | None = None) -> Accuracy:
    """Accuracy with running statistics over all images of ``feed``."""
    still, totals = (jnp.bool_(False), jnp.float32(0)), []
    for batch in feed.evaluation():
        mesh, shared = _shared(params, batch)
        totals.append(_program(net, mesh, params, stats, gates, *shared, *still)[1])
        settle(totals[-1])
    hits, loss, n = (float(v) for v in jnp.stack(totals).sum(0))
    return Accuracy(round(hits), round(n), loss / n)


def _forward(
    net: supernet.Net, mesh: Mesh | None, params: Any, stats: Any, gates: Gates | None, x: Any, y: Any, mask: Any, train: Any,
    momentum: Any,
) -> tuple[Any, jax.Array]:  # fmt: skip
    """Statistics after the batch, and (hits, summed loss, images). ``train`` is traced: one program serves both uses."""
    with spread_over(mesh):
        logits, stats = supernet.apply(net, params, stats, x, gates, train, momentum)
    logits = logits.astype(jnp.float32)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return stats, jnp.stack([((logits.argmax(-1) == y) * mask).sum(), (loss * mask).sum(), mask.sum()])


_program = Program(_forward, static_argnums=(0, 1))
