"""ONNX Runtime on the CPU: ``.onnx`` files, whose maps are NCHW; images are turned before the clock starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime

from dnas.arch import Architecture

suffix = ".onnx"
own_thread = False


def version() -> str:
    return f"ONNX Runtime {onnxruntime.__version__}, CPU"


def write(architecture: Architecture, params: Any, stats: Any) -> bytes:
    """An ``.onnx`` file, float32, BN folded; the size of the batch is free."""
    from dnas import fold
    from dnas.export import onnx

    return onnx.write(fold.fold(architecture, params, stats))


def open(model: bytes, threads: int = 1) -> Runner:
    return Runner(model, threads)


class Runner:
    """A session with one stream of ``threads`` threads."""

    kernels_left: tuple[str, ...] = ()

    def __init__(self, model: bytes, threads: int):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        (given,), (made,) = self._session.get_inputs(), self._session.get_outputs()
        self.input_name, self._output = given.name, made.name

    def bind(self, images: np.ndarray) -> Callable[[], object]:
        bound = self._session.io_binding()
        bound.bind_cpu_input(self.input_name, np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        bound.bind_output(self._output)
        return lambda: self._session.run_with_iobinding(bound)

    def run(self, images: np.ndarray) -> np.ndarray:
        given = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)
        (made,) = self._session.run([self._output], {self.input_name: given})
        return made.transpose(0, 2, 3, 1) if made.ndim == 4 else made
