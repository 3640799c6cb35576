"""Several targets from one supernet: what their searches share, and what each has of its own."""

from __future__ import annotations

from typing import Any, NamedTuple

from dnas.search.engine import Setup, State, init

SHARED = ("params", "stats", "weight_opt", "key", "step")  # fields of ``State``; all others are a member's own


class Family(NamedTuple):
    """A plain pytree. ``shared`` and each of ``members`` are a ``State`` without the other's fields, which are None."""

    shared: State
    members: tuple[State, ...]

    def member(self, index: int) -> State:
        """The state of one member's search."""
        own = self.members[index]
        return State(*(s if n in SHARED else o for n, s, o in zip(State._fields, self.shared, own, strict=True)))

    def put(self, index: int, state: State) -> Family:
        """The family after ``state`` has become that of one member."""
        shared, own = _split(state)
        return Family(shared, (*self.members[:index], own, *self.members[index + 1 :]))


def begin(setup: Setup) -> Family:
    """Before the first step: the same weights and equal logits for each member of ``setup``."""
    shared, first = _split(init(setup.members[0]))
    return Family(shared, (first, *(_split(init(m))[1] for m in setup.members[1:])))


def rows_of(history: list[dict[str, Any]], index: int) -> list[dict[str, Any]]:
    """The rows of a search as those of one member; a row of a family has one for each below ``members``."""
    return [{**_common(r), **r["members"][index]} if "members" in r else r for r in history]


def gather(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of a family, from one row of each member: what they have in common stands once."""
    common = {k: v for k, v in rows[0].items() if k in ("phase", "epoch", "temperature")}
    return {**common, "members": [{k: v for k, v in r.items() if k not in common} for r in rows]}


def _common(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k != "members"}


def _split(state: State) -> tuple[State, State]:
    """What is shared, and what is not."""
    parts = ({n: v if (n in SHARED) == shared else None for n, v in state._asdict().items()} for shared in (True, False))
    shared, own = (State(**p) for p in parts)  # type: ignore[arg-type]
    return shared, own
