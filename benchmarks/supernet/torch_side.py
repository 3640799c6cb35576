# mypy: ignore-errors
"""The same supernet in PyTorch, as its users write it: ``nn.Conv2d``, ``nn.BatchNorm2d``, in-place activations, SGD."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.supernet.case import Case
from dnas.ops import Op
from dnas.ops import primitives as p
from dnas.space import Space

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "hswish": lambda: nn.Hardswish(inplace=True),
}


class Shuffle(nn.Module):
    def __init__(self, groups: int):
        super().__init__()
        self.groups = groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.channel_shuffle(x, self.groups)


class Pool(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def module(step: p.Primitive) -> nn.Module:
    """One primitive. Paddings are symmetric, as in the spaces that are measured."""
    if isinstance(step, p.Conv):
        pad = (step.kernel - 1) // 2 if step.pad is None else step.pad
        return nn.Conv2d(step.in_, step.out, step.kernel, step.stride, pad, groups=step.groups, bias=step.bias)
    if isinstance(step, p.Norm):
        norm = nn.BatchNorm2d(step.channels)
        return nn.Sequential(norm, ACTIVATIONS[step.act]()) if step.act else norm
    if isinstance(step, p.Shuffle):
        return Shuffle(step.groups) if step.groups > 1 else nn.Identity()
    if isinstance(step, p.GlobalPool):
        return Pool()
    if isinstance(step, p.Dense):
        return nn.Linear(step.in_, step.out, bias=step.bias)
    raise TypeError(f"no PyTorch module for {step!r}")


class Block(nn.Module):
    """One op."""

    def __init__(self, op: Op):
        super().__init__()
        self.body = nn.Sequential(*(module(s) for s in op.primitives()))
        self.residual = op.has_residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x)
        return y + x if self.residual else y


class SuperBlock(nn.Module):
    """All candidates of one layer."""

    def __init__(self, ops: list[Op]):
        super().__init__()
        self.candidates = nn.ModuleList(Block(op) for op in ops)

    def forward(self, x: torch.Tensor, weights: torch.Tensor, active: list[int] | None) -> torch.Tensor:
        run = range(len(self.candidates)) if active is None else active
        return sum(weights[i] * self.candidates[i](x) for i in run)


class SuperNet(nn.Module):
    """``theta``: one vector of logits per searchable layer. ``paths``: the candidates that run, per layer, or None for all."""

    def __init__(self, space: Space, only: dict[str, int] | None = None):
        super().__init__()
        self.layers = nn.ModuleList()
        self.names: list[str | None] = []
        for slot in space.slots:
            ops = [c.op for c in slot.candidates]
            name = slot.choices[0] if slot.choices and only is None else None
            self.names.append(name)
            self.layers.append(
                SuperBlock(ops) if name else Block(ops[(only or {}).get(slot.choices[0], 0) if slot.choices else 0])
            )
        self.theta = nn.ParameterDict(
            {_key(n): torch.zeros(len(space.choices[n].options)) for n in space.choices if only is None}
        )

    def forward(self, x: torch.Tensor, paths: dict[str, list[int]] | None) -> torch.Tensor:
        for name, layer in zip(self.names, self.layers, strict=True):
            if name is None:
                x = layer(x)
            else:
                x = layer(x, torch.softmax(self.theta[_key(name)], 0), None if paths is None else paths[name])
        return x


def _key(name: str) -> str:
    return name.replace(".", "_")  # PyTorch forbids dots


class Side:
    """A step of ``case``: gradients for weights and theta, an SGD step with momentum and weight decay on the weights."""

    def __init__(self, case: Case):
        assert not case.remat
        torch.manual_seed(0)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        space = case.build()
        chosen = case.chosen(space)
        only = {n: v[0] for n, v in chosen.items()} if case.mode == "fixed" else None
        self.paths = chosen if case.mode == "sampled" else None
        memory = torch.channels_last if case.layout == "channels_last" else torch.contiguous_format
        self.net: Any = SuperNet(space, only).to(self.device, memory_format=memory)
        weights = [v for n, v in self.net.named_parameters() if not n.startswith("theta")]
        self.parameters = sum(v.numel() for v in weights)
        self.optimiser = torch.optim.SGD(weights, lr=1e-3, momentum=0.9, weight_decay=1e-4)
        self.compute = torch.bfloat16 if case.compute == "bfloat16" else None
        images = torch.randn(case.batch, 3, space.resolution, space.resolution)
        self.x = images.to(self.device, memory_format=memory)
        self.y = torch.randint(space.num_classes, (case.batch,), device=self.device)
        mode = {"eager": None, "compile": "default", "compile+graphs": "reduce-overhead"}[case.compiler]
        self.forward = torch.compile(self.net, mode=mode) if mode else self.net

    def prepare(self) -> dict[str, float]:
        """PyTorch compiles in its first step, if at all."""
        return {}

    def step(self) -> float:
        self.optimiser.zero_grad(set_to_none=True)
        for theta in self.net.theta.values():
            theta.grad = None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.compute is not None):
            loss = functional.cross_entropy(self.forward(self.x, self.paths), self.y)
        loss.backward()
        self.optimiser.step()
        value = float(loss.detach())
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return value

    def device_peak(self) -> int | None:
        return torch.cuda.max_memory_allocated() if self.device.type == "cuda" else None
