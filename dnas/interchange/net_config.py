"""``net.config`` of ProxylessNAS and Once-for-all: a JSON object of first_conv, blocks, (final_expand_layer,) feature_mix_layer
and classifier.

Cai et al., ProxylessNAS, arXiv:1812.00332; Once-for-All, arXiv:1908.09791; mit-han-lab, MIT License.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dnas.arch import Architecture, Defaults
from dnas.errors import ArchitectureError
from dnas.files import shown
from dnas.ops import SE, ConvOp, DsConvOp, GlobalPoolOp, InvertedResidualOp, LinearOp, Op, SkipOp
from dnas.ops.widths import round8

_ACTS = {"relu": "relu", "relu6": "relu6", "h_swish": "hswish", "swish": "swish"}
_BLOCKS = ("mobile_inverted_conv", "conv")  # older and newer versions
_MBCONV = ("MBInvertedConvLayer", "MBConvLayer")


def read(given: Any, resolution: int | None = None, name: str = "network") -> Architecture:
    """The network of a net.config. It holds no image size (run.config does): ``resolution`` in pixels, or a key of that name.

    Errors: ArchitectureError that names the block and the field.
    """
    body = _object(given, "net.config")
    size = resolution if resolution is not None else body.get("resolution")
    if size is None:
        raise ArchitectureError("net.config holds no image size: give --resolution (that of run.config, e.g. 224)")
    layers: list[Op] = [_conv(_get(body, "first_conv", "net.config"), "first_conv")]
    blocks = _get(body, "blocks", "net.config")
    if not isinstance(blocks, list):
        raise ArchitectureError(f"blocks is {type(blocks).__name__}; expected a list")
    for index, block in enumerate(blocks):
        layers.append(_block(block, f"block {index}", layers[-1].out))  # type: ignore[attr-defined]
    if body.get("final_expand_layer") is not None:
        layers.append(_conv(body["final_expand_layer"], "final_expand_layer"))
        late = [_conv(body["feature_mix_layer"], "feature_mix_layer")] if body.get("feature_mix_layer") else []
        layers += [GlobalPoolOp(), *late]
    else:
        layers += [_conv(body["feature_mix_layer"], "feature_mix_layer")] if body.get("feature_mix_layer") else []
        layers.append(GlobalPoolOp())
    linear = _object(_get(body, "classifier", "net.config"), "classifier")
    layers.append(
        LinearOp(in_=_get(linear, "in_features", "classifier"), out=_get(linear, "out_features", "classifier"),
                 bias=linear.get("bias", True))
    )  # fmt: skip
    bn = _object(_get(body, "bn", "net.config"), "bn")
    defaults = Defaults.from_dict(
        {"bn": {"eps": _get(bn, "eps", "bn"), "momentum_torch": _get(bn, "momentum", "bn")}, "padding": "symmetric"}
    )
    return Architecture(tuple(layers), layers[0].in_, size, layers[-1].out, defaults, name)  # type: ignore[attr-defined]


def write(network: Architecture) -> tuple[dict[str, Any], tuple[str, ...]]:
    """``(net.config, notes)``; each note says what reads back as another layer that computes the same.

    Errors: ArchitectureError that names the layer which net.config cannot hold, and why.
    """
    where = network.name
    if network.defaults.padding != "symmetric":
        raise ArchitectureError(
            f"{where}: net.config has no padding rule; its networks pad symmetrically, this one as TensorFlow"
        )
    body, head, late = _split(network)
    notes, blocks = [], []
    for index, op in enumerate(body, 1):
        if isinstance(op, DsConvOp) and not op.pw_act:
            notes.append(f"layer {index} (ds_conv) is written as an expansion of 1, which computes the same")
        blocks.append(_write_block(op, f"{where}: layer {index} ({op.op} {op.label})"))
    bn = {"momentum": float(f"{1 - network.defaults.bn_momentum:.12g}"), "eps": network.defaults.bn_eps}
    linear: Any = network.layers[-1]
    found = {
        "name": "MobileNetV3" if late else "ProxylessNASNets", "bn": bn,
        "first_conv": _write_conv(network.layers[0], f"{where}: layer 0"), "blocks": blocks,
    }  # fmt: skip
    for key, conv in zip(("final_expand_layer", "feature_mix_layer") if late else ("feature_mix_layer",), head, strict=True):
        found[key] = _write_conv(conv, f"{where}: {key}")
    found["classifier"] = {
        "name": "LinearLayer", "in_features": linear.in_, "out_features": linear.out, "bias": linear.bias, "use_bn": False,
        "act_func": None, "dropout_rate": 0, "ops_order": "weight_bn_act",
    }  # fmt: skip
    return found | {"resolution": network.resolution}, tuple(notes)


def as_read(op: Op) -> Op:
    """``op`` as it reads back: an inverted residual without expansion where it was a depthwise separable convolution."""
    if not isinstance(op, DsConvOp):
        return op
    return InvertedResidualOp(
        in_=op.in_, mid=op.in_, out=op.out, kernel=op.kernel, stride=op.stride, expand=False, act=op.act, se=op.se,
        residual=op.residual,
    )  # fmt: skip


# -- reading --------------------------------------------------------------------------------------------------------


def _object(given: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ArchitectureError(f"{where} is {shown(given)}; expected an object")
    return given


def _get(body: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in body:
        raise ArchitectureError(f"{where}: missing field {name!r}")
    return body[name]


def _act(text: Any, where: str) -> str | None:
    if text not in (None, *_ACTS):
        raise ArchitectureError(f"{where}: act_func is {shown(text)}; expected one of {', '.join(_ACTS)} or null")
    return None if text is None else _ACTS[text]


def _conv(given: Any, where: str) -> ConvOp:
    layer = _object(given, where)
    if _get(layer, "name", where) != "ConvLayer":
        raise ArchitectureError(f"{where} is {shown(layer['name'])}; expected ConvLayer")
    if layer.get("dilation", 1) != 1 or layer.get("has_shuffle") or layer.get("ops_order", "weight_bn_act") != "weight_bn_act":
        raise ArchitectureError(f"{where}: dilation, shuffle or another order than weight, BN, activation; no op here has that")
    return ConvOp(
        in_=_get(layer, "in_channels", where), out=_get(layer, "out_channels", where),
        kernel=_get(layer, "kernel_size", where), stride=layer.get("stride", 1), groups=layer.get("groups", 1),
        bias=layer.get("bias", False), norm="bn" if layer.get("use_bn", True) else None,
        act=_act(layer.get("act_func", "relu"), where),
    )  # fmt: skip


def _block(given: Any, where: str, width: int) -> Op:
    body = _object(given, where)
    layer = next((body[key] for key in _BLOCKS if body.get(key) is not None), None)
    shortcut = body.get("shortcut")
    if shortcut is not None and _object(shortcut, f"{where}: shortcut").get("name") != "IdentityLayer":
        raise ArchitectureError(f"{where}: shortcut is {shown(shortcut.get('name'))}; expected IdentityLayer or null")
    if layer is None or _object(layer, where).get("name") == "ZeroLayer":
        if shortcut is None:
            raise ArchitectureError(f"{where}: neither a convolution nor a shortcut: its output would be zero")
        return SkipOp(in_=width, out=width)
    if layer.get("name") not in _MBCONV:
        raise ArchitectureError(f"{where} is {shown(layer.get('name'))}; expected one of {', '.join(_MBCONV)}, ZeroLayer")
    if layer.get("groups") not in (None, 1):
        raise ArchitectureError(f"{where}: groups is {shown(layer['groups'])}; no op here has that")
    in_, ratio = _get(layer, "in_channels", where), layer.get("expand_ratio", 6)
    if type(in_) is not int or isinstance(ratio, bool) or not isinstance(ratio, int | float):
        raise ArchitectureError(f"{where}: in_channels is {shown(in_)}, expand_ratio {shown(ratio)}; expected numbers")
    mid = layer.get("mid_channels")
    mid = round(in_ * ratio) if mid is None else mid
    act = _act(layer.get("act_func", "relu6"), where)
    return InvertedResidualOp(
        in_=in_, mid=mid, out=_get(layer, "out_channels", where), kernel=_get(layer, "kernel_size", where),
        stride=layer.get("stride", 1), expand=ratio != 1, act=act or "", residual=shortcut is not None,
        se=SE(round8(mid // 4)) if layer.get("use_se") else None,
    )  # fmt: skip


# -- writing --------------------------------------------------------------------------------------------------------


def _split(network: Architecture) -> tuple[tuple[Op, ...], tuple[Op, ...], bool]:
    """(blocks, convolutions of the head, whether one follows the pooling)."""
    *rest, linear = network.layers[1:]
    pools = [i for i, op in enumerate(rest) if isinstance(op, GlobalPoolOp)]
    if not isinstance(network.layers[0], ConvOp) or not isinstance(linear, LinearOp) or len(pools) != 1 or not pools[0]:
        raise ArchitectureError(f"{network.name}: expected a conv first, then blocks, one global_pool and a linear layer last")
    before, after = rest[: pools[0]], rest[pools[0] + 1 :]
    if len(after) > 1 or not all(isinstance(op, ConvOp) for op in (*after, before[-1])):
        raise ArchitectureError(
            f"{network.name}: its head is none of net.config's (conv, pool, linear; conv, pool, conv, linear)"
        )
    return tuple(before[:-1]), (before[-1], *after), bool(after)


def _write_conv(op: Op, where: str) -> dict[str, Any]:
    if not isinstance(op, ConvOp) or op.residual or op.pad is not None or op.act not in (None, *_ACTS.values()):
        raise ArchitectureError(f"{where}: {op!r} is no ConvLayer of net.config")
    return {
        "name": "ConvLayer", "kernel_size": op.kernel, "stride": op.stride, "dilation": 1, "groups": op.groups, "bias": op.bias,
        "has_shuffle": False, "in_channels": op.in_, "out_channels": op.out, "use_bn": op.norm is not None,
        "act_func": _spelled(op.act), "dropout_rate": 0, "ops_order": "weight_bn_act",
    }  # fmt: skip


def _spelled(act: str | None) -> str | None:
    return None if act is None else {v: k for k, v in _ACTS.items()}[act]


def _write_block(op: Op, where: str) -> dict[str, Any]:
    if isinstance(op, SkipOp):
        layer: dict[str, Any] = {"name": "ZeroLayer", "stride": 1}
        return {"name": "MobileInvertedResidualBlock", "mobile_inverted_conv": layer, "shortcut": _identity(op.in_)}
    if reason := _reason(op):
        raise ArchitectureError(f"{where}: net.config holds no {reason}")
    block: Any = as_read(op)
    ratio = block.mid / block.in_
    layer = {
        "name": "MBInvertedConvLayer", "in_channels": block.in_, "out_channels": block.out, "kernel_size": block.kernel,
        "stride": block.stride, "expand_ratio": round(ratio) if ratio == round(ratio) else ratio,
        "mid_channels": None if round(block.in_ * ratio) == block.mid and ratio == round(ratio) else block.mid,
        "act_func": _spelled(block.act), "use_se": block.se is not None,
    }  # fmt: skip
    shortcut = _identity(block.in_) if block.residual else None
    return {"name": "MobileInvertedResidualBlock", "mobile_inverted_conv": layer, "shortcut": shortcut}


def _identity(width: int) -> dict[str, Any]:
    return {
        "name": "IdentityLayer", "in_channels": [width], "out_channels": [width], "use_bn": False, "act_func": None,
        "dropout_rate": 0, "ops_order": "weight_bn_act",
    }  # fmt: skip


def _reason(op: Op) -> str | None:
    """What of ``op`` a block cannot say; None if it can say all."""
    if isinstance(op, ConvOp) or not isinstance(op, InvertedResidualOp | DsConvOp):
        return f"{op.op} between first and last convolutions"
    if isinstance(op.kernel, tuple):
        return "mixed kernels"
    groups = [
        getattr(op, name, 1) for name in ("expand_groups", "project_groups", "shuffle", "expand_splits", "project_splits")
    ]
    if max(groups) > 1:
        return "grouped or split 1x1 convolutions"
    if op.bias or op.pad is not None:
        return "convolution biases or padding of a block"
    if op.act not in _ACTS.values() or getattr(op, "pw_act", None):
        return f"activation {op.act} or one after the projection"
    mid = op.in_ if isinstance(op, DsConvOp) else op.mid
    if op.se not in (None, SE(round8(mid // 4))):
        return f"squeeze-excite of {op.se}; it means a quarter of the middle channels by eights, relu and hsigmoid"
    if isinstance(op, InvertedResidualOp) and op.expand and op.mid == op.in_:
        return "expansion convolution where the expansion is 1"
    return None
