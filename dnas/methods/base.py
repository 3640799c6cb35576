"""The contract of a search method: who makes the gates of each kind of step, and what becomes of theta's gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax

from dnas.gates import Gates, Logits

if TYPE_CHECKING:
    from dnas.config import SearchConfig
    from dnas.space import Space

Marks = dict[str, jax.Array]  # bool[n] per choice


class Draw(NamedTuple):
    """``gates``: of the forward pass. ``priced``: f32[n] per choice, the weights of the draw's latency. ``moves``: the logits
    that the draw says something about; None: all."""

    gates: Gates
    priced: dict[str, jax.Array]
    moves: Marks | None = None


Maker = Callable[[jax.Array, Logits, jax.Array], Draw]  # (key, logits, temperature); differentiable in the logits


# (memory, loss, logits, draw) -> gradient of the expected loss, which is minus the reward, and the memory after it
Score = Callable[[Any, jax.Array, Logits, Draw], tuple[Logits, Any]]


class Method(NamedTuple):
    """``weights`` and ``theta`` make the gates of weight and architecture steps; the same function twice is one program.

    ``theta`` None: the logits stay as they are. ``warm``: gates of those weight steps in which all candidates are still on.
    ``correct(before, after, moves)``: the logits after the optimiser. ``score``: theta learns from a reward, without a gradient
    through the network. ``init(params, stats, logits)``: what the method remembers, a pytree. ``ends``: by derivation from the
    logits, by evolution over the supernet's accuracy, or by the best of networks that were trained one by one, each the
    likeliest of its logits.
    """

    weights: Maker
    theta: Maker | None = None
    warm: Maker | None = None
    correct: Callable[[Logits, Logits, Marks | None], Logits] | None = None
    score: Score | None = None
    init: Callable[[Any, Any, Logits], Any] = lambda params, stats, logits: ()
    ends: Literal["logits", "evolution", "best"] = "logits"


class Form(NamedTuple):
    """A method by name, and how it is made for a space."""

    name: str
    make: Callable[[Space, SearchConfig], Method]


def drawn(sampler: Callable[[jax.Array, Logits, jax.Array], Gates]) -> Maker:
    """Gates that forward pass and latency share, and that inform every logit."""

    def make(key: jax.Array, logits: Logits, temperature: jax.Array) -> Draw:
        gates = sampler(key, logits, temperature)
        return Draw(gates, gates.weights)

    return make


def everywhere(sampler: Callable[[jax.Array, Logits, jax.Array], Gates]) -> Method:
    """``sampler`` in steps of both kinds."""
    maker = drawn(sampler)
    return Method(maker, maker)
