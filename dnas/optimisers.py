"""Optimisers of network weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

if TYPE_CHECKING:
    from dnas.train.config import TrainConfig


def sgd_cosine(
    lr: float, steps: int, weight_decay: float, momentum: float = 0.9, optimiser: str = "sgd"
) -> optax.GradientTransformation:
    """SGD with momentum, L2 on kernels (not on biases and BN), and a learning rate that falls to 0 along a cosine.

    ``optimiser``: sgd; nesterov, as ProxylessNAS trains its supernet; rmsprop with epsilon 1, as TuNAS does.
    """
    schedule = optax.cosine_decay_schedule(lr, max(steps, 1))
    if optimiser == "rmsprop":
        step = optax.rmsprop(schedule, decay=0.9, eps=1.0, eps_in_sqrt=True, initial_scale=1.0, momentum=momentum)
    else:
        step = optax.sgd(schedule, momentum=momentum, nesterov=optimiser == "nesterov")
    return optax.chain(optax.add_decayed_weights(weight_decay, mask=_kernels), step)


def learning_rate(config: TrainConfig, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate at a step: linear from 0 in the warm-up, then the schedule of ``config`` (complete)."""
    assert config.epochs is not None and config.lr is not None and config.warm_up is not None
    total = config.epochs * steps_per_epoch
    warm = round(config.warm_up * total)
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(config.lr, max(total - warm, 1))
    else:
        assert config.step_epochs is not None and config.step_factor is not None
        lr, factor, every = config.lr, config.step_factor, config.step_epochs * steps_per_epoch

        def after(step: Any) -> Any:
            return lr * factor ** jnp.floor((step + warm) / every)  # steps are counted from the start

    return optax.join_schedules([optax.linear_schedule(0.0, config.lr, warm), after], [warm]) if warm else after


def weight_optimiser(config: TrainConfig, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimiser of ``config`` (complete): clipping, then L2 on kernels (AdamW: decoupled), then the step."""
    assert config.momentum is not None and config.weight_decay is not None
    rate = learning_rate(config, steps_per_epoch)
    mask = None if config.decay_all else _kernels
    parts = [optax.clip_by_global_norm(config.clip)] if config.clip else []
    if config.optimiser == "adamw":
        return optax.chain(*parts, optax.adamw(rate, b1=config.momentum, weight_decay=config.weight_decay, mask=mask))
    parts.append(optax.add_decayed_weights(config.weight_decay, mask=mask))
    if config.optimiser == "sgd":
        parts.append(optax.sgd(rate, momentum=config.momentum or None, nesterov=bool(config.nesterov)))
    else:  # as in TensorFlow: epsilon inside the root, averages begin at 1, the rate inside the momentum
        parts.append(
            optax.rmsprop(rate, decay=0.9, eps=1e-3, eps_in_sqrt=True, initial_scale=1.0, momentum=config.momentum or None)
        )
    return optax.chain(*parts)


def _kernels(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
