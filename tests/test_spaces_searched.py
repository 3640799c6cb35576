"""A miniature search in a shrunken variant of each shipped space, by the names that the command takes."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pytest
from test_search_steps import images

from dnas import derive, supernet
from dnas.config import SearchConfig
from dnas.latency import LatencyTable
from dnas.search import State, init, prepare, step
from dnas.space import load_space

SHRUNKEN = {
    "nas_bench_macro": "width=0.25,stages=1,layers=2", "fbnetv2": "stages=1,layers=1",
    "proxylessnas": "stages=1,layers=2", "single_path_nas": "stages=1,layers=2", "mnasnet": "stages=1,layers=2",
    "ofa_mobilenetv3": "width=0.5,stages=1,layers=3", "ofa_proxyless": "width=0.5,stages=1,layers=3",
    "hardcore_nas": "stages=1,layers=3", "mobilenetv3": "small=true,width=0.5,stages=1,layers=2",
    "mobiledets": "target=gpu,stages=1,layers=2",
}  # fmt: skip
FAST = ("nas_bench_macro", "fbnetv2")
each = pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in SHRUNKEN])


def noisy(rng: np.random.Generator, leaf: jax.Array) -> jax.Array:
    """Off the initial values: with biases of 0, the scale of a BN before ReLU, depthwise convolution and BN has no gradient."""
    return leaf + rng.normal(size=leaf.shape).astype(leaf.dtype) * 0.2


def leaves(state: State) -> list[tuple[str, jax.Array]]:
    """Weights and logits by their path; not what has no gradient: a shift before a 1x1 convolution and BN."""
    found = jax.tree_util.tree_leaves_with_path((state.params, state.logits))
    named = [(jax.tree_util.keystr(path), leaf) for path, leaf in found]
    return [(path, leaf) for path, leaf in named if "['project_bn']['bias']" not in path]


@each
def test_search_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every weight and logit moves, the loss is a number, and the chosen network takes the supernet's weights."""
    monkeypatch.setattr(jax, "default_backend", lambda: "other")  # compiles faster
    spec = f"{name}:resolution=8,{SHRUNKEN[name]}"
    config = SearchConfig(lut="samsung_s8.json", space=spec, data="bands", epochs=2, batch_size=8, train_epochs=1, devices=1)
    setup = prepare(config, load_space(spec), LatencyTable.load("samsung_s8.json"), images())
    moved = {path: False for path, _ in leaves(init(setup))}
    for seed in range(5):  # the two units of a squeeze-excite may be dead for all 8 images under one initialisation
        state = init(setup)
        state = state._replace(params=jax.tree.map(partial(noisy, np.random.default_rng(seed)), state.params))
        before = jax.device_get(leaves(state))
        for kind, feed in (("weights", "weights"), ("theta", "architecture")):
            state, info = step(setup, state, setup.feeds[feed].batch(seed % 3), kind, 1.0)
            assert np.isfinite(float(info.loss))
        for (path, old), (_, new) in zip(before, jax.device_get(leaves(state)), strict=True):
            moved[path] |= bool(np.any(old != new))
        if all(moved.values()):
            break
    assert all(moved.values()), [path for path, value in moved.items() if not value]
    assert setup.programs.traces["gradients"] == 1
    logits = jax.device_get(state.logits)
    genotype = derive.argmax_genotype(setup.space, logits)
    network = setup.space.fix(genotype)
    kept = [supernet.inherit(setup.space, genotype, t) for t in (state.params, state.stats)]
    assert sum(v.size for v in jax.tree.leaves(kept[0])) == network.params
    fastest, slowest = setup.space.latency_range(setup.lut)
    assert fastest <= setup.lut.latency_ms(network) <= slowest
    out, _ = supernet.apply(supernet.Net.of(network), *kept, setup.feeds["plain"].batch(0)[0])
    assert out.shape == (8, 3) and np.all(np.isfinite(out))
