"""Training of one finished network, step by step."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from dnas import supernet
from dnas.arch import Architecture
from dnas.devices import data_mesh, replicate, split_batch, spread_over
from dnas.evaluate import accuracy
from dnas.loop import Info
from dnas.ops import LinearOp
from dnas.optimisers import learning_rate, weight_optimiser
from dnas.train.config import TrainConfig

if TYPE_CHECKING:
    from dnas.data import Feed


class State(NamedTuple):
    """Everything that a training must not forget; a plain pytree."""

    params: Any
    stats: Any
    opt: Any
    step: jax.Array  # i32[]
    sums: dict[str, jax.Array]  # f32[]: loss, hits and images of this epoch
    average: Any = None  # (params, stats), averaged over the steps; None if not asked for

    @property
    def measured(self) -> tuple[Any, Any]:
        """The (params, stats) that count."""
        return (self.params, self.stats) if self.average is None else self.average


class Teacher(NamedTuple):
    """A network whose logits are imitated."""

    net: supernet.Net
    params: Any
    stats: Any


@dataclasses.dataclass(frozen=True)
class TrainPhase:
    """Epochs of training as ``config`` (complete) says.

    ``feed``: augmented training batches; ``validation``: images that are measured after every epoch; ``class_weights``: the
    factor of each class in the loss.
    """

    architecture: Architecture
    feed: Feed
    config: TrainConfig
    validation: Feed | None = None
    teacher: Teacher | None = None
    class_weights: tuple[float, ...] | None = None
    first_number: int = 0
    name: str = "training"

    @property
    def epochs(self) -> int:
        return self.config.epochs or 0

    @property
    def lr(self) -> float:
        return self.config.lr or 0.0

    @cached_property
    def net(self) -> supernet.Net:
        return supernet.Net.of(self.architecture)

    @cached_property
    def mesh(self) -> Mesh | None:
        return data_mesh(self.feed.batch_size // self.accumulate, self.config.devices)

    @property
    def accumulate(self) -> int:
        """Parts of a batch; a batch that the data made smaller is not divided."""
        return self.config.accumulate if self.feed.batch_size % self.config.accumulate == 0 else 1

    @cached_property
    def optimiser(self) -> optax.GradientTransformation:
        return weight_optimiser(self.config, self.feed.steps_per_epoch)

    def init(self, params: Any, stats: Any) -> State:
        average = (jax.tree.map(jnp.copy, (params, stats))) if self.config.ema else None
        opt = jax.jit(self.optimiser.init)(params)
        return replicate(self.mesh, State(params, stats, opt, jnp.zeros((), jnp.int32), _zero_sums(), average))

    def steps(self, epoch: int) -> int:
        return self.feed.steps_per_epoch

    def before(self, epoch: int) -> int:
        return epoch * self.feed.steps_per_epoch

    def step(self, state: State, epoch: int, step: int) -> tuple[State, Info]:
        teacher = None if self.teacher is None else (self.teacher.params, self.teacher.stats)
        return self._program(state, *split_batch(self.mesh, self.feed.batch(self.before(epoch) + step)), teacher)

    def end_epoch(self, state: State, epoch: int) -> tuple[State, dict[str, Any]]:
        sums = jax.device_get(state.sums)
        n = float(sums["images"])
        row = {
            "phase": self.name, "epoch": epoch + 1, "lr": float(self.rate(self.before(epoch + 1) - 1)),
            "train_loss": float(sums["loss"]) / n, "train_accuracy": float(sums["hits"]) / n,
        }  # fmt: skip
        if self.validation is not None:
            found = accuracy(self.net, *state.measured, self.validation)
            row |= {"validation_loss": found.loss, "validation_accuracy": found.top1}
        return state._replace(sums=replicate(self.mesh, _zero_sums())), row

    @cached_property
    def rate(self) -> Any:
        """Learning rate at a step."""
        return learning_rate(self.config, self.feed.steps_per_epoch)

    @cached_property
    def _program(self) -> Any:
        """The jitted step: (state, x, y, teacher's (params, stats) or None) -> (state, info); the state is donated."""
        config, parts = self.config, self.accumulate

        def losses(params: Any, stats: Any, x: jax.Array, y: jax.Array, key: Any, teacher: Any) -> Any:
            logits, stats = supernet.apply(
                self.net, params, stats, x, train=True, compute=config.compute_dtype, remat=config.remat, after=self._noise(key)
            )
            logits = logits.astype(jnp.float32)
            loss = self._loss(logits, x, y, teacher)
            wanted = y if y.ndim == 1 else y.argmax(-1)
            return loss, (stats, (logits.argmax(-1) == wanted).sum())

        gradient = jax.value_and_grad(losses, has_aux=True)

        def train_step(state: State, x: jax.Array, y: jax.Array, teacher: Any = None) -> tuple[State, Info]:
            with spread_over(self.mesh):
                return update(state, x, y, teacher)

        def update(state: State, x: jax.Array, y: jax.Array, teacher: Any) -> tuple[State, Info]:
            key = jax.random.fold_in(jax.random.key(config.seed), state.step)
            if parts == 1:
                (loss, (stats, hits)), gradients = gradient(state.params, state.stats, x, y, key, teacher)
            else:
                # every part takes every parts-th image, so that it lies on all devices
                x, y = (v.reshape(-1, parts, *v.shape[1:]).swapaxes(0, 1) for v in (x, y))

                def part(carried: Any, own: Any) -> Any:
                    stats, total, loss, hits = carried
                    number, x, y = own
                    (more, (stats, found)), gradients = gradient(
                        state.params, stats, x, y, jax.random.fold_in(key, number), teacher
                    )
                    total = jax.tree.map(lambda a, b: a + b / parts, total, gradients)
                    return (stats, total, loss + more / parts, hits + found), None

                zeros = jax.tree.map(jnp.zeros_like, state.params)
                begin = (state.stats, zeros, jnp.zeros(()), jnp.zeros((), jnp.int32))
                (stats, gradients, loss, hits), _ = jax.lax.scan(part, begin, (jnp.arange(parts), x, y))
                x, y = (v.reshape(-1, *v.shape[2:]) for v in (x, y))
            updates, opt = self.optimiser.update(gradients, state.opt, state.params)
            params = optax.apply_updates(state.params, updates)
            n = y.shape[0]
            found = {"loss": loss * n, "hits": hits.astype(jnp.float32), "images": jnp.float32(n)}
            sums = {k: state.sums[k] + found[k] for k in found}
            average = state.average
            if average is not None:
                done = state.step.astype(jnp.float32)
                decay = jnp.minimum(config.ema or 0.0, (1 + done) / (10 + done))  # the first steps count less
                average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, (params, stats))
            return State(params, stats, opt, state.step + 1, sums, average), Info(loss, hits / n)

        return jax.jit(train_step, donate_argnums=0)

    def _loss(self, logits: jax.Array, x: jax.Array, y: jax.Array, teacher: Any) -> jax.Array:
        config, classes = self.config, logits.shape[-1]
        if y.ndim == 1 and not config.label_smoothing:
            each = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        else:
            soft = jax.nn.one_hot(y, classes) if y.ndim == 1 else y
            each = optax.softmax_cross_entropy(logits, optax.smooth_labels(soft, config.label_smoothing or 0.0))
        if self.class_weights is not None:
            factors = jnp.asarray(self.class_weights)
            each = each * (factors[y] if y.ndim == 1 else y @ factors)
        loss = each.mean()
        if self.teacher is None:
            return loss
        heat = config.teacher_temperature  # Hinton et al. 2015, arXiv:1503.02531: T^2 keeps the gradients' size
        given, _ = supernet.apply(self.teacher.net, teacher[0], teacher[1], x, compute=config.compute_dtype)
        wanted = jax.nn.softmax(jax.lax.stop_gradient(given.astype(jnp.float32)) / heat)
        distance = optax.kl_divergence(jax.nn.log_softmax(logits / heat), wanted).mean() * heat**2
        return (1 - config.teacher_weight) * loss + config.teacher_weight * distance

    def _noise(self, key: Any) -> Any:
        """Drop-path (Huang et al. 2016, arXiv:1603.09382) and dropout before the classifier; None where there is neither."""
        dropout, path = self.config.dropout or 0.0, self.config.drop_path or 0.0
        if not dropout and not path:
            return None
        residual = [s.index for s in self.net.slots if s.candidates[0].op.has_residual]
        rates = {index: path * number / max(len(residual) - 1, 1) for number, index in enumerate(residual)}
        last = self.net.slots[-1]
        before = last.index - 1 if isinstance(last.candidates[0].op, LinearOp) else None

        def after(slot: Any, x: jax.Array, y: jax.Array) -> jax.Array:
            own = jax.random.fold_in(key, slot.index)
            if rate := rates.get(slot.index, 0.0):
                kept = jax.random.bernoulli(own, 1 - rate, (y.shape[0], 1, 1, 1))
                y = x + (y - x) * (kept / (1 - rate)).astype(y.dtype)
            if dropout and slot.index == before:
                kept = jax.random.bernoulli(own, 1 - dropout, y.shape)
                y = y * (kept / (1 - dropout)).astype(y.dtype)
            return y

        return after


def _zero_sums() -> dict[str, jax.Array]:
    return {name: jnp.zeros(()) for name in ("loss", "hits", "images")}
