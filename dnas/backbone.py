"""Networks as backbones of dense tasks: feature maps at strides 4 to 32 in place of logits."""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import Array, Float

from dnas.errors import ConfigError
from dnas.gates import Gates
from dnas.ops import ConvOp, GlobalPoolOp, Op, TokenHeadOp
from dnas.ops.primitives import Attention
from dnas.slots import Slot
from dnas.supernet import Net, Tree, maps

LEVELS = {4: "C2", 8: "C3", 16: "C4", 32: "C5"}
"""Stride of a map, relative to the image -> its usual name in dense tasks."""


def levels(net: Net) -> dict[str, int]:
    """The slot after which each of C2 to C5 is taken: the last of its stride, before the head.

    The head is pooling and what follows it, and the 1x1 convolutions without a residual right before pooling (the 1280
    channels of MobileNetV2, the 960 of MobileNetV3): they serve the classifier. Levels that the network does not reach lack.
    """
    found: dict[str, int] = {}
    stride = 1
    for index, slot in enumerate(net.slots[: _head(net.slots)]):
        stride *= max(getattr(candidate.op, "stride", 1) for candidate in slot.candidates)
        if stride in LEVELS:
            found[LEVELS[stride]] = index
    return found


def features(
    net: Net,
    params: Tree,
    stats: Tree,
    x: Float[Array, "batch height width channels"],
    gates: Gates | None = None,
    train: bool | jax.Array = False,
    momentum: float | jax.Array | None = None,
    *,
    compute: Any = None,
    remat: bool = False,
) -> tuple[dict[str, Float[Array, "batch h w c"]], Tree]:
    """``({"C2": ..., "C3": ..., "C4": ..., "C5": ...}, stats)``: maps at strides 4, 8, 16 and 32, and the statistics after.

    The head does not run (see ``levels``). Images of a finished network may have any height and width, unless it has
    attention; other arguments are those of ``dnas.apply``. Errors: ConfigError.
    """
    net.check_gates(gates)
    tied = bool(net.choices) or any(isinstance(p, Attention) for s in net.slots for p in s.candidates[0].op.primitives())
    if x.ndim != 4 or (x.shape[1:] != tuple(net.input_shape) if tied else x.shape[3] != net.input_shape.channels):
        wanted = str(net.input_shape) if tied else f"height x width x {net.input_shape.channels}"
        raise ConfigError(f"images of shape {x.shape[1:]}; features of this network take {wanted}")
    ends = {index: name for name, index in levels(net).items()}
    found: dict[str, jax.Array] = {}
    after = dict(stats)
    for slots, y, moved in maps(net, params, stats, x, gates, train, momentum, compute, remat):
        after |= moved
        if (last := slots[-1].index) in ends:  # slots that run together have one shape, so a level ends with its group
            found[ends[last]] = y.astype(x.dtype)
        if len(found) == len(ends):
            break
    return found, after


def _head(slots: tuple[Slot, ...]) -> int:
    """Index of the first slot of the head; the number of slots if there is none."""
    only: list[Op | None] = [s.candidates[0].op if len(s.candidates) == 1 else None for s in slots]
    end = next((i for i, op in enumerate(only) if isinstance(op, GlobalPoolOp | TokenHeadOp)), len(slots))
    if end == len(slots) or isinstance(only[end], TokenHeadOp):
        return end
    while end and isinstance(conv := only[end - 1], ConvOp) and conv.kernel == conv.stride == 1 and not conv.residual:
        end -= 1
    return end
