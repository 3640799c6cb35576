"""Weights from PyTorch: a state_dict or a safetensors file of a MobileNet-family model becomes ``(params, stats)``.

Names of timm's models are understood; other files (torchvision, Once-for-all) are matched by order, which is the order of
execution in these models. Every tensor must find its place and fit it, and no place may stay empty.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnas.arch import Architecture
from dnas.errors import ArchitectureError, WeightsError, nearest
from dnas.files import kind, one_line
from dnas.interchange.blocks import parse
from dnas.interchange.timm_write import parts, write
from dnas.ops import InvertedResidualOp, Op, SkipOp
from dnas.ops import primitives as p

Tree = dict[str, Any]
Tensors = Mapping[str, np.ndarray]

_TIMM: dict[str, dict[str, str]] = {
    "conv": {"conv": "conv", "bn": "bn1"},
    "ds_conv": {"depthwise": "conv_dw", "depthwise_bn": "bn1", "se": "se", "project": "conv_pw", "project_bn": "bn2"},
    "ir": {
        "expand": "conv_pw", "expand_bn": "bn1", "depthwise": "conv_dw", "depthwise_bn": "bn2", "se": "se",
        "project": "conv_pwl", "project_bn": "bn3",
    },
    "fused_ir": {"fused": "conv_exp", "fused_bn": "bn1", "se": "se", "project": "conv_pwl", "project_bn": "bn2"},
    "uib": {
        **{name: f"{name}.conv" for name in ("dw_start", "dw_mid", "dw_end")},
        **{f"{name}_bn": f"{name}.bn" for name in ("dw_start", "dw_mid", "dw_end")},
        "expand": "pw_exp.conv", "expand_bn": "pw_exp.bn", "project": "pw_proj.conv", "project_bn": "pw_proj.bn",
        "se": "se", "scale": "layer_scale",
    },
}  # fmt: skip
"""timm's module of each primitive of an op."""


def from_torch(network: Architecture, source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[Tree, Tree]:
    """``(params, stats)`` of ``network`` with the weights of ``source``, for ``dnas.apply``.

    ``source``: a ``state_dict``, a ``.safetensors`` file, or a file that ``torch.save`` wrote (which needs PyTorch).
    Kernels become HWIO, matrices [in, out]; dtypes stay. BN epsilon and padding are the network's: take the zoo's network of
    the same name (``tf_mobilenetv3_large_100`` for weights that were trained with TensorFlow).
    Errors: WeightsError that names the tensor which is missing, left over, or of another shape.
    """
    import jax.numpy as jnp

    tensors = _tensors(source)
    where = os.fspath(source) if isinstance(source, str | os.PathLike) else "state_dict"
    try:
        modules = _by_name(network, tensors) if "conv_stem.weight" in tensors else _by_order(network, tensors)
        params, stats, used = _filled(network, tensors, modules)
    except WeightsError as problem:
        raise WeightsError(f"{where}: {problem}") from None
    if left := [name for name in tensors if name not in used]:
        some = ", ".join(left[:4]) + ", ..." * (len(left) > 4)
        raise WeightsError(f"{where}: {len(left)} tensors have no place in {network.name}: {some}")
    as_jax: Any = jnp.asarray
    return _mapped(as_jax, params), _mapped(as_jax, stats)


def _mapped(f: Any, tree: Tree) -> Tree:
    return {k: _mapped(f, v) if isinstance(v, dict) else f(v) for k, v in tree.items()}


def to_timm(network: Architecture, params: Tree, stats: Tree) -> dict[str, np.ndarray]:
    """The ``state_dict`` of timm's model of ``network`` (``dnas.interchange.timm.build`` of its recipe): undoes ``from_torch``.

    Errors: ArchitectureError that names the layer which timm's strings cannot hold.
    """
    recipe, _ = write(network)
    repeats = [sum(parse(text).repeats for text in stage) for stage in recipe.arch_def]
    blocks = [f"blocks.{stage}.{block}" for stage, count in enumerate(repeats) for block in range(count)]
    tensors = {}
    for (index, place), module in _named(network, blocks, conv_head=True).items():
        op = network.layers[index]
        step = dict(_places(op))[place]
        for leaf, name, shape in _leaves(step, place):
            value: Any = (stats if leaf in ("mean", "var") else params)[f"{index:02d}"][op.label]
            for part in (*place.split("."), leaf):
                value = value[part]
            value = np.asarray(value)
            value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
            if isinstance(step, p.SqueezeExcite) and name == "weight":  # 1x1 convolutions there
                shape = (*shape, 1, 1)
            tensors[f"{module}.{name}"] = np.ascontiguousarray(value.reshape(shape))
    return tensors


# -- reading --------------------------------------------------------------------------------------------------------


def _tensors(source: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Names -> arrays, in the order of the source; a safetensors file, which has none, in the order of its numbers."""
    if isinstance(source, Mapping):
        return _arrays(source)
    path = Path(source)
    if path.suffix == ".safetensors":
        found, _ = read_safetensors(path)
        return _arrays(dict(sorted(found.items(), key=lambda item: _natural(item[0]))))
    if kind(path) != "file":
        raise WeightsError(f"{path}: no such file")
    try:
        import torch
    except ImportError:
        raise WeightsError(f"{path}: a file of torch.save needs PyTorch; save it as .safetensors, or install torch") from None
    try:
        body = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # pickle, zip and torch each have their own
        raise WeightsError(f"{path}: torch.load cannot read it as weights ({one_line(problem)})") from None
    if not isinstance(body, Mapping):
        raise WeightsError(f"{path}: it holds {type(body).__name__}; expected a state_dict")
    return _arrays(body)


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and metadata of a file. Errors: WeightsError."""
    from safetensors import safe_open

    if kind(path) != "file":
        raise WeightsError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except Exception as problem:  # the library's own error type, and numpy's for dtypes that it lacks
        raise WeightsError(f"{path}: not a safetensors file that can be read ({one_line(problem)})") from None


def _arrays(given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    for key in ("state_dict_ema", "state_dict", "model"):  # what training scripts wrap it in
        if isinstance(given.get(key), Mapping):
            return _arrays(given[key])
    found = {}
    for name, value in given.items():
        if name.endswith("num_batches_tracked"):
            continue
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = (value.float() if value.dtype.itemsize < 4 else value).numpy()
        array = np.asarray(value)
        if array.dtype.kind != "f":
            raise WeightsError(f"{name} is {array.dtype}; expected floating-point tensors")
        found[name.removeprefix("module.")] = array
    if not found:
        raise WeightsError("no tensors")
    return found


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Order by numbers as numbers; weights before biases before statistics, as PyTorch registers them."""
    last = {"weight": 0, "bias": 1, "running_mean": 2, "running_var": 3}
    *path, leaf = name.split(".")
    return [(True, int(w), "") if w.isdigit() else (False, 0, w) for w in path] + [(False, last.get(leaf, 9), leaf)]


# -- which module a primitive is ------------------------------------------------------------------------------------

Modules = dict[tuple[int, str], str]
"""(layer, place in it) -> name of the module that holds its tensors."""


def _places(op: Op) -> Iterator[tuple[str, p.Primitive]]:
    """Places with tensors, in order: the primitive's name; squeeze-excite has two."""
    for step in op.primitives():
        if isinstance(step, p.SqueezeExcite):
            yield from ((f"{step.name}.{part}", step) for part in ("reduce", "expand"))
        elif isinstance(step, p.Conv | p.Dense | p.Norm | p.Scale):
            yield step.name, step
        elif step.params:
            raise WeightsError(f"{op.op} layers have tensors that are not understood here ({step.name})")


def _by_name(network: Architecture, tensors: Tensors) -> Modules:
    """Modules by timm's names."""
    try:
        parts(network)
    except ArchitectureError as problem:
        raise WeightsError(f"names are timm's, but the network is not: {problem}") from None
    numbers = {tuple(map(int, m.groups())) for n in tensors if (m := re.match(r"blocks\.(\d+)\.(\d+)\.", n))}
    return _named(network, [f"blocks.{a}.{b}" for a, b in sorted(numbers)], "conv_head.weight" in tensors)


def _named(network: Architecture, blocks: Sequence[str], conv_head: bool) -> Modules:
    """timm's names, given those of its blocks in order. Errors: WeightsError where they are not as many as the layers."""
    _, body, head, late = parts(network)
    if head is not None and not late and not conv_head:
        body, head = (*body, head), None
    found: Modules = {(0, "conv"): "conv_stem", (0, "bn"): "bn1"}
    count = len(network.layers)
    layers = [(i, op) for i, op in enumerate(body, 1) if not isinstance(op, SkipOp)]
    if len(blocks) != len(layers):
        raise WeightsError(f"{len(blocks)} blocks; {network.name} has {len(layers)} layers between stem and head")
    for block, (index, op) in zip(blocks, layers, strict=True):
        spelled = _TIMM.get("ds_conv" if isinstance(op, InvertedResidualOp) and not op.expand else op.op)
        if spelled is None:
            raise WeightsError(f"timm has no block for layer {index} ({op.op})")
        for place, _ in _places(op):
            found[index, place] = f"{block}.{_spelled(place, spelled)}"
    if head is not None:
        index = count - 2 if late else count - 3
        found |= {
            (index, place): "conv_head" if place == "conv" else "norm_head" if late else "bn2" for place, _ in _places(head)
        }
    return found | {(count - 1, "linear"): "classifier"}


def _spelled(place: str, names: Mapping[str, str]) -> str:
    """depthwise -> conv_dw; depthwise_1 (a share of the channels) -> conv_dw.1; se.reduce -> se.conv_reduce."""
    if place.startswith("se."):
        return place.replace(".", ".conv_")
    base, _, number = place.rpartition("_")
    return names[place] if place in names else f"{names[base]}.{number}"


def _by_order(network: Architecture, tensors: Tensors) -> Modules:
    """The n-th place gets the n-th module."""
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in tensors))
    places = [(i, place) for i, op in enumerate(network.layers) for place, _ in _places(op)]
    if len(modules) != len(places):
        raise WeightsError(f"{len(modules)} modules with tensors; {network.name} needs {len(places)}")
    return dict(zip(places, modules, strict=True))


# -- filling --------------------------------------------------------------------------------------------------------


def _filled(network: Architecture, tensors: Tensors, modules: Modules) -> tuple[Tree, Tree, set[str]]:
    """(params, stats, names of the tensors that were used)"""
    trees: dict[str, Tree] = {"params": {}, "stats": {}}
    used: set[str] = set()
    for index, op in enumerate(network.layers):
        for place, step in _places(op):
            module = modules[index, place]
            for leaf, name, shape in _leaves(step, place):
                key = f"{module}.{name}"
                if key not in tensors:
                    raise WeightsError(f"no tensor {key!r} for layer {index} ({op}){nearest(key, tensors, n=1)}")
                value = tensors[key]
                if value.size != np.prod(shape) or [n for n in value.shape if n > 1] != [n for n in shape if n > 1]:
                    raise WeightsError(
                        f"{key} has shape {list(value.shape)}; layer {index} ({op}) of {network.name} needs {list(shape)}"
                    )
                used.add(key)
                value = value.reshape(shape)
                value = value.transpose(2, 3, 1, 0) if len(shape) == 4 else value.T
                tree = trees["stats" if leaf in ("mean", "var") else "params"]
                for part in (f"{index:02d}", op.label, *place.split(".")):
                    tree = tree.setdefault(part, {})
                tree[leaf] = np.ascontiguousarray(value)
    return trees["params"], trees["stats"], used


def _leaves(step: p.Primitive, place: str) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(leaf here, name in PyTorch, shape in PyTorch) of a place."""
    if isinstance(step, p.Conv):
        yield "kernel", "weight", (step.out, step.in_ // step.groups, step.kernel, step.kernel)
        yield from [("bias", "bias", (step.out,))] * step.bias
    elif isinstance(step, p.Dense):
        yield "kernel", "weight", (step.out, step.in_)
        yield from [("bias", "bias", (step.out,))] * step.bias
    elif isinstance(step, p.SqueezeExcite):
        out, in_ = (step.reduce, step.channels) if place.endswith("reduce") else (step.channels, step.reduce)
        yield "kernel", "weight", (out, in_)
        yield from [("bias", "bias", (out,))] * step.bias
    elif isinstance(step, p.Norm):
        names = (("scale", "weight"), ("bias", "bias"), ("mean", "running_mean"), ("var", "running_var"))
        yield from ((leaf, name, (step.channels,)) for leaf, name in names)
    elif isinstance(step, p.Scale):
        yield "scale", "gamma", (step.channels,)
