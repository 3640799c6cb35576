"""Prices of ops from what they compute: a sum of coefficients (ms per unit) times features of the primitives."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from dnas.errors import LatencyError, nearest
from dnas.files import shown
from dnas.ops import Op, Shape
from dnas.ops.primitives import Act, Conv, Norm, Shuffle, SqueezeExcite

# Activations that are a clamp, which an int8 convolution does in its output stage for nothing.
_FUSED = frozenset({None, "relu", "relu6"})
# An int8 kernel reads channels eight at a time (one 64-bit NEON register).
TILE = 8


@lru_cache(maxsize=65536)
def primitive_features(op: Op, shape: Shape) -> Mapping[str, float]:
    """What ``op`` makes an engine do on an input of ``shape``, batch 1.

    ``dense_macs``: multiply-accumulates of convolutions that mix channels and of matrix products;
    ``depthwise_macs``: of the others; ``tiled_macs``: dense ones with channels (per group) rounded up to multiples
    of 8; ``image_pixels``: pixels that a convolution reads from a map of fewer than 8 channels (the image, which must
    be quantised and reordered); ``operators``: kernels launched, with additions, shuffles, poolings and activations
    that are no clamp, without what folds into a convolution; ``elements``: map values that these read and write;
    ``positions``: output pixels of convolutions.
    """
    found = dict.fromkeys(FEATURES, 0.0)
    for primitive, given in op.trace(shape):
        out = primitive.out_shape(given)
        moved = math.prod(given) + math.prod(out)
        if isinstance(primitive, Norm | Act):
            launches = 0 if primitive.act in _FUSED else 1
            found["operators"] += launches
            found["elements"] += launches * moved
            continue
        macs = primitive.macs(given)
        found["operators"] += 5 if isinstance(primitive, SqueezeExcite) else 1  # pool, reduce, expand, gate, multiply
        found["elements"] += moved
        if isinstance(primitive, Conv):
            found["positions"] += out.height * out.width
            if primitive.groups == primitive.in_ > 1:
                found["depthwise_macs"] += macs
                continue
            if primitive.in_ < TILE:
                found["image_pixels"] += given.height * given.width
            full = (_up(n // primitive.groups) for n in (primitive.in_, primitive.out))
            found["tiled_macs"] += out.height * out.width * primitive.kernel**2 * primitive.groups * math.prod(full)
        elif not isinstance(primitive, Shuffle):
            found["tiled_macs"] += macs
        found["dense_macs"] += macs
    if op.has_residual:
        found["operators"] += 1
        found["elements"] += 3 * math.prod(op.out_shape(shape))
    return MappingProxyType(found)


FEATURES = ("dense_macs", "depthwise_macs", "tiled_macs", "image_pixels", "operators", "elements", "positions")
FORMULAS: dict[str, Callable[[Op, Shape], Mapping[str, float]]] = {"primitives/1": primitive_features}
"""Named formulas: name -> features of an op on an input shape. A file names the one that it was fitted with."""


@dataclasses.dataclass(frozen=True)
class CostModel:
    """ms = sum over features of coefficient * feature; no coefficient is negative.

    Arguments: ``formula``, a name in ``FORMULAS``; ``coefficients``, feature -> ms per unit of it.
    Errors: LatencyError for an unknown formula or feature, and for coefficients that are negative or not numbers.

    >>> from dnas.ops import LinearOp
    >>> model = CostModel("primitives/1", {"dense_macs": 1e-6, "operators": 0.05})
    >>> round(model.op_ms(LinearOp(in_=1000, out=100), Shape(1, 1, 1000)), 6)
    0.15
    """

    formula: str
    coefficients: Mapping[str, float] = dataclasses.field(hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.formula, str) or self.formula not in FORMULAS:
            raise LatencyError(f"cost_model.formula is {shown(self.formula)}{nearest(str(self.formula), FORMULAS)}")
        if not isinstance(self.coefficients, Mapping) or not self.coefficients:
            raise LatencyError("cost_model.coefficients: expected an object, feature -> ms per unit, with one or more")
        for name, value in self.coefficients.items():
            if name not in FEATURES:
                raise LatencyError(f"cost_model.coefficients: unknown feature {name!r}{nearest(str(name), FEATURES)}")
            if type(value) not in (int, float) or not 0 <= value < 1e9:
                raise LatencyError(f"cost_model.coefficients.{name} is {shown(value)}; expected a number, 0 or more")

    def op_ms(self, op: Op, shape: Shape) -> float:
        """Latency of ``op`` on an input of ``shape``, batch 1, in ms."""
        features = FORMULAS[self.formula](op, shape)
        return math.fsum(value * features[name] for name, value in self.coefficients.items())

    def to_dict(self) -> dict[str, Any]:
        return {"formula": self.formula, "coefficients": dict(self.coefficients)}

    @classmethod
    def from_dict(cls, given: Any) -> CostModel:
        """Inverse of ``to_dict``. Errors: LatencyError that names the field."""
        if not isinstance(given, Mapping) or set(given) != {"formula", "coefficients"}:
            raise LatencyError("cost_model: expected an object with the fields formula and coefficients")
        return cls(given["formula"], given["coefficients"])


def _up(channels: int) -> int:
    return -(-channels // TILE) * TILE
