"""LiteRT (TensorFlow Lite), the runtime that phones use: ``.tflite`` files, run by its XNNPACK kernels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its own news go to stderr otherwise

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from dnas.arch import Architecture

suffix = ".tflite"
own_thread = False


def version() -> str:
    return f"LiteRT {metadata.version('ai-edge-litert')}, XNNPACK"


def write(architecture: Architecture, params: Any, stats: Any) -> bytes:
    """A ``.tflite`` file, batch 1, float32, BN folded."""
    from dnas import fold
    from dnas.export import tflite

    return tflite.write(fold.fold(architecture, params, stats))


def open(model: bytes, threads: int = 1) -> Runner:
    return Runner(model, threads)


class Runner:
    """An interpreter with its tensors allocated."""

    def __init__(self, model: bytes, threads: int):
        self._interpreter = Interpreter(model_content=model, num_threads=threads)
        self._interpreter.allocate_tensors()
        (given,), (made,) = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._input, self._output, self.input_name = given["index"], made["index"], given["name"]
        self.kernels_left = kernels_left(self._interpreter._get_ops_details())

    def bind(self, images: np.ndarray) -> Callable[[], object]:
        self._interpreter.set_tensor(self._input, images)
        return self._interpreter.invoke

    def run(self, images: np.ndarray) -> np.ndarray:
        self.bind(images)()
        return self._interpreter.get_tensor(self._output)


def kernels_left(nodes: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    """Names of the operators that no delegate computes. ``nodes``: op_name, inputs, outputs, in the order of execution.

    A graph keeps the operators that a delegate took over: they are those between the delegate's outputs and its inputs.
    """
    operators = [n for n in nodes if n["op_name"] != "DELEGATE"]
    taken = set()
    for delegate in (n for n in nodes if n["op_name"] == "DELEGATE"):
        wanted, given = set(map(int, delegate["outputs"])), set(map(int, delegate["inputs"]))
        for index, node in reversed(list(enumerate(operators))):
            if wanted & set(map(int, node["outputs"])):
                taken.add(index)
                wanted |= set(map(int, node["inputs"])) - given
    return tuple(n["op_name"] for i, n in enumerate(operators) if i not in taken)
