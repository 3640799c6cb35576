"""Optimisers of network weights."""

from __future__ import annotations

from typing import Any

import jax
import optax


def sgd_cosine(lr: float, steps: int, weight_decay: float, momentum: float = 0.9) -> optax.GradientTransformation:
    """SGD with momentum, L2 on kernels (not on biases and BN), and a learning rate that falls to 0 along a cosine."""
    schedule = optax.cosine_decay_schedule(lr, max(steps, 1))
    return optax.chain(optax.add_decayed_weights(weight_decay, mask=_kernels), optax.sgd(schedule, momentum=momentum))


def _kernels(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
