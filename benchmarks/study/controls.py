"""What costs nothing: controls that every search has to beat."""

from __future__ import annotations

import numpy as np

from benchmarks.study.ideal import Found, Problem, derived


def most_macs(problem: Problem) -> float:
    """Regret of the network with the most MACs within the target."""
    inside = np.flatnonzero(problem.costs <= problem.target_ms)
    macs = problem.oracle.costs("macs")
    return _regret(problem, int(inside[macs[inside].argmax()]))


def uniform_op(problem: Problem) -> float:
    """Regret of the best of the networks that take the same option everywhere, within the target."""
    codes = [i for i, g in enumerate(problem.oracle.genotypes) if len(set(g)) == 1 and problem.costs[i] <= problem.target_ms]
    return min(_regret(problem, i) for i in codes)


def depth_only(problem: Problem) -> float:
    """Regret of the best of the networks that take one op in all layers that are no identities (a 1x1 convolution where the
    width or the size changes), within the target."""
    labels = [c.labels for c in problem.oracle.space.choices.values()]
    taken = ({names[p] for p, names in zip(g, labels, strict=True)} for g in problem.oracle.genotypes)
    one_op = [len(ops - {"skip", "conv_k1"}) <= 1 for ops in taken]
    return min(_regret(problem, int(i)) for i in np.flatnonzero(np.array(one_op) & (problem.costs <= problem.target_ms)))


def random_theta(problem: Problem, seeds: int) -> np.ndarray:
    """f64[seeds]: regret of the network derived within the target from logits that are normal noise."""
    sizes = problem.accuracy.shape
    noise = np.random.default_rng(0).normal(size=(seeds, len(sizes), max(sizes)))
    each = [[row[:size] for row, size in zip(one, sizes, strict=True)] for one in noise]
    return np.array([problem.regret(derived(problem, Found(logits, 0.0))) for logits in each])


def random_search(problem: Problem, tries: int, seeds: int, band: float = 0.9) -> np.ndarray:
    """f64[seeds]: regret of the best of ``tries`` networks drawn from those of ``band`` to 1 times the target.

    Draws are compared by one training each (the first of the benchmark's), the choice is scored by the mean of all.
    """
    inside = np.flatnonzero((problem.costs <= problem.target_ms) & (problem.costs >= band * problem.target_ms))
    rng, found = np.random.default_rng(0), []
    for _ in range(seeds):
        drawn = rng.choice(inside, min(tries, len(inside)), replace=False)
        found.append(_regret(problem, int(drawn[problem.oracle.runs[drawn, 0].argmax()])))
    return np.array(found)


def _regret(problem: Problem, index: int) -> float:
    return problem.best - float(problem.oracle.accuracies[index])
