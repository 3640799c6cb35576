"""What the supernets of several seeds choose together, of the networks that each of them likes best.

One supernet ranks networks partly by chance; the mean of several is right more often (docs/study.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from dnas.console import Watcher
from dnas.devices import replicate
from dnas.evaluate import Accuracy
from dnas.loop import not_finite
from dnas.runs import Journal
from dnas.search.console import Console
from dnas.search.engine import Setup, State
from dnas.search.finish import Chosen, branch, family, in_training, trained
from dnas.search.measured import Measured, value
from dnas.search.results import FamilyResult, SearchResult
from dnas.search.supernets import read
from dnas.space import Genotype

FOLDER = "together"  # in that of the seeds
NETWORKS = 32  # that every supernet measures
Code = TypeVar("Code", bound=Hashable)  # a genotype, or what stands for one
PART = {"part": FOLDER}  # what config.json says of a folder that cannot be resumed by itself


class Seed(NamedTuple):
    """A search that has ended: one of its members, what this found, and its supernet."""

    setup: Setup
    result: SearchResult
    state: State


def choose_together(
    setup: Setup, runs: Sequence[Setup], found: Sequence[SearchResult | FamilyResult], journal: Journal, console: Console
) -> SearchResult | FamilyResult | None:
    """For each target the network of the smallest mean loss with the supernets of all seeds, trained as each seed's own was;
    None where the seeds have not a supernet each.

    ``setup``: with the first seed, and ``seeds``; ``runs``, ``found``: the searches and their results. Errors: RunError,
    NotFiniteError.
    """
    if not _may(setup, found, console):
        return None
    console.note(f"together of seeds {', '.join(str(run.config.seed) for run in runs)}")
    states = [_state(run, one) for run, one in zip(runs, found, strict=True)]

    def member(index: int, trunk: Journal, name: str) -> SearchResult:
        every = zip(runs, found, states, strict=True)
        seeds = [Seed(run.members[index], one.results[index], state) for run, one, state in every]
        return _member(setup.members[index], seeds, trunk, name, watcher, console)

    answer: SearchResult | FamilyResult
    with console.progress() as watcher:
        if len(setup.members) == 1:
            answer = member(0, journal, FOLDER)
        else:
            trunk = branch(journal, setup, FOLDER, [], PART)
            targets = enumerate(m.config.target_ms for m in setup.members)
            answer = family([member(i, trunk, f"{ms:g}ms") for i, ms in targets], trunk, console)
    console.result(answer)
    return answer


def _may(setup: Setup, found: Sequence[SearchResult | FamilyResult], console: Console) -> bool:
    """Whether the seeds have a supernet each, and say what they compared."""
    if setup.method.ends == "best" or setup.frozen is not None:
        return False
    silent = [str(r.folder) for run in found for r in run.results if not r.compared]
    if silent:  # a run of an earlier version
        console.note(f"{', '.join(silent)} does not say which networks were compared: nothing is chosen together")
    return not silent


def _state(run: Setup, found: SearchResult | FamilyResult) -> State:
    """The weights that ``run`` ended with, which its folder has, or the result itself."""
    weights = found.results[0].supernet
    if weights is None:
        assert found.folder
        weights, _ = read(str(found.folder), run.space, "")
    params, stats = replicate(run.mesh, weights)
    return State(**{**dict.fromkeys(State._fields), "params": params, "stats": stats})


def _member(setup: Setup, seeds: Sequence[Seed], trunk: Journal, name: str, watcher: Watcher, console: Console) -> SearchResult:
    """Of one target. What each supernet measures is written as it comes; a resumed run takes it from there."""
    journal = branch(trunk, setup, name, [], PART)
    pool = _pool(setup, [s.result for s in seeds])
    watcher.begin("ranking", len(pool) * len(seeds), 0)
    votes = [_vote(seed, pool, journal, watcher) for seed in seeds]
    losses = -np.array([[value(vote[genotype]) for genotype in pool] for vote in votes])
    place = int(losses.mean(0).argmin())
    if not np.isfinite(losses[:, place]).all():
        raise not_finite("search", "on the selection images", setup.config.lr or 0.0, journal)
    own = int(losses[:, place].argmin())
    seed, compared = seeds[own], votes[own]
    if not journal.history:
        journal.begin_with([row for row in seed.result.history if row["phase"] == "search"])
    chosen = None
    if not in_training(journal):
        told = {"seeds": [s.setup.config.seed for s in seeds], "losses": losses[:, place].tolist()}
        chosen = Chosen(_notes(setup, seed, compared, pool[place], told), compared, seed.state.params, seed.state.stats)
    return dataclasses.replace(trained(setup, journal, watcher, console, chosen), compared=compared, supernet=None)


def _pool(setup: Setup, results: Sequence[SearchResult]) -> list[Genotype]:
    """Those that are ``liked``: of those that keep the targets, where any does; and what each chose, if that is another one."""
    limits, assigned = setup.limits(None), setup.space.assignment
    compared = [r.compared for r in results]
    within = [{g: a for g, a in own.items() if all(limit.keeps(assigned(g)) for limit in limits)} for own in compared]
    kept, canonical = within if any(within) else compared, setup.space.canonical
    pool = {canonical(g): g for g in liked(kept, canonical)}
    for result, own in zip(results, kept, strict=True):
        if result.genotype in own:
            pool.setdefault(canonical(result.genotype), result.genotype)
    return list(pool.values())


def liked(compared: Sequence[Mapping[Code, Accuracy]], canonical: Callable[[Code], Hashable]) -> list[Code]:
    """Those that each supernet likes best of what it ``compared``, ``NETWORKS`` in all or just above, fewer where several like
    the same: of codes with one ``canonical`` code the first."""
    each, found = -(-NETWORKS // len(compared)), dict[Hashable, Code]()
    for own in compared:
        for code in sorted(own, key=lambda code: -value(own[code]))[:each]:
            found.setdefault(canonical(code), code)
    return list(found.values())


def _vote(seed: Seed, pool: Sequence[Genotype], journal: Journal, watcher: Watcher) -> dict[Genotype, Accuracy]:
    """What one supernet says of each network of ``pool``."""
    path = journal.folder and journal.folder / f"measured-seed{seed.setup.config.seed}.jsonl"
    found, known = Measured(seed.setup, seed.state, path), seed.result.compared
    answer = {}
    for genotype in pool:
        answer[genotype] = known.get(genotype) or found.of(genotype)
        watcher.advance("ranking")
    return answer


def _notes(
    setup: Setup, seed: Seed, compared: dict[Genotype, Accuracy], genotype: Genotype, told: dict[str, Any]
) -> dict[str, Any]:
    """As ``choose`` has them. Expectation and likeliest network are those of ``seed``, whose weights the network inherits."""
    derivation, ms = seed.result.derivation, setup.terms.at(setup.space.assignment(genotype))
    kept = {k: derivation[k] for k in ("multipliers", "expected_ms", "argmax_ms", "argmax_genotype")}
    own = compared[genotype]
    return {
        "genotype": list(genotype), "inherited": [own.hits, own.n, own.loss], "draws": len(compared),
        "derivation": {
            **kept, "by": FOLDER, "networks": len(compared), "derived_ms": ms, "gap_ms": ms - derivation["expected_ms"],
            **told, "inherits_seed": seed.setup.config.seed,
        },
    }  # fmt: skip
