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
        (self._given,), (self._made,) = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._input, self.input_name = self._given["index"], self._given["name"]
        self.kernels_left = kernels_left(self._interpreter._get_ops_details())

    def bind(self, images: np.ndarray) -> Callable[[], object]:
        self._interpreter.set_tensor(self._input, images)
        return self._interpreter.invoke

    def run(self, images: np.ndarray) -> np.ndarray:
        """Of any number of images: a last batch that is not full is filled up with its last image. Ends in int8 are quantised
        and read back."""
        size, found = int(self._given["shape"][0]), []
        for start in range(0, len(images), size):
            part = images[start : start + size]
            filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), 0)])
            if self._given["dtype"] == np.int8:
                scale, zero = self._given["quantization"]
                filled = np.clip(np.rint(filled / scale) + zero, -128, 127)
            self.bind(filled.astype(self._given["dtype"]))()
            y = self._interpreter.get_tensor(self._made["index"])[: len(part)].astype(np.float32)
            scale, zero = self._made["quantization"]
            found.append((y - zero) * scale if self._made["dtype"] == np.int8 else y)
        return np.concatenate(found).astype(np.float32)


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
