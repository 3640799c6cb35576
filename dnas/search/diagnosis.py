"""What has to be said about a search that has ended, in words."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from dnas.ops import SkipOp
from dnas.slots import Slot
from dnas.space import Space

UNDECIDED = 0.3  # mean entropy, in units of ln n, above which a search has not decided
COLLAPSED = 0.9  # mean probability of skip in a stage above which nothing else was left of it
MISSED = 0.02  # of the target, by which the expectation may be off
COSTS_ALONE = 0.95  # share of theta's gradient from the costs above which accuracy no longer counts


def warnings(space: Space, last: dict[str, Any], target_ms: float | None) -> list[str]:
    """Sentences about the search whose last row of history is ``last``."""
    found = []
    if last["entropy"] > UNDECIDED:
        found.append(
            f"Theta has not decided: the mean entropy of the choices is {last['entropy']:.2f} of its maximum at the end "
            f"(above {UNDECIDED:g}). Run more epochs, or raise --theta-lr."
        )
    chances = {name: np.asarray(values, float) for name, values in last["probabilities"].items()}
    for number, name, layers, share in skips(space, chances):
        if share > COLLAPSED:
            found.append(
                f"Skip collapse in stage {number} ({name}): its {layers} layers that may be skipped are, with a probability of "
                f"{share:.2f} on average. Where the target does not ask for it, a longer --warm-up helps."
            )
    if target_ms and abs(last["expected_ms"] / target_ms - 1) > MISSED:
        found.append(
            f"The expected latency ended {last['expected_ms'] / target_ms - 1:+.1%} from its target of {target_ms:.4g} ms. Run "
            "more epochs, or raise --theta-lr."
        )
    if (last.get("cost_share") or 0) > COSTS_ALONE:
        found.append(
            f"Latency decides almost alone: {last['cost_share']:.0%} of theta's gradient comes from the costs at the end. The "
            "target may lie at the edge of what the space can reach."
        )
    return found


def stages(space: Space) -> list[list[Slot]]:
    """The layers with choices, in groups that give maps of one shape."""
    searched = [slot for slot in space.slots if slot.choices]
    return [list(group) for _, group in itertools.groupby(searched, key=lambda slot: slot.out_shape)]


def skips(space: Space, chances: dict[str, np.ndarray]) -> list[tuple[int, str, int, float]]:
    """Of each stage with layers that may be skipped: its number from 1, first and last choice, how many may, mean P(skip)."""
    found = []
    for number, slots in enumerate(stages(space), 1):
        shares = [share for slot in slots if (share := skip_chance(slot, chances)) is not None]
        if len(shares) > 1:
            names = [n for slot in slots for n in slot.choices]
            found.append(
                (number, names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}", len(shares), float(np.mean(shares)))
            )
    return found


def skip_chance(slot: Slot, chances: dict[str, np.ndarray]) -> float | None:
    """Probability that ``slot`` is an identity; None where it cannot be one."""
    ways = [c for c in slot.candidates if isinstance(c.op, SkipOp)]
    if not slot.choices or not ways:
        return None
    return sum(math.prod(float(chances[n][list(i)].sum()) for n, i in c.when) for c in ways)
