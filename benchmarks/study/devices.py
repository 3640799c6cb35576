"""Does the device matter? At one accuracy, the fastest network of the oracle by one table and by another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dnas.latency import LatencyTable
from dnas.oracle import Oracle


def chosen(oracle: Oracle, tables: Sequence[LatencyTable], shares: Sequence[float]) -> list[dict[str, Any]]:
    """For each accuracy, and each table: the fastest network that reaches it, and its ms by every table.

    The accuracies (percent, means of all trainings) are those of the best networks of the first table within ``shares`` of
    the way from its fastest to its slowest network.
    """
    costs, found = [oracle.costs(t) for t in tables], []
    for share in shares:
        least, most = costs[0].min(), costs[0].max()
        wanted = float(oracle.accuracies[costs[0] <= least + share * (most - least)].max())
        enough = np.flatnonzero(oracle.accuracies >= wanted)
        networks = {}
        for table, own in zip(tables, costs, strict=True):
            best = int(enough[own[enough].argmin()])
            networks[table.name] = {
                "code": oracle.codes[best], "accuracy": float(oracle.accuracies[best]),
                "ms": {t.name: float(c[best]) for t, c in zip(tables, costs, strict=True)},
            }  # fmt: skip
        found.append({"share": share, "accuracy": wanted, "fastest_by": networks})
    return found
