"""Other notations: round trips over the whole zoo, refusals with their reason, and hand-written examples of each notation."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnas import zoo
from dnas.arch import Architecture
from dnas.cli import command
from dnas.convert import ConvertConfig, main, read, write
from dnas.errors import ArchitectureError
from dnas.interchange import blocks, hw_nas_bench, net_config
from dnas.interchange.timm import Recipe
from dnas.interchange.timm_write import without_notes
from dnas.ops import SE, ConvOp, DsConvOp, FusedInvertedResidualOp, InvertedResidualOp, LinearOp, UniversalInvertedBottleneckOp
from dnas.ops.widths import round8

# networks that a notation cannot hold, and a word of the reason
NOT_TIMM = {
    "efficientformer_l1": "expected a conv first", "mobiledet_cpu": "linear layer last", "mobiledet_dsp": "linear layer last",
    "mobiledet_edgetpu": "linear layer last", "fbnet_a": "no bias", "fbnet_c": "no bias",
    **{f"fbnetv2_{v}": "no bias" for v in ("f0", "f1", "f2", "f4", "l1")},
    **{f"fbnetv3_{v}": "no bias" for v in "abdfg"},
}  # fmt: skip
TENSORFLOW = ("tf_", "mobiledet")


def through_json(body: Any) -> Any:
    return json.loads(json.dumps(body))


@pytest.mark.parametrize("name", zoo.names())
def test_timm_strings_and_back(name: str) -> None:
    network = Architecture.load(name)
    if reason := NOT_TIMM.get(name):
        with pytest.raises(ArchitectureError, match=f"{name}.*{reason}"):
            write(network, "timm")
        return
    body, notes = write(network, "timm")
    back = read(through_json(body), "timm", name)
    assert back == without_notes(network)
    assert bool(notes) == (back != network) and len(notes) == sum(
        op.op == "skip" or (op.op == "ir" and not op.expand) for op in network.layers
    )  # type: ignore[attr-defined]
    assert (back.params, back.macs) == (network.params, network.macs)


@pytest.mark.parametrize("name", zoo.names())
def test_net_config_and_back(name: str) -> None:
    network = Architecture.load(name)
    try:
        body, notes = write(network, "net-config")
    except ArchitectureError as problem:
        assert str(problem).startswith(name)
        assert not name.startswith(("ofa", "proxyless", "mobilenetv2", "mnasnet", "spnasnet", "hardcorenas", "mobilenetv3"))
        assert not name.startswith(TENSORFLOW) or "padding" in str(problem)
        return
    back = read(through_json(body), "net-config", name)
    assert back == dataclasses.replace(network, layers=tuple(map(net_config.as_read, network.layers)))
    assert bool(notes) == (back != network)
    assert (back.params, back.macs) == (network.params, network.macs)


@pytest.mark.parametrize("dataset", hw_nas_bench.SPACES)
def test_hw_nas_bench_indices_and_back(dataset: str) -> None:
    for seed in range(5):
        draw = random.Random(seed)
        body = {"dataset": dataset, "op_idx_list": [draw.randrange(9) for _ in range(22)]}
        found, _ = write(read(body, "hw-nas-bench"), "hw-nas-bench")
        assert found == body | {"num_classes": {"cifar100": 100, "ImageNet": 1000}[dataset]}
    skips = read({"dataset": dataset, "op_idx_list": [8] * 22}, "hw-nas-bench").layers
    assert skips[2] == ConvOp(in_=16, out=24, stride=1 if dataset == "cifar100" else 2) and skips[1].op == "skip"


def test_block_strings_by_hand() -> None:
    recipe = Recipe(
        builder="MobileNetV3", stem_size=16, num_features=64, num_classes=10, in_chans=1, resolution=32, act_layer="hswish",
        se=blocks.SqueezeRule("mid", "div8", "hsigmoid", "relu"), layer_scale=True, head_norm=True, pad_type="same",
        arch_def=(
            ("ds_r1_k3_s2_c16_se0.25_nre", "dsa_r1_k5_s1_c24"), ("ir_r2_a1.1_k3.5_s2_e3_c24_p1.1_noskip",),
            ("er_r1_k3_s1_e4_c24_gs8", "uir_r1_a3_k5_p7_s1_e2_c24_nsw"), ("cn_r1_k1_s1_c24_skip", "cn_r1_k3_s1_c32_gs12"),
        ),
    )  # fmt: skip
    network = recipe.architecture("odd")
    split = {"kernel": (3, 5), "expand_splits": 2, "project_splits": 2, "act": "hswish"}
    assert network.layers[:9] == (
        ConvOp(in_=1, out=16, kernel=3, stride=2, act="hswish"),
        DsConvOp(in_=16, out=16, stride=2, se=SE(8), act="relu"),
        DsConvOp(in_=16, out=24, kernel=5, act="hswish", pw_act="hswish"),
        InvertedResidualOp(in_=24, mid=72, out=24, stride=2, **split),
        InvertedResidualOp(in_=24, mid=72, out=24, **split),
        FusedInvertedResidualOp(in_=24, mid=96, out=24, groups=12, act="hswish", residual=True),
        UniversalInvertedBottleneckOp(
            in_=24, mid=48, out=24, dw_start=3, dw_mid=5, dw_end=7, act="swish", residual=True, layer_scale=True
        ),
        ConvOp(in_=24, out=24, act="hswish", residual=True),
        ConvOp(in_=24, out=32, kernel=3, groups=2, act="hswish"),
    )
    assert network.layers[10:] == (ConvOp(in_=32, out=64, act="hswish"), LinearOp(in_=64, out=10))
    assert read(through_json(write(network, "timm")[0]), "timm", "odd") == network


networks = st.lists(
    st.tuples(
        st.sampled_from(("ir", "ds", "er", "uir")), st.sampled_from((3, 5)), st.integers(1, 2), st.sampled_from((8, 24, 40)),
        st.integers(1, 50), st.sampled_from((None, "re", "sw")), st.booleans(),
    ),
    min_size=1, max_size=6,
)  # fmt: skip


@settings(deadline=None, max_examples=100)
@given(networks, st.sampled_from(("sigmoid", "hsigmoid")), st.booleans())
def test_any_middle_and_squeeze_width_survives(rows: list[Any], gate: str, late: bool) -> None:
    """Widths that no rule makes are written with as many digits as they need."""
    layers: list[Any] = [ConvOp(in_=3, out=16, kernel=3, stride=2)]
    width = 16
    for kind, kernel, stride, out, eighths, act, squeezed in rows:
        mid = 8 * eighths
        common = {
            "in_": width, "out": out, "stride": stride, "act": {None: "relu", "re": "relu", "sw": "swish"}[act],
            "residual": stride == 1 and width == out, "se": SE(eighths, "relu", gate) if squeezed else None,
        }  # fmt: skip
        if kind == "ds":
            layers.append(DsConvOp(**common, kernel=kernel))
        elif kind == "uir":
            layers.append(UniversalInvertedBottleneckOp(**common, mid=mid, dw_mid=kernel))
        else:
            layers.append((InvertedResidualOp if kind == "ir" else FusedInvertedResidualOp)(**common, mid=mid, kernel=kernel))
        width = out
    pool, linear = Architecture.load("mobilenetv2_100").layers[-2:]
    conv = ConvOp(in_=width, out=32, norm=None if late else "bn", bias=late)
    head = [pool, conv] if late else [conv, pool]
    network = Architecture((*layers, *head, LinearOp(in_=32, out=5)), num_classes=5, resolution=64)
    assert linear.op == "linear"
    body, notes = write(network, "timm")
    assert not notes and read(through_json(body), "timm") == network


BLOCK = {"arch_def": [["ir_r1_k3_s2_e6_c24"]], "builder": "EfficientNet", "stem_size": 16, "num_features": 64}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arch_def": [["mqa_r1_k3_h8_s1_d64_c160"]]}, "'mqa' has no op here"), ({"stem": 3}, "did you mean .*'stem_size'"),
        ({"arch_def": [["ir_r1_k3_s2_c24"]]}, "'e' is missing"), ({"arch_def": []}, "arch_def is empty"),
        ({"arch_def": [["ir_r1_k3_s2_e6_c24_nmi"]]}, "activation 'mi'"), ({"arch_def": "ir"}, "list of stages"),
        ({"arch_def": [["ir_r1_k3_s2_e6_c24_cc4"]]}, "'cc4' is not understood"), ({"se": {"base": "out"}}, "se.base is 'out'"),
        ({"arch_def": [["ir_rx_k3_s2_e6_c24"]]}, "'rx' is not understood"), ({"num_classes": 1.5}, "num_classes is 1.5"),
        ({"arch_def": [["ir_r1.5_k3_s2_e6_c24"]]}, "r is '1.5'"), ({"arch_def": [["ir_r1_k3_s2_e0_c24"]]}, "expansion is 0"),
        ({"arch_def": [["ir_r1_k3_s2_e6_c24_gs2"]]}, "groups of 2 channels"), ({"builder": "ResNet"}, "builder is 'ResNet'"),
        ({"arch_def": [["ir_r1_a3_k3_s2_e6_c24"]]}, "kernels other than 1"), ({"act_layer": "mish"}, "act_layer is 'mish'"),
        ({"arch_def": [["ir_r1_k4_s2_e6_c24"]]}, "even kernel"), ({"stem_size": None}, "stem_size is None"),
        ({"arch_def": [["er_r1_k3_s1_e4_c24_gs5"]]}, "groups"), ({"fix_stem": 1}, "fix_stem is 1"),
    ],
)  # fmt: skip
def test_recipes_that_cannot_be_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ArchitectureError, match=words):
        read(BLOCK | change, "timm")


@pytest.mark.parametrize("missing", BLOCK)
def test_what_strings_do_not_say_must_be_given(missing: str) -> None:
    with pytest.raises(ArchitectureError, match=f"missing field '{missing}'"):
        read({k: v for k, v in BLOCK.items() if k != missing}, "timm")


def config(**changes: Any) -> dict[str, Any]:
    """A net.config of two blocks, with changes of the second block's layer."""
    body = write(Architecture.load("proxyless_mobile"), "net-config")[0]
    body = through_json(body) | {"blocks": through_json(body["blocks"][:2])}
    body["feature_mix_layer"]["in_channels"] = 32
    body["blocks"][1]["mobile_inverted_conv"] |= changes
    return body


def test_net_configs_by_hand() -> None:
    network = read(config(), "net-config")
    assert network.layers[2] == InvertedResidualOp(in_=16, mid=48, out=32, kernel=5, stride=2, act="relu6")
    newer = config()
    newer["blocks"][1] = {"name": "ResidualBlock", "conv": newer["blocks"][1]["mobile_inverted_conv"] | {"name": "MBConvLayer"}}
    assert read(newer, "net-config") == network
    assert read(config(mid_channels=50, use_se=True), "net-config").layers[2] == dataclasses.replace(
        network.layers[2], mid=50, se=SE(round8(50 // 4))
    )
    body = config()
    del body["resolution"]
    assert read(body, "net-config", resolution=160).resolution == 160
    with pytest.raises(ArchitectureError, match="no image size: give --resolution"):
        read(body, "net-config")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "MBConvX"}, "block 1 is 'MBConvX'"), ({"act_func": "tanh"}, "block 1: act_func is 'tanh'"),
        ({"out_channels": 5.5}, "out is 5.5"), ({"in_channels": "x"}, "in_channels is 'x'"), ({"groups": 2}, "groups is 2"),
        ({"name": "ZeroLayer"}, "its output would be zero"), ({"in_channels": 8}, "layer 2: ir: expand takes 8 channels"),
    ],
)  # fmt: skip
def test_net_configs_that_cannot_be_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ArchitectureError, match=words):
        read(config(**changes), "net-config")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], "expected an object"), ({"dataset": "svhn", "op_idx_list": [0] * 22}, "dataset is 'svhn'"),
        ({"dataset": "cifar100", "op_idx_list": [0] * 21}, "expected 22"),
        ({"dataset": "cifar100", "op_idx_list": [9] * 22}, "from 0 to 8"),
        ({"dataset": "cifar100", "op_idx_list": [0] * 22, "num_classes": 10}, "cifar100 has 100"),
    ],
)  # fmt: skip
def test_indices_that_cannot_be_are_refused(body: Any, words: str) -> None:
    with pytest.raises(ArchitectureError, match=words):
        read(body, "hw-nas-bench")


def test_other_networks_are_no_points_of_hw_nas_bench() -> None:
    for name, words in (("mobilenetv2_100", "no point"), ("fbnet_c", "no point"), ("ofa_note10_08", "160 px and 1000 classes")):
        with pytest.raises(ArchitectureError, match=f"{name}.*{words}"):
            write(Architecture.load(name), "hw-nas-bench")


def test_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, in_tmp: Path) -> None:
    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["convert", *words])
        code = command("convert", ConvertConfig, main)
        return code, *capsys.readouterr()

    code, out, error = run("ofa_note10_08", "--to", "timm", "--out", "timm.json")
    assert code == 0 and out == "" and "note: layer 1 (ir without expansion)" in error
    code, out, _ = run("timm.json", "--from", "timm")
    assert code == 0 and Architecture.from_dict(json.loads(out)) == without_notes(Architecture.load("ofa_note10_08"))
    assert json.loads(out)["name"] == "ofa_note10_08"
    code, _, _ = run("timm.json", "--from", "timm", "--to", "net-config", "--resolution", "96", "--out", "net.json")
    assert run("net.json", "--from", "net-config", "--out", "back.json")[0] == 0
    assert Architecture.load("back.json") == Architecture.load("ofa_note10_08").at(96)
    Path("broken.json").write_text('{"arch_def": 1}', encoding="utf-8")
    for words, wanted in (
        (("fbnet_c", "--to", "timm"), "no bias"), (("broken.json", "--from", "timm"), "broken.json: missing field"),
        (("none.json", "--from", "timm"), "no such file"), (("fbnet_x",), "unknown network"),
    ):  # fmt: skip
        code, out, error = run(*words, "--out", "never.json")
        assert (code, out) == (2, "") and wanted in error and error.count("\n") == 1
    assert not Path("never.json").exists()
