"""An architecture as timm's block strings, or the reason why they cannot hold it."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from dnas.arch import Architecture
from dnas.errors import ArchitectureError
from dnas.interchange.blocks import CODES, SqueezeRule
from dnas.interchange.timm import Recipe
from dnas.ops import (
    ConvOp,
    DsConvOp,
    FusedInvertedResidualOp,
    GlobalPoolOp,
    InvertedResidualOp,
    LinearOp,
    Op,
    SkipOp,
    UniversalInvertedBottleneckOp,
)
from dnas.ops.widths import round8

_RULES = (SqueezeRule("in"), SqueezeRule("mid"), SqueezeRule("mid", "div8"), SqueezeRule("in", "div8"))


class Parts(NamedTuple):
    """A network as timm builds it. ``late``: its head convolution follows the pooling (class MobileNetV3)."""

    stem: ConvOp
    body: tuple[Op, ...]
    head: ConvOp | None
    late: bool


def parts(network: Architecture) -> Parts:
    """Stem, body and head of a classifier. Errors: ArchitectureError for a network of another make."""
    stem, *rest = network.layers
    if not isinstance(stem, ConvOp) or len(rest) < 3 or not isinstance(rest[-1], LinearOp):
        raise ArchitectureError(f"{network.name}: expected a conv first and a linear layer last, as in timm's networks")
    if isinstance(rest[-2], ConvOp) and isinstance(rest[-3], GlobalPoolOp):
        return Parts(stem, tuple(rest[:-3]), rest[-2], True)
    if not isinstance(rest[-2], GlobalPoolOp):
        raise ArchitectureError(f"{network.name}: no global_pool before the classifier, as timm's networks have it")
    last = rest[-3]
    if isinstance(last, ConvOp) and last.kernel == last.stride == 1 and last.act == stem.act and not last.residual:
        return Parts(stem, tuple(rest[:-3]), last, False)
    return Parts(stem, tuple(rest[:-2]), None, False)


def write(network: Architecture) -> tuple[Recipe, tuple[str, ...]]:
    """``(recipe, notes)``; each note says what reads back as another layer that computes the same.

    Errors: ArchitectureError that names the layer which timm's strings cannot hold, and why.
    """
    stem, body, head, late = parts(network)
    notes: list[str] = []
    _check_ends(network, stem, head, late)
    ops: list[Op] = []
    for index, op in enumerate(body, 1):
        if isinstance(op, SkipOp):
            notes.append(f"layer {index} (skip) is left out: an identity has no block string")
            continue
        if isinstance(op, InvertedResidualOp) and not op.expand:
            notes.append(f"layer {index} (ir without expansion) is written as ds, which computes the same")
            op = _as_ds(op)
        if reason := _reason(op):
            raise ArchitectureError(f"{network.name}: layer {index} ({op.op} {op.label}): timm's strings hold no {reason}")
        ops.append(op)
    rule, ratios = _squeeze(network.name, ops, late)
    scales = {op.layer_scale for op in ops if isinstance(op, UniversalInvertedBottleneckOp)}
    if len(scales) > 1 or (True in scales and not late):
        raise ArchitectureError(
            f"{network.name}: layer_scale of some blocks only; timm has it in all uir blocks of MobileNetV3"
        )
    rows = [(_text(op, ratio, stem.act), op) for op, ratio in zip(ops, ratios, strict=True)]
    widths = [stem.out, *(op.out for op in ops)]  # type: ignore[attr-defined]
    recipe = Recipe(
        builder="MobileNetV3" if late else "EfficientNet", arch_def=tuple(_stages(rows)), stem_size=stem.out,
        num_features=head.out if head else 0, act_layer=stem.act or "", se=rule, in_chans=network.input_channels,
        pad_type="same" if network.defaults.padding == "tf_same" else "", bn_eps=network.defaults.bn_eps,
        bn_momentum=float(f"{1 - network.defaults.bn_momentum:.12g}"), num_classes=network.num_classes,
        resolution=network.resolution, head_bias=head.bias if late and head and not head.norm else True,
        head_norm=late and head is not None and head.norm == "bn", layer_scale=True in scales,
        channel_multiplier=1.0 if all(round8(w) == w for w in widths) else 0.0,
    )  # fmt: skip
    for index, (wanted, got) in enumerate(zip(_without_notes(network), recipe.architecture().layers, strict=True)):
        if wanted != got:
            raise ArchitectureError(f"{network.name}: layer {index} would read back as {got!r}, not {wanted!r}")
    return recipe, tuple(notes)


def without_notes(network: Architecture) -> Architecture:
    """``network`` as it reads back: no identities, and ds where an inverted residual has no expansion."""
    return dataclasses.replace(network, layers=tuple(_without_notes(network)), metrics={})


def _without_notes(network: Architecture) -> Iterator[Op]:
    for op in network.layers:
        if isinstance(op, InvertedResidualOp) and not op.expand:
            yield _as_ds(op)
        elif not isinstance(op, SkipOp):
            yield op


def _as_ds(op: InvertedResidualOp) -> Op:
    """The same function; unchanged where ds has no such field, for ``_reason`` to refuse."""
    if op.project_groups > 1 or op.shuffle > 1:
        return op
    return DsConvOp(
        in_=op.in_, out=op.out, kernel=op.kernel, stride=op.stride, act=op.act, se=op.se, bias=op.bias,
        residual=op.residual, project_splits=op.project_splits, pad=op.pad,
    )  # fmt: skip


def _check_ends(network: Architecture, stem: ConvOp, head: ConvOp | None, late: bool) -> None:
    linear = network.layers[-1]
    wanted = ConvOp(in_=network.input_channels, out=stem.out, kernel=3, stride=2, act=stem.act)
    if stem != wanted or stem.act is None:
        raise ArchitectureError(f"{network.name}: layer 0 is {stem!r}; timm's stem is 3x3, stride 2, BN, no bias")
    if isinstance(linear, LinearOp) and not linear.bias:
        raise ArchitectureError(f"{network.name}: the last layer has no bias; timm's classifier has one")
    if head is None:
        return
    plain = ConvOp(in_=head.in_, out=head.out, act=stem.act, norm=head.norm, bias=late and not head.norm and head.bias)
    if head != plain or (not late and head.norm is None):
        raise ArchitectureError(f"{network.name}: the head is {head!r}; timm's is {plain!r}")


def _reason(op: Op) -> str | None:
    """What of ``op`` block strings cannot say; None if they can say all."""
    if not isinstance(op, ConvOp | DsConvOp | InvertedResidualOp | FusedInvertedResidualOp | UniversalInvertedBottleneckOp):
        return f"block type for {op.op}"
    if op.bias:
        return "convolution biases"
    if getattr(op, "pad", None) is not None:
        return "padding of a single layer"
    if op.act is None or op.act not in CODES.values():
        return f"activation {op.act}"
    if op.stride > 2:
        return f"stride {op.stride}"
    if isinstance(op, ConvOp):
        return "convolution without BN" if op.norm is None else None
    if isinstance(op, InvertedResidualOp) and max(op.expand_groups, op.project_groups, op.shuffle) > 1:
        return "grouped 1x1 convolutions or channel shuffle"
    if op.se is not None and not op.se.bias:
        return "squeeze-excite without biases"
    if isinstance(op, DsConvOp):
        if op.pw_act not in (None, op.act) or (op.pw_act and op.residual):
            return "activation after the projection that differs from the first, or that meets a residual"
        return None
    if round8(op.mid) != op.mid:
        return f"middle width that is no multiple of 8 ({op.mid})"
    return None


def _squeeze(name: str, ops: Sequence[Op], late: bool) -> tuple[SqueezeRule, list[Any]]:
    """The rule under which the fewest squeeze-excite ratios do, and the ratio of each op ("" for none)."""
    own: list[Any] = [getattr(op, "se", None) for op in ops]
    with_se = [(op, se) for op, se in zip(ops, own, strict=True) if se]
    if not with_se:
        return SqueezeRule(), [""] * len(ops)
    gates, inner = {se.gate for _, se in with_se}, {se.act for _, se in with_se}
    follows = all(se.act == op.act for op, se in with_se)  # type: ignore[attr-defined]
    if len(gates) > 1 or not (follows or len(inner) == 1):
        raise ArchitectureError(f"{name}: squeeze-excites of different gates or activations; timm has one kind in a network")
    found: list[tuple[SqueezeRule, list[Any]]] = []
    for rule in _RULES if late else [r for r in _RULES if r.base == "in"]:
        ratios = [_ratio(rule, op, se.reduce) if se else "" for op, se in zip(ops, own, strict=True)]
        found += [(rule, ratios)] * (None not in ratios)
    # the first rule always can: a ratio with enough digits gives every width, rounded to the nearest
    rule, ratios = min(found, key=lambda each: (len(set(each[1])), sum(map(len, each[1]))))
    act = None if follows else next(iter(inner))
    return dataclasses.replace(rule, gate=next(iter(gates)), act=act), ratios


def _ratio(rule: SqueezeRule, op: Any, reduce: int) -> str | None:
    """The shortest ratio that gives the width ``reduce``; None if there is none."""
    mid = getattr(op, "mid", op.in_)
    expansion = float(_expansion(op) or 1)
    base = mid if rule.base == "mid" else mid / expansion
    for exact in (0.25, 0.5, 0.125, reduce / base):
        for digits in range(1, 18):
            text = _plain(exact, digits)
            if rule.width(float(text), mid, expansion) == reduce:
                return text
    return None


def _expansion(op: Any) -> str:
    """The shortest ratio e that gives the middle width; "" where a string has none."""
    if isinstance(op, ConvOp | DsConvOp):
        return ""
    return next(t for d in range(1, 18) if round8(op.in_ * float(t := _plain(op.mid / op.in_, d))) == op.mid)


def _plain(value: float, digits: int) -> str:
    """``value`` to ``digits`` significant digits, never with an exponent: timm's grammar has none."""
    decimals = max(digits - 1 - math.floor(math.log10(value)), 0)
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _text(op: Any, ratio: str, act: str | None) -> tuple[str, str, str]:
    """The block string in three pieces, between which r and s go: type and a, then k, then the rest."""
    kind = {"conv": "cn", "ir": "ir", "fused_ir": "er", "uib": "uir"}.get(op.op) or ("dsa" if op.pw_act else "ds")
    kernel = op.dw_mid if kind == "uir" else op.kernel
    before = [f"a{op.dw_start}"] if kind == "uir" and op.dw_start else []
    before += [f"a{'.'.join('1' * op.expand_splits)}"] if kind == "ir" and op.expand_splits > 1 else []
    splits = getattr(op, "project_splits", 1)
    before += [f"p{'.'.join('1' * splits)}"] if splits > 1 else []
    before += [f"p{op.dw_end}"] if kind == "uir" and op.dw_end else []
    after = [f"e{e}"] if (e := _expansion(op)) else []
    after.append(f"c{op.out}")
    groups = getattr(op, "groups", 1)
    after += [f"gs{(op.in_ if kind == 'cn' else op.mid) // groups}"] if groups > 1 else []
    after += [f"se{ratio}"] if ratio else []
    code = {v: k for k, v in CODES.items()}[op.act]
    after += [f"n{code}"] if op.act != act else []
    fits = op.stride == 1 and op.in_ == op.out
    if kind == "cn":
        after += ["skip"] * op.residual
    elif kind != "dsa" and fits and not op.residual:
        after.append("noskip")
    joined = ".".join(map(str, kernel)) if isinstance(kernel, tuple) else str(kernel)
    return kind, "_".join([*before, f"k{joined}"]), "_".join(after)


def _stages(rows: Sequence[tuple[tuple[str, str, str], Op]]) -> Iterator[tuple[str, ...]]:
    """Block strings by stage: a layer that changes the shape begins one; equal layers are counted."""
    stages: list[list[tuple[tuple[str, str, str], Any]]] = []
    for text, op in rows:
        changes = op.stride > 1 or op.in_ != op.out  # type: ignore[attr-defined]
        if changes or not stages:
            stages.append([])
        stages[-1].append((text, op))
    for stage in stages:
        first = stage[0][1].stride  # only a stage's first block may reduce, so the others do not say their stride
        texts: list[str] = []
        for (kind, middle, after), group in itertools.groupby(t for t, _ in stage):
            stride = first if not texts else 1
            texts.append(f"{kind}_r{len(list(group))}_{middle}_s{stride}_{after}")
        yield tuple(texts)
