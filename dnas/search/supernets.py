"""The weights that a finished search ended with, for further targets and other latency tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax

from dnas import checkpoint, supernet
from dnas.config import SearchConfig, warm_up_epochs
from dnas.errors import ConfigError, RunError
from dnas.files import kind
from dnas.recipes import TRAITS, Traits
from dnas.runs import read_config
from dnas.search.finish import SUPERNET
from dnas.space import Space

# what the weights depend on, and what belongs to one run alone
FIXED = ("space", "data", "data_dir", "batch_size", "lr", "weight_decay", "augment", "compute", "theta_images")
OWN = (
    "target_ms",
    "family_ms",
    "out",
    "resume",
    "from_supernet",
    "seeds",
    "derive",
    "derive_samples",
    "derive_from",
    "devices",
    "distributed",
)


def as_before(config: SearchConfig, given: set[str], objects: set[str]) -> SearchConfig:
    """``config`` with the options of the run ``config.from_supernet`` for those that are not ``given``.

    The architecture takes as many epochs as it had there after the warm-up. ``objects``: which of space, table and data are
    no names. Errors: ConfigError for an option that the weights do not allow, RunError for a run without weights.
    """
    assert config.from_supernet is not None
    body = read_config(config.from_supernet, "--from-supernet ")
    if missing := [k for k in body.get("objects", []) if k not in given]:
        raise ConfigError(
            f"--from-supernet {config.from_supernet}: that run was given its {missing[0]} as an object in Python; give it "
            f"to dnas.search.run as {missing[0]}=..."
        )
    then = SearchConfig(**body["search"])
    new = {name: getattr(config, name) for name in given}
    for name in (n for n in FIXED if n in given and n not in objects):
        had = getattr(then, name)
        if name == "theta_images":
            had = had or "own"  # of a method, or a version, without the option
        if new[name] != had:
            raise ConfigError(
                f"--{name.replace('_', '-')} is {new[name]!r}, and the supernet in {config.from_supernet} was trained with "
                f"{had!r}; drop it, or search anew"
            )
    old = {f.name: getattr(then, f.name) for f in dataclasses.fields(then) if f.name not in OWN}
    old |= {"epochs": max((then.epochs or 1) - warm_up_epochs(then), 1), "theta_lr": None}
    if given & {"method", "objective", "recipe"}:  # the others' constants are their own
        old = {k: v for k, v in old.items() if k in (*FIXED, "lut", "missing", "train_epochs", "epochs", "seed", "remat")}
    final = {**old, **new, "from_supernet": config.from_supernet}
    learns = "warm_up" not in TRAITS.get(final.get("method", config.method), Traits()).lacks
    if not learns:
        final["theta_images"] = new.get("theta_images")  # an option that such a method does not take
    return SearchConfig(**{**final, "warm_up": 0.0 if learns else None})


def split_seed(folder: str) -> int:
    """The seed by which the run in ``folder`` divided its images, which says what its weights never saw. Errors: RunError."""
    return int(read_config(folder, "--from-supernet ")["search"].get("seed", SearchConfig.seed))


def read(folder: str, space: Space, option: str = "--from-supernet ") -> tuple[Any, str]:
    """(params, stats) that the search in ``folder`` ended with, and their sha256. ``option``: what named it, for errors.

    Errors: RunError.
    """
    where = Path(folder) / SUPERNET
    kept = checkpoint.newest(where) if kind(where) == "folder" else None
    if kept is None:
        raise RunError(
            f"{option}{folder}: it has no {SUPERNET}/, which a run writes at the end of its search: expected the "
            "folder of a search that trained its weights, or of one of its seeds"
        )
    if kept.about["space"] != space.fingerprint:
        raise RunError(f"{option}{folder}: its weights are of another space or other classes than {space.name}")
    params, stats = jax.eval_shape(lambda key: supernet.init(space, key)[1:], jax.random.key(0))
    found = checkpoint.load(kept, {"params": params, "stats": stats})
    return (found["params"], found["stats"]), kept.sha256
