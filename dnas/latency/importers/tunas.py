"""TuNAS's linear cost model (google-research/google-research, tunas): a regression in ms, one coefficient per layer and choice.

latency = bias + sum over layers of the coefficient of the chosen op: only differences inside a layer mean anything. Two shapes
are read: the project's own ``cost_model_data.py`` (its text, which is not run; base64 of big-endian float32, search space
``proxylessnas_search``), and JSON with the coefficients written out per layer.
Bender et al., "Can weight sharing outperform random architecture search? An investigation with TuNAS", CVPR 2020,
arXiv:2008.06120.
"""

from __future__ import annotations

import base64
import re
import struct
from pathlib import Path
from typing import Any

from dnas.errors import LatencyError
from dnas.files import shown
from dnas.latency.importers.common import Found, Record, Wanted, field, figure, json_object, spellings
from dnas.latency.keys import whole
from dnas.ops import ConvOp, GlobalPoolOp, InvertedResidualOp, LinearOp, Op, Shape, SkipOp

STAGES = ((32, 16, 1, 1), (16, 32, 2, 4), (32, 40, 2, 4), (40, 80, 2, 4), (80, 96, 1, 4), (96, 192, 2, 4), (192, 320, 1, 1))
KERNELS, RATIOS = (3, 5, 7), (3, 6)
Layer = tuple[tuple[int, int, int, int], dict[str, Any]]


def read(path: Path, wanted: Wanted) -> Found:
    """Coefficients of ``path`` in ms. Errors: LatencyError."""
    act = wanted.act or "relu6"
    if path.suffix == ".py":
        layers, bias = _own(path)
    else:
        body = json_object(path)
        if body.get("unit") != "ms":
            raise LatencyError(f"unit is {shown(body.get('unit'))}; expected 'ms'")
        bias = figure("bias_ms", field(body, "the file", "bias_ms", (int, float)))
        layers = _copy(body)
    records = [
        Record(f"{index}: {label}", op, Shape(sizes[0], sizes[0], sizes[1]), figure(f"{index}: {label}", ms, negative=True))
        for index, (sizes, coefficients) in enumerate(layers)
        for label, ms in coefficients.items()
        for op in _ops(f"{index}: {label}", label, sizes, act)
    ]
    (px, stem, _, _), (last_px, _, last, _) = layers[0][0], layers[-1][0]
    covered: list[tuple[Op, Shape]] = [
        (ConvOp(in_=3, out=stem, kernel=3, stride=2, act=act), Shape(2 * px, 2 * px, 3)),
        (ConvOp(in_=last, out=1280, act=act), Shape(last_px, last_px, last)),
        (GlobalPoolOp(), Shape(last_px, last_px, 1280)),
        (LinearOp(in_=1280, out=1000), Shape(1, 1, 1280)),
    ]
    source = {
        "who": "google-research/google-research, tunas", "where": "tunas/cost_model_data.py; arXiv:2008.06120",
        "licence": "Apache-2.0", "date": "2020",
    }  # fmt: skip
    about: dict[str, Any] = {
        "device": "Google Pixel 1", "runtime": "TFLite, generation of 2020", "precision": "float32", "status": "regression",
        "meaning": "regression", "resolutions": (2 * px, 2 * px), "constant_ms": bias,
        "constant_covers": tuple(op.price_fields(shape) for op, shape in covered), "source": source,
    }  # fmt: skip
    notes = (
        f"Activation: {act}, which the file does not state; precision: float32, likewise.",
        "constant_ms is the bias of the regression: stem, head and classifier, and what the coefficients are relative to.",
    )
    return Found(tuple(records), (), about, sum(len(c) for _, c in layers), notes)


def _ops(where: str, label: str, sizes: tuple[int, int, int, int], act: str) -> tuple[Op, ...]:
    _, in_, out, stride = sizes
    if label == "skip":
        return (SkipOp(in_=in_, out=out, stride=stride),)
    parts = re.fullmatch(r"k(\d{1,2})_e(\d{1,2})", label)
    if not parts:
        raise LatencyError(f"{where}: expected skip, or kernel and expansion as in k3_e6")
    ratio = int(parts[2])
    return spellings(
        InvertedResidualOp(
            in_=in_, mid=in_ * ratio, out=out, kernel=int(parts[1]), stride=stride, expand=ratio > 1, act=act,
            residual=stride == 1 and in_ == out,
        )
    )  # fmt: skip


def _copy(body: dict[str, Any]) -> list[Layer]:
    """Coefficients written out per layer."""
    layers: list[Layer] = []
    for index, layer in enumerate(field(body, "the file", "layers", list)):
        where = f"layers[{index}]"
        sizes = [whole(f"{where}: {n}", field(layer, where, n, int)) for n in ("h_in", "c_in", "c_out", "stride")]
        layers.append(((sizes[0], sizes[1], sizes[2], sizes[3]), field(layer, where, "coef_ms", dict)))
    if not layers:
        raise LatencyError("layers is empty; expected one object per layer")
    return layers


def _own(path: Path) -> tuple[list[Layer], float]:
    """The project's own file: kernel-major, then expansion, then skip where shapes match. Errors: LatencyError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise LatencyError(f"cannot be read as text ({getattr(problem, 'strerror', None) or problem})") from None
    values = _floats(text, "_PROXYLESSNAS_SEARCH_KERNEL")
    (bias,) = _floats(text, "_PROXYLESSNAS_SEARCH_BIAS") or (0.0,)
    layers, px, used = [], 112, 0
    for stage, (in_, out, stride, repeats) in enumerate(STAGES):
        for n in range(repeats):
            given, step = (in_, stride) if n == 0 else (out, 1)
            labels = [f"k{k}_e{r}" for k in KERNELS for r in (RATIOS if stage else (1,))]
            labels += ["skip"] if stage and step == 1 and given == out else []
            chosen = values[used : used + len(labels)]
            layers.append(((px, given, out, step), dict(zip(labels, chosen, strict=len(chosen) == len(labels)))))
            used, px = used + len(labels), px // step
    if used != len(values):
        raise LatencyError(f"_PROXYLESSNAS_SEARCH_KERNEL holds {len(values)} coefficients; expected {used}")
    return layers, bias


def _floats(text: str, name: str) -> tuple[float, ...]:
    """The big-endian float32 numbers of the bytes literal ``name``."""
    found = re.search(rf'(?m)^{name} = b"""([A-Za-z0-9+/=\s]*)"""', text)
    if not found:
        raise LatencyError(f"has no {name} in base64; expected the text of tunas/cost_model_data.py")
    try:
        data = base64.b64decode("".join(found[1].split()), validate=True)
        return struct.unpack(f">{len(data) // 4}f", data)
    except (ValueError, struct.error):
        raise LatencyError(f"{name}: not base64 of float32 numbers") from None
