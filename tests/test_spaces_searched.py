"""A miniature search in a shrunken variant of each shipped space, by the names that the command takes."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from test_search_steps import images

from dnas import derive, supernet
from dnas.config import SearchConfig
from dnas.latency import LatencyTable
from dnas.search import init, prepare, step
from dnas.space import load_space

SHRUNKEN = {
    "nas_bench_macro": "width=0.25,stages=1,layers=2", "fbnetv2": "stages=1,layers=1",
    "proxylessnas": "stages=1,layers=2", "single_path_nas": "stages=1,layers=2", "mnasnet": "width=0.25,stages=2,layers=2",
    "ofa_mobilenetv3": "width=0.5,stages=1,layers=3", "ofa_proxyless": "width=0.5,stages=1,layers=3",
    "hardcore_nas": "stages=1,layers=3", "mobilenetv3": "small=true,width=0.5,stages=1,layers=3",
    "mobiledets": "target=gpu,stages=1,layers=2",
}  # fmt: skip
FAST = ("nas_bench_macro", "fbnetv2")
each = pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in SHRUNKEN])


@each
def test_search_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights and logits move, the loss is a number, and the chosen network takes the supernet's weights."""
    monkeypatch.setattr(jax, "default_backend", lambda: "other")  # compiles faster
    spec = f"{name}:resolution=8,{SHRUNKEN[name]}"
    config = SearchConfig(lut="samsung_s8.json", space=spec, data="bands", epochs=2, batch_size=8, train_epochs=1, devices=1)
    setup = prepare(config, load_space(spec), LatencyTable.load("samsung_s8.json"), images())
    state = init(setup)
    first = jax.device_get((state.params, state.logits))
    for kind, feed in (("weights", "weights"), ("theta", "architecture")):
        state, info = step(setup, state, setup.feeds[feed].batch(0), kind, 1.0)
        assert np.isfinite(float(info.loss))
    params, logits = jax.device_get((state.params, state.logits))
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), first, (params, logits))
    leaves = jax.tree_util.tree_leaves_with_path(moved)  # the scale of a BN before another BN makes no difference
    assert all(value for path, value in leaves if "scale" not in jax.tree_util.keystr(path))
    genotype = derive.argmax_genotype(setup.space, logits)
    network = setup.space.fix(genotype)
    kept = [supernet.inherit(setup.space, genotype, t) for t in (state.params, state.stats)]
    assert sum(v.size for v in jax.tree.leaves(kept[0])) == network.params
    fastest, slowest = setup.space.latency_range(setup.lut)
    assert fastest <= setup.lut.latency_ms(network) <= slowest
    out, _ = supernet.apply(supernet.Net.of(network), *kept, setup.feeds["plain"].batch(0)[0])
    assert out.shape == (8, 3) and np.all(np.isfinite(out))
