"""HW-NAS-Bench's FBNet tables (GATECH-EIC/HW-NAS-Bench), in ms.

Two shapes are read. Its look-up table as JSON (its own file is a pickle, which is code and is not read): keys such as
``ConvBlock_H32_W32_Cin16_Cout24_exp3_kernel3_stride1_group2`` -> ms, of one device or ``{"pixel3_latency": {...}, ...}``. And
costs relative to the skip of the same layer, recovered by least squares from published sums (``devices``, ``layers``,
``ms_relative_to_skip``). Pixel 3 and Raspberry Pi 4 were measured; Eyeriss and FPGA are accelerator models.
Li et al., "HW-NAS-Bench", ICLR 2021, arXiv:2103.10584. An expansion-1 block keeps its expansion convolution there.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dnas.errors import ArchitectureError, LatencyError, nearest
from dnas.files import shown
from dnas.latency.importers.common import Found, Left, Record, Wanted, field, figure, json_object
from dnas.latency.keys import whole
from dnas.macro import fbnet_block
from dnas.ops import ConvOp, GlobalPoolOp, LinearOp, Op, Shape, SkipOp

DEVICES = {
    "pixel3": ("Google Pixel 3", "TFLite, generation of 2020", "measured"),
    "raspi4": ("Raspberry Pi 4", "TFLite, generation of 2020", "measured"),
    "edgegpu": ("NVIDIA Jetson TX2", "not stated by the source", "measured"),
    "eyeriss": ("Eyeriss (accelerator model)", "simulated", "estimated"),
    "fpga": ("FPGA (accelerator model)", "simulated", "estimated"),
}
SOURCE = {"who": "GATECH-EIC/HW-NAS-Bench", "where": "arXiv:2103.10584", "licence": "MIT", "date": "2021"}
OTHER_SHAPE = "a skip that changes the shape is a convolution whose form the source does not state"


def read(path: Path, wanted: Wanted) -> Found:
    """Records of ``path`` in ms; ``wanted.part`` picks a device. Errors: LatencyError."""
    body = json_object(path)
    if "devices" in body:
        return _recovered(body, wanted)
    return _table(body, wanted)


def _recovered(body: dict[str, Any], wanted: Wanted) -> Found:
    name, device = _pick(field(body, "the file", "devices", dict), wanted.part)
    if body.get("unit") != "ms":
        raise LatencyError(f"unit is {shown(body.get('unit'))}; expected 'ms'")
    act = wanted.act or "relu"
    records: list[Record] = []
    left: list[Left] = []
    layers = field(device, name, "layers", list)
    for index, layer in enumerate(layers):
        where = f"{name}: layers[{index}]"
        px, in_, out, stride = (
            whole(f"{where}: {n}", field(layer, where, n, int)) for n in ("h_in", "c_in", "c_out", "stride")
        )
        for label, ms in field(layer, where, "ms_relative_to_skip", dict).items():
            place = f"{where}: {label}"
            value = figure(place, ms, negative=True)
            if label == "skip" and (stride != 1 or in_ != out):
                left.append(Left(place, "the cost of a skip that changes the shape is inside constant_ms, relative to it: 0"))
                continue
            records.append(Record(place, _candidate(label, place, in_, out, stride, act), Shape(px, px, in_), value))
    stem, head, classes = field(layers[0], f"{name}: layers[0]", "c_in", int), 1504, _classes(body)
    first, last = (whole("h_in", field(layers[i], name, "h_in", int)) for i in (0, -1))
    out = field(layers[-1], name, "c_out", int)
    covered: list[tuple[Op, Shape]] = [
        (ConvOp(in_=3, out=stem, kernel=3, act=act), Shape(first, first, 3)),
        (ConvOp(in_=out, out=head, act=act), Shape(last, last, out)),
        (GlobalPoolOp(), Shape(last, last, head)),
        (LinearOp(in_=head, out=classes), Shape(1, 1, head)),
    ]
    words, runtime, model = DEVICES.get(name, (name, "not stated by the source", ""))
    source = SOURCE | {"how": field(body, "the file", "source", str)}
    about: dict[str, Any] = {
        "device": words, "runtime": runtime, "precision": "float32", "meaning": "relative_to_skip",
        "status": "estimated" if model == "estimated" else "recovered", "resolutions": (first, first), "source": source,
        "constant_ms": figure(f"{name}: constant_ms", field(device, name, "constant_ms", (int, float))),
        "constant_covers": tuple(op.price_fields(shape) for op, shape in covered),
        "error": {
            "summary": "exact sums of the published table, not checked on the device",
            "exactness": body.get("exactness", "not stated"), "sums": device.get("check_against_hw_nas_bench_example_notebook"),
        },
    }  # fmt: skip
    notes = (
        "Entries are relative to the skip of the same layer; constant_ms holds stem, head, pooling, classifier and all skips.",
        f"Sums are published latencies of networks of the FBNet space at {first} px with {classes} classes and price no other.",
        "Precision float32 and the generation of the runtime are not stated by the source file.",
    )
    return Found(tuple(records), tuple(left), about, len(records) + len(left), notes)


def _classes(body: dict[str, Any]) -> int:
    given = re.search(r"(\d+) classes", str(body.get("input", "")))
    if not given:
        raise LatencyError(
            f"input is {shown(body.get('input'))}; expected the number of classes in it, as '32x32x3, 100 classes'"
        )
    return whole("classes", int(given[1]))


def _candidate(label: str, where: str, in_: int, out: int, stride: int, act: str) -> Op:
    """FBNet's candidate ``k3_e6`` or ``k5_e1_g2``, or ``skip``. Errors: LatencyError."""
    if label == "skip":
        return SkipOp(in_=in_, out=out)
    parts = re.fullmatch(r"k(\d{1,2})_e(\d{1,2})(?:_g(\d{1,2}))?", label)
    if not parts:
        raise LatencyError(f"{where}: expected skip, or kernel, expansion and groups as in k3_e1_g2")
    return _block(in_, out, stride, int(parts[1]), int(parts[2]), int(parts[3] or 1), act)


def _block(in_: int, out: int, stride: int, kernel: int, expansion: int, groups: int, act: str) -> Op:
    return dataclasses.replace(fbnet_block(in_, out, stride, kernel, expansion, groups, expand1=True), act=act)


def _table(body: dict[str, Any], wanted: Wanted) -> Found:
    """A look-up table of text keys, of one device or of several."""
    about: dict[str, Any] = {"status": "measured", "meaning": "absolute", "source": SOURCE}
    if not any(type(v) in (int, float) for v in body.values()):
        energies = [n for n in body if n.endswith("_energy")]
        name, body = _pick({n: v for n, v in body.items() if n not in energies}, wanted.part)
        words = DEVICES.get(name.removesuffix("_latency"))
        if words:
            about |= {"device": words[0], "runtime": words[1], "precision": "float32", "status": words[2]}
    act, records, left = wanted.act or "relu", [], []
    heights = []
    for name, value in body.items():
        ms = figure(name, value)
        try:
            mapped = _op(name, act)
        except (ArchitectureError, ValueError) as problem:
            left.append(Left(name, str(problem)))
            continue
        records.append(Record(name, *mapped, ms))
        heights += [mapped[1].height] if mapped[1].channels == 3 else []
    if heights:
        about["resolutions"] = (min(heights), max(heights))
    return Found(
        tuple(records), tuple(left), about, len(body), ("Values are taken as ms, the unit of HW-NAS-Bench's latencies.",)
    )


def _op(name: str, act: str) -> tuple[Op, Shape]:
    """What a text key stands for. Errors: ValueError, in words."""
    kind, *parts = name.split("_")
    read = {m[1]: int(m[2]) for m in (re.fullmatch(r"([A-Za-z]+?)(\d{1,7})", p) for p in parts) if m}
    if len(read) != len(parts):
        raise ValueError("its key cannot be read")
    try:
        if kind == "FC":
            return LinearOp(in_=read["Cin"], out=read["Cout"]), Shape(1, 1, read["Cin"])
        shape = Shape(whole("H", read["H"]), whole("W", read["W"]), read["Cin"])
        if kind == "ConvBlock":
            in_, out, stride, kernel, ratio, groups = (read[n] for n in ("Cin", "Cout", "stride", "kernel", "exp", "group"))
            return _block(in_, out, stride, kernel, ratio, groups, act), shape
        if kind == "ConvNorm":
            op = ConvOp(
                in_=read["Cin"], out=read["Cout"], kernel=read["kernel"], stride=read["stride"], groups=read["group"], act=act
            )
            return op, shape
        if kind == "Skip":
            if read["stride"] != 1 or read["Cin"] != read["Cout"]:
                raise ValueError(OTHER_SHAPE)
            return SkipOp(in_=read["Cin"], out=read["Cout"]), shape
        if kind == "AvgP":
            if read["kernel"] != read["H"]:
                raise ValueError("a pooling over less than the whole map is no layer that is known here")
            return GlobalPoolOp(), shape
    except KeyError as missing:
        raise ValueError(f"its key lacks {missing}") from None
    except LatencyError as problem:
        raise ValueError(str(problem)) from None
    raise ValueError(f"{kind} is no layer that is known here")


def _pick(devices: Mapping[str, Any], part: str | None) -> tuple[str, dict[str, Any]]:
    """(name, object) of the one that is asked for. Errors: LatencyError."""
    names = {n.removesuffix("_latency"): n for n in devices}
    if part and part.endswith("_energy"):
        raise LatencyError(f"{part} is an energy; a latency table holds ms")
    if part is None and len(devices) > 1:
        raise LatencyError(f"holds {len(devices)} devices; give --part: one of {', '.join(sorted(names))}")
    name = names.get(part.removesuffix("_latency")) if part else next(iter(devices), None)
    if name is None:
        raise LatencyError(f"has no device {shown(part)}{nearest(str(part), names)}")
    if not isinstance(devices[name], dict):
        raise LatencyError(f"{name} is {shown(devices[name])}; expected an object, key -> ms")
    return name, devices[name]
