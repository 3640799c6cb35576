"""The soft supernet as Flax's documentation would have it: ``nnx.Conv`` with groups, ``nnx.BatchNorm``, a sum over candidates.

Kinder than idiomatic in one thing: the module is split once and the step jitted over its state by ``jax.jit``, not ``nnx.jit``,
which costs a large module hundreds of milliseconds of Python per call.
"""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from benchmarks.supernet.case import Case
from benchmarks.supernet.jax_common import device_peak, random_batch
from dnas.ops import Op
from dnas.ops import primitives as p


class Block(nnx.Module):
    """One op."""

    def __init__(self, op: Op, rngs: nnx.Rngs):
        self.steps, self.residual = op.primitives(), op.has_residual
        self.parts: Any = nnx.List([])
        for step in self.steps:
            if isinstance(step, p.Conv):
                k = (step.kernel, step.kernel)
                pad = (step.kernel - 1) // 2 if step.pad is None else step.pad
                self.parts.append(nnx.Conv(
                    step.in_, step.out, k, step.stride, padding=pad, feature_group_count=step.groups, use_bias=step.bias,
                    rngs=rngs,
                ))  # fmt: skip
            elif isinstance(step, p.Norm):
                self.parts.append(nnx.BatchNorm(step.channels, momentum=0.9, epsilon=1e-5, rngs=rngs))
            elif isinstance(step, p.Dense):
                self.parts.append(nnx.Linear(step.in_, step.out, use_bias=step.bias, rngs=rngs))
            else:
                self.parts.append(None)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        for step, part in zip(self.steps, self.parts, strict=True):
            if isinstance(step, p.GlobalPool):
                y = y.mean((1, 2))
            elif isinstance(step, p.Shuffle):
                n, h, w, c = y.shape
                y = y.reshape(n, h, w, step.groups, c // step.groups).swapaxes(3, 4).reshape(n, h, w, c)
            elif part is not None:
                y = part(y)
            if isinstance(step, p.Norm) and step.act:
                y = {"relu": nnx.relu, "relu6": nnx.relu6}[step.act](y)
        return y + x if self.residual else y


class SuperNet(nnx.Module):
    def __init__(self, case: Case, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.List([Block(c.op, rngs) for c in s.candidates]) for s in case.build().slots])
        self.theta = nnx.Param(jnp.zeros((len(self.layers), max(len(c) for c in self.layers))))

    def __call__(self, x: jax.Array) -> jax.Array:
        for i, candidates in enumerate(self.layers):
            gates = nnx.softmax(self.theta[i, : len(candidates)])
            x = sum(g * c(x) for g, c in zip(gates, candidates, strict=True)) if len(candidates) > 1 else candidates[0](x)
        return x


class Side:
    """A step of ``case``, soft mode: gradients for weights and logits, SGD with momentum and weight decay."""

    def __init__(self, case: Case):
        assert case.mode == "soft" and not case.remat and case.compute == "float32"
        self.batch = random_batch(case)
        graph, params, rest = nnx.split(SuperNet(case, nnx.Rngs(0)), nnx.Param, ...)  # type: ignore[misc]
        optimiser = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(1e-3, momentum=0.9))
        self.parameters = sum(v.size for v in jax.tree.leaves(params)) - params["theta"].size
        self.state: Any = (params, rest, optimiser.init(params))

        def step(state: Any, x: jax.Array, y: jax.Array) -> Any:
            def losses(params: Any) -> Any:
                net = nnx.merge(graph, params, state[1], copy=True)
                loss = optax.softmax_cross_entropy_with_integer_labels(net(x), y).mean()
                return loss, nnx.split(net, nnx.Param, ...)[2]  # type: ignore[misc]

            (loss, rest), gradients = jax.value_and_grad(losses, has_aux=True)(state[0])
            updates, opt = optimiser.update(gradients, state[2], state[0])
            return (optax.apply_updates(state[0], updates), rest, opt), loss

        self.program: Any = jax.jit(step, donate_argnums=0)

    def prepare(self) -> dict[str, float]:
        start = time.perf_counter()
        lowered = self.program.lower(self.state, *self.batch)
        middle = time.perf_counter()
        self.program = lowered.compile()
        temp = self.program.memory_analysis().temp_size_in_bytes
        return {"trace_s": middle - start, "compile_s": time.perf_counter() - middle, "temp_bytes": temp}

    def step(self) -> float:
        self.state, loss = self.program(self.state, *self.batch)
        jax.block_until_ready(self.state)
        return float(loss)

    def device_peak(self) -> int | None:
        return device_peak()
