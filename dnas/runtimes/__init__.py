"""What a network can be run and timed with on this machine: LiteRT, ONNX Runtime, XLA; one file per runtime.

A runtime writes a network as the bytes of its own format and opens such bytes as a ``Runner``. Importing this starts nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from dnas.errors import ConfigError, nearest

if TYPE_CHECKING:
    import numpy as np

    from dnas.arch import Architecture

# name -> its module, the extra that it needs ("": none), and what that extra brings
RUNTIMES = {
    "litert": ("dnas.runtimes.litert", "litert", ("ai_edge_litert", "tensorflow")),
    "onnxruntime": ("dnas.runtimes.onnx_runtime", "onnx", ("onnxruntime", "onnx")),
    "xla": ("dnas.runtimes.xla", "", ()),
}


class Runner(Protocol):
    """A network that is ready to run. ``kernels_left``: operators that the runtime's accelerator (XNNPACK) did not take."""

    kernels_left: tuple[str, ...]

    def bind(self, images: np.ndarray) -> Callable[[], object]:
        """Put ``images``, f32[batch, height, width, channels], where the network reads them; returns the call to time."""

    def run(self, images: np.ndarray) -> np.ndarray:
        """Logits f32[batch, classes], or a feature map f32[batch, height, width, channels]."""


class Runtime(Protocol):
    """One of ``RUNTIMES``. ``suffix``: of its files, as in ``.tflite``. ``own_thread``: whether a call is computed in a thread
    of the runtime's own also where it has one thread, so that the kernel switches between it and the caller's."""

    suffix: str
    own_thread: bool

    def version(self) -> str:
        """Name and generation, as it stands in a latency table: ``LiteRT 2.3.0, XNNPACK``."""

    def write(self, architecture: Architecture, params: Any, stats: Any) -> bytes:
        """The network as a file of this runtime, batch 1, float32, BN folded."""

    def open(self, model: bytes, threads: int = 1) -> Runner:
        """What ``write`` made, ready to run."""


def runtime(name: str) -> Runtime:
    """The runtime ``name``. Errors: ConfigError for an unknown one, or one whose extra is not installed."""
    if name not in RUNTIMES:
        raise ConfigError(f"unknown runtime {name!r}{nearest(name, RUNTIMES)}")
    module, extra, packages = RUNTIMES[name]
    if lacking := [package for package in packages if importlib.util.find_spec(package) is None]:
        raise ConfigError(f"the runtime {name} needs {' and '.join(lacking)}: pip install 'dnas[{extra}]'")
    return cast(Runtime, importlib.import_module(module))


def counted(names: Sequence[str]) -> str:
    """``HARD_SWISH (3), MEAN``: each name once, the most frequent first.

    >>> counted(("MEAN", "HARD_SWISH", "HARD_SWISH"))
    'HARD_SWISH (2), MEAN'
    """
    return ", ".join(name if n == 1 else f"{name} ({n})" for name, n in Counter(names).most_common())
