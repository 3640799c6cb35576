"""EfficientFormer's blocks (arXiv:2206.01191): pooling and attention mixers, and the head on tokens.

Tokens stay a map of height x width x channels, so that every op reads and gives one kind of shape.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from dnas.ops.base import Op
from dnas.ops.primitives import (
    Act,
    Attention,
    Conv,
    Dense,
    GlobalPool,
    LayerNorm,
    Mean,
    Norm,
    PoolDifference,
    Primitive,
    Residual,
    Scale,
)


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Meta2dOp(Op):
    """x + s1 * (avgpool(x) - x), then x + s2 * BN(fc2(act(BN(fc1(x))))).

    1x1 convolutions have biases; s1 and s2 are factors per channel.
    """

    op: ClassVar[str] = "meta2d"
    dim: int
    hidden: int
    pool: int = 3
    act: str = "gelu"

    def steps(self) -> tuple[Primitive, ...]:
        mlp = (
            Conv("fc1", self.dim, self.hidden, bias=True),
            Norm("fc1_bn", self.hidden, self.act),
            Conv("fc2", self.hidden, self.dim, bias=True),
            Norm("fc2_bn", self.dim),
            Scale("mlp_scale", self.dim),
        )
        mixer = (PoolDifference("pool", self.pool), Scale("mixer_scale", self.dim))
        return (Residual("mixer", mixer), Residual("mlp", mlp))

    @property
    def label(self) -> str:
        return f"meta2d_h{self.hidden}"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class TokensOp(Op):
    """Marks where a map is read as height * width tokens; it computes nothing."""

    op: ClassVar[str] = "tokens"

    def steps(self) -> tuple[Primitive, ...]:
        return ()


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Meta1dOp(Op):
    """x + s1 * proj(attention(LN(x))), then x + s2 * fc2(act(fc1(LN(x)))); all matrix products have biases.

    ``resolution``: side of the token map, in tokens; the attention's table of positions needs exactly that.
    """

    op: ClassVar[str] = "meta1d"
    unpriced: ClassVar[frozenset[str]] = frozenset({"ln_eps"})
    dim: int
    hidden: int
    heads: int = 8
    key_dim: int = 32
    value_dim: int = 128
    resolution: int = 7
    ln_eps: float = 1e-5
    act: str = "gelu"

    def steps(self) -> tuple[Primitive, ...]:
        inner = self.heads * self.value_dim
        mixer = (
            LayerNorm("mixer_ln", self.dim, self.ln_eps),
            Conv("qkv", self.dim, 2 * self.heads * self.key_dim + inner, bias=True),
            Attention("attention", self.heads, self.key_dim, self.value_dim, self.resolution),
            Conv("proj", inner, self.dim, bias=True),
            Scale("mixer_scale", self.dim),
        )
        mlp = (
            LayerNorm("mlp_ln", self.dim, self.ln_eps),
            Conv("fc1", self.dim, self.hidden, bias=True),
            Act("fc1_act", self.act),
            Conv("fc2", self.hidden, self.dim, bias=True),
            Scale("mlp_scale", self.dim),
        )
        return (Residual("mixer", mixer), Residual("mlp", mlp))

    @property
    def label(self) -> str:
        return f"meta1d_h{self.hidden}"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class TokenHeadOp(Op):
    """LN, mean over tokens, mean of ``heads`` linear classifiers (with biases)."""

    op: ClassVar[str] = "token_head"
    unpriced: ClassVar[frozenset[str]] = frozenset({"ln_eps"})
    in_: int
    out: int
    heads: int = 2
    ln_eps: float = 1e-5

    def steps(self) -> tuple[Primitive, ...]:
        heads = tuple(Dense(f"head{i}", self.in_, self.out) for i in range(self.heads))
        return (LayerNorm("ln", self.in_, self.ln_eps), GlobalPool("pool"), Mean("heads", heads))
