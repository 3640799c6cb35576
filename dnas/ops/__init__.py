"""Op types: the rows of a network's block table."""

from dnas.ops.base import OPS, SE, Op, op_from_dict
from dnas.ops.conv import ConvOp, DsConvOp, GlobalPoolOp, LinearOp, SkipOp
from dnas.ops.fused import FusedInvertedResidualOp, TuckerOp
from dnas.ops.inverted import InvertedResidualOp
from dnas.ops.metaformer import Meta1dOp, Meta2dOp, TokenHeadOp, TokensOp
from dnas.ops.primitives import Primitive, Shape
from dnas.ops.uib import UniversalInvertedBottleneckOp

__all__ = [
    "OPS", "SE", "ConvOp", "DsConvOp", "FusedInvertedResidualOp", "GlobalPoolOp", "InvertedResidualOp", "LinearOp", "Meta1dOp",
    "Meta2dOp", "Op", "Primitive", "Shape", "SkipOp", "TokenHeadOp", "TokensOp", "TuckerOp", "UniversalInvertedBottleneckOp",
    "op_from_dict",
]  # fmt: skip
