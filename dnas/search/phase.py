"""The search as epochs: its steps, and what is measured after each."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dnas import derive, gates
from dnas.devices import replicate
from dnas.evaluate import Accuracy, accuracy, recalibrate
from dnas.loop import Info
from dnas.search import one_by_one
from dnas.search.diagnosis import skip_chance
from dnas.search.engine import Setup, State, ahead, step
from dnas.search.family import Family, gather
from dnas.search.programs import zero_sums
from dnas.space import Genotype, Space


class SearchPhase:
    """Runs ``setup``'s schedule, the members of a family in turn; every epoch ends with a row of figures."""

    name = "search"
    first_number = 0

    def __init__(self, setup: Setup):
        self.setup = setup
        self.epochs = setup.schedule.epochs
        self.networks = one_by_one.networks(setup) if setup.method.ends == "best" else []
        self.lr = setup.config.lr or 0.0

    def steps(self, epoch: int) -> int:
        return self.setup.schedule.steps(epoch)

    def before(self, epoch: int) -> int:
        return self.setup.schedule.before(epoch)

    def step(self, state: Family, epoch: int, step_: int) -> tuple[Family, Info]:
        schedule, members = self.setup.schedule, self.setup.members
        kind, number = schedule.at(epoch, step_)
        batch = self.setup.feeds["weights" if kind == "weights" else "architecture"].batch(number)
        turn = number % len(members)
        all_on = kind == "weights" and members[turn].method.warm is not None and self._coin(number) < schedule.all_on(number)
        member = state.member(turn)
        if self.networks and step_ == 0 and schedule.begins(epoch):
            member = one_by_one.fresh(self.setup, member, self.networks[epoch * len(self.networks) // self.epochs])
        if not members[0].programs.begun:
            ahead(members[0], member, batch, kind, all_on)
        new, info = step(members[turn], member, batch, kind, schedule.temperature(epoch), all_on)
        return state.put(turn, new), info

    def _coin(self, number: int) -> float:
        """Uniform in 0..1, a function of seed and weight step."""
        return float(np.random.default_rng((self.setup.config.seed, number)).random())

    def end_epoch(self, state: Family, epoch: int) -> tuple[Family, dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for turn, setup in enumerate(self.setup.members):
            member = state.member(turn)
            rows.append({"phase": self.name, "epoch": epoch + 1} | row(setup, member, epoch))
            likeliest = derive.argmax_genotype(setup.space, jax.device_get(member.logits))
            if self.networks and setup.schedule.begins(epoch + 1):
                member = one_by_one.keep(member, measure(setup, member, likeliest))
            member = followed(setup, member, rows[-1]["derived_ms"])
            state = state.put(turn, member._replace(sums=replicate(setup.mesh, zero_sums())))
        return state, rows[0] if len(rows) == 1 else gather(rows)


def followed(setup: Setup, state: State, ms: float | None) -> State:
    """The state that knows the latency of the network that would be derived now, where the objective takes it."""
    follow, total = setup.objective.follow, state.objective_state
    if follow is None or ms is None or setup.config.target_ms is None:
        return state
    derived = replicate(setup.mesh, jnp.array([ms / setup.config.target_ms], jnp.float32))
    return state._replace(objective_state=total._replace(memory=follow(total.memory, derived)))


def row(setup: Setup, state: State, epoch: int) -> dict[str, Any]:
    """Figures after ``epoch`` (from 0)."""
    sums, logits = jax.device_get((state.sums, state.logits))
    balance = held(setup, state)
    genotype = derive.argmax_genotype(setup.space, logits)
    found = None if setup.method.ends == "evolution" else measure(setup, state, genotype)  # of equal logits none is likeliest
    return {
        "temperature": setup.schedule.temperature(epoch), **_means(sums, "weights"), **_means(sums, "theta"),
        "argmax_accuracy": found and found.top1, "argmax_loss": found and found.loss,
        **describe(setup, logits, genotype), **balance,
        "derived_ms": derived_ms(setup, logits, balance["multipliers"]),
    }  # fmt: skip


def measure(setup: Setup, state: State, genotype: Genotype) -> Accuracy:
    """Accuracy of one network with the supernet's weights on the selection split, after recalibration."""
    picked = gates.one_hot(setup.space, genotype)
    stats = recalibrate(setup.net, state.params, state.stats, setup.feeds["plain"], picked)
    return accuracy(setup.net, state.params, stats, setup.feeds["selection"], picked)


def describe(setup: Setup, logits: dict[str, Any], genotype: Genotype) -> dict[str, Any]:
    """What the logits say: probabilities, expected and argmax latency in ms, entropy in units of ln n, share of skips."""
    space = setup.space
    chances = {n: derive.probabilities(v) for n, v in logits.items()}
    (expected, likeliest), *others = (
        (cost.terms.mean(chances), cost.terms.at(space.assignment(genotype))) for cost in setup.costs
    )
    return {
        "expected_ms": expected,
        "argmax_ms": likeliest,
        "others": {c.name: {"expected": e, "argmax": a} for c, (e, a) in zip(setup.others, others, strict=True)},
        "entropy": entropy(chances),
        "skip_share": skip_share(space, chances),
        "genotype": list(genotype),
        "probabilities": {n: [round(float(p), 6) for p in v] for n, v in chances.items()},
    }


def held(setup: Setup, state: State) -> dict[str, Any]:
    """What the objective does: the multiplier of each cost (nats by its target; None where the objective has none), and the
    share of theta's averaged gradient, or of its moves, that comes from the costs (None before the first such step)."""
    total, find = state.objective_state, setup.objective.multipliers
    found = None if find is None else [float(v) for v in jax.device_get(find(total.memory))]
    begun = any(bool(v.any()) for v in jax.tree.leaves(jax.device_get(total.averages.task)))
    return {"multipliers": found, "cost_share": float(total.averages.share()) if begun else None}


def derived_ms(setup: Setup, logits: dict[str, Any], multipliers: list[float] | None) -> float | None:
    """Latency of the network that --derive budget would choose now, were it for the logits alone; None for other ways, and for
    several costs, where it takes longer to find."""
    if setup.config.derive != "budget" or setup.others:
        return None
    number, near = setup.config.derive_samples or 1, setup.config.derive_from  # how many decides what is near enough
    return derive.shortlist(setup.space, logits, setup.limits(multipliers), number, near=near).costs[0][0]


def entropy(chances: dict[str, np.ndarray]) -> float:
    """Mean over choices of H(p) / ln n: 1 is undecided, 0 is decided."""
    parts = [-float(np.sum(p * np.log(np.maximum(p, 1e-30)))) / math.log(len(p)) for p in chances.values() if len(p) > 1]
    return float(np.mean(parts)) if parts else 0.0


def skip_share(space: Space, chances: dict[str, np.ndarray]) -> float:
    """Mean probability of an identity over the layers that may become one; 0 where none may."""
    shares = [share for slot in space.slots if (share := skip_chance(slot, chances)) is not None]
    return float(np.mean(shares)) if shares else 0.0


def _means(sums: dict[str, Any], kind: str) -> dict[str, float | None]:
    """Loss and accuracy of the soft mixture over the epoch's steps of one kind; None where there were none."""
    n, images = float(sums[f"{kind}_steps"]), float(sums[f"{kind}_images"])
    names = ("train_loss", "train_accuracy") if kind == "weights" else ("mixture_loss", "mixture_accuracy")
    return {
        names[0]: float(sums[f"{kind}_loss"]) / n if n else None,
        names[1]: float(sums[f"{kind}_hits"]) / images if images else None,
    }
