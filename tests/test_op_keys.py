"""Ops as JSON, and what of an op is in the key of its latency."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ops import BY_HAND

from dnas.errors import ArchitectureError
from dnas.ops import SE, ConvOp, GlobalPoolOp, InvertedResidualOp, Shape, SkipOp, op_from_dict
from dnas.ops.base import LABELS

CONV = {"op": "conv", "in": 3, "out": 8, "kernel": 3, "stride": 2, "act": "relu", "residual": False}
IR = {
    "op": "ir", "in": 8, "mid": 24, "out": 8, "kernel": 5, "stride": 1, "expand": True, "act": "swish", "residual": True,
    "se": {"reduce": 4, "act": "relu", "gate": "sigmoid", "bias": True},
}  # fmt: skip


@settings(deadline=None)
@given(st.sampled_from(list(BY_HAND)))
def test_an_op_survives_json(name: str) -> None:
    op = BY_HAND[name][0]
    assert op_from_dict(op.to_dict()) == op and hash(op_from_dict(op.to_dict())) == hash(op)
    assert next(iter(op.to_dict())) == "op"


def test_labels_are_dropped_and_rare_fields_are_quiet() -> None:
    op = op_from_dict(IR | dict.fromkeys(LABELS, "anything"))
    assert op == op_from_dict(IR) and op.to_dict() == IR | {"bias": False}
    assert "shuffle" not in op.to_dict() and dataclasses.replace(op, shuffle=2).to_dict()["shuffle"] == 2
    assert dataclasses.replace(op, pad=0).to_dict()["pad"] == 0  # 0 is not the default


WRONG: dict[str, Any] = {
    "unknown op 'ri'": IR | {"op": "ri"},
    "a field 'op', got {}": {},
    "a field 'op', got [1]": [1],
    "a field 'op', got {'op': 3}": {"op": 3},
    "conv: unknown field 'strde'; did you mean 'stride'": CONV | {"strde": 2},
    "conv: missing field 'kernel'": {k: v for k, v in CONV.items() if k != "kernel"},
    "ir: missing field 'mid'": {k: v for k, v in IR.items() if k != "mid"},
    "ir: kernel is (3, 'x'); expected int": IR | {"kernel": [3, "x"]},
    "ir: se has fields reduse; expected reduce, act, gate, bias": IR | {"se": {"reduse": 4}},
    "se is {'reduce': 'x'": IR | {"se": {"reduce": "x"}},
    "ir: se is 'yes'; expected SE": IR | {"se": "yes"},
    "ir: shuffle is None; expected int": IR | {"shuffle": None},
}


@pytest.mark.parametrize("text", WRONG)
def test_malformed_layers_are_named(text: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        op_from_dict(WRONG[text])
    assert text in str(caught.value)


# -- latency keys -------------------------------------------------------------------------------------------------

FULL = InvertedResidualOp(in_=8, mid=24, out=8, kernel=5, residual=True, se=SE(4, "relu", "sigmoid"))
AT = Shape(14, 12, 8)
FREE: tuple[dict[str, Any], ...] = (
    {"bias": True}, {"se": SE(4, "swish", "sigmoid")}, {"se": SE(4, "relu", "sigmoid", bias=False)},
)  # fmt: skip
PRICED: tuple[dict[str, Any], ...] = (
    {"expand": False, "mid": 8}, {"mid": 8}, {"kernel": 3}, {"stride": 2, "residual": False}, {"act": "swish"}, {"se": None},
    {"se": SE(5, "relu", "sigmoid")}, {"se": SE(4, "relu", "hsigmoid")}, {"expand_groups": 2}, {"project_groups": 2},
    {"shuffle": 2}, {"residual": False}, {"out": 16, "residual": False}, {"pad": 2},
)  # fmt: skip


@pytest.mark.parametrize("change", FREE, ids=repr)
def test_what_costs_nothing_is_not_in_the_key(change: dict[str, Any]) -> None:
    assert dataclasses.replace(FULL, **change).price_fields(AT) == FULL.price_fields(AT)


@pytest.mark.parametrize("change", PRICED, ids=repr)
def test_what_costs_something_is_in_the_key(change: dict[str, Any]) -> None:
    assert dataclasses.replace(FULL, **change).price_fields(AT) != FULL.price_fields(AT)


def test_the_key_of_an_op() -> None:
    assert dict(FULL.price_fields(AT)) == {
        "op": "ir", "in": 8, "mid": 24, "out": 8, "kernel": 5, "residual": True, "se": (("reduce", 4), ("gate", "sigmoid")),
        "height": 14, "width": 12,
    }  # fmt: skip
    assert FULL.price_fields(AT) != FULL.price_fields(Shape(12, 14, 8))
    plain = ConvOp(in_=8, out=8, kernel=3, norm="bn")
    assert dataclasses.replace(plain, norm=None).price_fields(AT) == plain.price_fields(AT)
    assert dataclasses.replace(plain, groups=2).price_fields(AT) != plain.price_fields(AT)
    labelled = op_from_dict(IR | dict.fromkeys(LABELS, "anything"))
    assert labelled.price_fields(AT) == op_from_dict(IR).price_fields(AT)
    assert SkipOp(in_=8, out=8).price_fields(AT) != GlobalPoolOp().price_fields(AT)
