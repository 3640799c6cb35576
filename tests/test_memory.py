"""Memory of feature maps: against liveness in the graph that is exported, and against TensorFlow Lite's own arena."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from dnas import fold
from dnas.arch import Architecture
from dnas.latency.probes import alone, weights
from dnas.ops import SE, ConvOp, DsConvOp, InvertedResidualOp, Op, Shape

IN_PLACE = (fold.Affine, fold.Act, fold.Add, fold.Multiply, fold.LayerNorm)


def in_the_graph(network: Architecture) -> int:
    """Bytes of the values that are alive at most: each from its step to the last step that reads it."""
    folded = fold.fold(network, *weights(network))
    steps, shapes = folded.steps, [folded.input_shape, *(s.shape for s in folded.steps)]
    last = {value: at for at, step in enumerate(steps) for value in step.reads} | {len(steps): len(steps)}
    most = math.prod(shapes[0])
    for at, step in enumerate(steps):
        alive = sum(math.prod(shapes[v]) for v in range(at + 1) if last[v] >= at)
        free = isinstance(step, IN_PLACE) and any(last[v] == at and shapes[v] == step.shape for v in step.reads)
        pairs = step.positions.size if isinstance(step, fold.Attention) else 0
        most = max(most, alive + pairs + (0 if free else math.prod(step.shape)))
    return 4 * most


@pytest.mark.parametrize(
    ("name", "px"),
    [
        ("fbnet_c", 64), ("mobilenetv3_small_100", 64), ("mixnet_s", 64), ("mobiledet_dsp", 64), ("mobilenetv4_conv_small", 64),
        pytest.param("efficientformer_l1", 224, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_the_peak_is_that_of_the_exported_graph(name: str, px: int) -> None:
    network = Architecture.load(name).at(px)
    assert network.peak_activation_bytes == in_the_graph(network)


BLOCKS: tuple[tuple[Op, int], ...] = (
    (InvertedResidualOp(in_=4, mid=24, out=4, kernel=3, stride=1, residual=True), 4 * 64 * (4 + 24 + 24)),
    (InvertedResidualOp(in_=4, mid=24, out=8, kernel=3, stride=2), 4 * (64 * 24 + 16 * 24)),
    (InvertedResidualOp(in_=4, mid=24, out=4, kernel=3, stride=1, residual=True, se=SE(6)), 4 * 64 * (4 + 24 + 24)),
    (ConvOp(in_=4, out=4, residual=True), 4 * 64 * 8),
    (DsConvOp(in_=4, out=4, residual=True), 4 * 64 * (4 + 4 + 4)),  # the input waits while the depthwise map is projected
    (DsConvOp(in_=6, out=2, kernel=(3, 5)), 4 * 64 * (3 + 3 + 6)),  # two outputs, and the copy of both
)


@pytest.mark.parametrize(("op", "peak"), BLOCKS, ids=[op.label + str(i) for i, (op, _) in enumerate(BLOCKS)])
def test_blocks_by_hand(op: Op, peak: int) -> None:
    shape = Shape(8, 8, op.in_channels or 0)
    assert op.peak_activation_bytes(shape) == peak == in_the_graph(alone(op, shape, Architecture.load("fbnet_c").defaults, "x"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenetv2_035", "fbnet_a", "mixnet_s"])
def test_tensorflow_lite_plans_the_same_memory(name: str) -> None:
    """Its interpreter without delegates, as the addresses of its tensors say; it also keeps the image to the end.

    With TensorFlow's padding, which needs no padded copies, and networks whose first convolution is not the peak, since its
    kernel unfolds the image.
    """
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="needs the extra litert")
    pytest.importorskip("tensorflow", reason="needs the extra litert")
    from dnas.export import tflite

    network = Architecture.load(name).at(64)
    network = dataclasses.replace(network, defaults=dataclasses.replace(network.defaults, padding="tf_same"))
    plain = interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    found = interpreter.Interpreter(
        model_content=tflite.write(fold.fold(network, *weights(network))), experimental_op_resolver_type=plain
    )
    found.allocate_tensors()
    written = {int(i) for node in found._get_ops_details() for i in node["outputs"]}
    maps = [np.asarray(found.tensor(i)()) for i in written | {found.get_input_details()[0]["index"]}]
    starts = [m.__array_interface__["data"][0] for m in maps]
    arena = max(s + m.nbytes for s, m in zip(starts, maps, strict=True)) - min(starts)
    assert arena == network.peak_activation_bytes + 4 * math.prod(network.shapes[0])
