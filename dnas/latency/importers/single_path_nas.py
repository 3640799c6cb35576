"""Single-Path NAS JSON (dstamoulis/single-path-nas): layer -> four times in ms, in the order k3_e3, k3_e6, k5_e3, k5_e6.

Measured on a Pixel 1. Two shapes are read: the project's own ``pixel1_runtime_model.json``, ``{"0": {"0": ms, ..., "3": ms}}``
(or lists of four), whose 22 layers are MnasNet's; and a copy with the geometry of every layer written out. The first and the
last layer are part of a constant, together with stem, head and classifier: their times are listed, not added again.
Stamoulis et al., "Single-Path NAS", ECML PKDD 2019, arXiv:1904.02877.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dnas.errors import LatencyError
from dnas.files import shown
from dnas.latency.importers.common import Found, Left, Record, Wanted, field, figure, json_object
from dnas.latency.keys import whole
from dnas.ops import ConvOp, DsConvOp, GlobalPoolOp, InvertedResidualOp, LinearOp, Op, Shape

CHOICES = ((3, 3), (3, 6), (5, 3), (5, 6))
CONSTANT_MS = 19.5999  # stated in the project's code: stem, block 0, block 21, head, classifier
STAGES = ((32, 16, 1, 1), (16, 24, 2, 4), (24, 40, 2, 4), (40, 80, 2, 4), (80, 96, 1, 4), (96, 192, 2, 4), (192, 320, 1, 1))
RUNS = 50  # per figure, as the project states
COVERED = "inside constant_ms: adding it would count it twice"


def read(path: Path, wanted: Wanted) -> Found:
    """Records of ``path`` in ms. Errors: LatencyError."""
    body, act = json_object(path), wanted.act or "relu"
    layers = _copy(body) if "layers" in body else _own(body)
    constant = figure("constant_ms", body["constant_ms"]) if "constant_ms" in body else CONSTANT_MS
    records: list[Record] = []
    left: list[Left] = []
    for index, ((px, in_, out, stride), times) in enumerate(layers):
        for (kernel, ratio), ms in zip(CHOICES, times, strict=True):
            name = f"{index}: k{kernel}_e{ratio}"
            if index in (0, len(layers) - 1):
                left.append(Left(name, COVERED))
                continue
            op = InvertedResidualOp(
                in_=in_, mid=ratio * in_, out=out, kernel=kernel, stride=stride, act=act, residual=stride == 1 and in_ == out
            )
            records.append(Record(name, op, Shape(px, px, in_), figure(name, ms), runs=RUNS))
    (px, in_, out, _), (last_px, last_in, last, _) = layers[0][0], layers[-1][0]
    covered: list[tuple[Op, Shape]] = [
        (ConvOp(in_=3, out=in_, kernel=3, stride=2, act=act), Shape(2 * px, 2 * px, 3)),
        (DsConvOp(in_=in_, out=out, act=act), Shape(px, px, in_)),
        (InvertedResidualOp(in_=last_in, mid=6 * last_in, out=last, act=act), Shape(last_px, last_px, last_in)),
        (ConvOp(in_=last, out=1280, act=act), Shape(last_px, last_px, last)),
        (GlobalPoolOp(), Shape(last_px, last_px, 1280)),
        (LinearOp(in_=1280, out=1000), Shape(1, 1, 1280)),
    ]
    source = {
        "who": "dstamoulis/single-path-nas", "where": "nas-search/pixel1_runtime_model.json; arXiv:1904.02877",
        "licence": "Apache-2.0", "date": "2019",
    }  # fmt: skip
    if isinstance(body.get("runtime"), str):
        source["how"] = body["runtime"]
    about: dict[str, Any] = {
        "device": "Google Pixel 1", "runtime": "TFLite, generation of 2019", "precision": "float32", "threads": 1,
        "status": "measured", "meaning": "absolute", "resolutions": (2 * px, 2 * px), "constant_ms": constant,
        "constant_covers": tuple(op.price_fields(shape) for op, shape in covered), "source": source,
    }  # fmt: skip
    notes = (
        f"Activation: {act}, which the file does not state; precision: float32, likewise.",
        "constant_ms covers the stem, the separable block 0, the last block (k3_e6), the head, the pooling and the classifier.",
        "A layer without a block costs 0 here; the project's code adds 0.7 ms, which it calls negligible.",
    )
    return Found(tuple(records), tuple(left), about, len(layers) * len(CHOICES), notes)


Layer = tuple[tuple[int, int, int, int], list[Any]]


def _copy(body: dict[str, Any]) -> list[Layer]:
    """Layers with their geometry written out."""
    layers: list[Layer] = []
    for index, layer in enumerate(field(body, "the file", "layers", list)):
        where = f"layers[{index}]"
        sizes = [whole(f"{where}: {n}", field(layer, where, n, int)) for n in ("h_in", "c_in", "c_out", "stride")]
        times = [field(layer, where, f"k{k}_e{e}", (int, float)) for k, e in CHOICES]
        layers.append(((sizes[0], sizes[1], sizes[2], sizes[3]), times))
    if len(layers) < 3:
        raise LatencyError(f"layers holds {len(layers)}; expected a first and a last one with others between")
    return layers


def _own(body: dict[str, Any]) -> list[Layer]:
    """The project's own file: MnasNet's 22 layers in order."""
    geometry, px = [], 112
    for in_, out, stride, repeats in STAGES:
        for n in range(repeats):
            geometry.append((px, in_ if n == 0 else out, out, stride if n == 0 else 1))
            px //= stride if n == 0 else 1
    wanted = [str(n) for n in range(len(geometry))]
    if sorted(body) != sorted(wanted):
        raise LatencyError(f"its fields are {shown(sorted(body))}; expected the layers '0' to '{wanted[-1]}'")
    layers: list[Layer] = []
    for sizes, name in zip(geometry, wanted, strict=True):
        times = body[name]
        if isinstance(times, dict):
            times = [times.get(str(n)) for n in range(len(times))]
        if not isinstance(times, list) or len(times) != len(CHOICES):
            raise LatencyError(f"layer {name} is {shown(body[name])}; expected four times in ms")
        layers.append((sizes, times))
    return layers
