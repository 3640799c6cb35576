"""The same question as ``dnas.derive.paths`` for several costs, or for any coupling: an integer linear programme (HiGHS)."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dnas.derive.paths import Band, Found
from dnas.factors import Factor

SLACK = 1e-6  # HiGHS' own tolerance, relative to a cost's band; the last word is ``accept``'s


def best_by_programme(
    sizes: Mapping[str, int],
    scores: Sequence[Factor],
    bands: Sequence[Band],
    k: int,
    accept: Callable[[dict[str, int]], bool],
    time_limit_s: float = 60.0,
) -> Found:
    """The ``k`` assignments with the largest sum of ``scores`` (-inf forbids) whose costs lie in their ``bands``, best first.

    One binary variable per option; one variable per cell of a table over several choices, whose sums along each choice are
    the options' variables. After each solution that assignment is forbidden and the programme is solved again. ``accept``: the
    last word on an assignment. After ``time_limit_s`` (seconds, for all together) what was found so far is returned with the
    bound that was reached; an incumbent that was not proven best is among it.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_array

    tables = dict.fromkeys(f.names for f in (*scores, *(f for b in bands for f in b.factors)) if len(f.names) > 1)
    groups = [*((n,) for n in sizes), *tables]
    shapes = {g: tuple(sizes[n] for n in g) for g in groups}
    starts = dict(zip(groups, itertools.accumulate([0, *(math.prod(s) for s in shapes.values())]), strict=False))
    width = sum(math.prod(s) for s in shapes.values())

    def spread(factors: Sequence[Factor]) -> tuple[np.ndarray, float]:
        """Coefficients of a sum of factors, and its constant part."""
        row, constant = np.zeros(width), 0.0
        for f in factors:
            if f.names:
                row[starts[f.names] : starts[f.names] + f.values.size] += np.ravel(f.values)
            else:
                constant += float(f.values)
        return row, constant

    gains, constant = spread(scores)
    upper = np.where(np.isneginf(gains), 0.0, 1.0)
    rows: list[tuple[list[int], list[float], float, float]] = []
    for name in sizes:
        rows.append((list(range(starts[(name,)], starts[(name,)] + sizes[name])), [1.0] * sizes[name], 1.0, 1.0))
    for names in tables:
        index = starts[names] + np.arange(math.prod(shapes[names])).reshape(shapes[names])
        for axis, name in enumerate(names):
            for option in range(sizes[name]):
                cells = np.take(index, option, axis=axis).ravel().tolist()
                rows.append(([*cells, starts[(name,)] + option], [1.0] * len(cells) + [-1.0], 0.0, 0.0))
    for band in bands:
        row, added = spread(band.factors)
        scale = float(np.abs(row).max()) or 1.0
        used = np.flatnonzero(row)
        edges = ((edge - added) / scale for edge in (band.low, band.high))
        low, high = (edge + sign * SLACK for edge, sign in zip(edges, (-1, 1), strict=True))
        rows.append((used.tolist(), (row[used] / scale).tolist(), low, high))
    binary = np.zeros(width)
    binary[: sum(sizes.values())] = 1

    found: list[dict[str, int]] = []
    values: list[float] = []
    deadline = time.monotonic() + time_limit_s
    while True:
        columns = [c for cells, *_ in rows for c in cells]
        numbers = [i for i, (cells, *_) in enumerate(rows) for _ in cells]
        matrix = coo_array(([v for _, vs, *_ in rows for v in vs], (numbers, columns)), shape=(len(rows), width))
        left = deadline - time.monotonic()
        if left <= 0:
            return Found(found, values, values[-1] if values else math.inf, False)
        solved = milp(
            np.where(np.isneginf(gains), 0.0, -gains), integrality=binary, bounds=Bounds(0, upper),
            constraints=LinearConstraint(matrix.tocsr(), [r[2] for r in rows], [r[3] for r in rows]),
            options={"time_limit": left, "mip_rel_gap": 0.0},
        )  # fmt: skip
        if solved.status == 2:
            return Found(found, values, -math.inf, True)
        if solved.status not in (0, 1):
            raise RuntimeError(f"HiGHS: {solved.message}")
        reached = constant - solved.mip_dual_bound if solved.mip_dual_bound is not None else math.inf
        if solved.x is not None:
            picked = {n: int(np.argmax(solved.x[starts[(n,)] : starts[(n,)] + sizes[n]])) for n in sizes}
            if accept(picked):
                found.append(picked)
                values.append(math.fsum(float(f.at(picked)) for f in scores))
            rows.append(([starts[(n,)] + i for n, i in picked.items()], [1.0] * len(sizes), -math.inf, len(sizes) - 1.0))
        if solved.status == 1:
            return Found(found, values, reached, False)
        if len(found) == k:
            return Found(found, values, values[-1], True)
