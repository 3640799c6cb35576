"""Which step of which kind comes when: a pure function of the configuration, so that a position is two numbers."""

from __future__ import annotations

import dataclasses
from typing import Literal

from dnas.config import SearchConfig, warm_up_epochs
from dnas.recipes import TRAITS, Traits

Kind = Literal["weights", "theta"]


OP_WARM_UP = 0.25  # of the weight steps, over which the chance that all candidates are on falls to 0 (TuNAS)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Every epoch takes all weight steps, then (after the warm-up) all architecture steps; with ``every`` = k, ``passes``
    architecture steps after each k weight steps. Members of a family take turns."""

    epochs: int
    warm_up: int
    weight_steps: int
    theta_steps: int
    temperature_start: float = 1.0
    temperature_end: float = 1.0
    members: int = 1
    every: int | None = None
    passes: int = 1
    linear: bool = False
    restarts: int = 1  # trainings from fresh weights, which share the epochs

    @classmethod
    def of(cls, config: SearchConfig, weight_steps: int, theta_steps: int, members: int = 1) -> Schedule:
        assert config.epochs is not None
        restarts = (config.evaluations or 1) if config.method == "random-search" else 1
        epochs = config.epochs // restarts * restarts
        linear = TRAITS.get(config.method, Traits()).linear
        return cls(
            epochs, warm_up_epochs(config), weight_steps, theta_steps, config.temperature_start or 1.0,
            config.temperature_end or 1.0, members, config.theta_every if weight_steps else None, config.theta_passes, linear,
            restarts,
        )  # fmt: skip

    def steps(self, epoch: int) -> int:
        """Steps of both kinds in ``epoch``."""
        return self.weight_steps + (self.theta_steps if epoch >= self.warm_up else 0)

    def before(self, epoch: int) -> int:
        """Steps of both kinds in all epochs before ``epoch``."""
        return epoch * self.weight_steps + max(epoch - self.warm_up, 0) * self.theta_steps

    def at(self, epoch: int, step: int) -> tuple[Kind, int]:
        """Kind of a step of ``epoch``, and its number among all steps of that kind."""
        theta = 0 if epoch < self.warm_up else max(step - self.weight_steps, 0)  # architecture steps of this epoch before it
        is_theta = step >= self.weight_steps
        if self.every and epoch >= self.warm_up:
            group, place = divmod(step, self.every + self.passes)
            theta = min(group * self.passes + max(place - self.every, 0), self.theta_steps)
            is_theta = place >= self.every and theta < self.theta_steps
        if is_theta:
            return "theta", (epoch - self.warm_up) * self.theta_steps + theta
        return "weights", epoch * self.weight_steps + step - theta

    def temperature(self, epoch: int) -> float:
        """From start (first epoch) to end (last epoch), geometric or linear."""
        share = epoch / max(self.epochs - 1, 1)
        if self.linear:
            return self.temperature_start + (self.temperature_end - self.temperature_start) * share
        return self.temperature_start * (self.temperature_end / self.temperature_start) ** share

    def all_on(self, number: int) -> float:
        """The chance that weight step ``number`` has all candidates on, for methods with such a warm-up."""
        return max(1 - number / max(OP_WARM_UP * self.total_weight_steps, 1), 0.0)

    def begins(self, epoch: int) -> bool:
        """Whether weights are fresh at the start of ``epoch``."""
        return epoch % (self.epochs // self.restarts) == 0

    @property
    def total_weight_steps(self) -> int:
        """Of each training."""
        return self.epochs // self.restarts * self.weight_steps

    @property
    def total_theta_steps(self) -> int:
        """Architecture steps of each member."""
        return -(-max(self.epochs - self.warm_up, 0) * self.theta_steps // self.members)


def theta_steps(config: SearchConfig, weight_steps: int, batches: int) -> int:
    """Architecture steps in an epoch: after every ``theta_every`` weight steps, or one for each batch of their split."""
    groups = batches if config.theta_every is None or not weight_steps else weight_steps // config.theta_every
    return groups * config.theta_passes
