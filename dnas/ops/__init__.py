"""Op types: the rows of a network's block table."""

from dnas.ops.base import OPS, SE, Op, Primitive, Shape, op_from_dict
from dnas.ops.conv import ConvOp, DsConvOp, GlobalPoolOp, LinearOp, SkipOp
from dnas.ops.inverted import InvertedResidualOp

__all__ = [
    "OPS", "SE", "ConvOp", "DsConvOp", "GlobalPoolOp", "InvertedResidualOp", "LinearOp", "Op", "Primitive", "Shape",
    "SkipOp", "op_from_dict",
]  # fmt: skip
