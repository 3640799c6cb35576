"""Weights of PyTorch models: every tensor in its place, by name or by order, and what does not fit is named."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny

import dnas
from dnas import weights
from dnas.arch import Architecture
from dnas.cli import command
from dnas.errors import WeightsError
from dnas.ops import SE, ConvOp, DsConvOp, GlobalPoolOp, InvertedResidualOp, LinearOp, SkipOp, UniversalInvertedBottleneckOp
from dnas.weights import from_torch

NETWORK = Architecture(
    (
        ConvOp(in_=3, out=4, kernel=3, stride=2), DsConvOp(in_=4, out=8, se=SE(2)), SkipOp(in_=8, out=8),
        InvertedResidualOp(in_=8, mid=16, out=8, kernel=(3, 5), residual=True, se=SE(4)),
        UniversalInvertedBottleneckOp(in_=8, mid=16, out=8, dw_start=3, dw_mid=0, layer_scale=True), ConvOp(in_=8, out=16),
        GlobalPoolOp(), ConvOp(in_=16, out=24, norm=None, bias=True), LinearOp(in_=24, out=5),
    ),
    resolution=16, num_classes=5, name="small",
)  # fmt: skip

# the modules of timm's MobileNetV3 class for it, in order of execution, and their place here
BN = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
MODULES = {
    "conv_stem": "00/conv_k3/conv", "bn1": "00/conv_k3/bn",
    "blocks.0.0.conv_dw": "01/ds_k3/depthwise", "blocks.0.0.bn1": "01/ds_k3/depthwise_bn",
    "blocks.0.0.se.conv_reduce": "01/ds_k3/se/reduce", "blocks.0.0.se.conv_expand": "01/ds_k3/se/expand",
    "blocks.0.0.conv_pw": "01/ds_k3/project", "blocks.0.0.bn2": "01/ds_k3/project_bn",
    "blocks.1.0.conv_pw": "03/k3.5_e2_se/expand", "blocks.1.0.bn1": "03/k3.5_e2_se/expand_bn",
    "blocks.1.0.conv_dw.0": "03/k3.5_e2_se/depthwise_0", "blocks.1.0.conv_dw.1": "03/k3.5_e2_se/depthwise_1",
    "blocks.1.0.bn2": "03/k3.5_e2_se/depthwise_bn", "blocks.1.0.se.conv_reduce": "03/k3.5_e2_se/se/reduce",
    "blocks.1.0.se.conv_expand": "03/k3.5_e2_se/se/expand", "blocks.1.0.conv_pwl": "03/k3.5_e2_se/project",
    "blocks.1.0.bn3": "03/k3.5_e2_se/project_bn", "blocks.1.10.dw_start.conv": "04/uib_s3_e2_ls/dw_start",
    "blocks.1.10.dw_start.bn": "04/uib_s3_e2_ls/dw_start_bn", "blocks.1.10.pw_exp.conv": "04/uib_s3_e2_ls/expand",
    "blocks.1.10.pw_exp.bn": "04/uib_s3_e2_ls/expand_bn", "blocks.1.10.pw_proj.conv": "04/uib_s3_e2_ls/project",
    "blocks.1.10.pw_proj.bn": "04/uib_s3_e2_ls/project_bn", "blocks.1.10.layer_scale": "04/uib_s3_e2_ls/scale",
    "blocks.2.0.conv": "05/conv_k1/conv", "blocks.2.0.bn1": "05/conv_k1/bn", "conv_head": "07/conv_k1/conv",
    "classifier": "08/linear/linear",
}  # fmt: skip


@lru_cache
def wanted() -> tuple[dict[str, Any], dict[str, Any]]:
    """Random parameters and statistics."""
    _, params, stats = dnas.init(NETWORK, jax.random.key(0))
    return tuple(jax.tree.map(lambda v: np.asarray(v + tiny.normal(v.size, *v.shape)), tree) for tree in (params, stats))  # type: ignore[return-value]


def state_dict() -> dict[str, np.ndarray]:
    """The same as PyTorch would have it."""
    params, stats = wanted()
    found = {}
    for module, path in MODULES.items():
        for tree in (params, stats):
            leaves: Any = tree
            for part in path.split("/"):
                leaves = leaves.get(part, {})
            for leaf, value in leaves.items():
                if leaf == "kernel":
                    value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
                    value = value[..., None, None] if ".se." in module else value
                name = "gamma" if module.endswith("layer_scale") else "weight" if leaf == "kernel" else BN[leaf]
                found[f"{module}.{name}"] = value
    return found


def assert_same(got: Any, tree: Any) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, got, tree)


def test_names_of_timm() -> None:
    given = state_dict()
    assert len(given) == len(jax.tree.leaves(wanted()))
    shuffled = dict(sorted(given.items()))
    assert_same(from_torch(NETWORK, shuffled), wanted())
    wrapped = {
        "epoch": 3,
        "state_dict": {f"module.{k}": v for k, v in given.items()} | {"bn1.num_batches_tracked": np.int64(1)},
    }
    assert_same(from_torch(NETWORK, wrapped), wanted())


def test_order_of_execution_where_names_say_nothing() -> None:
    modules = {name: f"features.{i}.{i % 3}" for i, name in enumerate(MODULES)}
    given = {f"{modules[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": v for k, v in state_dict().items()}
    assert_same(from_torch(NETWORK, given), wanted())
    del given["features.0.0.weight"]
    with pytest.raises(WeightsError, match=f"{len(MODULES) - 1} modules with tensors; small needs {len(MODULES)}"):
        from_torch(NETWORK, given)


def test_files(tmp_path: Path) -> None:
    from safetensors import numpy

    for prefix, given in (("timm", state_dict()), ("order", {})):
        for i, module in enumerate(MODULES if prefix == "order" else ()):
            own = {k: v for k, v in state_dict().items() if k.rpartition(".")[0] == module}
            given |= {f"features.{i}.{k.rpartition('.')[2]}": v for k, v in own.items()}
        file = tmp_path / f"{prefix}.safetensors"
        numpy.save_file({k: np.ascontiguousarray(v) for k, v in given.items()}, file)
        assert_same(from_torch(NETWORK, file), wanted())
    (tmp_path / "broken.safetensors").write_bytes(b"\x00" * 30)
    with pytest.raises(WeightsError, match=r"broken\.safetensors: not a safetensors file"):
        from_torch(NETWORK, tmp_path / "broken.safetensors")
    with pytest.raises(WeightsError, match="no such file"):
        from_torch(NETWORK, tmp_path / "none.safetensors")


def test_files_of_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tensors = {k: torch.tensor(v) for k, v in state_dict().items()}
    torch.save({"model": tensors}, tmp_path / "model.pth")
    assert_same(from_torch(NETWORK, tmp_path / "model.pth"), wanted())
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds list"):
        from_torch(NETWORK, tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("no weights", encoding="utf-8")
    with pytest.raises(WeightsError, match=r"torch\.load cannot read it"):
        from_torch(NETWORK, tmp_path / "text.pth")
    halves = from_torch(NETWORK, {k: v.to(torch.bfloat16) for k, v in tensors.items()})
    tiny.assert_close(halves[0], wanted()[0], 0.01)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classifier.weight": np.ones((7, 24))}, r"classifier.weight has shape \[7, 24\]; layer 8 .* needs \[5, 24\]"),
        ({"blocks.0.0.conv_dw.weight": np.ones((8, 1, 3, 3))}, r"conv_dw.weight has shape \[8, 1, 3, 3\]"),
        ({"extra.weight": np.ones(3)}, "1 tensors have no place in small: extra.weight"),
        ({"blocks.3.0.conv.weight": np.ones(3)}, "5 blocks; small has 4 layers between stem and head"),
        ({"bn1.weight": np.ones(4, np.int32)}, "bn1.weight is int32"), ({"bn1.running_mean": None}, "no tensor 'bn1.running"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(change: dict[str, Any], words: str) -> None:
    given = {k: v for k, v in (state_dict() | change).items() if v is not None}
    with pytest.raises(WeightsError, match=words):
        from_torch(NETWORK, given)


def test_networks_of_another_make_are_refused() -> None:
    with pytest.raises(WeightsError, match="names are timm's, but the network is not: efficientformer_l1"):
        from_torch(Architecture.load("efficientformer_l1"), state_dict())
    with pytest.raises(WeightsError, match="tensors that are not understood here"):
        from_torch(Architecture.load("efficientformer_l1"), {"a.weight": np.ones(3)})
    with pytest.raises(WeightsError, match="no tensors"):
        from_torch(NETWORK, {})


def test_own_files_hold_the_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import numpy

    params, stats = wanted()
    weights.save(tmp_path / "a.safetensors", NETWORK, params, stats)
    found = weights.load(tmp_path / "a.safetensors")
    assert found.architecture == NETWORK and found.architecture.name == "small"
    assert_same((found.params, found.stats), (params, stats))
    with pytest.raises(WeightsError, match=r"1 tensors are not those of small: params/00/conv_k3/bn/bias is missing"):
        weights.save(
            tmp_path / "b.safetensors",
            NETWORK,
            params | {"00": {"conv_k3": {**params["00"]["conv_k3"], "bn": {"scale": np.ones(4)}}}},
            stats,
        )
    assert not (tmp_path / "b.safetensors").exists()
    NETWORK.save(tmp_path / "net.json")
    numpy.save_file({k: np.ascontiguousarray(v) for k, v in state_dict().items()}, tmp_path / "timm.safetensors")
    for words, code in (
        ((tmp_path / "net.json", tmp_path / "timm.safetensors", "--out", tmp_path / "c.safetensors"), 0),
        ((tmp_path / "net.json", tmp_path / "timm.safetensors", "--out", tmp_path / "c.pth"), 2),
        (("fbnet_c", tmp_path / "timm.safetensors", "--out", tmp_path / "d.safetensors"), 2),
    ):  # fmt: skip
        monkeypatch.setattr("sys.argv", ["weights", *map(str, words)])
        assert command("weights", weights.WeightsConfig, weights.main) == code, capsys.readouterr().err
    assert_same(weights.load(tmp_path / "c.safetensors")[1:], (params, stats))
    assert not (tmp_path / "d.safetensors").exists()
    with pytest.raises(WeightsError, match=r"format is None; expected 'dnas-weights/1'"):
        weights.load(tmp_path / "timm.safetensors")
