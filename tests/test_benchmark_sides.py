"""The supernets that ``benchmarks.supernet`` compares are one function: same parameters in, same logits out."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from dnas import gates, supernet

pytest.importorskip("benchmarks", reason="the wheel has no benchmarks")
from benchmarks.supernet import dnas_side, flax_side
from benchmarks.supernet.__main__ import steps_of
from benchmarks.supernet.case import Case


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    path = tmp_path_factory.mktemp("space") / "tiny.json"
    tiny.plain_space().save(path)
    return Case(space=str(path), batch=4)


def ours(case):
    """Per slot and candidate the parameter arrays in order, images, and the logits under equal gates."""
    space = case.build()
    net, params, stats = supernet.init(space, jax.random.key(0))
    noise = np.random.default_rng(1)
    params = jax.tree.map(lambda v: v + noise.normal(size=v.shape).astype(np.float32) * 0.1, params)
    x = np.random.default_rng(2).normal(size=(case.batch, space.resolution, space.resolution, 3)).astype(np.float32)
    logits, _ = supernet.apply(net, params, stats, x, gates.uniform(space), train=True)
    table = []
    for slot in net.slots:
        own = params.get(f"{slot.index:02d}", {})
        row = []
        for candidate in slot.candidates:
            found = own.get(candidate.label, {})
            row.append([found[p.name][k] for p in candidate.op.primitives() for k in ("kernel", "scale", "bias")
                        if k in found.get(p.name, {})])  # fmt: skip
        table.append(row)
    return table, x, np.asarray(logits)


def test_idiomatic_flax_is_the_same_network(case):
    table, x, wanted = ours(case)
    net = flax_side.SuperNet(case, flax_side.nnx.Rngs(0))
    for row, layer in zip(table, net.layers, strict=True):
        for arrays, block in zip(row, layer, strict=True):
            slots = [
                (part, name) for part in block.parts if part is not None
                for name in ("kernel", "scale", "bias") if getattr(part, name, None) is not None
            ]  # fmt: skip
            assert len(slots) == len(arrays)
            for (part, name), value in zip(slots, arrays, strict=True):
                assert getattr(part, name)[...].shape == value.shape
                getattr(part, name)[...] = value
    np.testing.assert_allclose(net(x), wanted, rtol=2e-4, atol=2e-4)


def test_pytorch_is_the_same_network(case):
    torch = pytest.importorskip("torch")
    from benchmarks.supernet import torch_side

    table, x, wanted = ours(case)
    net = torch_side.SuperNet(case.build())
    weights = [v for n, v in net.named_parameters() if not n.startswith("theta")]
    flat = [np.asarray(v) for row in table for arrays in row for v in arrays]
    assert len(weights) == len(flat)
    with torch.no_grad():
        for weight, value in zip(weights, flat, strict=True):
            order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[value.ndim]
            weight.copy_(torch.tensor(value.transpose(order)))
        found = net(torch.tensor(x.transpose(0, 3, 1, 2)), None).numpy()
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-4)


def test_sides_take_steps(case):
    soft, flax = dnas_side.Side(case), flax_side.Side(case)
    assert soft.parameters == flax.parameters > 0
    for side in (soft, flax):
        assert side.prepare()["temp_bytes"] > 0
        first = side.step()
        assert np.isfinite(first)
        assert [side.step() for _ in range(20)][-1] < first  # one batch, again and again


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["sampled", "fixed"])
def test_paths_take_steps(mode):
    case = dataclasses.replace(Case(mode=mode, space="fbnet_mini", candidates=3, batch=8), path="k5_e3")
    side = dnas_side.Side(case)
    side.prepare()
    first = side.step()
    assert [side.step() for _ in range(20)][-1] < first


def test_sides_take_turns_of_equal_time():
    assert steps_of([23.0, 2.8, 2.9]) == [1, 8, 8] and steps_of([0.5, 0.6]) == [1, 1]
