"""Checkpoints: one pytree and a few words about it, written whole or not at all."""

from __future__ import annotations

import json
import shutil
import warnings
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dnas.devices import is_first, on_first
from dnas.errors import RunError
from dnas.files import sha256

VERSION = 4
KEEP = 2


class Damaged(RunError):
    """A checkpoint cannot be read, or is not what was written."""


class Kept(NamedTuple):
    """A checkpoint as it was read. ``about``: what ``save`` was told; ``sha256``: of all leaves; ``passed_over``: a sentence
    for each newer one that is damaged."""

    path: Path
    packed: dict[str, np.ndarray]
    about: dict[str, Any]
    sha256: str
    passed_over: tuple[str, ...] = ()


def save(folder: Path, number: int, tree: Any, about: dict[str, Any]) -> None:
    """Write checkpoint ``number`` below ``folder`` and drop all but the newest two. Errors: RunError (a full disk, say).

    Of several processes all call it at the same step: Orbax has them wait for each other, and the first writes, into a folder
    of another name until it is whole. Leaves are packed into one array per dtype: a supernet has thousands of small ones, and
    Orbax takes milliseconds for each.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(jax.device_get(tree))]
    packed = {str(d): np.concatenate([v.ravel() for v in leaves if v.dtype == d]) for d in {v.dtype for v in leaves}}
    words = json.dumps({**about, "version": VERSION, "layout": layout(tree), "sha256": _sha256(packed)})
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
    if is_first():
        numbers = _numbers(folder)  # newer ones are damaged, or the run would have gone on from them
        for old in (*numbers[: max(numbers.index(number) + 1 - KEEP, 0)], *numbers[numbers.index(number) + 1 :]):
            shutil.rmtree(folder / f"{old:09d}", ignore_errors=True)


def newest(folder: Path) -> Kept | None:
    """The newest checkpoint below ``folder`` that is not damaged; None if there is none at all.

    Errors: RunError where all are damaged, or one is of another version of dnas.
    """
    passed_over: list[str] = []
    for number in reversed(_numbers(folder)):
        try:
            return _read(folder / f"{number:09d}")._replace(passed_over=tuple(passed_over))
        except Damaged as problem:
            passed_over.append(str(problem))
    if passed_over:
        raise RunError(
            f"{'; '.join(passed_over)}; no other is left: delete {folder} to begin this run again, or start a new one"
        )
    return None


def load(kept: Kept, like: Any) -> Any:
    """The tree in ``kept``, in the structure of ``like``. Errors: RunError."""
    if kept.about["layout"] != layout(like):
        raise RunError(f"{kept.path}: the checkpoint is of another network or optimiser than config.json describes")
    taken = dict.fromkeys(kept.packed, 0)
    leaves = []
    for leaf in jax.tree.leaves(like):
        kind, size = str(leaf.dtype), int(np.prod(leaf.shape))
        start = taken[kind]
        leaves.append(jax.numpy.asarray(kept.packed[kind][start : start + size].reshape(leaf.shape)))
        taken[kind] = start + size
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def layout(tree: Any) -> str:
    """sha256 of the tree's paths, shapes and dtypes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return sha256("\n".join(f"{jax.tree_util.keystr(p)} {v.shape} {v.dtype}" for p, v in leaves))


def _sha256(packed: dict[str, np.ndarray]) -> str:
    """Of all leaves, in the order of their dtypes' names."""
    return sha256("".join(f"{kind} {sha256(packed[kind].tobytes())}\n" for kind in sorted(packed)))


def _make_way(target: Path) -> None:
    """Remove what lies where ``target`` will be written, and what a process left behind that was killed while it wrote."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for path in target.parent.iterdir():
        if path.name == target.name or "orbax-checkpoint-tmp" in path.name:
            shutil.rmtree(path)


def _read(target: Path) -> Kept:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            packed = {k: np.asarray(v) for k, v in _orbax().load_pytree(target.absolute()).items()}
        words = json.loads(packed.pop("about").astype(np.uint8).tobytes())
        version = words["version"]
    except Exception as problem:
        raise Damaged(f"{target} is damaged: it cannot be read ({_first_line(problem)})") from None
    if version != VERSION:
        raise RunError(
            f"{target}: checkpoint version {version}; this dnas reads version {VERSION}: finish the run with the dnas that "
            "began it (versions are in its config.json), or start a new one"
        )
    if words.get("sha256") != _sha256(packed):
        raise Damaged(f"{target} is damaged: its checksum is not that of what was written")
    return Kept(target, packed, words, words["sha256"])


def _numbers(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit() and p.is_dir())


def _orbax() -> Any:
    from orbax.checkpoint import v1

    return v1


def _first_line(problem: Exception) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0][:200]
