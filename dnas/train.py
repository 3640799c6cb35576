"""Training of one finished network."""

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
from dnas.devices import data_mesh, replicate, split_batch
from dnas.loop import Info
from dnas.optimisers import sgd_cosine

if TYPE_CHECKING:
    from dnas.data import Feed


class State(NamedTuple):
    """Everything that a training must not forget; a plain pytree."""

    params: Any
    stats: Any
    opt: Any
    step: jax.Array  # i32[]
    sums: dict[str, jax.Array]  # f32[]: loss, hits and images of this epoch


@dataclasses.dataclass(frozen=True)
class TrainPhase:
    """SGD with a cosine learning rate on cross-entropy. ``feed``: augmented training batches; ``lr`` per step."""

    architecture: Architecture
    feed: Feed
    epochs: int
    lr: float
    weight_decay: float
    compute: str | None = None
    remat: bool = False
    devices: int | None = None
    first_number: int = 0
    name: str = "training"

    @cached_property
    def net(self) -> supernet.Net:
        return supernet.Net.of(self.architecture)

    @cached_property
    def mesh(self) -> Mesh | None:
        return data_mesh(self.feed.batch_size, self.devices)

    @cached_property
    def optimiser(self) -> optax.GradientTransformation:
        return sgd_cosine(self.lr, self.before(self.epochs), self.weight_decay)

    def init(self, params: Any, stats: Any) -> State:
        state = State(
            params,
            stats,
            jax.jit(self.optimiser.init)(params),
            jnp.zeros((), jnp.int32),
            _zero_sums(),
        )
        return replicate(self.mesh, state)

    def steps(self, epoch: int) -> int:
        return self.feed.steps_per_epoch

    def before(self, epoch: int) -> int:
        return epoch * self.feed.steps_per_epoch

    def step(self, state: State, epoch: int, step: int) -> tuple[State, Info]:
        return self._program(state, *split_batch(self.mesh, self.feed.batch(self.before(epoch) + step)))

    def end_epoch(self, state: State, epoch: int) -> tuple[State, dict[str, Any]]:
        sums = jax.device_get(state.sums)
        n = float(sums["images"])
        row = {
            "phase": self.name, "epoch": epoch + 1,
            "train_loss": float(sums["loss"]) / n, "train_accuracy": float(sums["hits"]) / n,
        }  # fmt: skip
        return state._replace(sums=replicate(self.mesh, _zero_sums())), row

    @cached_property
    def _program(self) -> Any:
        def train_step(state: State, x: jax.Array, y: jax.Array) -> tuple[State, Info]:
            def losses(params: Any) -> Any:
                logits, stats = supernet.apply(
                    self.net, params, state.stats, x, train=True, compute=self.compute, remat=self.remat
                )
                logits = logits.astype(jnp.float32)
                loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
                return loss, (stats, (logits.argmax(-1) == y).sum())

            (loss, (stats, hits)), gradients = jax.value_and_grad(losses, has_aux=True)(state.params)
            updates, opt = self.optimiser.update(gradients, state.opt, state.params)
            n = y.shape[0]
            found = {"loss": loss * n, "hits": hits.astype(jnp.float32), "images": jnp.float32(n)}
            sums = {k: state.sums[k] + found[k] for k in found}
            new = State(optax.apply_updates(state.params, updates), stats, opt, state.step + 1, sums)
            return new, Info(loss, hits / n)

        return jax.jit(train_step, donate_argnums=0)


def _zero_sums() -> dict[str, jax.Array]:
    return {name: jnp.zeros(()) for name in ("loss", "hits", "images")}
