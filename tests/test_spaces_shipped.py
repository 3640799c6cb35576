"""The spaces that come with the package, a published one of another make, and finding, running and refusing spaces."""

from __future__ import annotations

import csv
import functools
import itertools
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnas.arch import Architecture
from dnas.errors import SpaceError
from dnas.ops import ConvOp, GlobalPoolOp, InvertedResidualOp, LinearOp, Op, SkipOp
from dnas.space import OneOf, Space, Stage, Template, load_space
from dnas.space_files import shipped_spaces

PUBLISHED = Path(__file__).parent / "published"
SPACES = ("fbnet", "fbnet:expand1=true", "fbnet:head=1504", "fbnet_cifar", "fbnet_cifar:expand1=false", "fbnet_mini")
calm = settings(deadline=None, max_examples=40)
each = pytest.mark.parametrize("name", SPACES)


@cache
def load(name: str) -> Space:
    return load_space(name)


@cache
def published(name: str) -> Architecture:
    return Architecture.load(PUBLISHED / "archs" / f"{name}.json")


def counts(name: str) -> dict[str, str]:
    with open(PUBLISHED / "counts.csv", newline="", encoding="utf-8") as handle:
        return next(row for row in csv.DictReader(handle) if row["name"] == name)


def test_all_shipped_spaces_load_and_are_tested() -> None:
    assert {n.partition(":")[0] for n in SPACES} <= set(shipped_spaces())
    for name in shipped_spaces():
        space = load_space(name)
        assert space.name == name and space.size > 1 and space.fix(space.sample(0)).macs > 0


@each
def test_size_is_the_product_of_options(name: str) -> None:
    space = load(name)
    options = [len(c.options) for c in space.choices.values()]
    assert space.size == math.prod(options) and set(options) == {8, 9}
    if "mini" not in name:  # Wu et al. 2019, Table 1: 22 layers, six of which change the shape
        assert (options.count(9), options.count(8)) == (16, 6) and space.size == 9**16 * 8**6


@each
def test_a_skip_is_a_candidate_only_where_shapes_match(name: str) -> None:
    for slot in load(name).slots:
        if len(slot.candidates) > 1:
            skips = [c for c in slot.candidates if isinstance(c.op, SkipOp)]
            assert len(skips) == (slot.in_shape == slot.out_shape)
            assert all(c.op.has_residual == (slot.in_shape == slot.out_shape) for c in slot.candidates if c not in skips)


@each
@calm
@given(seed=st.integers(0, 2**32 - 1))
def test_encode_is_the_inverse_of_fix(name: str, seed: int) -> None:
    space = load(name)
    genotype = space.sample(seed)
    network = space.fix(genotype)
    assert space.encode(network) == genotype
    assert Architecture.from_dict(network.to_dict()) == network
    positions = space.positions(genotype)
    assert [space.picked(genotype)[i].op for i in positions] == list(network.layers)
    # with identities left out it is the same network, whose canonical code is the same
    bare = Architecture(plain(network), 3, space.resolution, space.num_classes, space.defaults)
    found = space.encode(bare)
    assert space.canonical(found) == space.canonical(genotype)
    assert (bare.macs, bare.params) == (network.macs, network.params)


@each
def test_json_round_trip(name: str, tmp_path: Path) -> None:
    space = load(name)
    space.save(tmp_path / "s.json")
    again = load_space(tmp_path / "s.json")
    assert again == space and again.fingerprint == space.fingerprint and again.options == space.options


MEMBERS = (("fbnet_c", "fbnet"), ("fbnet_a", "fbnet:head=1504"), ("fbnetc_100", "fbnet:expand1=true"))


@pytest.mark.parametrize(("file", "name"), MEMBERS)
def test_published_networks_are_points_of_the_space(file: str, name: str) -> None:
    space, network, row = load(name), published(file), counts(file)
    genotype = space.encode(network)
    found = space.fix(genotype)
    assert found.macs == network.macs == int(row["macs"]) and found.shapes[-1] == network.shapes[-1]
    # candidates have no convolution biases (mobile_cv's have, before BN); the classifier keeps its own
    assert found.params == int(row["weights_only"]) + int(row["bn_affine"]) + 1000
    assert space.encode(found) == genotype


def test_fbnet_c_is_fbnet_c() -> None:
    space = load("fbnet")
    labels = [c.label for c in space.picked(space.encode(published("fbnet_c")))[1:23]]
    paper = (
        "k3_e1 k3_e6 skip k3_e1 k3_e1 k5_e6 k5_e3 k5_e6 k3_e6 k5_e6 k5_e3 k5_e6 k5_e6 k5_e6 k5_e6 k5_e6 k5_e3 "
        "k5_e6 k5_e6 k5_e6 k5_e6 k3_e6"
    )
    assert " ".join(labels) == paper
    # timm leaves the identity out; otherwise it chooses the same blocks, with expansion convolutions
    other = load("fbnet:expand1=true")
    timm = other.encode(published("fbnetc_100"))
    assert timm != space.encode(published("fbnet_c"))
    assert other.canonical(timm) == space.canonical(space.encode(published("fbnet_c")))


OUTSIDE = (
    ("fbnet_a", "fbnet", r"layer 23, conv\(in=352, out=1504"),
    ("fbnet_c", "fbnet:expand1=true", r"layer 1, ir\(in=16, mid=16, out=16, expand=False.*k3_e1, k3_e1_g2"),
    ("fbnetc_100", "fbnet", r"layer 1, ir\(in=16, mid=16, out=16"),
    ("mobilenetv2_100", "fbnet", r"layer 0, conv\(in=3, out=32.*candidates are conv_k3"),
    ("fbnet_c", "fbnet_cifar", r"resolution 224, but fbnet_cifar has 32"),
)


@pytest.mark.parametrize(("file", "name", "words"), OUTSIDE)
def test_networks_outside_a_space_are_refused_at_the_layer(file: str, name: str, words: str) -> None:
    with pytest.raises(SpaceError, match=f"{file}.*{words}"):
        load(name).encode(published(file))


@each
def test_at_changes_only_images_and_classes(name: str) -> None:
    space = load(name)
    other = space.at(resolution=40, num_classes=7)
    genotype = space.sample(1)
    assert (other.resolution, other.num_classes, other.size) == (40, 7, space.size)
    network = other.fix(genotype)
    assert network.shapes[-1] == (1, 1, 7) and network.layers[:-1] == space.fix(genotype).layers[:-1]
    assert other.at(space.resolution, space.num_classes) == space and space.at() == space
    # the number of classes is not part of what is searched
    assert space.encode(other.at(space.resolution).fix(genotype)) == genotype


def plain(network: Architecture) -> tuple[Op, ...]:
    return tuple(op for op in network.layers if not isinstance(op, SkipOp))


def test_nas_bench_macro() -> None:
    """Su et al., arXiv:2103.11922: 8 layers in stages of 2, 3, 3 with 3 candidates; 6,561 codes, 3,969 networks."""
    layers: list[Any] = []
    in_ = 4
    for stage, (repeats, stride) in enumerate(((2, 1), (3, 2), (3, 2))):
        for position in range(repeats):
            shape = {"in_": in_, "out": 8 << stage, "stride": stride if position == 0 else 1}
            same = position > 0
            blocks = [InvertedResidualOp(**shape, mid=in_ * e, kernel=k, residual=same) for e, k in ((3, 3), (6, 5))]
            first: Op = SkipOp(in_=in_, out=in_) if same else ConvOp(**shape)
            layers.append(OneOf(f"s{stage}.b{position}", (first, *blocks)))
            in_ = 8 << stage
    space = Space("macro", (*layers, GlobalPoolOp(), LinearOp(in_=in_, out=10)), 4, 16, 10)
    every = list(itertools.product(range(3), repeat=8))
    assert space.size == len(every) == 6561
    codes = {space.canonical(g) for g in every}
    assert len(codes) == 3969 == len({plain(space.fix(g)) for g in every})
    assert len({plain(space.fix(g)) for g in codes}) == 3969


# -- finding and running ------------------------------------------------------------------------------------------

MINE = """
from dnas import OneOf, Space
from dnas.ops import ConvOp, GlobalPoolOp, LinearOp

def SPACE({signature}):
    {body}
    layer = OneOf("a", (ConvOp(in_=3, out=4, kernel=3), ConvOp(in_=3, out=4, kernel=5)))
    return Space("mine", (layer, GlobalPoolOp(), LinearOp(in_=4, out=10)), 3, 8, 10, options={{"given": {given}}})
"""
TYPED = "n: int = 1, x: float = 0.5, on: bool = False, word: str = 'a', plain=None"


def mine(signature: str = "", body: str = "pass", given: str = "None") -> str:
    return MINE.format(signature=signature, body=body, given=given)


def test_a_shipped_name_wins_over_the_working_folder(in_tmp: Path) -> None:
    (in_tmp / "fbnet_mini.py").write_text(mine(), encoding="utf-8")
    (in_tmp / "mine.py").write_text(mine(), encoding="utf-8")
    assert load_space("fbnet_mini").name == load_space("fbnet_mini.py").name == "fbnet_mini"
    assert load_space("./fbnet_mini.py").name == load_space(in_tmp / "fbnet_mini.py").name == "mine"
    assert load_space("mine").name == load_space("mine.py").name == load_space(Path("mine.py")).name == "mine"
    load_space("mine").save("fbnet.json")
    assert load_space("fbnet.json").name == "mine" and load_space("fbnet").name == "fbnet"


@pytest.mark.parametrize("future", ["", "from __future__ import annotations\n"])
def test_options_are_read_by_their_annotation(future: str, in_tmp: Path) -> None:
    (in_tmp / "mine.py").write_text(future + mine(TYPED, given="(n, x, on, word, plain)"), encoding="utf-8")
    assert load_space("mine").options["given"] == (1, 0.5, False, "a", None)
    assert load_space("mine:n=3, x=2,on=true,word=7,plain=5").options["given"] == (3, 2.0, True, "7", "5")
    for text, value in {"true": True, "TRUE": True, "1": True, "yes": True, "no": False, "0": False, "False": False}.items():
        assert load_space(f"mine:on={text}").options["given"][2] is value
    assert load_space("mine:").options["given"][0] == 1 and load_space("fbnet:head=1504").options["head"] == 1504


REFUSED = {
    "fbnet_mimi": ("unknown space 'fbnet_mimi'", "did you mean 'fbnet_mini'"),
    "nonesuch": ("unknown space 'nonesuch'", "fbnet_cifar"),
    "./nonesuch.py": ("unknown space './nonesuch.py'",),
    "folder": ("unknown space 'folder'",),
    "fbnet:hed=3": ("fbnet: unknown option 'hed'", "did you mean 'head'"),
    "fbnet:head=wide": ("fbnet: option head is 'wide'; expected int",),
    "fbnet:expand1=maybe": ("option expand1 is 'maybe'; expected bool",),
    "fbnet:head": ("expected NAME:option=value", "'head'"),
    "fbnet:=3": ("expected NAME:option=value", "'=3'"),
    "fbnet:head=0": ("fbnet.py", "out is 0"),
    "fbnet:resolution=0": ("fbnet.py", "resolution is 0"),
    "mine.json:head=3": ("mine.json", "takes no options, got head"),
    "value:n=3": ("value.py", "takes no options, got n"),
    "without": ("without.py", "expected a value SPACE"),
    "number": ("number.py", "expected a value SPACE"),
    "returns": ("returns.py", "returned int; expected a dnas.Space"),
    "raises": ("raises.py", "ZeroDivisionError: division by zero"),
    "late": ("late.py", "running it raised KeyError"),
    "needs": ("needs.py", "TypeError", "'n'"),
    "syntax": ("syntax.py", "SyntaxError"),
    "badspace": ("badspace.py", "nothing to choose"),
    "missing.json": ("unknown space 'missing.json'",),
    "half.json": ("half.json", "not JSON at line 1"),
}
FILES = {
    "value.py": mine().replace("def SPACE():", "def make():") + "\nSPACE = make()\n", "without.py": "A = 3\n",
    "number.py": "SPACE = 3\n", "returns.py": "def SPACE():\n    return 3\n", "raises.py": "1 / 0\n",
    "late.py": "def SPACE():\n    raise KeyError('x')\n", "needs.py": mine("n"), "syntax.py": "def SPACE(:\n",
    "badspace.py": "from dnas import Space\nSPACE = Space('s', ())\n", "half.json": "{",
}  # fmt: skip


@pytest.mark.parametrize("spec", REFUSED)
def test_spaces_that_cannot_be_loaded(spec: str, in_tmp: Path) -> None:
    for name, text in FILES.items():
        (in_tmp / name).write_text(text, encoding="utf-8")
    (in_tmp / "folder").mkdir()
    load_space("value").save("mine.json")
    with pytest.raises(SpaceError) as caught:
        load_space(spec)
    assert all(word in str(caught.value) for word in REFUSED[spec]) and "\n" not in str(caught.value), str(caught.value)


# -- spaces that contradict themselves ----------------------------------------------------------------------------

C3, C5, WIDE = (ConvOp(in_=4, out=o, kernel=k) for o, k in ((4, 3), (4, 5), (8, 7)))
IMPOSSIBLE: dict[str, tuple[Any, ...]] = {
    "layer 1 (a): candidates give different shapes (conv_k3: 5x5x4, conv_k7: 5x5x8)": (C3, OneOf("a", (C3, WIDE))),
    "layer 1 (a), candidate skip: skip: takes 6 channels but is given 4": (C3, OneOf("a", (C3, SkipOp(in_=6, out=6)))),
    "layer 1 (b), candidate conv_k3: conv: conv takes 4 channels but is given 8": (WIDE, OneOf("b", (C3, WIDE))),
    "layer 1 (d): candidates give different shapes (conv_k7: 5x5x8, off: 5x5x4)": (Stage(OneOf("d", (1, 2)), (C3, WIDE)),),
    "layer 0: ir: without an expansion convolution mid (8) must": (
        Template(InvertedResidualOp, in_=4, out=4, mid=OneOf("m", (4, 8)), expand=False),
    ),
    "layer 1: a layer must be an op, a OneOf of ops, a Template or a Stage, got 5": (C3, OneOf("a", (C3, 5))),
    "a: tied choices have options ('conv_k3', 'conv_k5') and ('conv_k5', 'conv_k3')": (
        OneOf("a", (C3, C5)), OneOf("a", (C5, C3)),
    ),
    "layer 0: two candidates share a label": (OneOf("a", (C3, Template(ConvOp, in_=4, out=4, kernel=OneOf("k", (3, 5))))),),
    "nothing to choose": (C3,),
    "layer 0: 33 choices decide it together": (
        functools.reduce(lambda x, i: OneOf(f"z{i}", (x,)), range(32), OneOf("two", (C3, C5))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", IMPOSSIBLE)
def test_impossible_spaces_are_refused_at_the_layer(text: str) -> None:
    with pytest.raises(SpaceError) as caught:
        Space("toy", IMPOSSIBLE[text], 4, 5, 0)
    assert text in str(caught.value)


@pytest.mark.parametrize(("options", "text"), [
    ((), "a: no options"), ((C3, C3), "a: the same option appears twice in ('conv_k3', 'conv_k3')"), (([3], [5]), "a: options"),
])  # fmt: skip
def test_impossible_choices_are_refused(options: Any, text: str) -> None:
    with pytest.raises(SpaceError, match=re.escape(text)):
        OneOf("a", options)
    for call, words in (
        (lambda: OneOf("", (3,)), "needs a name"), (lambda: Template(ConvOp, in_=3), "conv: missing field 'out'"),
        (lambda: Stage(OneOf("d", (1, 3)), (C3, C5)), "d: depths (1, 3); expected"),
        (lambda: Template(ConvOp, in_=3, out=4, kernle=3), "conv: unknown field 'kernle'; did you mean 'kernel'"),
    ):  # fmt: skip
        with pytest.raises(SpaceError, match=re.escape(words)):
            call()
