"""The memory that feature maps take while the steps of an op run one after another, in values of a map.

A map is in memory from the step that writes it to the last one that reads it. What works value by value (normalisation,
activations, additions, scaling) writes over what it reads, unless that is read again. Weights are not counted, nor what an
engine needs for itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from dnas.ops import primitives as p
from dnas.ops.primitives import Primitive, Shape


def alive(steps: Sequence[Primitive], shape: Shape, kept: bool) -> int:
    """The most values that are in memory while ``steps`` run on a map of ``shape``. ``kept``: it is read again after them.

    >>> expand, project = p.Conv("expand", 4, 24), p.Conv("project", 24, 4)
    >>> alive((expand, project), Shape(8, 8, 4), True) == 64 * (4 + 24 + 4)
    True
    """
    given = most = math.prod(shape)
    held = 0  # the first map, once a later one is read
    for step in steps:
        most = max(most, held + _ALIVE.get(type(step), _moved)(step, shape, kept and not held))
        held, shape = given if kept else 0, step.out_shape(shape)
    return most


def _moved(step: Primitive, shape: Shape, kept: bool) -> int:
    """Input and output."""
    return math.prod(shape) + math.prod(step.out_shape(shape))


def _in_place(step: Primitive, shape: Shape, kept: bool) -> int:
    return math.prod(shape) * (2 if kept else 1)


def _shuffle(step: p.Shuffle, shape: Shape, kept: bool) -> int:
    return _moved(step, shape, kept) if step.groups > 1 else math.prod(shape)


def _squeeze_excite(step: p.SqueezeExcite, shape: Shape, kept: bool) -> int:
    """The map, which is scaled in place, and two of the vectors that its gate is made of."""
    size = math.prod(shape)
    return size + step.channels + max(step.reduce, size if kept else 0)


def _attention(step: p.Attention, shape: Shape, kept: bool) -> int:
    """q, k and v, the weights of all pairs, and the output."""
    return _moved(step, shape, kept) + step.heads * (shape.height * shape.width) ** 2


def _residual(step: p.Residual, shape: Shape, kept: bool) -> int:
    """Its input is kept to its end anyway, and added to the output of the last step in place."""
    return alive(step.steps, shape, True)


def _split(step: p.Split, shape: Shape, kept: bool) -> int:
    """Each part is copied out of the map, which is free after the last; the outputs stay until they are copied together."""
    given, made, most = math.prod(shape), 0, 0
    for conv in step.convs:
        part = shape._replace(channels=conv.in_)
        most = max(most, given + made + math.prod(part))
        given = given if kept or conv is not step.convs[-1] else 0
        most = max(most, given + made + _moved(conv, part, False))
        made += math.prod(conv.out_shape(part))
    return max(most, given + 2 * made)


_ALIVE: dict[type[Primitive], Callable[[Any, Shape, bool], int]] = {
    p.Norm: _in_place, p.Act: _in_place, p.LayerNorm: _in_place, p.Scale: _in_place, p.Shuffle: _shuffle,
    p.SqueezeExcite: _squeeze_excite, p.Attention: _attention, p.Residual: _residual, p.Split: _split,
}  # fmt: skip
"""What a step keeps in memory: function of (step, shape that it reads, whether that is read again); others: ``_moved``."""
