"""One training of one network: the sampled step of the supernet with a fixed genotype and fresh weights.

The genotype is an argument of the compiled program, so one compilation serves all networks. Images stay on the device.
"""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dnas import gates as gates_lib
from dnas import supernet
from dnas.data import Dataset, Split
from dnas.data.augment import shrink
from dnas.optimisers import sgd_cosine
from dnas.space import Genotype, Space

RECALIBRATION = 1024  # images for the BN statistics that the test is made with
TEST_BATCH = 50  # images, whose maps stay in the processor's caches: half the time of 500


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How each network is trained: SGD with momentum 0.9, a cosine of the learning rate, no augmentation."""

    images: int = 16_000
    epochs: int = 3
    batch_size: int = 64
    lr: float = 0.1
    weight_decay: float = 1e-4
    held_out: int = 20_000
    """Training images of the source that no network is trained on: they are test images too, for less noise."""

    @property
    def steps(self) -> int:
        """Per epoch; a last incomplete batch is left out."""
        return self.images // self.batch_size


class Images(NamedTuple):
    """f32[n, h, w, c], 0 to 255, in the space's resolution, and i32[n] of the training and the test images."""

    x: jax.Array
    y: jax.Array
    test_x: jax.Array
    test_y: jax.Array


def training_images(data: Dataset, recipe: Recipe) -> Split:
    """The same for all networks, seeds and searches."""
    return data.train.subset(np.sort(_order(data)[: recipe.images]))


def test_images(data: Dataset, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """(images, labels) of the test split and of what is held out."""
    assert recipe.images + recipe.held_out <= len(data.train)
    more = data.train.subset(np.sort(_order(data)[len(data.train) - recipe.held_out :]))
    both = [(s.images, s.labels) for s in (data.test, more)]
    return np.concatenate([x for x, _ in both]), np.concatenate([y for _, y in both])


def _order(data: Dataset) -> np.ndarray:
    return np.random.default_rng(0).permutation(len(data.train))


class Outcome(NamedTuple):
    """``hits``: of the test images, after recalibration; ``test_loss``, ``train_loss``: cross-entropy, of the last epoch."""

    hits: int
    test_loss: float
    train_loss: float


class Trainer:
    """Trains any network of ``space`` on ``recipe.images`` images of ``data``, the same for all networks and seeds."""

    def __init__(self, space: Space, data: Dataset, recipe: Recipe):
        self.space, self.recipe, self.data = space, recipe, data
        self.net = supernet.Net.of(space)
        self.traces = 0
        chosen = training_images(data, recipe)
        test_x, test_y = test_images(data, recipe)

        def small(images: Any) -> jax.Array:
            return shrink(jnp.asarray(images, jnp.float32), space.resolution)  # as ``Feed`` does

        self.images = Images(small(chosen.images), jnp.asarray(chosen.labels), small(test_x), jnp.asarray(test_y))
        self._program: Any = jax.jit(self._train)

    def compile(self) -> float:
        """Compile the program, for the first training not to be slower than the others; CPU seconds."""
        begun = time.process_time()
        index = {n: jnp.int32(0) for n in self.space.choices}
        self._program = self._program.lower(jax.random.key(0), index, self.images).compile()
        return round(time.process_time() - begun, 2)

    def __call__(self, genotype: Genotype, seed: int) -> Outcome:
        """The same genotype and seed give the same outcome; the seed decides the first weights and the order of the images."""
        index = {n: jnp.int32(i) for n, i in self.space.assignment(genotype).items()}
        hits, test_loss, train_loss = jax.device_get(self._program(jax.random.key(seed), index, self.images))
        return Outcome(int(hits), float(test_loss), float(train_loss))

    def _train(self, key: jax.Array, index: dict[str, jax.Array], images: Images) -> tuple[jax.Array, ...]:
        self.traces += 1
        recipe = self.recipe
        gates = gates_lib.one_hot(self.space, index)
        weights_key, order_key = jax.random.split(key)
        _, params, stats = supernet.init(self.space, weights_key)
        optimiser = sgd_cosine(recipe.lr, recipe.epochs * recipe.steps, recipe.weight_decay)

        def loss_of(params: Any, stats: Any, x: jax.Array, y: jax.Array) -> Any:
            logits, stats = supernet.apply(self.net, params, stats, self._normal(x), gates, True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), stats

        def step(carry: Any, picked: jax.Array) -> Any:
            params, stats, memory = carry
            slope = jax.value_and_grad(loss_of, has_aux=True)
            (loss, stats), grads = slope(params, stats, images.x[picked], images.y[picked])
            updates, memory = optimiser.update(grads, memory, params)  # no mask: what does not run is not used either
            return (optax.apply_updates(params, updates), stats, memory), loss

        def epoch(carry: Any, key: jax.Array) -> Any:
            order = jax.random.permutation(key, len(images.y))[: recipe.steps * recipe.batch_size]
            carry, losses = jax.lax.scan(step, carry, order.reshape(recipe.steps, recipe.batch_size))
            return carry, losses.mean()

        carry = (params, stats, optimiser.init(params))
        (params, stats, _), losses = jax.lax.scan(epoch, carry, jax.random.split(order_key, recipe.epochs))
        return *self._test(params, stats, gates, images), losses[-1]

    def _test(self, params: Any, stats: Any, gates: gates_lib.Gates, images: Images) -> tuple[jax.Array, jax.Array]:
        """Hits and mean cross-entropy on the test images, after BN statistics are the mean over training batches."""
        size = self.recipe.batch_size
        run = partial(supernet.apply, self.net, params)
        few = -(-min(RECALIBRATION, len(images.y)) // size)

        def gather(stats: Any, i: jax.Array) -> tuple[Any, None]:
            x = jax.lax.dynamic_slice_in_dim(images.x, i * size, size)
            return run(stats, self._normal(x), gates, True, i / (i + 1))[1], None  # momentum i / (i + 1): the mean so far

        stats, _ = jax.lax.scan(gather, stats, jnp.arange(few))

        def batch(xy: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            logits, _ = run(stats, self._normal(xy[0]), gates, False)
            return (logits.argmax(-1) == xy[1]).sum(), optax.softmax_cross_entropy_with_integer_labels(logits, xy[1]).sum()

        n = len(images.test_y)
        size = max(d for d in range(1, TEST_BATCH + 1) if n % d == 0)
        parts = images.test_x.reshape(n // size, size, *images.test_x.shape[1:]), images.test_y.reshape(n // size, size)
        hits, losses = jax.lax.map(batch, parts)
        return hits.sum(), losses.sum() / n

    def _normal(self, x: jax.Array) -> jax.Array:
        mean, std = (jnp.asarray(v, jnp.float32).reshape(1, 1, 1, -1) for v in (self.data.mean, self.data.std))
        return (x / 255 - mean) / std
