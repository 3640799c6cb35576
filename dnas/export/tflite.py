"""TensorFlow Lite: depthwise convolutions as such, activations fused, everything in forms that XNNPACK takes.

Written by TensorFlow's own converter from a function over ``tf.nn`` ops; TensorFlow is imported when it is used.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np

from dnas import fold
from dnas.errors import ExportError
from dnas.layers.conv import padding_of

EXTRA = "pip install 'dnas[litert]'"


def write(network: fold.Folded, batch: int = 1) -> bytes:
    """The network in float32, as the bytes of a ``.tflite`` file for images f32[batch, height, width, channels].

    Errors: ExportError without TensorFlow.
    """
    converter = _converter(network, batch)
    with _silent():
        return converter.convert()


def _converter(network: fold.Folded, batch: int) -> Any:
    tf = _tensorflow()

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
