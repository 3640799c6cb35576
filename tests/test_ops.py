"""Op types: shapes, counts worked out by hand, and what contradicts itself."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnas.errors import ArchitectureError
from dnas.ops import (
    OPS,
    SE,
    ConvOp,
    DsConvOp,
    FusedInvertedResidualOp,
    GlobalPoolOp,
    InvertedResidualOp,
    LinearOp,
    Meta1dOp,
    Meta2dOp,
    Op,
    Shape,
    SkipOp,
    TokenHeadOp,
    TokensOp,
    TuckerOp,
    UniversalInvertedBottleneckOp,
    reference,
)  # fmt: skip
from dnas.ops.base import ACTIVATIONS, GATES
from dnas.ops.primitives import Conv, Norm

# op, input, params, MACs, output: worked out with pencil and paper from the table of primitives
BY_HAND = {
    # 3*3*3*8 weights, 8 biases, 16 of the BN; 5x5 places
    "conv": (ConvOp(in_=3, out=8, kernel=3, stride=2, bias=True), (9, 9, 3), 240, 25 * 216, (5, 5, 8)),
    # two groups of 2 -> 3
    "conv, groups, plain": (ConvOp(in_=4, out=6, groups=2, norm=None, act=None), (3, 3, 4), 12, 9 * 12, (3, 3, 6)),
    # without padding 7 -> (7 - 5) // 2 + 1
    "conv, pad 0": (ConvOp(in_=2, out=2, kernel=5, stride=2, pad=0, norm=None), (7, 7, 2), 100, 4 * 100, (2, 2, 2)),
    # depthwise 36, BN 8, SE 4*2 + 2 + 2*4 + 4 = 22, 1x1 24, BN 12
    "ds_conv, se": (DsConvOp(in_=4, out=6, stride=2, se=SE(2)), (5, 5, 4), 102, 9 * 36 + 16 + 9 * 24, (3, 3, 6)),
    # 1x1 in two groups 2*8 (+8 +16), depthwise 25*8 (+8 +16), 1x1 in two groups 4*4 (+4 +8)
    "ir, groups, shuffle, bias": (
        InvertedResidualOp(in_=4, mid=8, out=4, kernel=5, expand_groups=2, project_groups=2, shuffle=2, bias=True),
        (3, 3, 4), 292, 9 * (16 + 200 + 16), (3, 3, 4),
    ),
    # no first 1x1: depthwise 36 + 8, SE without biases 16, 1x1 24 + 12
    "ir without expansion, se": (
        InvertedResidualOp(in_=4, mid=4, out=6, stride=2, expand=False, se=SE(2, bias=False)),
        (6, 6, 4), 96, 9 * 36 + 16 + 9 * 24, (3, 3, 6),
    ),
    # expansion 1 with its convolution: 16 + 8 more
    "ir, expansion 1": (InvertedResidualOp(in_=4, mid=4, out=6, stride=2), (6, 6, 4), 104, 36 * 16 + 9 * 60, (3, 3, 6)),
    # 5 channels in two kernels: 3 of 3x3 and 2 of 5x5; 1x1 2 -> 3 + 1 -> 2 and 3 -> 2 + 2 -> 2, and three BN
    "ir, mixed kernels and splits": (
        InvertedResidualOp(in_=3, mid=5, out=4, kernel=(3, 5), stride=2, expand_splits=2, project_splits=2),
        (5, 5, 3), 8 + 10 + 77 + 10 + 10 + 8, 25 * 8 + 9 * 77 + 9 * 10, (3, 3, 4),
    ),
    # depthwise 9 + 25 + 49 over 2 + 1 + 1 channels, BN 8, 1x1 24, BN 12
    "ds_conv, mixed kernels": (
        DsConvOp(in_=4, out=6, kernel=(3, 5, 7)), (5, 5, 4), 92 + 8 + 24 + 12, 25 * (92 + 24), (5, 5, 6),
    ),
    # 3x3 in two groups 9*2*8, BN 16, SE 8*2 + 2 + 2*8 + 8, 1x1 32, BN 8
    "fused_ir, groups, se": (
        FusedInvertedResidualOp(in_=4, mid=8, out=4, stride=2, groups=2, se=SE(2)),
        (5, 5, 4), 144 + 16 + 42 + 32 + 8, 9 * 144 + 32 + 9 * 32, (3, 3, 4),
    ),
    # 1x1 4 -> 2, BN 4, 5x5 2 -> 3, BN 6, 1x1 3 -> 4, BN 8, biases 2 + 3 + 4
    "tucker": (
        TuckerOp(in_=4, mid_in=2, mid_out=3, out=4, kernel=5, stride=2, bias=True),
        (5, 5, 4), 8 + 4 + 150 + 6 + 12 + 8 + 9, 25 * 8 + 9 * 150 + 9 * 12, (3, 3, 4),
    ),
    # 3x3 on 4, BN 8, 1x1 32, BN 16, strided 5x5 on 8, BN 16, SE 42, 1x1 32, BN 8, 3x3 on 4, BN 8, scale 4
    "uib, everything": (
        UniversalInvertedBottleneckOp(
            in_=4, mid=8, out=4, dw_start=3, dw_mid=5, dw_end=3, stride=2, se=SE(2), layer_scale=True
        ),
        (5, 5, 4), 36 + 8 + 32 + 16 + 200 + 16 + 42 + 32 + 8 + 36 + 8 + 4, 25 * 68 + 9 * (200 + 32 + 36) + 32, (3, 3, 4),
    ),
    # the stride sits in dw_start where there is no dw_mid
    "uib, dw_start": (
        UniversalInvertedBottleneckOp(in_=4, mid=8, out=6, dw_start=3, dw_mid=0, stride=2),
        (5, 5, 4), 36 + 8 + 32 + 16 + 48 + 12, 9 * (36 + 32 + 48), (3, 3, 6),
    ),
    "uib, feed-forward": (
        UniversalInvertedBottleneckOp(in_=4, mid=8, out=4, dw_mid=0, residual=True), (3, 3, 4), 88, 9 * 64, (3, 3, 4),
    ),
    # two scales of 4; 1x1 32 + 8, BN 16, 1x1 32 + 4, BN 8; pooling has none
    "meta2d": (Meta2dOp(dim=4, hidden=8), (5, 3, 4), 8 + 40 + 16 + 36 + 8, 15 * 64, (5, 3, 4)),
    "tokens": (TokensOp(), (7, 5, 4), 0, 0, (7, 5, 4)),
    # two LN and two scales of 4; qkv 4 -> 2 * (2 * 3 + 5) with biases; table 2 * 9; back from 10; 4 -> 8 -> 4
    "meta1d": (
        Meta1dOp(dim=4, hidden=8, heads=2, key_dim=3, value_dim=5, resolution=3),
        (3, 3, 4), 16 + 8 + 110 + 18 + 44 + 40 + 36, 9 * (88 + 40 + 64), (3, 3, 4),
    ),
    "token_head": (TokenHeadOp(in_=4, out=10, heads=3), (7, 7, 4), 8 + 3 * 50, 120, (1, 1, 10)),
    "skip": (SkipOp(in_=4, out=4), (7, 5, 4), 0, 0, (7, 5, 4)),
    "global_pool": (GlobalPoolOp(), (7, 5, 4), 0, 0, (1, 1, 4)),
    "linear": (LinearOp(in_=6, out=10), (1, 1, 6), 70, 60, (1, 1, 10)),
    "linear of a map, without bias": (LinearOp(in_=12, out=10, bias=False), (2, 2, 3), 120, 120, (1, 1, 10)),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_counts_by_hand(name: str) -> None:
    op, shape, params, macs, out = BY_HAND[name]
    assert (op.params, op.macs(Shape(*shape)), op.out_shape(Shape(*shape))) == (params, macs, out)


def test_all_op_types_are_counted_by_hand() -> None:
    assert {BY_HAND[name][0].op for name in BY_HAND} == set(OPS)
    assert all(OPS[name].op == name for name in OPS)


kernels, strides, sizes = st.sampled_from((1, 3, 5, 7)), st.integers(1, 4), st.integers(1, 60)


@settings(deadline=None)
@given(n=sizes, m=sizes, kernel=kernels, stride=strides)
def test_both_padding_rules_give_the_ceiling(n: int, m: int, kernel: int, stride: int) -> None:
    def symmetric(n: int) -> int:
        return (n + 2 * ((kernel - 1) // 2) - kernel) // stride + 1

    def tf_same(n: int) -> int:
        total = max((-(-n // stride) - 1) * stride + kernel - n, 0)
        return (n + total - kernel) // stride + 1

    spatial = {"kernel": kernel, "stride": stride}
    ops = (
        ConvOp(in_=2, out=4, **spatial), DsConvOp(in_=2, out=4, **spatial),
        InvertedResidualOp(in_=2, mid=6, out=4, **spatial),
    )  # fmt: skip
    for op in ops:
        assert op.out_shape(Shape(n, m, 2)) == (symmetric(n), symmetric(m), 4) == (tf_same(n), tf_same(m), 4)
        assert op.out_shape(Shape(n, m, 2))[:2] == (-(-n // stride), -(-m // stride))
        # the amount that symmetric padding means, given explicitly, changes nothing
        assert dataclasses.replace(op, pad=(kernel - 1) // 2).out_shape(Shape(n, m, 2)) == op.out_shape(Shape(n, m, 2))


@settings(deadline=None)
@given(n=sizes, kernel=st.integers(1, 7), stride=strides, pad=st.integers(0, 4))
def test_pad_overrides_the_rule(n: int, kernel: int, stride: int, pad: int) -> None:
    op = InvertedResidualOp(in_=2, mid=4, out=2, kernel=kernel, stride=stride, pad=pad)
    places = len(range(0, n + 2 * pad - kernel + 1, stride))
    if places:
        assert op.out_shape(Shape(n, n, 2)) == (places, places, 2)
        assert op.macs(Shape(n, n, 2)) == n * n * 8 + places**2 * (kernel**2 * 4 + 8)
    else:
        with pytest.raises(ArchitectureError, match="ir: the map is empty after 'depthwise'"):
            op.out_shape(Shape(n, n, 2))


@pytest.mark.parametrize("kernel", [2, 4])
def test_an_even_kernel_needs_its_padding_spelled_out(kernel: int) -> None:
    with pytest.raises(ArchitectureError, match=f"conv: kernel is {kernel}; an even kernel"):
        ConvOp(in_=3, out=8, kernel=kernel, stride=kernel)
    assert ConvOp(in_=3, out=8, kernel=kernel, stride=kernel, pad=0).out_shape(Shape(8, 8, 3)) == (8 // kernel,) * 2 + (8,)


CONTRADICTIONS = {
    "without an expansion convolution mid (8) must equal in (4)": lambda: InvertedResidualOp(in_=4, mid=8, out=4, expand=False),
    "conv: 4 -> 6 channels cannot be split into 4 groups": lambda: ConvOp(in_=4, out=6, groups=4),
    "conv: 6 -> 4 channels cannot be split into 4 groups": lambda: ConvOp(in_=6, out=4, groups=4),
    "ir: 3 -> 6 channels cannot be split into 2 groups": lambda: InvertedResidualOp(in_=3, mid=6, out=4, expand_groups=2),
    "ir: 6 -> 3 channels cannot be split into 2 groups": lambda: InvertedResidualOp(in_=2, mid=6, out=3, project_groups=2),
    "ir: 6 -> 6 channels cannot be split into 4 groups": lambda: InvertedResidualOp(in_=2, mid=6, out=3, shuffle=4),
    "an identity cannot turn 4 into 8 channels": lambda: SkipOp(in_=4, out=8),
    "an identity cannot turn 4 into 4 channels with stride 2": lambda: SkipOp(in_=4, out=4, stride=2),
    "conv: in is 0; expected 1": lambda: ConvOp(in_=0, out=8),
    "conv: out is True; expected int": lambda: ConvOp(in_=3, out=True),
    "conv: stride is 2.0; expected int": lambda: ConvOp(in_=3, out=8, stride=2.0),  # type: ignore[arg-type]
    "conv: pad is -1; expected 0": lambda: ConvOp(in_=3, out=8, pad=-1),
    "conv: bias is 1; expected bool": lambda: ConvOp(in_=3, out=8, bias=1),  # type: ignore[arg-type]
    "conv: norm is 'layer'; expected 'bn' or null": lambda: ConvOp(in_=3, out=8, norm="layer"),
    "conv: act is 'rleu'; did you mean 'relu'": lambda: ConvOp(in_=3, out=8, act="rleu"),
    "ds_conv: pw_act is 'swich'; did you mean 'swish'": lambda: DsConvOp(in_=3, out=8, pw_act="swich"),
    "ir: act is None; expected str": lambda: InvertedResidualOp(in_=3, mid=3, out=8, act=None),  # type: ignore[arg-type]
    "ir: se is 4; expected SE": lambda: InvertedResidualOp(in_=3, mid=3, out=8, se=4),  # type: ignore[arg-type]
    "ir: kernel is [3] for 8 channels; expected": lambda: InvertedResidualOp(in_=4, mid=8, out=4, kernel=(3,)),
    "ir: kernel is (3, 4); an even kernel": lambda: InvertedResidualOp(in_=4, mid=8, out=4, kernel=(3, 4)),
    "ds_conv: kernel is [3, 5, 7] for 2 channels": lambda: DsConvOp(in_=2, out=8, kernel=(3, 5, 7)),
    "ds_conv: 2 -> 8 channels cannot be split into 3 convolutions": lambda: DsConvOp(in_=2, out=8, project_splits=3),
    "ir: 3 -> 4 channels cannot be split into 2 groups": lambda: InvertedResidualOp(
        in_=6, mid=8, out=4, expand_groups=2, expand_splits=2
    ),
    "fused_ir: 4 -> 9 channels cannot be split into 2 groups": lambda: FusedInvertedResidualOp(in_=4, mid=9, out=4, groups=2),
    "uib: dw_end is 2; an even kernel": lambda: UniversalInvertedBottleneckOp(in_=4, mid=8, out=4, dw_end=2),
    "uib: stride 2 needs a depthwise": lambda: UniversalInvertedBottleneckOp(in_=4, mid=8, out=4, dw_mid=0, stride=2),
    "meta2d: pool is 2; an even kernel": lambda: Meta2dOp(dim=4, hidden=8, pool=2),
    "meta1d: heads is 0; expected 1": lambda: Meta1dOp(dim=4, hidden=8, heads=0),
    "linear: out is -10; expected 1": lambda: LinearOp(in_=3, out=-10),
    "se is {'reduce': 0": lambda: SE(0),
    "se is {'reduce': 1.5": lambda: SE(1.5),  # type: ignore[arg-type]
    "'gate': 'tanh'": lambda: SE(2, gate="tanh"),
    "'bias': 3": lambda: SE(2, bias=3),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("text", CONTRADICTIONS)
def test_contradictions_are_refused(text: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        CONTRADICTIONS[text]()
    assert text in str(caught.value)


RESIDUALS = [
    (ConvOp(in_=4, out=4, kernel=3, residual=True), ConvOp(in_=4, out=4, kernel=3, stride=2, residual=True)),
    (DsConvOp(in_=4, out=4, residual=True), DsConvOp(in_=4, out=6, residual=True)),
    (InvertedResidualOp(in_=4, mid=8, out=4, residual=True), InvertedResidualOp(in_=4, mid=8, out=6, residual=True)),
]


@pytest.mark.parametrize(("fits", "does_not"), RESIDUALS, ids=lambda op: op.op)
def test_a_residual_needs_equal_shapes(fits: Op, does_not: Op) -> None:
    assert fits.has_residual and fits.out_shape(Shape(5, 5, 4)) == (5, 5, 4)
    for call in (does_not.out_shape, does_not.macs):
        with pytest.raises(ArchitectureError, match="a residual needs equal shapes, got 5x5x4 -> "):
            call(Shape(5, 5, 4))


@pytest.mark.parametrize(
    "op", [ConvOp(in_=4, out=4), DsConvOp(in_=4, out=4), InvertedResidualOp(in_=4, mid=8, out=4), SkipOp(in_=4, out=4),
           InvertedResidualOp(in_=4, mid=4, out=4, expand=False), LinearOp(in_=4, out=4)], ids=repr,
)  # fmt: skip
def test_wrong_input_channels_are_refused_at_once(op: Op) -> None:
    side = 1 if op.op == "linear" else 5
    assert op.in_channels == 4 and op.out_shape(Shape(side, side, 4)).channels == 4
    for call in (op.out_shape, op.macs, op.trace):
        with pytest.raises(ArchitectureError, match=rf"{op.op}: .*takes 4 channels but is given 6 \({side}x{side}x6\)"):
            call(Shape(side, side, 6))


def test_attention_is_tied_to_its_size() -> None:
    op = Meta1dOp(dim=4, hidden=8, resolution=3)
    assert op.out_shape(Shape(3, 3, 4)) == (3, 3, 4)
    with pytest.raises(ArchitectureError, match="meta1d: attention has positions for 3x3 tokens but is given 4x4x"):
        op.macs(Shape(4, 4, 4))


def test_parts_of_a_split_are_traced_on_their_share() -> None:
    op = InvertedResidualOp(in_=3, mid=5, out=4, kernel=(3, 5), stride=2, expand_splits=2)
    parts = [(p.name, shape) for p, shape in op.trace(Shape(5, 5, 3)) if isinstance(p, Conv)]
    assert parts == [
        ("expand_0", (5, 5, 2)), ("expand_1", (5, 5, 1)), ("depthwise_0", (5, 5, 3)), ("depthwise_1", (5, 5, 2)),
        ("project", (3, 3, 5)),
    ]  # fmt: skip
    assert [p for p, _ in op.trace(Shape(5, 5, 3))] == list(op.primitives())
    # a price model sees depthwise convolutions as such, whatever their share
    assert all(p.groups == p.in_ for p in op.primitives() if isinstance(p, Conv) and p.name.startswith("depthwise"))


def test_trace_hands_shapes_on() -> None:
    op = InvertedResidualOp(in_=4, mid=8, out=6, kernel=5, stride=2, se=SE(2), shuffle=2)
    steps = op.trace(Shape(7, 7, 4))
    assert [p.name for p, _ in steps] == [
        "expand", "expand_bn", "shuffle", "depthwise", "depthwise_bn", "se", "project", "project_bn",
    ]  # fmt: skip
    for (step, before), (_, after) in itertools.pairwise(steps):
        assert step.out_shape(before) == after
    assert steps[0][1] == (7, 7, 4) and steps[-1][0].out_shape(steps[-1][1]) == op.out_shape(Shape(7, 7, 4)) == (4, 4, 6)
    assert [p.act for p, _ in steps if isinstance(p, Norm)] == ["relu", "relu", None]
    assert [p.depthwise for p, _ in steps if isinstance(p, Conv)] == [False, True, False]


# -- names --------------------------------------------------------------------------------------------------------


def test_labels_are_the_papers() -> None:
    def label(mid: int, **more: Any) -> str:
        return InvertedResidualOp(in_=8, mid=mid, out=8, **more).label

    assert (label(48), label(8, kernel=5), label(12)) == ("k3_e6", "k5_e1", "k3_e1.5")
    assert label(8, expand_groups=2, project_groups=2, shuffle=2) == label(8, project_groups=2) == "k3_e1_g2"
    assert label(48, se=SE(4)) == "k3_e6_se"
    assert label(48, kernel=(3, 5, 7)) == "k3.5.7_e6"
    assert TuckerOp(in_=8, mid_in=2, mid_out=6, out=8).label == "tucker_k3_i0.25_o0.75"
    assert UniversalInvertedBottleneckOp(in_=8, mid=32, out=8, dw_start=5).label == "uib_s5_m3_e4"
    assert len({label(m) for m in range(1, 64)}) == 63  # no two widths share a label
    assert (ConvOp(in_=3, out=8, kernel=3).label, SkipOp(in_=8, out=8).label) == ("conv_k3", "skip")


def test_repr_says_what_is_not_a_default() -> None:
    assert repr(ConvOp(in_=3, out=8, kernel=3)) == "conv(in=3, out=8, kernel=3)"
    assert set(ACTIVATIONS) == {"relu", "relu6", "hswish", "swish", "gelu"} and set(GATES) == {"sigmoid", "hsigmoid"}


def test_the_reference_is_current_and_complete() -> None:
    docs = Path(__file__).parents[1] / "docs" / "ops.md"
    if not docs.is_file():
        pytest.skip("docs/ is beside the package in a checkout only")
    assert docs.read_text(encoding="utf-8") == reference.markdown()
    used = {f.name.rstrip("_") for kind in (*OPS.values(), SE) for f in dataclasses.fields(kind)}
    assert used == set(reference.MEANINGS) and set(reference.TIMM) <= set(OPS)
