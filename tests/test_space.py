"""Search spaces: choices, codes, sizes and canonical codes against brute force; and errors that name the layer."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dnas.arch import Architecture, Defaults
from dnas.errors import SpaceError
from dnas.ops import SE, ConvOp, GlobalPoolOp, InvertedResidualOp, LinearOp, Op, SkipOp
from dnas.space import OneOf, Space, Stage, Template

calm = settings(deadline=None, max_examples=70)
SKIP = SkipOp(in_=4, out=4)
HEAD = (GlobalPoolOp(), LinearOp(in_=4, out=3))


def conv(kernel: int, **more: Any) -> ConvOp:
    return ConvOp(in_=4, out=4, kernel=kernel, **more)


def block(**fields: Any) -> Op | Template:
    """An inverted residual of 4 channels, a template if some of ``fields`` are choices."""
    template = Template(InvertedResidualOp, in_=4, out=4, **({"mid": 8, "residual": True} | fields))
    return template if template.choices else next(template.builds({}))[0]


def space_of(*layers: Any, **more: Any) -> Space:
    return Space("toy", (*layers, *HEAD), 4, 5, 3, **more)


def genotypes(space: Space) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(len(c.options)) for c in space.choices.values())))


def plain(network: Architecture) -> tuple[Op, ...]:
    """The layers that compute something: what a network is."""
    return tuple(op for op in network.layers if not isinstance(op, SkipOp))


# -- random tiny spaces with everything in them -------------------------------------------------------------------

TIED_LAYER, TIED_KERNEL = OneOf("tied", (conv(3), SKIP)), OneOf("tied_k", (3, 5))


@st.composite
def items(draw: st.DrawFn, names: Iterator[str], depth: int = 0) -> Any:
    """An op, a layer choice (with field choices, or further choices, inside), a template or a stage."""
    kinds = ("choice", "template", "tied", "op", "choice", "stage")
    kind = draw(st.sampled_from(kinds if depth < 1 else kinds[:3]))
    if kind == "op":
        return conv(1)
    if kind == "tied":
        return TIED_LAYER

    def template(act: str) -> Op | Template:
        kernel = draw(st.sampled_from((3, TIED_KERNEL, OneOf(next(names), (3, 5)))))
        mid = draw(st.sampled_from((8, OneOf(next(names), (4, 8)))))
        return block(kernel=kernel, mid=mid, act=act)

    if kind == "template":
        return template("gelu")
    if kind == "choice":
        pool = [conv(3), conv(5), SKIP, template("swish"), OneOf(next(names), (conv(7), conv(1, act="relu6")))]
        return OneOf(next(names), tuple(draw(st.lists(st.sampled_from(pool), min_size=1, max_size=3, unique=True))))
    inner = tuple(draw(items(names, 1)) for _ in range(draw(st.integers(1, 2))))
    depths = draw(st.lists(st.integers(0, len(inner)), min_size=1, max_size=3, unique=True))
    if depths == [len(inner)]:  # a depth that never drops a layer is no choice
        depths = [0, *depths]
    return Stage(OneOf(next(names), tuple(depths)), inner)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    names = (f"c{i}" for i in itertools.count())
    layers = [draw(items(names)) for _ in range(draw(st.integers(1, 3)))]
    space = space_of(*layers, OneOf("last", (conv(3), conv(5))))
    assume(len(genotypes(space)) <= 40_000)  # a rare draw is larger, and too slow to walk through
    return space


def few(space: Space, limit: int = 1500) -> list[tuple[int, ...]]:
    every = genotypes(space)
    return every[:: -(-len(every) // limit)]


@calm
@given(spaces())
def test_size_equals_brute_force(space: Space) -> None:
    every = genotypes(space)
    if len(every) > 3000:
        return
    # what stands at each position (an identity, or nothing, if the depth drops it) is decided by the choices that matter
    assert space.size == len({tuple((c.op, c.off) for c in space.picked(g)) for g in every})
    assert space.size == len({tuple(i * (n in space.active(g)) for n, i in space.assignment(g).items()) for g in every})


@calm
@given(spaces())
def test_canonical_codes_build_the_same_network(space: Space) -> None:
    for genotype in few(space, 300):
        code = space.canonical(genotype)
        assert plain(space.fix(code)) == plain(space.fix(genotype))
        assert space.canonical(code) == code
        active = space.active(genotype)
        assert all(i == 0 for n, i in space.assignment(code).items() if n not in active and n not in space.active(code))


@calm
@given(spaces(), st.integers(0, 10**6))
def test_choices_that_are_switched_off_do_not_matter(space: Space, seed: int) -> None:
    genotype = space.sample(seed)
    active = space.active(genotype)
    for other in range(3):
        varied = tuple(
            i if n in active else other % len(space.choices[n].options) for n, i in space.assignment(genotype).items()
        )
        assert space.picked(varied) == space.picked(genotype) and space.canonical(varied) == space.canonical(genotype)
    for position, name in enumerate(space.choices):  # and those that are on do
        if name in active:
            for other in range(len(space.choices[name].options)):
                varied = (*genotype[:position], other, *genotype[position + 1 :])
                assert (space.picked(varied) == space.picked(genotype)) == (other == genotype[position])


@calm
@given(spaces(), st.integers(0, 10**6))
def test_encode_finds_a_code_of_the_network(space: Space, seed: int) -> None:
    network = space.fix(space.sample(seed))
    assert plain(space.fix(space.encode(network))) == plain(network)
    bare = Architecture(plain(network), 4, 5, 3)
    assert plain(space.fix(space.encode(bare))) == plain(network)


@calm
@given(spaces())
def test_json_round_trip(space: Space) -> None:
    again = Space.from_json(json.loads(json.dumps(space.to_json())))
    assert again == space and again.fingerprint == space.fingerprint and again.slots == space.slots
    assert hash(again) == hash(space)


# -- spaces made by hand ------------------------------------------------------------------------------------------

PAIR = (conv(3), conv(5), SKIP)
BY_HAND: dict[str, tuple[Space, int, int]] = {
    # the space, its size, its different networks
    "independent": (space_of(OneOf("a", (conv(3), conv(5))), OneOf("b", (conv(1), conv(3), conv(5)))), 6, 6),
    "tied": (space_of(OneOf("a", PAIR), conv(1), OneOf("a", PAIR)), 3, 3),
    "tied in a row": (space_of(OneOf("a", PAIR), OneOf("b", PAIR), OneOf("a", PAIR)), 9, 9),
    "skips in a row": (space_of(OneOf("a", PAIR), OneOf("b", PAIR), OneOf("c", PAIR)), 27, 15),
    "skips apart": (space_of(OneOf("a", PAIR), conv(1), OneOf("b", PAIR)), 9, 9),
    "fields": (space_of(block(kernel=OneOf("k", (3, 5, 7)), mid=OneOf("m", (4, 8)))), 6, 6),
    "one field twice": (space_of(block(mid=OneOf("m", (4, 8))), block(mid=OneOf("m", (4, 8)))), 2, 2),
    "fields of one option": (space_of(OneOf("a", (conv(3), block(kernel=OneOf("k", (3, 5)), mid=OneOf("m", (4, 8)))))), 5, 5),
    "choices of one option": (space_of(OneOf("a", (SKIP, OneOf("b", (conv(3), conv(5), conv(7)))))), 4, 4),
    "depth": (space_of(Stage(OneOf("d", (1, 2, 3)), tuple(OneOf(n, (conv(3), conv(5))) for n in "abc"))), 14, 14),
    "depth 0": (space_of(Stage(OneOf("d", (0, 2)), (conv(3), OneOf("a", (conv(3), conv(5)))))), 3, 3),
    "depth tied": (space_of(*[Stage(OneOf("d", (1, 2)), (conv(3), OneOf(n, (conv(3), conv(5))))) for n in "ab"]), 5, 5),
    "a tied kernel that a depth drops": (
        space_of(Stage(OneOf("d", (0, 1)), (block(kernel=OneOf("k", (3, 5))),)), block(kernel=OneOf("k", (3, 5)))), 4, 4,
    ),
    "squeeze-excite or not": (space_of(block(se=OneOf("se", (None, SE(2), SE(4))))), 3, 3),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_sizes_by_hand(name: str) -> None:
    space, size, networks = BY_HAND[name]
    assert space.size == size
    assert len({space.canonical(g) for g in genotypes(space)}) == networks
    assert len({plain(space.fix(g)) for g in genotypes(space)}) == networks


@pytest.mark.parametrize("name", BY_HAND)
def test_equal_networks_have_equal_canonical_codes_and_only_they(name: str) -> None:
    space = BY_HAND[name][0]
    for a, b in itertools.combinations(genotypes(space), 2):
        assert (space.canonical(a) == space.canonical(b)) == (plain(space.fix(a)) == plain(space.fix(b)))


def test_the_order_of_choices_is_the_order_of_the_description() -> None:
    stage = Stage(OneOf("d", (1, 2)), (block(kernel=OneOf("k", (3, 5))), OneOf("b", (conv(3), block(mid=OneOf("m", (4, 8)))))))
    space = space_of(OneOf("a", PAIR), stage, OneOf("z", PAIR))
    assert list(space.choices) == ["a", "d", "k", "b", "m", "z"]
    network = space.fix((1, 1, 1, 1, 0, 2), name="mine")
    assert network.name == "mine" and [op.op for op in network.layers] == ["conv", "ir", "ir", "skip", "global_pool", "linear"]
    assert (network.layers[0].kernel, network.layers[1].kernel, network.layers[2].mid) == (5, 5, 4)  # type: ignore[attr-defined]
    assert space.positions((1, 0, 1, 1, 0, 2)) == (0, 1, 3, 4, 5)
    assert space.active((1, 0, 1, 1, 0, 2)) == {"a", "d", "k", "z"}
    assert space.canonical((1, 0, 1, 1, 1, 2)) == (1, 0, 1, 0, 0, 2)
    assert all(space.choices[n].labels for n in space.choices) and space.choices["b"].labels == ("conv_k3", "ir")


def test_once_for_all_size() -> None:
    """Cai et al., arXiv:1908.09791: 5 stages of depth 2, 3 or 4; kernel 3, 5, 7 and expansion 3, 4, 6 per block."""
    stages = [
        Stage(OneOf(f"d{s}", (2, 3, 4)), tuple(
            block(kernel=OneOf(f"k{s}.{b}", (3, 5, 7)), mid=OneOf(f"e{s}.{b}", (12, 16, 24))) for b in range(4)
        )) for s in range(5)
    ]  # fmt: skip
    space = space_of(*stages)
    assert space.size == ((3 * 3) ** 2 + (3 * 3) ** 3 + (3 * 3) ** 4) ** 5
    assert len(space.choices) == 5 * (1 + 2 * 4) and len(space.slots) == 5 * 4 + 2


def test_encode_is_quick_where_identities_could_stand_anywhere() -> None:
    wide = ConvOp(in_=4, out=8)
    space = space_of(*(OneOf(f"l{i}", (conv(3), SKIP)) for i in range(40)))
    inside = Architecture((*[conv(3)] * 20, *HEAD), 4, 5, 3)
    assert plain(space.fix(space.encode(inside))) == inside.layers
    outside = Architecture((*[conv(3)] * 20, wide, GlobalPoolOp(), LinearOp(in_=8, out=3)), 4, 5, 3)
    with pytest.raises(SpaceError, match=r"layer 20, conv\(in=4, out=8\)"):
        space.encode(outside)
    tied = space_of(*(OneOf(f"l{i % 3}", (conv(3), SKIP)) for i in range(30)))
    assert len(plain(tied.fix(tied.encode(inside)))) == len(inside.layers)


def test_encode_obeys_ties() -> None:
    space = BY_HAND["tied"][0]
    with pytest.raises(SpaceError, match=r"layer 2, conv.*kernel=5"):
        space.encode(Architecture((conv(3), conv(1), conv(5), *HEAD), 4, 5, 3))
    assert space.encode(Architecture((conv(1), *HEAD), 4, 5, 3)) == (2,)


def test_encode_ignores_biases_and_classes_only() -> None:
    space = BY_HAND["independent"][0]
    head = (GlobalPoolOp(), LinearOp(in_=4, out=7))
    assert space.encode(Architecture((conv(5, bias=True), conv(3), *head), 4, 5, 7)) == (1, 1)
    for network, words in (
        (Architecture((conv(5, act="swish"), conv(3), *HEAD), 4, 5, 3), r"layer 0, conv\(.*swish.*conv_k3, conv_k5"),
        (Architecture((conv(5), conv(3), *HEAD), 4, 6, 3), "resolution 6, but toy has 5"),
        (Architecture((conv(5), conv(3), conv(3), *HEAD), 4, 5, 3), "layer 2, conv"),
        (Architecture((conv(5), *HEAD), 4, 5, 3), "layer 1, global_pool"),
        (Architecture((conv(5), conv(3), GlobalPoolOp()), 4, 5, 0), "layer 3, nothing left.*linear"),
    ):
        with pytest.raises(SpaceError, match=words):
            space.encode(network)


def test_samples_are_uniform_and_seeded() -> None:
    space = space_of(OneOf("a", PAIR), OneOf("b", (conv(3), conv(5))), OneOf("c", (*PAIR, conv(7))))
    rng = np.random.default_rng(5)
    drawn = Counter(space.sample(rng) for _ in range(6000))
    cells = genotypes(space)
    assert drawn.keys() == set(cells)
    chi_square = sum((drawn[g] - 6000 / 24) ** 2 / (6000 / 24) for g in cells)
    assert 6.0 < chi_square < 55.0  # 23 degrees of freedom: outside in about one of 10,000 seeds
    assert space.sample(3) == space.sample(3) == space.sample(np.random.default_rng(3))
    assert all(type(i) is int for i in space.sample(3)) and len({space.sample(s) for s in range(50)}) > 10


def test_genotypes_are_checked() -> None:
    space = BY_HAND["independent"][0]
    for genotype, words in (
        ((0,), "has 2 indices, got 1"), ((0, 3), "b: index 3; expected 0 to 2"), ((-1, 0), "a: index -1"),
        ((0, 0.7), "whole numbers"), (("x", 0), "whole numbers"),
    ):  # fmt: skip
        with pytest.raises(SpaceError, match=words):
            space.fix(genotype)  # type: ignore[arg-type]
    assert space.fix(np.array([1, 2])) == space.fix((1, 2))  # type: ignore[arg-type]


def test_at() -> None:
    space = space_of(OneOf("a", PAIR), defaults=Defaults(1e-3), options={"width": 4})
    other = space.at(resolution=9, num_classes=6)
    assert (other.resolution, other.num_classes, other.defaults, other.options) == (9, 6, Defaults(1e-3), {"width": 4})
    assert other.fix((0,)).shapes[-1] == (1, 1, 6) and space.at(num_classes=3) == space
    features = Space("features", (OneOf("a", PAIR),), 4, 5, 0)
    assert features.at(num_classes=3).fix((1,)).layers == (PAIR[1], *HEAD)
    other = Space("other", (OneOf("a", PAIR), GlobalPoolOp(), ConvOp(in_=4, out=3, norm=None), GlobalPoolOp()), 4, 5, 3)
    for call, words in (
        (lambda: space.at(resolution=0), "resolution is 0"), (lambda: space.at(num_classes=0), "out is 0"),
        (lambda: space.at(num_classes=-1), "out is -1"), (lambda: other.at(num_classes=2), "not a classifier"),
        (lambda: features.at(num_classes=-1), "out is -1"),
        (lambda: space.at(resolution="9"), "resolution is '9'"),  # type: ignore[arg-type]
    ):  # fmt: skip
        with pytest.raises(SpaceError, match=words):
            call()


def test_what_a_space_says_of_itself() -> None:
    space = BY_HAND["depth"][0]
    assert str(space) == "toy: 3 searchable of 5 layers, up to 3 candidates each, 14 architectures, 5 px, 3 classes"
    assert space.at(resolution=6).fingerprint != space.fingerprint


def test_spaces_without_a_choice_that_matters_are_refused() -> None:
    fixed = Stage(OneOf("depth", (2,)), (conv(3), conv(5)))
    for layers, words in (
        ((OneOf("a", (conv(3),)),), "toy: nothing to choose; expected at least one OneOf with two options"),
        (
            (OneOf("a", PAIR), fixed),
            r"toy: no layer depends on the choice 'depth' with the options \('2',\); .*add a smaller depth",
        ),
        ((OneOf("a", PAIR), Stage(OneOf("none", (0,)), ())), "no layer depends on the choice 'none'"),
    ):
        with pytest.raises(SpaceError, match=words):
            space_of(*layers)
    assert space_of(OneOf("a", PAIR), OneOf("b", (conv(3),))).size == 3  # one option that a layer does depend on
