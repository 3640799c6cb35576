"""ONNX files: checked by onnx, and ONNX Runtime computes what Flax does; what travels in them."""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_fold import MORE, OPS, filled

from dnas import fold, supernet
from dnas.arch import Architecture
from dnas.export import onnx

pytest.importorskip("onnx", reason="installed for one test job only (extra: onnx)")
pytest.importorskip("onnxruntime", reason="installed for one test job only (extra: onnx)")

FAST = ("ir, groups, shuffle, bias", "meta1d", "linear of a map, without bias")


def assert_onnx(network: Architecture, tolerance: float = 2e-6) -> None:
    """Outputs agree to ``tolerance`` of the largest: float32 has 6e-8, and a sum of a few hundred products loses a digit."""
    params, stats, x = filled(network)
    images = x.astype(np.float32)
    as32: Any = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (params, stats))
    flax = np.asarray(supernet.apply(supernet.Net.of(network), *as32, jnp.asarray(images))[0])
    got = onnx.run(onnx.write(fold.fold(network, params, stats)), images)
    assert got.shape == flax.shape and np.abs(got - flax).max() <= tolerance * np.abs(flax).max()


@pytest.mark.parametrize("name", FAST)
def test_an_op_in_onnx(name: str) -> None:
    assert_onnx({**OPS, **MORE}[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in {**OPS, **MORE} if n not in FAST])
def test_all_ops_in_onnx(name: str) -> None:
    assert_onnx({**OPS, **MORE}[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fbnet_c", "mixnet_s", "mobilenetv3_large_100", "mobiledet_dsp", "efficientformer_l1"])
def test_a_network_in_onnx(name: str) -> None:
    network = Architecture.load(name)
    assert_onnx(network if name == "efficientformer_l1" else network.at(64), tolerance=2e-5)


def test_metadata_travel() -> None:
    network = OPS["conv"]
    params, stats, _ = filled(network)
    about = {"labels": json.dumps(["cat", "dög"]), "architecture_sha256": network.fingerprint}
    assert onnx.read_about(onnx.write(fold.fold(network, params, stats), about)) == about
