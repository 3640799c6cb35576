"""What the candidate that runs needs of its slot's parameters or statistics, as one small tree.

``take`` gives arrays as large as the largest candidate's, whichever is chosen. A branch of the sampled super-block reads its
own part of them, and nothing else enters or leaves it: what it keeps and returns does not grow with the number of candidates.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import lax

Tree = dict[str, Any]
Path = tuple[str, ...]
Shapes = tuple[tuple[Path, tuple[int, ...]], ...]
Taken = dict[tuple[Path, int], jax.Array]  # by path within a candidate, and number of axes


def shapes_of(tree: Tree) -> Shapes:
    """Path and shape of every leaf of one candidate's ``tree``; hashable."""
    return tuple((path, tuple(np.shape(leaf))) for path, leaf in traverse_util.flatten_dict(tree).items())


def largest(every: tuple[Shapes, ...]) -> dict[tuple[Path, int], tuple[int, ...]]:
    found: dict[tuple[Path, int], tuple[int, ...]] = {}
    for path, shape in (one for shapes in every for one in shapes):
        key = path, len(shape)
        found[key] = tuple(map(max, shape, found.get(key, shape)))
    return found


def take(trees: tuple[Tree, ...], number: jax.Array) -> Taken:
    """The leaves of ``trees[number]``, each with zeros up to the largest of any tree. ``number``: i32[], traced."""
    return _take(tuple(shapes_of(t) for t in trees), trees, number)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _take(every: tuple[Shapes, ...], trees: tuple[Tree, ...], number: jax.Array) -> Taken:
    dtypes = {(path, leaf.ndim): leaf.dtype for tree in trees for path, leaf in traverse_util.flatten_dict(tree).items()}

    def branch(i: int, trees: tuple[Tree, ...]) -> Taken:
        own = {(path, leaf.ndim): leaf for path, leaf in traverse_util.flatten_dict(trees[i]).items()}
        return {
            key: _padded(own[key], shape) if key in own else jnp.zeros(shape, dtypes[key])
            for key, shape in largest(every).items()
        }

    return lax.switch(number, [partial(branch, i) for i in range(len(trees))], trees)


def _take_fwd(every: tuple[Shapes, ...], trees: tuple[Tree, ...], number: jax.Array) -> tuple[Taken, jax.Array]:
    return _take(every, trees, number), number


def _take_bwd(every: tuple[Shapes, ...], number: jax.Array, cotangent: Taken) -> Any:
    here = [number == i for i in range(len(every))]
    trees = (jax.tree.map(lambda v, h=h: jnp.where(h, v, 0), own(c, cotangent)) for c, h in zip(every, here, strict=True))
    return tuple(trees), np.zeros(number.shape, jax.dtypes.float0)


_take.defvjp(_take_fwd, _take_bwd)


def own(shapes: Shapes, taken: Taken) -> Tree:
    """The tree of the candidate whose leaves have these ``shapes``."""
    leaves = {path: lax.slice(taken[path, len(shape)], (0,) * len(shape), shape) for path, shape in shapes}
    return traverse_util.unflatten_dict(leaves)


def given(taken: Taken, tree: Tree) -> Taken:
    """``taken`` with the leaves of a candidate's ``tree`` in the place of what it had."""
    new = {(path, leaf.ndim): leaf for path, leaf in traverse_util.flatten_dict(tree).items()}
    return {key: _padded(new[key], old.shape) if key in new else old for key, old in taken.items()}


def put(trees: tuple[Tree, ...], number: jax.Array, taken: Taken) -> tuple[Tree, ...]:
    """``trees`` with what is ``taken`` in the place of ``trees[number]``."""
    return tuple(
        jax.tree.map(partial(jnp.where, number == i), own(shapes_of(tree), taken), tree) for i, tree in enumerate(trees)
    )


def _padded(leaf: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return lax.pad(leaf, jnp.zeros((), leaf.dtype), [(0, n - m, 0) for n, m in zip(shape, leaf.shape, strict=True)])
