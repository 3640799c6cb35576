"""Feature maps: strides, widths and values equal those of truncated networks; published endpoints; what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import dnas
from dnas import zoo
from dnas.arch import Architecture
from dnas.backbone import LEVELS, levels
from dnas.errors import ConfigError
from dnas.ops import ConvOp, GlobalPoolOp, LinearOp
from dnas.supernet import Net

PUBLISHED = Path(__file__).parent / "published" / "archs"
SMALL = Architecture(
    (
        ConvOp(in_=3, out=4, kernel=3, stride=2), tiny.block(stride=2, out=6), tiny.block(in_=6, out=6),
        tiny.block(in_=6, stride=2, out=8), tiny.block(in_=8, stride=2, out=8), tiny.block(in_=8, out=8, stride=2),
        ConvOp(in_=8, out=16), GlobalPoolOp(), LinearOp(in_=16, out=3),
    ),
    resolution=32, num_classes=3,
)  # fmt: skip


@pytest.mark.parametrize("name", zoo.names())
def test_levels_of_every_network(name: str) -> None:
    network = Architecture.load(name)
    found = levels(Net.of(network))
    assert list(found) == list(LEVELS.values())
    for stride, level in LEVELS.items():
        map_ = network.shapes[found[level] + 1]
        assert abs(map_.height - network.resolution / stride) <= 1.5, level  # FBNetV3's own padding shrinks maps
        following = network.layers[found[level] + 1 : found[level] + 2]
        assert level == "C5" or following[0].stride == 2  # type: ignore[attr-defined]
    labelled = json.loads((PUBLISHED / f"{name}.json").read_text(encoding="utf-8"))["layers"]
    endpoints = {row["endpoint"]: i for i, row in enumerate(labelled) if "endpoint" in row}
    assert not endpoints or {k: endpoints[k] for k in found} == found
    assert bool(endpoints) == name.startswith("mobiledet")


def truncated(network: Architecture, end: int) -> Architecture:
    return dataclasses.replace(network, layers=network.layers[: end + 1], num_classes=0)


def check(network: Architecture, train: bool) -> None:
    """Features equal the outputs of the truncated networks with the same parameters; so do statistics."""
    net, params, stats = dnas.init(network, jax.random.key(0))
    params = jax.tree.map(lambda v: v + 0.1 * tiny.normal(1, *v.shape), params)
    x = tiny.normal(2, 2, network.resolution, network.resolution, 3)
    found, after = tiny.compiled(lambda p, s, x: dnas.features(net, p, s, x, train=train))(params, stats, x)
    for level in ("C3", "C5"):
        index = levels(net)[level]
        part = truncated(network, index)
        names = [f"{i:02d}" for i in range(index + 1)]
        own, own_stats = ({n: t[n] for n in names if n in t} for t in (params, stats))
        y, new = tiny.compiled(lambda p, s, x, part=part: dnas.apply(Net.of(part), p, s, x, train=train))(own, own_stats, x)
        shape = part.shapes[-1]
        assert found[level].shape == (2, *shape)
        np.testing.assert_allclose(found[level].reshape(y.shape), y, rtol=1e-5, atol=1e-5)
        tiny.assert_close({n: after[n] for n in new}, new, 1e-5)
    assert jax.tree.structure(after) == jax.tree.structure(stats)
    last = max(levels(net).values())
    for name in stats:
        assert int(name) <= last or all(jax.tree.leaves(jax.tree.map(np.array_equal, after[name], stats[name])))


@pytest.mark.parametrize("train", [False, True])
def test_features_are_those_of_truncated_networks(train: bool) -> None:
    check(SMALL, train)


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["mobilenetv2:width=0.25,resolution=64", "mobilenetv3_small:width=0.35,resolution=64"])
def test_features_of_published_families(spec: str) -> None:
    check(Architecture.load(spec), train=False)


@pytest.mark.parametrize("name", ["mobilenetv4_conv_small", "mobiledet_dsp", "mixnet_s"])
def test_any_height_and_width(name: str) -> None:
    network = Architecture.load(name)
    net = Net.of(network)
    shapes = jax.eval_shape(lambda key: dnas.init(network, key)[1:], jax.random.key(0))
    found = jax.eval_shape(lambda p, s, x: dnas.features(net, p, s, x)[0], *shapes, jnp.ones((1, 96, 160, 3)))
    for stride, level in LEVELS.items():
        assert found[level].shape == (1, 96 // stride, 160 // stride, network.shapes[levels(net)[level] + 1].channels)


def test_a_supernet_has_features_too() -> None:
    space = tiny.plain_space()
    net, params, stats = dnas.init(space, jax.random.key(0))
    gates = dnas.gates.uniform(space)
    found = jax.eval_shape(lambda x: dnas.features(net, params, stats, x, gates)[0], jnp.ones((1, 8, 8, 3)))
    assert {k: v.shape for k, v in found.items()} == {"C2": (1, 2, 2, 8)}
    with pytest.raises(ConfigError, match="needs gates"):
        dnas.features(net, params, stats, jnp.ones((1, 8, 8, 3)))


def test_images_that_do_not_fit_are_refused() -> None:
    net, params, stats = dnas.init(SMALL, jax.random.key(0))
    with pytest.raises(ConfigError, match="take height x width x 3"):
        dnas.features(net, params, stats, jnp.ones((1, 32, 32, 1)))
    tied = Net.of(Architecture.load("efficientformer_l1"))
    with pytest.raises(ConfigError, match="take 224x224x3"):
        dnas.features(tied, {}, {}, jnp.ones((1, 32, 32, 3)))
