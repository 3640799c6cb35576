"""TFLite files: the ops that they are made of, XNNPACK takes all of them, and LiteRT computes what Flax does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from test_export import export_command, network
from test_fold import MORE, OPS, filled

from dnas import fold, supernet, train
from dnas.arch import Architecture
from dnas.export import tflite
from dnas.export.compare import TOLERANCE

pytest.importorskip("tensorflow", reason="installed for one test job only (extra: litert)")
litert = pytest.importorskip("ai_edge_litert.interpreter", reason="installed for one test job only (extra: litert)")

SE = ["MEAN", "CONV_2D", "CONV_2D", "MUL", "MUL"]
SPLIT_1X1, SPLIT_DW = (["SLICE", kind, "SLICE", kind, "CONCATENATION"] for kind in ("CONV_2D", "DEPTHWISE_CONV_2D"))
WANTED = {
    "conv": ["CONV_2D"],
    "conv, even": ["PAD", "CONV_2D"],
    "ir, groups, shuffle, bias": ["CONV_2D", "RESHAPE", "TRANSPOSE", "RESHAPE", "DEPTHWISE_CONV_2D", "CONV_2D"],
    "ir, expansion 1": ["CONV_2D", "PAD", "DEPTHWISE_CONV_2D", "CONV_2D"],
    "ir, expansion 1, tf_same": ["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D"],
    "ir, mixed kernels and splits": [*SPLIT_1X1, *SPLIT_DW, *SPLIT_1X1],
    "fused_ir, groups, se": ["CONV_2D", *SE, "CONV_2D"],
    "tucker": ["CONV_2D"] * 3,
    "uib, everything": ["DEPTHWISE_CONV_2D", "CONV_2D", "DEPTHWISE_CONV_2D", *SE, "CONV_2D", "DEPTHWISE_CONV_2D"],
    "uib, feed-forward": ["CONV_2D", "CONV_2D", "ADD"],
    "meta2d": ["AVERAGE_POOL_2D", "SUB", "MUL", "ADD", "CONV_2D", "GELU", "CONV_2D", "ADD"],
    "global_pool": ["MEAN", "RESHAPE"],
    "linear": ["FULLY_CONNECTED"],
    "relu": ["CONV_2D"],
    "relu6": ["CONV_2D"],
    "hswish": ["CONV_2D", "HARD_SWISH"],
    "swish": ["CONV_2D", "LOGISTIC", "MUL"],
    "gelu": ["CONV_2D", "GELU"],
}
FAST = ("ir, groups, shuffle, bias", "uib, everything", "hswish")


def op_names(model: bytes) -> list[str]:
    resolver = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    plain = litert.Interpreter(model_content=model, experimental_op_resolver_type=resolver)
    return [op["op_name"] for op in plain._get_ops_details()]


def run(model: bytes, images: np.ndarray) -> tuple[np.ndarray, bool]:
    """The output, and whether XNNPACK took the whole graph: one delegate between input and output."""
    interpreter = litert.Interpreter(model_content=model)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(source["index"], images)
    interpreter.invoke()
    parts = [op for op in interpreter._get_ops_details() if op["op_name"] == "DELEGATE"]
    whole = len(parts) == 1 and source["index"] in parts[0]["inputs"] and result["index"] in parts[0]["outputs"]
    return interpreter.get_tensor(result["index"]), whole


def assert_tflite(network: Architecture, wanted: list[str] | None = None, tolerance: float = 2e-6) -> None:
    """Outputs agree to ``tolerance`` of the largest: float32 has 6e-8, and a sum of a few hundred products loses a digit."""
    params, stats, x = filled(network)
    images = x[:1].astype(np.float32)
    params32, stats32 = (_float32(tree) for tree in (params, stats))
    flax = supernet.apply(supernet.Net.of(network), params32, stats32, jnp.asarray(images))[0]
    model = tflite.write(fold.fold(network, params, stats))
    got, whole = run(model, images)
    assert got.shape == flax.shape and np.abs(got - flax).max() <= tolerance * np.abs(flax).max()
    names = op_names(model)
    assert whole or not names
    if wanted is not None:
        assert names == wanted


def _float32(tree: Any) -> Any:
    return {k: _float32(v) for k, v in tree.items()} if isinstance(tree, dict) else jnp.asarray(tree, jnp.float32)


@pytest.mark.parametrize("name", FAST)
def test_an_op_in_tflite(name: str) -> None:
    assert_tflite({**OPS, **MORE}[name], WANTED[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in {**OPS, **MORE} if n not in FAST])
def test_all_ops_in_tflite(name: str) -> None:
    assert_tflite({**OPS, **MORE}[name], WANTED.get(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fbnet_c", "mixnet_s", "mobilenetv3_large_100", "efficientformer_l1"])
def test_a_network_in_tflite(name: str) -> None:
    """Deep networks: rounding grows with the number of layers (1.6e-6 seen)."""
    network = Architecture.load(name)
    assert_tflite(network if name == "efficientformer_l1" else network.at(64), tolerance=2e-5)


def test_int8_and_float16_say_what_they_lose_and_what_xnnpack_leaves(in_tmp: Path, capsys: Any) -> None:
    """Of a network that was trained on digits: outputs within the tolerance, accuracy of the file beside the network's,
    metadata read back; int8's hard-swish is named, float16 and float32 leave nothing."""
    result = train.run(network(), "digits", epochs=8, devices=1, out="run", progress=False)
    assert export_command("run", "--to", "tflite", "--precision", "float32,float16,int8", "--out", "out") == 0
    files = {file["precision"]: file for file in json.loads(Path("out/export.json").read_text())["files"]}
    for precision, tolerance in TOLERANCE.items():
        file = files[precision]
        data = (Path("out") / file["file"]).read_bytes()
        assert file["difference"]["relative"] <= tolerance and file["bytes"] == len(data)
        about = tflite.read_about(data)
        assert about["architecture_sha256"] == network().fingerprint
        assert json.loads(about["labels"]) == [str(i) for i in range(10)]
        assert json.loads(about["mean"]) == list(result.preprocessing["mean"])
        assert json.loads(about["std"]) == list(result.preprocessing["std"])
    assert files["float32"]["accuracy"] is None and files["float32"]["undelegated"] == files["float16"]["undelegated"] == []
    # steps of 1/255 of each map's range do change these outputs, and those of 2^-11 less
    assert files["int8"]["difference"]["max_abs"] > 10 * files["float16"]["difference"]["max_abs"] > 0
    for precision in ("float16", "int8"):
        lost = files[precision]["accuracy"]
        assert lost["network"]["n"] == lost["file"]["n"] == 359 and lost["network"]["top1"] == result.accuracy.top1 > 0.7
        assert lost["lost"] == pytest.approx(lost["network"]["top1"] - lost["file"]["top1"]) and abs(lost["lost"]) < 0.05
    assert files["int8"]["undelegated"].count("HARD_SWISH") == 4
    kinds = {d["dtype"] for d in ends((Path("out") / files["int8"]["file"]).read_bytes())}
    assert kinds == {np.int8}
    text = capsys.readouterr().out
    assert "operators that XNNPACK leaves to LiteRT: HARD_SWISH" in text and "points lost (95 % interval" in text


def ends(model: bytes) -> list[dict[str, Any]]:
    interpreter = litert.Interpreter(model_content=model)
    return [*interpreter.get_input_details(), *interpreter.get_output_details()]
