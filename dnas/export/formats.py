"""The formats that a trained network can be written in: one line here, one module each.

A module has ``write(network, about) -> bytes`` and ``run(data, images) -> outputs``; ``network`` is ``dnas.fold.Folded`` where
``folded`` says so, else ``Trained``. One whose files XNNPACK runs has ``undelegated(data) -> names of operators`` too. To add a
format, write such a module and give it a line.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from typing import Any

from dnas.errors import ExportError, nearest

PRECISIONS = ("float32", "float16", "int8")


@dataclasses.dataclass(frozen=True)
class Format:
    """``packages`` come with ``extra``; ``sidecar``: what travels with the file is written beside it, NAME.SUFFIX.json;
    ``runtimes``: how latency tables call those that run it."""

    name: str
    suffix: str
    module: str
    extra: str | None = None
    packages: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("float32",)
    folded: bool = True
    sidecar: bool = False
    runtimes: tuple[str, ...] = ()

    def load(self) -> Any:
        """Its module. Errors: ExportError that names the extra which is missing."""
        if lacking := [name for name in self.packages if importlib.util.find_spec(name) is None]:
            raise ExportError(f"--to {self.name} needs {' and '.join(lacking)}: pip install 'dnas[{self.extra}]'")
        return importlib.import_module(self.module)


FORMATS = {
    format.name: format
    for format in (
        Format("onnx", ".onnx", "dnas.export.onnx", "onnx", ("onnx", "onnxruntime"), runtimes=("ONNX Runtime",)),
        Format(
            "tflite", ".tflite", "dnas.export.tflite", "litert", ("tensorflow", "ai_edge_litert"), PRECISIONS,
            runtimes=("LiteRT", "TFLite"),
        ),
        Format("stablehlo", ".stablehlo", "dnas.export.stablehlo", sidecar=True, runtimes=("XLA",)),
        Format("safetensors", ".safetensors", "dnas.export.safetensors", folded=False),
        Format("timm", ".timm.safetensors", "dnas.export.timm", folded=False, sidecar=True),
        Format("net-config", ".net-config.json", "dnas.export.net_config", folded=False),
    )
}  # fmt: skip


def find(names: str) -> tuple[Format, ...]:
    """The formats of a comma list. Errors: ExportError for an unknown one, or none."""
    given = [name.strip() for name in names.split(",") if name.strip()]
    if not given:
        raise ExportError(f"--to {names!r}: no format; available: {', '.join(FORMATS)}")
    for name in given:
        if name not in FORMATS:
            raise ExportError(f"--to {name!r} is no format{nearest(name, FORMATS)}")
    return tuple(FORMATS[name] for name in dict.fromkeys(given))
