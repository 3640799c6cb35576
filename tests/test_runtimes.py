"""Every runtime computes what Flax computes, on its files; what a delegate leaves over is named."""

from __future__ import annotations

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dnas import supernet
from dnas.arch import Architecture
from dnas.errors import ConfigError
from dnas.ops import SE, ConvOp
from dnas.runtimes import RUNTIMES, Runtime, runtime

NETWORK = tiny.network("small", ConvOp(in_=4, out=4, kernel=1), tiny.OneOf("a", (tiny.block(3), tiny.block(5)))).fix((1,))
MAP = Architecture((tiny.block(5, 2, se=SE(2)),), 4, 4, 0)


def engine(name: str) -> Runtime:
    _, extra, packages = RUNTIMES[name]
    for package in packages:
        pytest.importorskip(package, reason=f"installed for one test job only (extra: {extra})")
    return runtime(name)


@pytest.mark.parametrize("name", list(RUNTIMES))
@pytest.mark.parametrize("network", [NETWORK, MAP], ids=["logits", "map"])
def test_a_runtime_computes_what_flax_computes(name: str, network: Architecture) -> None:
    made = engine(name)
    net, params, stats = supernet.init(network, jax.random.key(1))
    stats = jax.tree.map(lambda v: v + 0.25, stats)
    images = np.random.default_rng(0).normal(size=(1, *network.shapes[0])).astype(np.float32)
    runner = made.open(made.write(network, params, stats))
    wanted = np.asarray(supernet.apply(net, params, stats, jnp.asarray(images))[0])
    found = runner.run(images)
    assert found.shape == wanted.shape and found.dtype == np.float32
    tiny.assert_close(found, wanted, 1e-5)
    call = runner.bind(images)
    call()
    call()
    assert runner.kernels_left == () and made.version() and made.suffix.startswith(".")


def test_operators_that_no_delegate_took_are_named() -> None:
    pytest.importorskip("ai_edge_litert", reason="installed for one test job only (extra: litert)")
    from dnas.runtimes.litert import kernels_left

    def node(name: str, inputs: list[int], outputs: list[int]) -> dict[str, object]:
        return {"op_name": name, "inputs": np.array(inputs), "outputs": np.array(outputs)}

    graph = [node("CONV_2D", [0, 3, 2], [4]), node("CUMSUM", [4, 1], [5]), node("CONV_2D", [5, 3, 2], [6])]
    assert kernels_left([*graph, node("DELEGATE", [0, 2, 3], [4]), node("DELEGATE", [2, 3, 5], [6])]) == ("CUMSUM",)
    assert kernels_left([graph[0], node("CONV_2D", [4], [7]), node("DELEGATE", [0, 2, 3], [7])]) == ()
    assert kernels_left(graph) == ("CONV_2D", "CUMSUM", "CONV_2D")


def test_unknown_runtimes_and_missing_extras_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"unknown runtime 'lite-rt'; did you mean 'litert'"):
        runtime("lite-rt")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"litert needs ai_edge_litert and tensorflow: pip install 'dnas\[litert\]'"):
        runtime("litert")
