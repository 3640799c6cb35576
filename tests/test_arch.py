"""Architectures: lossless JSON, labels without a trace, and errors that name the layer and the field."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnas.arch import Architecture, Defaults
from dnas.errors import ArchitectureError, RunError
from dnas.files import dump_json
from dnas.ops import SE, ConvOp, DsConvOp, GlobalPoolOp, InvertedResidualOp, LinearOp, Op, SkipOp
from dnas.ops.base import ACTIVATIONS, GATES, LABELS

PUBLISHED = Path(__file__).parent / "published" / "archs"
STEM = ConvOp(in_=3, out=8, kernel=3, stride=2, act="hswish")
BLOCK = InvertedResidualOp(in_=8, mid=24, out=8, kernel=5, residual=True, se=SE(6), shuffle=2, expand_groups=2)
LAYERS = (STEM, BLOCK, SkipOp(in_=8, out=8), DsConvOp(in_=8, out=16, pad=1), GlobalPoolOp(), LinearOp(in_=16, out=10))
NETWORK = Architecture(LAYERS, resolution=17, num_classes=10, name="toy")
BODY = NETWORK.to_dict()
TORCH = json.loads((PUBLISHED / "fbnet_a.json").read_text(encoding="utf-8"))
TOP_LABELS = ("family", "reference", "published", "notes", "counts")

# -- random valid architectures -----------------------------------------------------------------------------------

acts, kernels = st.sampled_from(ACTIVATIONS), st.sampled_from((1, 3, 5, 7))
pads = st.none() | st.integers(3, 4)
calm = settings(deadline=None, max_examples=60)
squeeze = st.none() | st.builds(SE, st.integers(1, 9), acts, st.sampled_from(GATES), st.booleans())


@st.composite
def layers(draw: st.DrawFn, channels: int) -> Op:
    """Any op that takes ``channels``."""
    kind, width = draw(st.sampled_from(("conv", "ds_conv", "ir", "skip"))), draw(st.integers(1, 4)) * 2
    residual = draw(st.booleans())
    spatial = {
        "kernel": draw(kernels), "stride": 1 if residual else draw(st.integers(1, 2)), "bias": draw(st.booleans()),
        "residual": residual, "in_": channels, "out": channels if residual else width,
        "pad": None if residual else draw(pads),
    }  # fmt: skip
    if kind == "skip":
        return SkipOp(in_=channels, out=channels)
    if kind == "conv":
        groups = draw(st.sampled_from((1, 2) if channels % 2 == 0 else (1,)))
        return ConvOp(**spatial, groups=groups, norm=draw(st.sampled_from(("bn", None))), act=draw(st.none() | acts))
    if kind == "ds_conv":
        return DsConvOp(**spatial, se=draw(squeeze), act=draw(acts), pw_act=draw(st.none() | acts))
    expand = draw(st.booleans())
    mid = draw(st.integers(1, 6)) * 2 if expand else channels
    groups = draw(st.sampled_from((1, 2) if channels % 2 == mid % 2 == spatial["out"] % 2 == 0 else (1,)))
    return InvertedResidualOp(
        **spatial, mid=mid, expand=expand, se=draw(squeeze), act=draw(acts), shuffle=groups, project_groups=groups,
        expand_groups=groups if expand else 1,
    )  # fmt: skip


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    channels = draw(st.integers(1, 4))
    ops: list[Op] = []
    width = channels
    for _ in range(draw(st.integers(1, 4))):
        ops.append(draw(layers(width)))
        width = getattr(ops[-1], "out", width)
    classes = draw(st.integers(0, 12))
    if classes:
        ops += [GlobalPoolOp(), LinearOp(in_=width, out=classes, bias=draw(st.booleans()))]
    defaults = Defaults(*(draw(st.sampled_from(s)) for s in ((1e-5, 1e-3), (0.9, 0.99, 0.9997), ("symmetric", "tf_same"))))
    figures = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    metrics = draw(st.dictionaries(st.text(max_size=5), figures, max_size=2))
    name = draw(st.text(max_size=8))
    return Architecture(tuple(ops), channels, draw(st.integers(1, 40)), classes, defaults, name, metrics, {"seed": 3})


def canonical(network: Architecture) -> str:
    return dump_json(network.to_dict(), rows="layers")


@calm
@given(architectures())
def test_json_is_lossless(network: Architecture) -> None:
    text = canonical(network)
    for body in (network.to_dict(), json.loads(text), json.loads(json.dumps(network.to_dict()))):
        again = Architecture.from_dict(body)
        assert again == network and hash(again) == hash(network) and again.fingerprint == network.fingerprint
        assert canonical(again) == text
        assert (again.name, again.metrics, again.provenance) == (network.name, network.metrics, network.provenance)
        assert (again.params, again.macs, again.shapes) == (network.params, network.macs, network.shapes)


@calm
@given(architectures(), st.data())
def test_labels_leave_no_trace(network: Architecture, data: st.DataObject) -> None:
    body = copy.deepcopy(network.to_dict())
    anything = st.one_of(st.none(), st.integers(), st.text(max_size=3), st.lists(st.booleans(), max_size=2))
    for layer in body["layers"]:
        layer |= data.draw(st.dictionaries(st.sampled_from(sorted(LABELS)), anything))
    body |= data.draw(st.dictionaries(st.sampled_from(TOP_LABELS), anything))
    if data.draw(st.booleans()):
        body["defaults"]["se_rule"] = data.draw(anything)
    again = Architecture.from_dict(body)
    assert again == network and hash(again) == hash(network) and canonical(again) == canonical(network)
    assert again.fingerprint == network.fingerprint
    for before, after, shape in zip(network.layers, again.layers, network.shapes, strict=False):
        assert before.price_fields(shape) == after.price_fields(shape)


@calm
@given(architectures(), architectures())
def test_equal_means_equal_text(a: Architecture, b: Architecture) -> None:
    b = dataclasses.replace(b, name=a.name, metrics=a.metrics)
    assert (a == b) == (canonical(a) == canonical(b)) == (a.fingerprint == b.fingerprint)


def test_names_metrics_and_provenance_are_not_the_network() -> None:
    other = dataclasses.replace(NETWORK, name="other", metrics={"params": 3}, provenance={"seed": 1})
    assert other == NETWORK and hash(other) == hash(NETWORK) and other.fingerprint == NETWORK.fingerprint
    assert canonical(other) != canonical(NETWORK) and Architecture.from_dict(other.to_dict()).provenance == {"seed": 1}
    for change in ({"resolution": 18}, {"defaults": Defaults(1e-3)}, {"defaults": Defaults(padding="tf_same")}):
        different = dataclasses.replace(NETWORK, **change)
        assert different != NETWORK and different.fingerprint != NETWORK.fingerprint
    assert NETWORK.at(17) == NETWORK and NETWORK.at(18) != NETWORK and other.at(17).metrics == {}


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "toy.json"
    NETWORK.save(path)
    assert path.read_text(encoding="utf-8") == canonical(NETWORK)
    assert Architecture.load(path) == Architecture.load(str(path)) == Architecture.load(BODY) == NETWORK
    assert [p.name for p in path.parent.iterdir()] == ["toy.json"]
    lines = path.read_text(encoding="utf-8").splitlines()
    assert sum(line.lstrip().startswith('{"op"') for line in lines) == len(LAYERS)  # a layer is a line
    with pytest.raises(RunError, match="cannot be written"):
        NETWORK.save(tmp_path / "deep")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["deep", "toy.json"]


@pytest.mark.parametrize(("torch", "decay"), [(0.1, 0.9), (0.01, 0.99), (0.0003, 0.9997), (0.9, 0.1), (0.7, 0.3), (1, 0.0)])
def test_momentum_of_archref_is_turned_round(torch: float, decay: float) -> None:
    body = copy.deepcopy(TORCH)
    body["defaults"]["bn"]["momentum_torch"] = torch
    network = Architecture.from_dict(body)
    assert network.defaults.bn_momentum == decay  # exactly, as people write it
    assert network.to_dict()["defaults"]["bn"] == {"eps": 1e-5, "momentum": decay}
    assert network.to_dict()["format"] == "dnas-arch/1"


def test_str_and_shapes() -> None:
    assert NETWORK.shapes[0] == (17, 17, 3) and NETWORK.shapes[-1] == (1, 1, 10)
    assert len(NETWORK.shapes) == len(LAYERS) + 1
    assert str(NETWORK) == f"toy: 6 layers, {NETWORK.params:,} parameters, {NETWORK.macs:,} MACs at 17 px"
    assert NETWORK.params == sum(op.params for op in LAYERS)
    feature = dataclasses.replace(NETWORK, layers=LAYERS[:3], num_classes=0)
    assert feature.shapes[-1] == (9, 9, 8) and Architecture.from_dict(feature.to_dict()) == feature


# -- malformed input ----------------------------------------------------------------------------------------------

Path_ = tuple[str | int, ...]
GONE = "<absent>"

# what is changed where, to what, and words of the error
MUTATIONS: tuple[tuple[Path_, Any, tuple[str, ...]], ...] = (
    (("format",), "dnas-arch/2", ("format", "'dnas-arch/2'", "'dnas-arch/1'")),
    (("format",), GONE, ("format",)),
    (("format",), [], ("format",)),
    (("name",), 3, ("name is 3",)),
    (("input",), 32, ("input is int", "object")),
    (("input", "resolution"), GONE, ("input: missing field 'resolution'",)),
    (("input", "resolution"), 0, ("resolution is 0",)),
    (("input", "resolution"), "17", ("resolution is '17'",)),
    (("input", "resolution"), 17.0, ("resolution is 17.0",)),
    (("input", "resolution"), True, ("resolution is True",)),
    (("input", "resolution"), 10**400, ("resolution is 10000",)),
    (("input", "resolution"), 10**5000, ("resolution is int too large",)),
    (("input", "channels"), None, ("input_channels is None",)),
    (("input", "channels"), 4, ("layer 0", "conv", "takes 3 channels but is given 4")),
    (("input", "chanels"), 4, ("input: unknown field 'chanels'", "did you mean 'channels'")),
    (("num_classes",), -1, ("num_classes is -1",)),
    (("num_classes",), 11, ("1x1x10", "num_classes 11")),
    (("num_classes",), None, ("num_classes is None",)),
    (("num_classes",), GONE, ("missing field 'num_classes'",)),
    (("defaults",), [], ("defaults is list",)),
    (("defaults", "padding"), "same", ("defaults.padding is 'same'", "tf_same")),
    (("defaults", "padding"), GONE, ("defaults: missing field 'padding'",)),
    (("defaults", "bn", "eps"), 0, ("defaults.bn: eps 0",)),
    (("defaults", "bn", "eps"), "small", ("defaults.bn.eps is 'small'",)),
    (("defaults", "bn", "eps"), 10**400, ("defaults.bn.eps",)),
    (("defaults", "bn", "eps"), float("nan"), ("defaults.bn.eps is nan",)),
    (("defaults", "bn", "momentum"), 1.0, ("defaults.bn", "momentum 1.0")),
    (("defaults", "bn", "momentum"), GONE, ("defaults.bn", "momentum")),
    (("defaults", "bn", "momentum_torch"), 0.1, ("defaults.bn: expected one of momentum",)),
    (("defaults", "bn", "decay"), 0.1, ("defaults.bn: unknown field 'decay'",)),
    (("layers",), {}, ("layers is dict",)),
    (("layers",), [], ("no layers",)),
    (("layers",), GONE, ("missing field 'layers'",)),
    (("layer",), [], ("unknown field 'layer'", "did you mean 'layers'")),
    (("layers", 1), "ir", ("layer 1", "'op'")),
    (("layers", 1, "op"), "irr", ("layer 1", "unknown op 'irr'", "'ir'")),
    (("layers", 1, "op"), [], ("layer 1", "'op'")),
    (("layers", 1, "mid"), GONE, ("layer 1", "ir", "missing field 'mid'")),
    (("layers", 1, "mid"), 25, ("layer 1", "ir", "8 -> 25 channels cannot be split into 2 groups")),
    (("layers", 1, "out"), 16, ("layer 1", "ir", "residual", "9x9x8 -> 9x9x16")),
    (("layers", 1, "stride"), 2, ("layer 1", "ir", "residual", "9x9x8 -> 5x5x8")),
    (("layers", 1, "kernel"), 4, ("layer 1", "ir", "kernel is 4")),
    (("layers", 1, "kernel"), [3, 0], ("layer 1", "ir", "kernel is (3, 0)")),
    (("layers", 1, "kernels"), 3, ("layer 1", "ir", "unknown field 'kernels'", "did you mean 'kernel'")),
    (("layers", 1, "se", "reduce"), 0, ("layer 1", "se", "'reduce': 0")),
    (("layers", 1, "se", "reduce"), GONE, ("layer 1", "ir", "se has fields")),
    (("layers", 1, "se", "gate"), "relu", ("layer 1", "se", "'gate': 'relu'")),
    (("layers", 1, "expand"), False, ("layer 1", "ir", "mid (24) must equal in (8)")),
    (("layers", 2, "in"), 16, ("layer 2", "skip", "16")),
    (("layers", 2, "stride"), 2, ("layer 2", "skip", "stride 2")),
    (("layers", 3, "pad"), -1, ("layer 3", "ds_conv", "pad is -1")),
    (("layers", 3, "in"), 12, ("layer 3", "ds_conv", "takes 12 channels but is given 8")),
    (("layers", 5, "in"), 17, ("layer 5", "linear", "takes 17 channels but is given 16")),
    (("layers", 5, "out"), 10**400, ("layer 5", "linear", "out is 1000")),
    (("metrics",), [], ("metrics is list",)),
    (("metrics",), {"latency_ms": float("nan")}, ("metrics",)),
    (("provenance",), {"seed": float("inf")}, ("provenance",)),
)


def changed(body: Any, place: Path_, value: Any) -> Any:
    body = copy.deepcopy(body)
    at = body
    for step in place[:-1]:
        at = at[step]
    if value is GONE:
        del at[place[-1]]
    else:
        at[place[-1]] = value
    return body


@pytest.mark.parametrize(("place", "value", "words"), MUTATIONS, ids=lambda v: repr(v)[:30] if isinstance(v, tuple) else "")
def test_malformed_input_is_named(place: Path_, value: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(ArchitectureError) as caught:
        Architecture.from_dict(changed(BODY, place, value))
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert len(text) < 600 and "\n" not in text


def test_a_skip_of_other_channels_is_refused_when_it_is_built() -> None:
    with pytest.raises(ArchitectureError, match="layer 1: skip: takes 16 channels but is given 8"):
        Architecture((STEM, SkipOp(in_=16, out=16)), num_classes=0)


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(changed(BODY, ("layers", 1, "op"), "irr")), encoding="utf-8")
    with pytest.raises(ArchitectureError, match=r"bad\.json: layer 1: unknown op 'irr'"):
        Architecture.load(path)
    with pytest.raises(ArchitectureError, match=r"none\.json: no such file"):
        Architecture.load(tmp_path / "none.json")
