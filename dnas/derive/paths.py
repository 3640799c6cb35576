"""The best assignments whose cost lies in a band: dynamic programming over whole units of cost, and best-first search.

Choices are taken one after another. For every position, and every setting of the choices before it that later factors still
need, dynamic programming gives the best score that the rest can add at each cost. With costs rounded down to the unit these are
bounds from above; a best-first search along them adds up the costs as they are, so what it meets first is best, whatever the
unit. Where many sums lie closer together than the unit can tell, it gives up, and the costs are rounded up instead: what is
found then keeps the band too and is best to within the unit, and the first search has left a bound for what it may miss.
Costs that are whole numbers of units are rounded nowhere.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import maximum_filter1d

from dnas.factors import Factor, aligned

UNITS = 200_000  # of the budget, at most; of a microsecond, or of a tenth, hundredth, ... of one
LARGEST = 40_000_000  # figures in all tables of bounds
NODES = 20_000  # partial assignments that the first search may open
MORE_NODES = 1_000_000  # and the second, which hardly ever opens one in vain
DIGITS = 9  # of scores: of equals, the one that is nearer to its end is opened first


class Band(NamedTuple):
    """A cost that has to lie between ``low`` and ``high``: the sum of ``factors`` (its constant part is taken off)."""

    factors: tuple[Factor, ...]
    low: float
    high: float


class Found(NamedTuple):
    """``picked``: option indices by choice, best first. No other assignment scores above ``bound``. ``proven``: these are
    the best that there are (up to as many as were asked for); otherwise one that is left out may score up to ``bound``."""

    picked: list[dict[str, int]]
    scores: list[float]
    bound: float
    proven: bool


class _Step(NamedTuple):
    """One choice: what it adds to score and cost, by the settings that matter to it (``before``) and its options."""

    before: tuple[int, ...]  # positions of earlier choices
    after: tuple[int, ...]  # those that later steps need, this one included
    score: np.ndarray
    cost: np.ndarray  # from 0: the least is taken off
    least: float


def steps_of(sizes: Mapping[str, int], scores: Sequence[Factor], cost: Sequence[Factor]) -> list[_Step]:
    """The choices in the order of ``sizes``, each with the factors of which it is the last choice."""
    names = list(sizes)
    last = {id(f): max((names.index(n) for n in f.names), default=0) for f in (*scores, *cost)}
    steps: list[_Step] = []
    before: tuple[int, ...] = ()
    for position in range(len(names)):
        later = {n for f in (*scores, *cost) if last[id(f)] > position for n in f.names}
        order = (*(names[i] for i in before), names[position])
        shape = [sizes[n] for n in order]

        def added(factors: Sequence[Factor], order: tuple[str, ...] = order, at: int = position, shape=shape) -> np.ndarray:  # type: ignore[no-untyped-def]
            mine = [aligned(f, order) for f in factors if last[id(f)] == at]
            return np.broadcast_to(sum(mine, np.zeros([1] * len(shape))), shape)

        amount = added(cost)
        after = tuple(i for i in (*before, position) if names[i] in later)
        steps.append(_Step(before, after, added(scores), amount - amount.min(), float(amount.min())))
        before = after
    return steps


def size_of(sizes: Mapping[str, int], steps: Sequence[_Step]) -> int:
    """Settings that the tables of bounds would hold, for each unit of cost."""
    every = list(sizes.values())
    return sum(math.prod(every[i] for i in s.before) * every[at] for at, s in enumerate(steps))


def best_paths(
    sizes: Mapping[str, int],
    scores: Sequence[Factor],
    band: Band,
    k: int,
    accept: Callable[[dict[str, int]], bool],
    nodes: int = NODES,
) -> Found:
    """The ``k`` assignments with the largest sum of ``scores`` (-inf forbids) whose cost lies in ``band``, best first.

    ``sizes``: options by choice, in an order that keeps coupled choices near each other. ``accept``: the last word on an
    assignment that keeps the band but for rounding, and on doublets. ``nodes``: partial assignments
    that may be opened before costs are rounded up.
    """
    steps = steps_of(sizes, scores, band.factors)
    low, high = (edge - math.fsum(s.least for s in steps) for edge in (band.low, band.high))
    largest = max(abs(band.high), *(float(s.cost.max()) for s in steps))
    tiny = 1e-9 * (largest or 1.0)  # more than what sums of floats round off
    low, high = max(low, 0.0) - tiny, high + tiny
    if high < max(low, 0.0):
        return Found([], [], -math.inf, True)
    costs = any(s.cost.any() for s in steps)
    unit = _unit(high, min(UNITS, LARGEST // size_of(sizes, steps))) if costs else high
    first = _best_first(sizes, steps, (low, high), unit, 1, k, accept, nodes)
    if first.proven:
        return first
    whole = [s._replace(cost=np.ceil(s.cost / unit - 1e-6)) for s in steps]
    added = math.fsum(float((w.cost - s.cost / unit).max()) for w, s in zip(whole, steps, strict=True))  # 0 for whole costs
    edges = (low / unit + max(added, 0.0) if low > 0 else 0.0, math.floor(high / unit))

    def new(picked: dict[str, int]) -> bool:
        return picked not in first.picked and accept(picked)

    more = _best_first(sizes, whole, edges, 1.0, 0, k - len(first.picked), new, MORE_NODES)
    return Found([*first.picked, *more.picked], [*first.scores, *more.scores], first.bound, False)


def _unit(high: float, most: int) -> float:
    """A power of ten of a microsecond (of a thousandth of whatever the cost is in), such that ``high`` is at most ``most``."""
    exponent = math.ceil(math.log10(high / max(most, 1) * 1e3) - 1e-12)
    return float(f"1e{exponent - 3}")


def _best_first(
    sizes: Mapping[str, int],
    steps: Sequence[_Step],
    edges: tuple[float, float],
    unit: float,
    slack: int,
    k: int,
    accept: Callable[[dict[str, int]], bool],
    nodes: int,
) -> Found:
    """``best_paths`` with given units. ``slack``: units that a cost may lose by rounding down, 1 or 0."""
    low, high = edges
    if low > high:
        return Found([], [], -math.inf, True)
    bounds = _bounds(sizes, steps, edges, unit, slack)
    found: list[dict[str, int]] = []
    values: list[float] = []
    counter = itertools.count()
    start = float(bounds[0][-1])
    heap: list[tuple[float, int, int, float, float, tuple[int, ...]]] = []
    if start > -math.inf:
        heap.append((-start, 0, next(counter), 0.0, 0.0, ()))
    opened = 0
    while heap:
        bound, depth, _, spent, score, codes = heapq.heappop(heap)
        if -depth == len(steps):
            picked = dict(zip(sizes, codes, strict=True))
            if low <= spent and accept(picked):
                found.append(picked)
                values.append(score)
            if len(found) == k:
                return Found(found, values, -bound, True)
            continue
        if opened >= nodes:
            return Found(found, values, -bound, False)
        opened += 1
        step = steps[-depth]
        here = tuple(codes[i] for i in step.before)
        for option, (gain, price) in enumerate(zip(step.score[here].tolist(), step.cost[here].tolist(), strict=True)):
            total = spent + price
            if gain == -math.inf or total > high:
                continue
            chosen = (*codes, option)
            rest = float(bounds[1 - depth][tuple(chosen[i] for i in step.after)][int((high - total) / unit)])
            if rest > -math.inf:
                new = score + gain
                heapq.heappush(heap, (-round(new + rest, DIGITS), depth - 1, next(counter), total, new, chosen))
    return Found(found, values, -math.inf, True)


def _bounds(
    sizes: Mapping[str, int], steps: Sequence[_Step], edges: tuple[float, float], unit: float, slack: int
) -> list[np.ndarray]:
    """[settings.., units left]: the most that the steps from each on can add to the score and still end in the band."""
    every = list(sizes.values())
    units = int(edges[1] / unit)
    reach = math.ceil((edges[1] - edges[0]) / unit) + 2
    exact = np.full(units + 1, -math.inf)  # by the sum of what the rest costs, each part rounded down
    exact[0] = 0.0
    found = [_ending_in_band(exact, reach)]
    for at, step in reversed(list(enumerate(steps))):
        following = exact
        exact = np.full([*(every[i] for i in step.before), units + 1], -math.inf)
        whole = np.floor(step.cost / unit + 1e-9)
        for codes in itertools.product(*(range(n) for n in step.score.shape)):
            gain, price = step.score[codes], whole[codes]
            if gain == -math.inf or price > units:
                continue
            settings = dict(zip((*step.before, at), codes, strict=True))
            rest = following[tuple(settings[i] for i in step.after)]
            mine, shift = exact[codes[:-1]], int(price)
            np.maximum(mine[shift:], rest[: units + 1 - shift] + gain, out=mine[shift:])
        found.append(_ending_in_band(exact, reach + slack * len(found)))
    return found[::-1]


def _ending_in_band(exact: np.ndarray, reach: int) -> np.ndarray:
    """The largest of the last ``reach`` entries up to each, along the last axis."""
    if reach >= exact.shape[-1]:
        return np.maximum.accumulate(exact, axis=-1)
    return np.asarray(maximum_filter1d(exact, reach, axis=-1, mode="constant", cval=-math.inf, origin=(reach - 1) // 2))
