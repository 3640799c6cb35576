"""TensorFlow Lite: depthwise convolutions as such, activations fused, everything in forms that XNNPACK takes.

Written by TensorFlow's own converter from a function over ``tf.nn`` ops; TensorFlow is imported when it is used.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from dnas import fold
from dnas.errors import ExportError
from dnas.layers.conv import padding_of

if TYPE_CHECKING:
    from dnas.runtimes import litert

METADATA = "dnas"  # name of the metadata buffer
EXTRA = "pip install 'dnas[litert]'"


def write(
    network: fold.Folded,
    about: Mapping[str, str] | None = None,
    precision: str = "float32",
    calibration: np.ndarray | None = None,
    batch: int = 1,
) -> bytes:
    """The bytes of a ``.tflite`` file for images [batch, height, width, channels].

    ``about``: a JSON object in the metadata buffer "dnas". ``precision``: "float32"; "float16" (weights; computes in what the
    runtime chooses); "int8" (weights per channel, maps and both ends too), whose ranges are those that ``calibration``
    f32[n, height, width, channels], normalised images, gives. Errors: ExportError without TensorFlow.
    """
    tf = _tensorflow()
    converter = _converter(tf, network, batch)
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    elif precision == "int8":
        if calibration is None or len(calibration) < batch:
            raise ExportError("int8 needs images for calibration; expected a few hundred of the training images")
        parts = [calibration[i : i + batch].astype(np.float32) for i in range(0, len(calibration) - batch + 1, batch)]
        converter.representative_dataset = lambda: ([part] for part in parts)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    with _silent(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter's own, about its default for inputs
        data = converter.convert()
    return _with_about(data, about) if about else data


def run(data: bytes, images: np.ndarray) -> np.ndarray:
    """Outputs f32[n, ...] for ``images`` f32[n, h, w, c], in LiteRT; those of an int8 file are quantised and read back."""
    return _open(data).run(images)


def undelegated(data: bytes) -> tuple[str, ...]:
    """Names of the operators that XNNPACK leaves to LiteRT's own kernels, in the order of execution."""
    return _open(data).kernels_left


def _open(data: bytes) -> litert.Runner:
    from dnas.runtimes import litert

    with _silent():
        return litert.open(data)


def read_about(data: bytes) -> dict[str, str]:
    """What ``write`` was given as ``about``; {} for files of others."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(data, 0)
    buffers = [model.buffers[m.buffer].data for m in model.metadata or [] if m.name == METADATA.encode()]
    found: dict[str, str] = json.loads(bytes(buffers[0])) if buffers else {}
    return found


def _with_about(data: bytes, about: Mapping[str, str]) -> bytes:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(data, 0)
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(json.dumps(dict(about)).encode(), np.uint8)
    entry.name, entry.buffer = METADATA, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(len(data) + 1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _converter(tf: Any, network: fold.Folded, batch: int) -> Any:

    def function(x: Any) -> Any:
        values = [x]
        for step in network.steps:
            values.append(WRITERS[type(step)](tf, step, *(values[i] for i in step.reads)))
        return tf.reshape(values[-1], (batch, *network.output_shape)) if network.steps else tf.identity(x)

    spec = tf.TensorSpec((batch, *network.input_shape), tf.float32, name="images")
    traced = tf.function(function, input_signature=[spec], autograph=False).get_concrete_function()
    return tf.lite.TFLiteConverter.from_concrete_functions([traced], tf.Module())


def _conv(tf: Any, step: fold.Conv, x: Any) -> Any:
    size, kernel, bias = x.shape[1:3], _constant(tf, step.kernel), _constant(tf, step.bias)
    if not any(map(any, step.pads)):
        padding = "VALID"
    elif step.pads == padding_of(size, len(step.kernel), step.stride, "tf_same", None):
        padding = "SAME"
    else:  # XNNPACK takes it into the convolution
        x, padding = tf.pad(x, ((0, 0), *step.pads, (0, 0))), "VALID"
    if step.depthwise:
        kernel = tf.constant(np.asarray(step.kernel.transpose(0, 1, 3, 2), np.float32))
        y = tf.nn.depthwise_conv2d(x, kernel, (1, step.stride, step.stride, 1), padding)
    else:
        y = tf.nn.conv2d(x, kernel, step.stride, padding)
    return _act(tf, tf.nn.bias_add(y, bias), step.act)


def _act(tf: Any, x: Any, act: str | None) -> Any:
    """Activations as the converter's patterns have them: HARD_SWISH, and what a convolution fuses."""
    if act == "hswish":
        return x * tf.nn.relu6(x + 3.0) * (1 / 6)
    if act == "hsigmoid":
        return tf.nn.relu6(x + 3.0) * (1 / 6)
    if act == "swish":
        return x * tf.sigmoid(x)
    if act == "gelu":
        return tf.nn.gelu(x, approximate=False)
    return x if act is None else {"relu": tf.nn.relu, "relu6": tf.nn.relu6, "sigmoid": tf.sigmoid}[act](x)


def _dense(tf: Any, step: fold.Dense, x: Any) -> Any:
    y = tf.matmul(tf.reshape(x, (x.shape[0], len(step.kernel))), _constant(tf, step.kernel))
    return tf.reshape(tf.nn.bias_add(y, _constant(tf, step.bias)), (x.shape[0], *step.shape))


def _affine(tf: Any, step: fold.Affine, x: Any) -> Any:
    y = x * _constant(tf, step.scale)
    return _act(tf, y + _constant(tf, step.shift) if step.shift.any() else y, step.act)


def _shuffle(tf: Any, step: fold.Shuffle, x: Any) -> Any:
    *outer, channels = x.shape
    groups = tf.reshape(x, (*outer, step.groups, channels // step.groups))
    return tf.reshape(tf.transpose(groups, (0, 1, 2, 4, 3)), x.shape)


def _layer_norm(tf: Any, step: fold.LayerNorm, x: Any) -> Any:
    z = x - tf.reduce_mean(x, -1, keepdims=True)
    z = z * tf.math.rsqrt(tf.reduce_mean(z * z, -1, keepdims=True) + step.eps)
    return z * _constant(tf, step.scale) + _constant(tf, step.bias)


def _attention(tf: Any, step: fold.Attention, x: Any) -> Any:
    n, h, w, channels = x.shape
    each = tf.transpose(tf.reshape(x, (n, h * w, step.heads, channels // step.heads)), (0, 2, 1, 3))
    ends = (0, step.key_dim, 2 * step.key_dim, channels // step.heads)
    q, k, v = (_slice(tf, each, *pair) for pair in itertools.pairwise(ends))
    shares = tf.nn.softmax(tf.matmul(q, k, transpose_b=True) + _constant(tf, step.positions))
    return tf.reshape(tf.transpose(tf.matmul(shares, v), (0, 2, 1, 3)), (n, *step.shape))


def _slice(tf: Any, x: Any, start: int, stop: int) -> Any:
    return tf.slice(x, (0, 0, 0, start), (*x.shape[:3], stop - start))  # XNNPACK takes sizes, not -1 for "the rest"


def _constant(tf: Any, values: np.ndarray) -> Any:
    return tf.constant(values, tf.float32)


WRITERS: dict[type[fold.Step], Callable[..., Any]] = {
    fold.Conv: _conv,
    fold.Dense: _dense,
    fold.Affine: _affine,
    fold.Act: lambda tf, s, x: _act(tf, x, s.act),
    fold.Shuffle: _shuffle,
    fold.GlobalPool: lambda tf, s, x: tf.reduce_mean(x, (1, 2), keepdims=True),
    fold.PoolDifference: lambda tf, s, x: tf.nn.avg_pool2d(x, s.size, 1, "SAME") - x,  # does not count what lies outside
    fold.Slice: lambda tf, s, x: _slice(tf, x, s.start, s.stop),
    fold.Concat: lambda tf, s, *parts: tf.concat(parts, -1),
    fold.Add: lambda tf, s, a, b: a + b,
    fold.Multiply: lambda tf, s, x, gate: x * gate,
    fold.LayerNorm: _layer_norm,
    fold.Attention: _attention,
}
"""Step -> function of (tensorflow, step, what it reads)."""


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """What C++ writes to stderr is dropped: two lines per model of options that it ignores."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@cache
def _tensorflow() -> Any:
    """TensorFlow, quiet."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tf = importlib.import_module("tensorflow")
    except ImportError as problem:
        raise ExportError(f"writing TFLite needs TensorFlow ({problem}): {EXTRA}") from None
    tf.get_logger().setLevel(logging.ERROR)
    return tf
