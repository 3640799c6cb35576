"""timm's notation for a whole network: block strings, and the arguments of its class EfficientNet or MobileNetV3.

Reads and builds; ``dnas.interchange.timm_write`` writes. huggingface/pytorch-image-models, Ross Wightman, Apache-2.0.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from dnas.arch import Architecture, Defaults
from dnas.errors import ArchitectureError, nearest
from dnas.files import shown
from dnas.interchange.blocks import SqueezeRule, op_of, parse, scaled
from dnas.ops import ConvOp, GlobalPoolOp, LinearOp, Op
from dnas.ops.base import ACTIVATIONS
from dnas.ops.widths import round8

CLASSES = ("EfficientNet", "MobileNetV3")
_PADDING = {"": "symmetric", "same": "tf_same"}
_NEEDED = ("builder", "arch_def", "stem_size", "num_features")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What timm makes a network from, under timm's names and with its defaults.

    ``builder``: its class; EfficientNet has its head's 1x1 convolution before pooling, MobileNetV3 after. ``num_features``:
    width of that convolution, 0 for none. ``channel_multiplier``: of all widths, which then become multiples of 8 (0: as they
    stand). ``bn_momentum``: weight of the new batch, as in PyTorch. ``fix_first_last``: depth of these stages is not scaled.
    """

    builder: str
    arch_def: tuple[tuple[str, ...], ...]
    stem_size: int
    num_features: int
    act_layer: str = "relu"
    pad_type: str = ""
    bn_eps: float = 1e-5
    bn_momentum: float = 0.1
    se: SqueezeRule = SqueezeRule()
    head_bias: bool = True
    head_norm: bool = False
    layer_scale: bool = False
    fix_stem: bool = False
    channel_multiplier: float = 1.0
    round_limit: float = 0.9
    depth_multiplier: float = 1.0
    depth_trunc: str = "ceil"
    fix_first_last: bool = False
    in_chans: int = 3
    num_classes: int = 1000
    resolution: int = 224

    def __post_init__(self) -> None:
        words = {
            "builder": CLASSES, "act_layer": ACTIVATIONS, "pad_type": tuple(_PADDING), "depth_trunc": ("ceil", "round"),
        }  # fmt: skip
        for name, known in words.items():
            if getattr(self, name) not in known:
                raise ArchitectureError(f"{name} is {shown(getattr(self, name))}; expected one of {known}")
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), str(field.type)
            if kind in ("int", "float") and (isinstance(value, bool) or not isinstance(value, int | float) or value < 0):
                raise ArchitectureError(f"{field.name} is {shown(value)}; expected a number of at least 0")
            if kind == "int" and not isinstance(value, int):
                raise ArchitectureError(f"{field.name} is {shown(value)}; expected a whole number")
            if kind == "bool" and not isinstance(value, bool):
                raise ArchitectureError(f"{field.name} is {shown(value)}; expected true or false")
        if not self.arch_def or not all(self.arch_def):
            raise ArchitectureError("arch_def is empty or has an empty stage; expected lists of block strings")

    # -- to an architecture ---------------------------------------------------------------------------------------

    def channels(self, count: int) -> int:
        """A width after the multiplier."""
        return round8(count * self.channel_multiplier, self.round_limit) if self.channel_multiplier else count

    def architecture(self, name: str = "network") -> Architecture:
        """The network. Errors: ArchitectureError that quotes the block string that has no op here."""
        stem = self.stem_size if self.fix_stem else self.channels(self.stem_size)
        layers: list[Op] = [ConvOp(in_=self.in_chans, out=stem, kernel=3, stride=2, act=self.act_layer)]
        width = stem
        for index, stage in enumerate(self.arch_def):
            blocks = [parse(text) for text in stage]
            ends = index in (0, len(self.arch_def) - 1)
            depth = 1.0 if self.fix_first_last and ends else self.depth_multiplier
            repeats = scaled([b.repeats for b in blocks], depth, round if self.depth_trunc == "round" else math.ceil)
            rows = [block for block, count in zip(blocks, repeats, strict=True) for _ in range(count)]
            for position, block in enumerate(rows):
                stride = block.whole("s", 1) if position == 0 else 1  # as in timm: only a stage's first block reduces
                out = self.channels(block.whole("c"))
                layers.append(op_of(block, width, out, stride, self.act_layer, self.se, self.layer_scale))
                width = out
        layers += self._head(width)
        defaults = Defaults(float(self.bn_eps), float(f"{1 - self.bn_momentum:.12g}"), _PADDING[self.pad_type])
        return Architecture(tuple(layers), self.in_chans, self.resolution, self.num_classes, defaults, name)

    def _head(self, width: int) -> list[Op]:
        late, features = self.builder == "MobileNetV3", self.num_features
        if features:
            norm = "bn" if self.head_norm or not late else None
            bias = late and self.head_bias and not self.head_norm
            conv: list[Op] = [ConvOp(in_=width, out=features, act=self.act_layer, norm=norm, bias=bias)]
        else:
            conv, features = [], width
        body: list[Op] = [GlobalPoolOp(), *conv] if late else [*conv, GlobalPoolOp()]
        return [*body, LinearOp(in_=features, out=self.num_classes)] if self.num_classes else body

    # -- JSON -----------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """JSON object: what is needed, and what differs from timm's defaults."""
        body: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in _NEEDED or field.name == "resolution" or value != field.default:
                body[field.name] = value
        body["arch_def"] = [list(stage) for stage in self.arch_def]
        return body | ({"se": dataclasses.asdict(self.se)} if "se" in body else {})

    @classmethod
    def from_dict(cls, given: Any) -> Recipe:
        """Inverse of ``to_dict``. Errors: ArchitectureError that names the field."""
        if not isinstance(given, Mapping):
            raise ArchitectureError(f"a timm network is {type(given).__name__}; expected an object with {', '.join(_NEEDED)}")
        body = {k: v for k, v in given.items() if k not in ("format", "name")}
        known = [f.name for f in dataclasses.fields(cls)]
        for name in body:
            if name not in known:
                raise ArchitectureError(f"unknown field {shown(name)}{nearest(shown(name), known)}")
        if missing := [name for name in _NEEDED if name not in body]:
            raise ArchitectureError(f"missing field {missing[0]!r}: timm's strings do not say it")
        stages = body["arch_def"]
        if not isinstance(stages, list) or not all(isinstance(stage, list) for stage in stages):
            raise ArchitectureError("arch_def: expected a list of stages, each a list of block strings")
        body["arch_def"] = tuple(tuple(stage) for stage in stages)
        if "se" in body:
            body["se"] = _squeeze_rule(body["se"])
        return cls(**body)


def _squeeze_rule(given: Any) -> SqueezeRule:
    words = {"base": ("in", "mid"), "round": ("nearest", "div8"), "gate": ("sigmoid", "hsigmoid"), "act": (None, *ACTIVATIONS)}
    if not isinstance(given, Mapping) or set(given) - {*words, "guard"}:
        raise ArchitectureError(f"se is {shown(given)}; expected an object with {', '.join(words)}, guard")
    for name, value in given.items():
        if name in words and value not in words[name]:
            raise ArchitectureError(f"se.{name} is {shown(value)}; expected one of {words[name]}")
    return SqueezeRule(**given)


def build(recipe: Recipe) -> Any:
    """timm's own model of ``recipe``, a ``torch.nn.Module`` with random weights. Errors: ArchitectureError without timm."""
    try:
        from timm.layers import get_act_layer
        from timm.models import _efficientnet_blocks, _efficientnet_builder, efficientnet, mobilenetv3
        from torch import nn
    except ImportError as problem:
        raise ArchitectureError(f"this needs timm and PyTorch ({problem}): pip install timm") from None
    names = {"hswish": "hard_swish", "hsigmoid": "hard_sigmoid"}

    def rounding(width: float) -> int:
        return round8(width, recipe.se.guard) if recipe.se.round == "div8" else round(width)

    late = recipe.builder == "MobileNetV3"
    if recipe.se.base == "mid" and not late:
        raise ArchitectureError("timm's EfficientNet takes squeeze-excite ratios of a block's input channels; se.base is 'mid'")
    blocks = _efficientnet_builder.decode_arch_def(
        [list(s) for s in recipe.arch_def], recipe.depth_multiplier, recipe.depth_trunc, fix_first_last=recipe.fix_first_last
    )
    force = {"force_act_layer": get_act_layer(names.get(recipe.se.act, recipe.se.act))} if recipe.se.act else {}
    only_late = {
        "head_bias": recipe.head_bias, "head_norm": recipe.head_norm, "se_from_exp": recipe.se.base == "mid",
        "layer_scale_init_value": 1e-5 if recipe.layer_scale else None,
    }  # fmt: skip
    model: Any = mobilenetv3.MobileNetV3 if late else efficientnet.EfficientNet
    return model(
        block_args=blocks, num_classes=recipe.num_classes, in_chans=recipe.in_chans, stem_size=recipe.stem_size,
        num_features=recipe.num_features, fix_stem=recipe.fix_stem, pad_type=recipe.pad_type,
        act_layer=get_act_layer(names.get(recipe.act_layer, recipe.act_layer)),
        norm_layer=partial(nn.BatchNorm2d, eps=recipe.bn_eps, momentum=recipe.bn_momentum),
        se_layer=partial(
            _efficientnet_blocks.SqueezeExcite, rd_round_fn=rounding, **force,
            gate_layer=get_act_layer(names.get(recipe.se.gate, recipe.se.gate)),
        ),
        round_chs_fn=partial(
            _efficientnet_builder.round_channels, multiplier=recipe.channel_multiplier, round_limit=recipe.round_limit
        ),
        **(only_late if late else {}),
    )  # fmt: skip
