"""timm's block strings (``ir_r2_k3_s2_e6_c24_se0.25_nre``): reading them, and the ops that they stand for.

A string holds type, repeats r, kernel k (k3.5.7: mixed), stride s, expansion e, output channels c, squeeze-excite ratio se,
activation n, and noskip or skip. Grammar and meaning: huggingface/pytorch-image-models, Ross Wightman, Apache-2.0.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from dnas.errors import ArchitectureError, nearest
from dnas.files import shown
from dnas.ops import SE, ConvOp, DsConvOp, FusedInvertedResidualOp, InvertedResidualOp, Op, UniversalInvertedBottleneckOp
from dnas.ops.widths import round8

CODES = {"re": "relu", "r6": "relu6", "hs": "hswish", "sw": "swish"}
_KINDS = ("ir", "ds", "dsa", "er", "cn", "uir")
_NEEDED = {"ir": "rkec", "ds": "rkc", "dsa": "rkc", "er": "rkec", "cn": "rkc", "uir": "rkec"}
_KNOWN = {"r", "k", "s", "e", "c", "se", "a", "p", "gs", "i"}  # i: input channels, informative


@dataclasses.dataclass(frozen=True)
class SqueezeRule:
    """How a ratio becomes a squeeze-excite width. ``base``: "mid" or "in" channels; ``round``: "nearest" or "div8".

    ``act``: its inner activation, None for that of the block; ``guard``: of "div8", see ``round8``.
    """

    base: str = "in"
    round: str = "nearest"
    gate: str = "sigmoid"
    act: str | None = None
    guard: float = 0.9

    def width(self, ratio: float, mid: int, expansion: float) -> int:
        of_mid = ratio if self.base == "mid" else ratio / expansion
        return round8(mid * of_mid, self.guard) if self.round == "div8" else round(mid * of_mid)

    def se(self, ratio: float, mid: int, expansion: float, act: str) -> SE | None:
        return SE(self.width(ratio, mid, expansion), self.act or act, self.gate) if ratio else None


@dataclasses.dataclass(frozen=True)
class Block:
    """One block string, read: type, repeats, and the fields as text."""

    text: str
    kind: str
    fields: Mapping[str, str]
    act: str | None
    skip: bool | None

    @property
    def repeats(self) -> int:
        return self.whole("r")

    def whole(self, name: str, default: int | None = None) -> int:
        text = self.fields.get(name)
        if text is None and default is not None:
            return default
        if text is None or not text.isdigit():
            raise ArchitectureError(f"block {self.text!r}: {name} is {shown(text)}; expected a whole number")
        return int(text)

    def number(self, name: str) -> float:
        try:
            return float(self.fields.get(name, "0"))
        except ValueError:
            raise ArchitectureError(f"block {self.text!r}: {name} is {self.fields[name]!r}; expected a number") from None

    def kernels(self, name: str, default: int = 0) -> tuple[int, ...]:
        """k3.5.7 is (3, 5, 7)."""
        parts = self.fields.get(name, str(default)).split(".")
        if not all(part.isdigit() for part in parts):
            raise ArchitectureError(
                f"block {self.text!r}: {name} is {self.fields[name]!r}; expected kernel sizes as 3 or 3.5.7"
            )
        return tuple(map(int, parts))

    def splits(self, name: str) -> int:
        """1x1 convolutions side by side: p1.1 is 2."""
        kernels = self.kernels(name, 1)
        if set(kernels) != {1}:
            raise ArchitectureError(f"block {self.text!r}: {name} has kernels other than 1, which no op here has")
        return len(kernels)


def parse(text: Any) -> Block:
    """One block string. Errors: ArchitectureError that quotes it."""
    if not isinstance(text, str):
        raise ArchitectureError(f"a block is {shown(text)}; expected text such as 'ir_r2_k3_s2_e6_c24'")
    kind, *tokens = text.split("_")
    if kind not in _KINDS:
        raise ArchitectureError(f"block {text!r}: type {kind!r} has no op here; expected one of {', '.join(_KINDS)}")
    fields: dict[str, str] = {}
    act, skip = None, None
    for token in tokens:
        if token in ("skip", "noskip"):
            skip = token == "skip"
        elif token.startswith("n"):
            if token[1:] not in CODES:
                raise ArchitectureError(f"block {text!r}: activation {token[1:]!r}{nearest(token[1:], CODES)}")
            act = CODES[token[1:]]
        else:
            found = re.fullmatch(r"([a-z]+)([0-9][0-9.]*)", token)
            if not found or found[1] not in _KNOWN:
                raise ArchitectureError(f"block {text!r}: {token!r} is not understood; known: {', '.join(sorted(_KNOWN))}")
            fields[found[1]] = found[2]
    if missing := [name for name in _NEEDED[kind] if name not in fields]:
        raise ArchitectureError(f"block {text!r}: {missing[0]!r} is missing; {kind} needs {', '.join(_NEEDED[kind])}")
    return Block(text, kind, fields, act, skip)


def op_of(block: Block, in_: int, out: int, stride: int, act: str, rule: SqueezeRule, layer_scale: bool) -> Op:
    """The op that ``block`` stands for where it reads ``in_`` channels; ``act`` is the network's activation."""
    act = block.act or act
    kernels = block.kernels("k")
    kernel: Any = kernels[0] if len(kernels) == 1 else kernels
    fits = stride == 1 and in_ == out
    ratio = block.number("se")
    common: dict[str, Any] = {"in_": in_, "out": out, "stride": stride, "act": act}
    if block.kind in ("ds", "dsa"):
        activated = block.kind == "dsa"
        _depthwise_only(block)
        return DsConvOp(
            **common, kernel=kernel, se=rule.se(ratio, in_, 1.0, act), pw_act=act if activated else None,
            project_splits=block.splits("p"), residual=fits and block.skip is not False and not activated,
        )  # fmt: skip
    if block.kind == "cn":
        size = block.whole("gs", 0)
        return ConvOp(**common, kernel=kernel, groups=in_ // size if size else 1, residual=fits and block.skip is True)
    expansion = block.number("e")
    mid = round8(in_ * expansion)
    if not expansion:
        raise ArchitectureError(f"block {block.text!r}: the expansion is 0")
    common |= {"mid": mid, "se": rule.se(ratio, mid, expansion, act), "residual": fits and block.skip is not False}
    if block.kind == "er":
        size = block.whole("gs", 0)
        return FusedInvertedResidualOp(**common, kernel=kernel, groups=mid // size if size else 1)
    _depthwise_only(block)
    if block.kind == "ir":
        return InvertedResidualOp(**common, kernel=kernel, expand_splits=block.splits("a"), project_splits=block.splits("p"))
    starts: dict[str, Any] = {
        f"dw_{where}": block.kernels(name)[0] for where, name in (("start", "a"), ("mid", "k"), ("end", "p"))
    }
    return UniversalInvertedBottleneckOp(**common, **starts, layer_scale=layer_scale)


def _depthwise_only(block: Block) -> None:
    if block.whole("gs", 1) != 1:
        raise ArchitectureError(
            f"block {block.text!r}: groups of {block.fields['gs']} channels in place of a depthwise convolution"
        )


def scaled(repeats: list[int], multiplier: float, rounding: Callable[[float], int] = math.ceil) -> list[int]:
    """Repeats of one stage's blocks times ``multiplier`` (EfficientNet's depth), the later ones first.

    >>> scaled([1, 2, 4], 1.4)
    [1, 3, 6]
    """
    before = sum(repeats)
    after = max(1, rounding(before * multiplier))
    found = []
    for count in reversed(repeats):
        found.append(max(1, round(count / before * after)))
        before, after = before - count, after - found[-1]
    return found[::-1]
