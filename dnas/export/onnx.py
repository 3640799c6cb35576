"""ONNX, written from the folded steps with ``onnx.helper``: maps are NCHW, the size of the batch is free."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dnas import fold
from dnas.errors import ExportError
from dnas.layers.conv import padding_of

OPSET, IR_VERSION = 20, 9  # Gelu came with 20; ONNX Runtime 1.17 and later read both
EXTRA = "pip install 'dnas[onnx]'"


def write(network: fold.Folded, about: Mapping[str, str] | None = None) -> bytes:
    """The network in float32, as the bytes of an ``.onnx`` file for ``images`` f32[n, channels, height, width].

    ``about``: goes into ``metadata_props``. Errors: ExportError without onnx.
    """
    try:
        import onnx
        from onnx import helper
    except ImportError as problem:
        raise ExportError(f"writing ONNX needs the package onnx ({problem}): {EXTRA}") from None
    graph = _Graph(onnx)
    names = ["images"]
    for step in network.steps:
        names.append(WRITERS[type(step)](graph, step, *(names[i] for i in step.reads)))
    flat = len(network.output_shape) == 1
    graph.nodes.append(helper.make_node("Flatten" if flat else "Identity", [names[-1]], ["output"]))
    kind = onnx.TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("images", kind, ["n", *_chw(network.input_shape)])]
    out = network.output_shape if flat else _chw(network.output_shape)
    outputs = [helper.make_tensor_value_info("output", kind, ["n", *out])]
    name = network.architecture.name
    model = helper.make_model(
        helper.make_graph(graph.nodes, name, inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="dnas",
    )  # fmt: skip
    helper.set_model_props(model, dict(about or {}))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def run(data: bytes, images: np.ndarray) -> np.ndarray:
    """Outputs f32[n, ...] for ``images`` f32[n, h, w, c], in ONNX Runtime on the CPU; maps come back as NHWC."""
    from dnas.runtimes import onnx_runtime

    return onnx_runtime.open(data).run(images)


def read_about(model: bytes) -> dict[str, str]:
    """What ``write`` was given as ``about``."""
    import onnx

    return {p.key: p.value for p in onnx.load_from_string(model).metadata_props}


def _chw(shape: tuple[int, ...]) -> tuple[int, ...]:
    height, width, channels = shape
    return channels, height, width


@dataclasses.dataclass
class _Graph:
    """Nodes and constants so far; every node makes one new value."""

    onnx: Any
    nodes: list[Any] = dataclasses.field(default_factory=list)
    constants: list[Any] = dataclasses.field(default_factory=list)

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        out = f"v{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(values, dtype), name))
        return name

    def reshape(self, x: str, *shape: int) -> str:
        """0 keeps an axis as it is."""
        return self.node("Reshape", x, self.constant(shape, np.int64))

    def slice(self, x: str, start: int, stop: int, axis: int) -> str:
        return self.node("Slice", x, *(self.constant([v], np.int64) for v in (start, stop, axis)))

    def per_channel(self, values: np.ndarray) -> str:
        return self.constant(values.reshape(1, -1, 1, 1))

    def act(self, x: str, act: str | None) -> str:
        if act == "relu6":
            return self.node("Clip", x, self.constant(0.0), self.constant(6.0))
        if act == "swish":
            return self.node("Mul", x, self.node("Sigmoid", x))
        if act == "hsigmoid":
            return self.node("HardSigmoid", x, alpha=1 / 6, beta=0.5)
        return (
            x
            if act is None
            else self.node({"relu": "Relu", "hswish": "HardSwish", "gelu": "Gelu", "sigmoid": "Sigmoid"}[act], x)
        )


def _conv(graph: _Graph, step: fold.Conv, x: str) -> str:
    (top, bottom), (left, right) = step.pads
    y = graph.node(
        "Conv", x, graph.constant(step.kernel.transpose(3, 2, 0, 1)), graph.constant(step.bias),
        kernel_shape=step.kernel.shape[:2], strides=[step.stride] * 2, pads=[top, left, bottom, right], group=step.groups,
    )  # fmt: skip
    return graph.act(y, step.act)


def _dense(graph: _Graph, step: fold.Dense, x: str) -> str:
    kernel = step.kernel.reshape(*step.before, -1).transpose(2, 0, 1, 3).reshape(step.kernel.shape)  # rows in the order of NCHW
    y = graph.node("Gemm", graph.node("Flatten", x), graph.constant(kernel), graph.constant(step.bias))
    return graph.reshape(y, 0, step.kernel.shape[1], 1, 1)


def _affine(graph: _Graph, step: fold.Affine, x: str) -> str:
    y = graph.node("Mul", x, graph.per_channel(step.scale))
    return graph.act(graph.node("Add", y, graph.per_channel(step.shift)) if step.shift.any() else y, step.act)


def _shuffle(graph: _Graph, step: fold.Shuffle, x: str) -> str:
    height, width, channels = step.shape
    groups = graph.reshape(x, 0, step.groups, channels // step.groups, height, width)
    return graph.reshape(graph.node("Transpose", groups, perm=(0, 2, 1, 3, 4)), 0, channels, height, width)


def _pool_difference(graph: _Graph, step: fold.PoolDifference, x: str) -> str:
    (top, bottom), (left, right) = padding_of(step.shape[:2], step.size, 1, "tf_same", None)
    mean = graph.node("AveragePool", x, kernel_shape=[step.size] * 2, pads=[top, left, bottom, right], count_include_pad=0)
    return graph.node("Sub", mean, x)


def _layer_norm(graph: _Graph, step: fold.LayerNorm, x: str) -> str:
    last = graph.node("Transpose", x, perm=(0, 2, 3, 1))
    weights = graph.constant(step.scale), graph.constant(step.bias)
    return graph.node("Transpose", graph.node("LayerNormalization", last, *weights, epsilon=step.eps), perm=(0, 3, 1, 2))


def _attention(graph: _Graph, step: fold.Attention, x: str) -> str:
    height, width, channels = step.shape
    each = graph.reshape(x, 0, step.heads, 2 * step.key_dim + step.value_dim, height * width)
    q, k = graph.slice(each, 0, step.key_dim, 2), graph.slice(each, step.key_dim, 2 * step.key_dim, 2)
    v = graph.slice(each, 2 * step.key_dim, 2 * step.key_dim + step.value_dim, 2)
    logits = graph.node("MatMul", graph.node("Transpose", q, perm=(0, 1, 3, 2)), k)
    shares = graph.node("Softmax", graph.node("Add", logits, graph.constant(step.positions[None])), axis=-1)
    return graph.reshape(
        graph.node("MatMul", v, graph.node("Transpose", shares, perm=(0, 1, 3, 2))), 0, channels, height, width
    )


WRITERS: dict[type[fold.Step], Callable[..., str]] = {
    fold.Conv: _conv,
    fold.Dense: _dense,
    fold.Affine: _affine,
    fold.Act: lambda graph, s, x: graph.act(x, s.act),
    fold.Shuffle: _shuffle,
    fold.GlobalPool: lambda graph, s, x: graph.node("GlobalAveragePool", x),
    fold.PoolDifference: _pool_difference,
    fold.Slice: lambda graph, s, x: graph.slice(x, s.start, s.stop, 1),
    fold.Concat: lambda graph, s, *parts: graph.node("Concat", *parts, axis=1),
    fold.Add: lambda graph, s, a, b: graph.node("Add", a, b),
    fold.Multiply: lambda graph, s, x, gate: graph.node("Mul", x, gate),
    fold.LayerNorm: _layer_norm,
    fold.Attention: _attention,
}
"""Step -> function of (graph, step, names of what it reads): the name of its output."""
