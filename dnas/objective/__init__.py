"""What the architecture step minimises: one entry in ``OBJECTIVES`` for each."""

from dnas.errors import ConfigError, nearest
from dnas.objective.base import Form, Objective, Price, Pull, Seen, Settings, Total, begin, combine, hold
from dnas.objective.forms import (
    ABSOLUTE,
    ADD_LINEAR,
    HINGE,
    MNASNET_HARD,
    MNASNET_SOFT,
    MUL_LOG,
    absolute,
    add_linear,
    hinge,
    mnasnet,
    mul_log,
    of_draw,
)
from dnas.objective.lagrange import LAGRANGE, lagrange

OBJECTIVES: dict[str, Form] = {f.name: f for f in (LAGRANGE, ABSOLUTE, ADD_LINEAR, HINGE, MUL_LOG, MNASNET_SOFT, MNASNET_HARD)}


def objective(name: str) -> Form:
    """Look ``name`` up. Errors: ConfigError with the nearest names."""
    if name not in OBJECTIVES:
        raise ConfigError(f"unknown objective {name!r}{nearest(name, OBJECTIVES)}")
    return OBJECTIVES[name]


__all__ = [
    "OBJECTIVES", "Form", "Objective", "Price", "Pull", "Seen", "Settings", "Total", "absolute", "add_linear", "begin",
    "combine", "hinge", "hold", "lagrange", "mnasnet", "mul_log", "objective", "of_draw",
]  # fmt: skip
