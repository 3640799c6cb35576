"""Published networks are points of the shipped spaces, with exact counts; sizes are those of the papers; all can be priced."""

from __future__ import annotations

import csv
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnas.arch import Architecture
from dnas.errors import SpaceError
from dnas.latency import LatencyTable
from dnas.latency.costs import by_count
from dnas.latency.terms import price
from dnas.ops import SkipOp, TuckerOp
from dnas.space import Space, load_space
from dnas.space_files import shipped_spaces

ARCHS = Path(__file__).parent / "published" / "archs"
OFA = {16: "ofa_mobilenetv3:width=1.0", 24: "ofa_mobilenetv3:width=1.2", 40: "ofa_proxyless:width=1.3"}  # by stem
MEMBERS = {
    "proxyless_mobile": "proxylessnas:net=mobile", "proxyless_gpu": "proxylessnas:net=gpu", "spnasnet_100": "single_path_nas",
    "mnasnet_100": "single_path_nas",  # MnasNet-B1 has the same stages
    "hardcorenas_a": "hardcore_nas", "hardcorenas_c": "hardcore_nas", "hardcorenas_e": "hardcore_nas",
    "mobilenetv3_large_100": "mobilenetv3", "mobilenetv3_small_100": "mobilenetv3:small=true",
    "tf_mobilenetv3_large_100": "mobilenetv3:padding=tf_same", "mobiledet_cpu": "mobiledets",
    "mobiledet_dsp": "mobiledets:target=dsp", "mobiledet_edgetpu": "mobiledets:target=edgetpu",
    "mnasnet_050": "mnasnet:width=0.5", "mnasnet_075": "mnasnet:width=0.75", "mnasnet_140": "mnasnet:width=1.4",
    "semnasnet_075": "mnasnet:width=0.75", "semnasnet_140": "mnasnet:width=1.4",
}  # fmt: skip


@cache
def load(name: str) -> Space:
    return load_space(name)


@cache
def published(name: str) -> Architecture:
    return Architecture.load(ARCHS / f"{name}.json")


@cache
def counts() -> dict[str, tuple[int, int]]:
    with open(ARCHS.parent / "counts.csv", newline="", encoding="utf-8") as handle:
        return {row["name"]: (int(row["params"]), int(row["macs"])) for row in csv.DictReader(handle)}


def ofa_networks() -> list[str]:
    return sorted(p.stem for p in ARCHS.glob("ofa_*.json"))


def home(file: str) -> str:
    if file in MEMBERS:
        return MEMBERS[file]
    network = published(file)
    return f"{OFA[network.layers[0].out]},resolution={network.resolution}"  # type: ignore[attr-defined]


@pytest.mark.parametrize("file", [*MEMBERS, *ofa_networks()])
def test_published_networks_are_points_of_their_space(file: str) -> None:
    space, network = load(home(file)), published(file)
    genotype = space.encode(network)
    found = space.fix(genotype)
    assert (found.params, found.macs) == counts()[file]
    layers = tuple(op for op in network.layers if not isinstance(op, SkipOp))
    assert tuple(op for op in found.layers if not isinstance(op, SkipOp)) == layers
    assert space.encode(found) == genotype and found.shapes[-1] == network.shapes[-1]
    assert [s for s in space.left_out(network) if "biases" in s or "classes" in s] == []


def test_all_ofa_networks_are_tested() -> None:
    assert len(ofa_networks()) >= 44


# kernel and expansion per layer (0: none), and parameters; the CPU network has no file of its own here
PROXYLESS_CPU = (
    ((3, 6), (3, 3), (3, 3), (3, 3)), ((3, 6), (3, 3), (3, 3), (5, 3)), ((3, 6), None, None, (3, 3)),
    ((5, 6), (3, 3), (3, 3), (3, 3)), ((5, 6), (5, 3), (5, 3), (3, 3)), ((5, 6),),
)  # fmt: skip
PROXYLESS_MOBILE_14 = (
    ((5, 3), (3, 3), None, None), ((7, 3), (3, 3), (5, 3), (5, 3)), ((7, 6), (5, 3), (5, 3), (5, 3)),
    ((5, 6), (5, 3), (5, 3), (5, 3)), ((7, 6), (7, 6), (7, 3), (7, 3)), ((7, 6),),
)  # fmt: skip


@pytest.mark.parametrize(
    ("net", "blocks", "params"), [("cpu", PROXYLESS_CPU, 4_361_648), ("mobile_14", PROXYLESS_MOBILE_14, 6_857_568)]
)
def test_proxyless_networks_by_their_blocks(net: str, blocks: tuple, params: int) -> None:
    """Parameters as pytorchcv (MIT) states them for these networks."""
    space = load(f"proxylessnas:net={net}")
    wanted = ["skip" if b is None else f"k{b[0]}_e{b[1]}" for stage in blocks for b in stage]
    genotype = [c.labels.index(label) for c, label in zip(space.choices.values(), wanted, strict=True)]
    assert space.fix(genotype).params == params


MNASNET_A1 = (  # op, kernel, layers, squeeze-excite, width: Tan et al. 2019, Figure 7
    ("ds_conv", 3, 1, 0, 16), ("ir_e6", 3, 2, 0, 24), ("ir_e3", 5, 3, 1, 40), ("ir_e6", 3, 4, 0, 80), ("ir_e6", 3, 2, 1, 112),
    ("ir_e6", 5, 3, 1, 160), ("ir_e6", 3, 1, 0, 320),
)  # fmt: skip


def test_mnasnet_a1_by_its_blocks() -> None:
    """Its figure's blocks give the counts of timm's semnasnet_100 (and TensorFlow's 312M multiply-adds)."""
    space, found = load("mnasnet"), {}
    for number, (op, kernel, length, se, width) in enumerate(MNASNET_A1, 1):
        wanted = {"op": op, "kernel": str(kernel), "layers": str(length), "se": ("None", "se")[se], "width": str(width)}
        for name, label in (wanted | {"skip": "True"}).items():
            if f"b{number}.{name}" in space.choices:
                found[f"b{number}.{name}"] = space.choices[f"b{number}.{name}"].labels.index(label)
    network = space.fix([found[n] for n in space.choices])
    assert (network.params, network.macs) == (3_887_038, 311_579_072)
    # B1 has other lengths, ops without squeeze-excite, and 96 and 192 channels
    assert space.fix(space.encode(published("mnasnet_100"))).params == counts()["mnasnet_100"][0]


def test_mnasnet_choices_are_shared_by_the_layers_of_a_block() -> None:
    space = load("mnasnet")
    for seed in range(5):
        network = space.fix(space.sample(seed))
        picked = space.picked(space.encode(network))
        kinds: dict[str, set] = {}
        for slot, c in zip(space.slots, picked, strict=True):
            block = slot.choices[-1].split(".")[0] if slot.choices else ""
            if block and not c.off and hasattr(c.op, "kernel") and c.op.out != 1280:
                own = next(n for n in slot.choices if n.endswith(".op")).split(".")[0]
                kinds.setdefault(own, set()).add((type(c.op), c.op.kernel, bool(getattr(c.op, "se", None)), c.op.out))
        assert len(kinds) == 7 and all(len(k) == 1 for k in kinds.values())


def test_fbnetv2_couples_widths_in_its_latency() -> None:
    """One set of parameters for all widths of a candidate; the table of a layer has the widths before, inside and after it."""
    space = load("fbnetv2:stages=2,layers=2,resolution=32")
    slot = next(s for s in space.slots if "s2.b1" in s.choices)
    assert set(slot.choices) == {"s2.b1", "s1.width", "s2.b1.mid", "s2.width"} and len(slot.hulls) == 8
    assert len(slot.candidates) == 8 * len(list(space.choices["s1.width"].options)) * 6 * 4
    terms = price(space, LatencyTable.load("samsung_s8.json"))
    (table,) = (f for f in terms.factors if set(f.names) == set(slot.choices))
    values = np.moveaxis(table.values, table.names.index("s2.b1"), 0)[0]
    for a, b in ((0, 1), (1, 2)):  # no sum of one function of each width
        assert np.abs(np.diff(np.diff(values, axis=a), axis=b)).max() > 1e-5
    assert sum(hull.op.params for hull in slot.hulls) < sum(c.op.params for c in slot.candidates) / 20


def test_what_the_space_leaves_out_is_reported() -> None:
    network = published("fbnet_c")
    (sentence,) = load("fbnet").left_out(network)
    missing = network.params - load("fbnet").fix(load("fbnet").encode(network)).params
    assert "biases that the space leaves out" in sentence and f"{missing:,} parameters" in sentence and missing > 0
    bare = Architecture(load("fbnet").fix([0] * 22).layers)
    assert load("fbnet").left_out(bare) == ()
    head = load("mobilenetv3").fix([0] * len(load("mobilenetv3").choices))
    unbiased = [op.to_dict() | ({"bias": False} if op.op == "conv" else {}) for op in head.layers]
    unbiased = Architecture.from_dict({**head.to_dict(), "layers": unbiased})
    assert load("mobilenetv3").left_out(unbiased) == ("1 layers lack the space's biases: 1,280 parameters.",)
    assert "BN eps 0.001; fbnet has 1e-05." in load("fbnet").left_out(
        Architecture.from_dict(bare.to_dict() | {"defaults": published("proxyless_gpu").defaults.to_dict()})
    )


OUTSIDE = (
    ("mnasnet_140", "single_path_nas", r"layer 0, conv\(in=3, out=48"),
    ("hardcorenas_a", "mobilenetv3", r"layer 0, conv\(in=3, out=32"),
    ("proxyless_gpu", "proxylessnas", r"layer 0, conv\(in=3, out=40"),
    ("ofa_cpu_10", "ofa_mobilenetv3:resolution=144", r"layer 0, conv\(in=3, out=40"),
    ("mobiledet_dsp", "mobiledets:target=edgetpu", r"layer 1, ir\(in=32"),
    ("ofa_note10_08", "ofa_mobilenetv3", "resolution 160, but ofa_mobilenetv3 has 224"),
    ("tf_mobilenetv3_large_100", "mobilenetv3", "padding tf_same, but mobilenetv3 has symmetric"),
)


@pytest.mark.parametrize(("file", "name", "words"), OUTSIDE)
def test_other_networks_are_refused_at_the_layer(file: str, name: str, words: str) -> None:
    with pytest.raises(SpaceError, match=f"{file}.*({words})"):
        load(name).encode(published(file))


SIZES = {
    "ofa_mobilenetv3": sum(9**d for d in (2, 3, 4)) ** 5,  # Cai et al. 2020: ((3 x 3)^2 + (3 x 3)^3 + (3 x 3)^4)^5
    "ofa_proxyless": sum(9**d for d in (2, 3, 4)) ** 5 * 9,
    "proxylessnas": 7**15 * 6**6,  # 7 operations; zero only where the shape stays
    "single_path_nas": 5**15 * 4**5,
    "hardcore_nas": sum(12**d for d in (2, 3, 4)) ** 5,
    "nas_bench_macro": 3**8,  # Su et al. 2021
    "mobiledets": 4**18,
    # per block 2 convolutions, 4 separable and 8 inverted; skip where there is a second layer; widths
    "mnasnet": 14**7 * (1 + 2) * (1 + 2 + 2) * 6**4 * (1 + 2) * math.prod((2, 2, 3, 3, 4, 4, 3)),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    assert load(name).size == SIZES[name]


def test_ofa_has_the_size_that_its_paper_states() -> None:
    assert round(math.log10(load("ofa_mobilenetv3").size)) == 19


def test_mobiledets_have_the_blocks_of_the_paper() -> None:
    ops = {type(c.op).__name__ for s in load("mobiledets:target=gpu").slots for c in s.candidates if s.choices}
    assert ops == {"InvertedResidualOp", "FusedInvertedResidualOp", "TuckerOp"}
    (ranks,) = {
        tuple((c.op.mid_in, c.op.mid_out) for c in s.candidates if isinstance(c.op, TuckerOp))
        for s in load("mobiledets:target=gpu").slots
        if s.choices == ("s2.b2",)
    }
    assert ranks == ((16, 16), (16, 48), (48, 16), (48, 48))  # 0.25 and 0.75 of 64 channels
    assert "s0.b1" in load("mobiledets:target=dsp").choices and "s0.b1" not in load("mobiledets").choices


@pytest.mark.parametrize("name", shipped_spaces())
def test_every_space_can_be_priced_and_searched_by_name(name: str) -> None:
    """With a shipped table; a space with a feature map as output gets a classifier for the data's classes."""
    space, lut = load(name).at(num_classes=10), LatencyTable.load("samsung_s8.json")
    assert space.fix(space.sample(0)).shapes[-1] == (1, 1, 10)
    fastest, slowest = space.latency_range(lut)
    for seed in range(3):
        assert fastest <= lut.latency_ms(space.fix(space.sample(seed))) <= slowest
    assert fastest < slowest


@pytest.mark.parametrize("name", shipped_spaces())
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_encode_finds_what_fix_built(name: str, seed: int) -> None:
    """The same network again, by the same canonical code."""
    space = load(name)
    genotype = space.sample(seed)
    network, code = space.fix(genotype), space.canonical(genotype)
    found = space.encode(network)
    assert space.fix(found) == network and space.canonical(found) == code == space.canonical(code)


@pytest.mark.parametrize("name", shipped_spaces())
def test_every_space_can_be_held_to_its_macs_or_parameters(name: str) -> None:
    """Widths by masks too: what arrives at a layer depends on choices before."""
    space = load(name)
    for cost, of in (("macs", lambda n: n.macs), ("params", lambda n: n.params)):
        terms = by_count(space, cost, 1.0).terms
        low, high = terms.extreme(1)[0], terms.extreme(-1)[0]
        for seed in range(3):
            genotype = space.sample(seed)
            found = terms.at(space.assignment(genotype))
            assert found == of(space.fix(genotype)) and low <= found <= high


SHRUNKEN = {
    "fbnet_mini": "", "proxylessnas": "stages=2,layers=2", "single_path_nas": "stages=1,layers=2",
    "ofa_mobilenetv3": "width=0.5,stages=1,layers=3", "ofa_proxyless": "width=0.5,stages=1,layers=3",
    "hardcore_nas": "stages=1,layers=3", "mobilenetv3": "width=0.5,stages=1,layers=3",
    "mnasnet": "width=0.25,stages=2,layers=2", "fbnetv2": "stages=1,layers=1",
    "mobiledets": "target=dsp,stages=1,layers=2", "nas_bench_macro": "width=0.25,stages=1",
}  # fmt: skip


@pytest.mark.parametrize("name", SHRUNKEN)
def test_options_shrink_a_space(name: str) -> None:
    space = load_space(f"{name}:resolution=16,num_classes=10,{SHRUNKEN[name]}")
    assert sum(len(s.candidates) > 1 for s in space.slots) <= 6 and space.fix(space.sample(np.random.default_rng(0)))
    assert Space.from_json(space.to_json()) == space
    for option in ("stages=0", "layers=0"):
        if "stages" in SHRUNKEN[name]:
            with pytest.raises(SpaceError, match="expected at least 1"):
                load_space(f"{name}:{option}")


@pytest.mark.parametrize(("spec", "words"), [
    ("proxylessnas:net=gpus", "net is 'gpus'; did you mean 'gpu'"), ("mobiledets:target=tpu", "target is 'tpu'.*edgetpu"),
    ("ofa_mobilenetv3:width=-1", "width -1; expected"), ("mobilenetv3:padding=same", "padding"),
])  # fmt: skip
def test_wrong_options_are_refused(spec: str, words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        load_space(spec)
