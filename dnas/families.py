"""Families of published networks that a rule makes, at any width, depth and resolution.

Each function returns an architecture; ``python -m dnas.describe mobilenetv2:width=0.5,resolution=160`` calls them by name.
Layers are timm's block strings: type, repeats r, kernel k, stride s, expansion e, output channels c, squeeze-excite ratio se,
activation n. BN follows PyTorch's defaults (eps 1e-5, padding symmetric); ``tf=True`` follows TensorFlow's (eps 1e-3, "SAME").
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any

from dnas.arch import Architecture
from dnas.errors import ArchitectureError, nearest
from dnas.interchange.blocks import SqueezeRule
from dnas.interchange.timm import Recipe
from dnas.ops.widths import round8

_TF = {"pad_type": "same", "bn_eps": 1e-3}
_MOBILENETV3_SE = SqueezeRule("mid", "div8", "hsigmoid", "relu")

_EFFICIENTNET = "k3_s1_c16 k3_s2_e6_c24 k5_s2_e6_c40 k3_s2_e6_c80 k5_s1_e6_c112 k5_s2_e6_c192 k3_s1_e6_c320"


def mobilenetv1(width: float = 1.0, resolution: int = 224, num_classes: int = 1000) -> Architecture:
    """MobileNetV1 (Howard et al. 2017, arXiv:1704.04861): depthwise separable convolutions, ReLU6 after both."""
    return Recipe(
        builder="EfficientNet", stem_size=32, num_features=0, act_layer="relu6", channel_multiplier=width,
        arch_def=_stages("dsa_r1_k3_s1_c64 dsa_r2_k3_s2_c128 dsa_r2_k3_s2_c256 dsa_r6_k3_s2_c512 dsa_r2_k3_s2_c1024"),
        resolution=resolution, num_classes=num_classes,
    ).architecture(_name("mobilenetv1", width))  # fmt: skip


def mobilenetv2(width: float = 1.0, resolution: int = 224, num_classes: int = 1000) -> Architecture:
    """MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381). The head of 1280 channels grows with ``width`` but never shrinks."""
    return Recipe(
        builder="EfficientNet", stem_size=32, num_features=max(1280, round8(1280 * width)), act_layer="relu6",
        arch_def=_stages(
            "ds_r1_k3_s1_c16 ir_r2_k3_s2_e6_c24 ir_r3_k3_s2_e6_c32 ir_r4_k3_s2_e6_c64 ir_r3_k3_s1_e6_c96 ir_r3_k3_s2_e6_c160 "
            "ir_r1_k3_s1_e6_c320"
        ),
        channel_multiplier=width, resolution=resolution, num_classes=num_classes,
    ).architecture(_name("mobilenetv2", width))  # fmt: skip


def mobilenetv3_large(
    width: float = 1.0, resolution: int = 224, num_classes: int = 1000, minimal: bool = False, tf: bool = False
) -> Architecture:
    """MobileNetV3-Large (Howard et al. 2019, arXiv:1905.02244). ``minimal``: ReLU, 3x3 kernels and no squeeze-excite.

    The head of 1280 channels stays at every ``width``, and the stem of 16 from 0.75 up follows it.
    """
    arch_def = _stages(
        "ds_r1_k3_s1_c16_nre  ir_r1_k3_s2_e4_c24_nre+ir_r1_k3_s1_e3_c24_nre  ir_r3_k5_s2_e3_c40_se0.25_nre  "
        "ir_r1_k3_s2_e6_c80+ir_r1_k3_s1_e2.5_c80+ir_r2_k3_s1_e2.3_c80  ir_r2_k3_s1_e6_c112_se0.25  "
        "ir_r3_k5_s2_e6_c160_se0.25  cn_r1_k1_s1_c960"
    )
    return _mobilenetv3("mobilenetv3_large", arch_def, 1280, width, resolution, num_classes, minimal, tf)


def mobilenetv3_small(
    width: float = 1.0, resolution: int = 224, num_classes: int = 1000, minimal: bool = False, tf: bool = False
) -> Architecture:
    """MobileNetV3-Small (Howard et al. 2019, arXiv:1905.02244); options as ``mobilenetv3_large``."""
    arch_def = _stages(
        "ds_r1_k3_s2_c16_se0.25_nre  ir_r1_k3_s2_e4.5_c24_nre+ir_r1_k3_s1_e3.67_c24_nre  "
        "ir_r1_k5_s2_e4_c40_se0.25+ir_r2_k5_s1_e6_c40_se0.25  ir_r2_k5_s1_e3_c48_se0.25  ir_r3_k5_s2_e6_c96_se0.25  "
        "cn_r1_k1_s1_c576"
    )
    return _mobilenetv3("mobilenetv3_small", arch_def, 1024, width, resolution, num_classes, minimal, tf)


def mnasnet_a1(width: float = 1.0, resolution: int = 224, num_classes: int = 1000) -> Architecture:
    """MnasNet-A1 (Tan et al. 2019, arXiv:1807.11626), with squeeze-excite of a quarter of a block's input channels."""
    return _mnasnet(
        "mnasnet_a1", width, resolution, num_classes,
        "ds_r1_k3_s1_c16_noskip ir_r2_k3_s2_e6_c24 ir_r3_k5_s2_e3_c40_se0.25 ir_r4_k3_s2_e6_c80 ir_r2_k3_s1_e6_c112_se0.25 "
        "ir_r3_k5_s2_e6_c160_se0.25 ir_r1_k3_s1_e6_c320",
    )  # fmt: skip


def mnasnet_b1(width: float = 1.0, resolution: int = 224, num_classes: int = 1000) -> Architecture:
    """MnasNet-B1 (Tan et al. 2019, arXiv:1807.11626), without squeeze-excite."""
    return _mnasnet(
        "mnasnet_b1", width, resolution, num_classes,
        "ds_r1_k3_s1_c16_noskip ir_r3_k3_s2_e3_c24 ir_r3_k5_s2_e3_c40 ir_r3_k5_s2_e6_c80 ir_r2_k3_s1_e6_c96 "
        "ir_r4_k5_s2_e6_c192 ir_r1_k3_s1_e6_c320_noskip",
    )  # fmt: skip


def single_path_nas(resolution: int = 224, num_classes: int = 1000) -> Architecture:
    """Single-Path NAS's network for the Pixel 1 (Stamoulis et al. 2019, arXiv:1904.02877), as timm has it."""
    return _mnasnet(
        "single_path_nas", 1.0, resolution, num_classes,
        "ds_r1_k3_s1_c16_noskip ir_r3_k3_s2_e3_c24 ir_r1_k5_s2_e6_c40+ir_r3_k3_s1_e3_c40 ir_r1_k5_s2_e6_c80+ir_r3_k3_s1_e3_c80 "
        "ir_r1_k5_s1_e6_c96+ir_r3_k5_s1_e3_c96 ir_r4_k5_s2_e6_c192 ir_r1_k3_s1_e6_c320_noskip",
    )  # fmt: skip


def efficientnet(
    width: float = 1.0, depth: float = 1.0, resolution: int = 224, num_classes: int = 1000, tf: bool = False
) -> Architecture:
    """EfficientNet (Tan & Le 2019, arXiv:1905.11946) by compound scaling; B0 is width 1, depth 1, 224 px.

    B1 to B7: (1.0, 1.1, 240), (1.1, 1.2, 260), (1.2, 1.4, 300), (1.4, 1.8, 380), (1.6, 2.2, 456), (1.8, 2.6, 528),
    (2.0, 3.1, 600).
    """
    return Recipe(
        builder="EfficientNet", arch_def=_efficientnet_stages("_se0.25"), stem_size=32, num_features=round8(1280 * width),
        act_layer="swish", channel_multiplier=width, depth_multiplier=depth, resolution=resolution, num_classes=num_classes,
        **(_TF if tf else {}),  # type: ignore[arg-type]
    ).architecture("efficientnet" if width == depth == 1 else f"efficientnet_w{width:g}_d{depth:g}")  # fmt: skip


def efficientnet_lite(
    width: float = 1.0, depth: float = 1.0, resolution: int = 224, num_classes: int = 1000, tf: bool = True
) -> Architecture:
    """EfficientNet-Lite (tensorflow/tpu, 2020): ReLU6, no squeeze-excite; stem, head, first and last stage are not scaled."""
    return Recipe(
        builder="EfficientNet", arch_def=_efficientnet_stages(""), stem_size=32, num_features=1280, act_layer="relu6",
        fix_stem=True, fix_first_last=True, channel_multiplier=width, depth_multiplier=depth, resolution=resolution,
        num_classes=num_classes, **(_TF if tf else {}),  # type: ignore[arg-type]
    ).architecture("efficientnet_lite" if width == depth == 1 else f"efficientnet_lite_w{width:g}_d{depth:g}")  # fmt: skip


FAMILIES: dict[str, Callable[..., Architecture]] = {
    f.__name__: f
    for f in (
        mobilenetv1, mobilenetv2, mobilenetv3_large, mobilenetv3_small, mnasnet_a1, mnasnet_b1, single_path_nas, efficientnet,
        efficientnet_lite,
    )
}  # fmt: skip


def make(spec: str) -> Architecture:
    """``mobilenetv2:width=0.5,resolution=160``; every family also takes ``stride`` (see ``at_stride``).

    Errors: ArchitectureError that names the option.
    """
    name, _, tail = spec.partition(":")
    parameters = inspect.signature(FAMILIES[name]).parameters
    arguments: dict[str, Any] = {}
    known = [*parameters, "stride"]
    for item in filter(None, tail.split(",")):
        option, equals, text = item.partition("=")
        if not equals or option not in known:
            raise ArchitectureError(f"{spec!r}: expected NAME:option=value,..., got {item!r}{nearest(option, known)}")
        kind = int if option == "stride" else type(parameters[option].default)
        arguments[option] = _value(text, kind, f"{name}: {option}")
    stride = arguments.pop("stride", None)
    if not 0 < arguments.get("width", 1) <= 100 or not 0 < arguments.get("depth", 1) <= 100:
        raise ArchitectureError(f"{spec!r}: width and depth are multiples; expected more than 0, at most 100")
    found = FAMILIES[name](**arguments)
    return found if stride is None else at_stride(found, stride)


def at_stride(network: Architecture, stride: int) -> Architecture:
    """``network`` with its last maps at 1/``stride`` of the input's side: its first reducing layers reduce no more.

    As MobileNetV2 and ResNets are used on images of 32 px, where a stride of 32 would leave one pixel (stride 8 leaves 4 x 4).
    Errors: ArchitectureError where the network has no such stride.
    """
    strides = [getattr(op, "stride", 1) for op in network.layers]
    possible = list(dict.fromkeys(math.prod(strides[i:]) for i in range(len(strides) + 1)))
    if stride not in possible:
        raise ArchitectureError(f"{network.name}: stride {stride}; expected one of {', '.join(map(str, possible))}")
    layers = list(network.layers)
    for index in range(next(i for i in range(len(strides) + 1) if math.prod(strides[i:]) == stride)):
        if strides[index] > 1:
            layers[index] = dataclasses.replace(layers[index], stride=1)  # type: ignore[call-arg]
    return dataclasses.replace(network, layers=tuple(layers), name=f"{network.name}_stride{stride}")


def _value(text: str, kind: type, where: str) -> Any:
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise ArchitectureError(f"{where} is {text!r}; expected {kind.__name__}") from None


def _stages(rows: str) -> tuple[tuple[str, ...], ...]:
    """Stages are separated by blanks, the blocks of one by +."""
    return tuple(tuple(stage.split("+")) for stage in rows.split())


def _efficientnet_stages(se: str) -> tuple[tuple[str, ...], ...]:
    repeats = (1, 2, 2, 3, 3, 4, 1)
    kinds = ("ds", *("ir",) * 6)
    return tuple((f"{k}_r{r}_{row}{se}",) for k, r, row in zip(kinds, repeats, _EFFICIENTNET.split(), strict=True))


def _name(family: str, width: float) -> str:
    return family if width == 1 else f"{family}_w{width:g}"


def _mnasnet(name: str, width: float, resolution: int, num_classes: int, rows: str) -> Architecture:
    return Recipe(
        builder="EfficientNet", arch_def=_stages(rows), stem_size=32, num_features=1280, channel_multiplier=width,
        resolution=resolution, num_classes=num_classes,
    ).architecture(_name(name, width))  # fmt: skip


def _mobilenetv3(
    name: str, stages: tuple[tuple[str, ...], ...], features: int, width: float, resolution: int, num_classes: int,
    minimal: bool, tf: bool,
) -> Architecture:  # fmt: skip
    if minimal:
        plain = (("_se0.25", ""), ("_nre", ""), ("k5", "k3"))
        stages = tuple(tuple(_replaced(block, plain) for block in stage) for stage in stages)
    return Recipe(
        builder="MobileNetV3", arch_def=stages, stem_size=16, num_features=features, se=_MOBILENETV3_SE,
        act_layer="relu" if minimal else "hswish", fix_stem=width < 0.75, channel_multiplier=width, resolution=resolution,
        num_classes=num_classes, **(_TF if tf else {}),  # type: ignore[arg-type]
    ).architecture(_name(f"{name}_minimal" if minimal else name, width))  # fmt: skip


def _replaced(text: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for old, new in pairs:
        text = text.replace(old, new)
    return text
