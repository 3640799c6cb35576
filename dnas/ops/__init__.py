"""Op types: the rows of a network's block table."""

from dnas.ops.base import OPS, SE, Op, op_from_dict
from dnas.ops.conv import ConvOp, DsConvOp, GlobalPoolOp, LinearOp, SkipOp
from dnas.ops.inverted import InvertedResidualOp
from dnas.ops.primitives import Primitive, Shape

__all__ = [
    "OPS", "SE", "ConvOp", "DsConvOp", "GlobalPoolOp", "InvertedResidualOp", "LinearOp", "Op", "Primitive", "Shape",
    "SkipOp", "op_from_dict",
]  # fmt: skip
