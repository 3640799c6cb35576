"""The reference of op types, docs/ops.md: ``python -m dnas.ops`` prints it."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator

from dnas.ops.base import ACTIVATIONS, GATES, OPS, OPTIONAL, SE

MEANINGS = {
    "in": "input channels",
    "out": "output channels (linear, token_head: classes)",
    "mid": "channels between the two 1x1 convolutions: the exact width, not a ratio",
    "mid_in": "channels after the first 1x1 convolution",
    "mid_out": "channels after the k x k convolution",
    "kernel": "side of the k x k or depthwise convolution, pixels; a list: one kernel for each share of the channels (MixNet)",
    "stride": "of the k x k or depthwise convolution",
    "groups": "groups of the k x k convolution",
    "bias": "every convolution of the layer has a bias (squeeze-excite has its own flag); linear: it has one",
    "norm": "`bn` or null",
    "act": f"activation: {', '.join(ACTIVATIONS)}; conv: null for none",
    "pw_act": "activation after the projection, null for none (MobileNetV1 has one)",
    "residual": "add the input at the end; the shapes must match",
    "pad": "pixels on every side of the k x k or depthwise convolution; null: the network's padding rule",
    "se": "squeeze-excite before the projection, null for none: see below",
    "expand": "whether the first 1x1 convolution exists",
    "expand_groups": "groups of the first 1x1 convolution",
    "project_groups": "groups of the last 1x1 convolution",
    "shuffle": "channel shuffle between so many groups, before the depthwise convolution",
    "expand_splits": "the first 1x1 convolution is so many, each on a share of the channels (MixNet)",
    "project_splits": "the last 1x1 convolution is so many, each on a share of the channels (MixNet)",
    "dw_start": "kernel of a depthwise convolution before the expansion, 0 for none",
    "dw_mid": "kernel of the depthwise convolution between the 1x1 convolutions, 0 for none",
    "dw_end": "kernel of a depthwise convolution after the projection, 0 for none",
    "layer_scale": "a learned factor per channel before the addition",
    "dim": "channels in and out",
    "hidden": "channels inside the block's MLP",
    "pool": "side of the average pooling, pixels",
    "heads": "attention heads; token_head: classifiers whose mean is the result",
    "key_dim": "channels of a head's query and key",
    "value_dim": "channels of a head's value",
    "resolution": "side of the map whose positions attend to each other; others are refused",
    "ln_eps": "epsilon of the layer normalisation",
    "reduce": "exact width between its two 1x1 convolutions",
    "gate": f"{' or '.join(GATES)}",
}
TIMM = {"conv": "`cn`", "ds_conv": "`ds`; `dsa` with `pw_act`", "ir": "`ir`", "fused_ir": "`er`", "uib": "`uir`"}
"""Type code in timm's block strings, for ops that have one."""


def markdown() -> str:
    """The text of docs/ops.md."""
    parts = [
        "# Op types\n",
        "Made by `python -m dnas.ops`; a test keeps it current. The JSON of an architecture lists its layers with these "
        "fields; in Python they are dataclasses of `dnas.ops` (`in` is `in_` there). Defaults are Python's; a file must say "
        f"every field but {', '.join(f'`{name}`' for name in sorted(OPTIONAL))}. Biases and normalisation apart, fields are "
        "part of an op's key in latency tables, with the input's height and width.\n",
    ]
    for name, kind in OPS.items():
        code = f" In timm's strings: {TIMM[name]}." if name in TIMM else ""
        text = " ".join((inspect.getdoc(kind) or "").split()).replace("``", "`")
        parts += [f"## `{name}`\n", f"{text}{code}\n"]
        parts.append("\n".join(_rows(kind)) + "\n" if dataclasses.fields(kind) else "It has no fields.\n")
    parts += [
        "## `se`: squeeze-excite\n",
        "x * gate(expand(act(reduce(mean of x over height and width)))).\n",
        "\n".join(_rows(SE)),
    ]
    return "\n".join(parts) + "\n"


def _rows(kind: type) -> Iterator[str]:
    yield "| field | type | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for field in dataclasses.fields(kind):
        name = field.name.rstrip("_")
        default = "" if field.default is dataclasses.MISSING else f"`{json.dumps(field.default)}`"
        kinds = str(field.type).replace("tuple[int, ...]", "list").replace("None", "null").replace("|", "or")
        yield f"| `{name}` | {kinds} | {default} | {MEANINGS[name]} |"
