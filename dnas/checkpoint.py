"""Checkpoints: one pytree and a few words about it, written whole or not at all."""

from __future__ import annotations

import json
import shutil
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dnas.devices import is_first, on_first
from dnas.errors import RunError
from dnas.files import sha256

VERSION = 2
KEEP = 2


def save(folder: Path, number: int, tree: Any, about: dict[str, Any]) -> None:
    """Write checkpoint ``number`` below ``folder`` and drop all but the newest two. Errors: RunError (a full disk, say).

    Of several processes all call it at the same step: Orbax has them wait for each other, and the first writes.
    Leaves are packed into one array per dtype: a supernet has thousands of small ones, and Orbax takes milliseconds for each.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(jax.device_get(tree))]
    packed = {str(d): np.concatenate([v.ravel() for v in leaves if v.dtype == d]) for d in {v.dtype for v in leaves}}
    words = json.dumps({**about, "version": VERSION, "layout": layout(tree)})
    packed["about"] = np.frombuffer(words.encode(), np.uint8)
    target = (folder / f"{number:09d}").absolute()
    try:
        on_first(partial(_make_way, target))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _orbax().save_pytree(target, packed)
    except Exception as problem:  # Orbax wraps the operating system's errors in its own
        shutil.rmtree(target, ignore_errors=True)
        raise RunError(f"{target}: the checkpoint cannot be written ({_first_line(problem)}); earlier ones are kept") from None
    for old in _numbers(folder)[:-KEEP] if is_first() else []:
        shutil.rmtree(folder / f"{old:09d}", ignore_errors=True)


def about(folder: Path) -> dict[str, Any] | None:
    """What the newest checkpoint below ``folder`` says of itself; None if there is none. Errors: RunError."""
    numbers = _numbers(folder)
    return _read(folder / f"{numbers[-1]:09d}")[1] if numbers else None


def load(folder: Path, like: Any) -> Any:
    """The newest checkpoint below ``folder``, in the structure of ``like``. Errors: RunError."""
    packed, words = _read(folder / f"{_numbers(folder)[-1]:09d}")
    if words["layout"] != layout(like):
        raise RunError(f"{folder}: the checkpoint is of another network or optimiser than config.json describes")
    taken = dict.fromkeys(packed, 0)
    leaves = []
    for leaf in jax.tree.leaves(like):
        kind, size = str(leaf.dtype), int(np.prod(leaf.shape))
        start = taken[kind]
        leaves.append(jax.numpy.asarray(packed[kind][start : start + size].reshape(leaf.shape)))
        taken[kind] = start + size
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def layout(tree: Any) -> str:
    """sha256 of the tree's paths, shapes and dtypes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return sha256("\n".join(f"{jax.tree_util.keystr(p)} {v.shape} {v.dtype}" for p, v in leaves))


def _make_way(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        shutil.rmtree(target)


def _read(target: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            packed = {k: np.asarray(v) for k, v in _orbax().load_pytree(target.absolute()).items()}
        words = json.loads(packed.pop("about").astype(np.uint8).tobytes())
    except Exception as problem:
        raise RunError(
            f"{target}: the checkpoint cannot be read ({_first_line(problem)}); delete it to use an older one"
        ) from None
    if words.get("version") != VERSION:
        raise RunError(f"{target}: checkpoint version {words.get('version')}; this dnas reads version {VERSION}")
    return packed, words


def _numbers(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit() and p.is_dir())


def _orbax() -> Any:
    from orbax.checkpoint import v1

    return v1


def _first_line(problem: Exception) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0][:200]
