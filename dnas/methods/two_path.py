"""ProxylessNAS: one path runs in weight steps, two in architecture steps (Cai et al. 2019, arXiv:1812.00332).

Of each choice two options i, j are drawn without replacement from softmax(theta), and one of the two, by their renormalised
probabilities p, is on. dL/dtheta_i = sum_{j in pair} dL/dg_j p_j (delta_ij - p_i): the gradient through the binary gates g of
the two alone. After the optimiser both get one common offset, so that the pair's softmax mass, and with it every other option's
probability, is what it was.

Where several choices decide a layer (kernel and width; depth and all layers of its stage), the gate of a path is a product, and
with gates [1, 0] a second path that differs in two choices would have a gradient of 0 in both. So of choices that meet in a
layer one at a time has its pair: every choice that is on draws a random number, and those that have the largest among
their neighbours are paired. A tied choice takes its second option in all of its layers.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dnas import gates
from dnas.config import SearchConfig
from dnas.gates import Gates, Logits
from dnas.methods.base import Draw, Form, Marks, Method, drawn
from dnas.methods.structure import first_path, identities, neighbours, switched_on
from dnas.space import Space


def pair(key: jax.Array, logits: jax.Array) -> jax.Array:
    """i32[2]: two different options drawn from softmax(``logits``), f32[n]; the first is on, by their renormalised chances."""
    order, which = jax.random.split(key)
    noisy = logits + jax.random.gumbel(order, logits.shape, logits.dtype)
    two = jax.lax.top_k(noisy, min(2, logits.shape[0]))[1].astype(jnp.int32)
    first = jax.random.categorical(which, logits[two])
    return jnp.stack([two[first], two[two.shape[0] - 1 - first]])


def keep_mass(before: Logits, after: Logits, moves: Marks | None) -> Logits:
    """``after`` with one offset for the logits that moved, such that their softmax mass is that of ``before``."""
    assert moves is not None
    found = {}
    for name, moved in moves.items():
        old, new = (jax.nn.logsumexp(jnp.where(moved, v[name], -jnp.inf)) for v in (before, after))
        offset = jnp.where(moved.any(), old - new, 0)
        found[name] = jnp.where(moved, after[name] + offset, after[name])
    return found


def make(space: Space, config: SearchConfig) -> Method:
    on, beside = switched_on(space), neighbours(space)
    skips = identities(space)
    sizes = {n: len(c.options) for n, c in space.choices.items()}

    def draw(key: jax.Array, logits: Logits, temperature: jax.Array) -> Draw:
        pairs_key, turns_key = jax.random.split(key)
        keys = jax.random.split(pairs_key, len(sizes))
        two = {n: pair(k, logits[n]) for k, n in zip(keys, sizes, strict=True)}
        picked = first_path(two)
        able = {n: v & (sizes[n] > 1) for n, v in on(picked).items()}
        turns = jax.random.uniform(turns_key, (len(sizes),))
        turn = {n: jnp.where(able[n], u, -1.0) for n, u in zip(sizes, turns, strict=True)}
        active, weights, priced, moves = {}, {}, {}, {}
        for name, n in sizes.items():
            others = jnp.stack([jnp.float32(-1), *(turn[m] for m in beside[name])])
            paired = able[name] & (turn[name] > others.max())
            a, b = two[name]
            active[name] = jnp.stack([a, jnp.where(paired, b, a)])
            hard = jax.nn.one_hot(a, n, dtype=logits[name].dtype)
            inside = jnp.zeros(n, bool).at[active[name]].set(True)
            # of both: where is evaluated on either side, and softmax over one option is 1 with gradient 0
            chances = jax.nn.softmax(jnp.where(inside, logits[name], -jnp.inf))
            weights[name] = jax.lax.stop_gradient(hard - chances) + chances
            rest = jax.lax.stop_gradient(jax.nn.softmax(logits[name]))
            priced[name] = jnp.where(paired, chances, rest)
            taken = paired if config.zero_gradient is not False else paired & ~jnp.asarray(np.asarray(skips[name]))[a]
            moves[name] = inside & taken
        return Draw(Gates(weights, active), priced, moves)

    return Method(drawn(lambda key, logits, _: gates.sample(key, logits)), draw, correct=keep_mass)


TWO_PATH = Form("two-path", make)
