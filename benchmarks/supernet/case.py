"""What is measured: one way to run one supernet, as a value that goes to a process of its own."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal

from dnas.macro import fbnet_block
from dnas.ops import ConvOp, GlobalPoolOp, LinearOp, Op, SkipOp
from dnas.slots import Layer, OneOf
from dnas.space import Space, load_space

Mode = Literal["soft", "sampled", "fixed"]
# kernel and expansion of the candidates of the spaces made here; 3 are among the 18
CANDIDATES = {3: ((3, 6), (5, 3), (7, 1)), 18: tuple((k, e) for k in (3, 5, 7) for e in range(1, 7))}


@dataclasses.dataclass(frozen=True)
class Case:
    """``side``: dnas, flax (idiomatic) or torch. ``paths``: candidates that run per layer in sampled mode. ``path``: which
    comes first, by label, in sampled and fixed mode. ``devices``: that share the batch, and ``xla``: flags besides those of the
    commands; dnas only. ``layout`` and ``compiler`` are PyTorch's."""

    side: Literal["dnas", "flax", "torch"] = "dnas"
    mode: Mode = "soft"
    space: str = "fbnet_cifar"
    candidates: int = 9
    batch: int = 32
    paths: int = 1
    path: str = "k3_e6"
    remat: bool = False
    compute: str = "float32"
    devices: int = 1
    xla: str = ""
    layout: Literal["channels_last", "nchw"] = "channels_last"
    compiler: Literal["eager", "compile", "compile+graphs"] = "eager"

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    def __str__(self) -> str:
        words = [self.side, self.mode if self.mode != "sampled" else f"sampled {self.paths}"]
        words += ["remat"] * self.remat + ["bf16"] * (self.compute == "bfloat16")
        words += [f"{self.devices} devices"] * (self.devices > 1)
        words += [self.xla] * bool(self.xla)
        if self.side == "torch":
            words += [self.layout] + [self.compiler] * (self.compiler != "eager")
        return " ".join(words)

    @property
    def workload(self) -> str:
        return f"{self.space}, {self.candidates} candidates, batch {self.batch}"

    def build(self) -> Space:
        """The space: a shipped one (nine candidates), or its macro-architecture with others."""
        space = load_space(self.space)
        return space if self.candidates == 9 else _with(space, CANDIDATES[self.candidates])

    def chosen(self, space: Space) -> dict[str, list[int]]:
        """Per choice, the indices of ``paths`` candidates: ``path`` first, then those that follow; none in soft mode."""
        found: dict[str, list[int]] = {}
        if self.mode == "soft":
            return found
        for name, choice in space.choices.items():
            first = list(choice.labels).index(self.path)
            found[name] = [(first + j) % len(choice.labels) for j in range(self.paths)]
        return found


def _with(space: Space, candidates: tuple[tuple[int, int], ...]) -> Space:
    """``space`` with other candidates (kernel, expansion) in each searchable layer; none skips."""
    layers: list[Layer] = []
    for layer in space.layers:
        if isinstance(layer, OneOf):
            first: Any = next(op for op in layer.options if not isinstance(op, SkipOp))
            ops: list[Op] = [fbnet_block(first.in_, first.out, first.stride, k, e, 1, True) for k, e in candidates]
            layers.append(OneOf(layer.name, tuple(ops)))
        else:
            assert isinstance(layer, ConvOp | GlobalPoolOp | LinearOp)
            layers.append(layer)
    return Space(f"{space.name}_{len(candidates)}", tuple(layers), 3, space.resolution, space.num_classes)
