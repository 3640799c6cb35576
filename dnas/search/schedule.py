"""Which step of which kind comes when: a pure function of the configuration, so that a position is two numbers."""

from __future__ import annotations

import dataclasses
from typing import Literal

from dnas.config import SearchConfig, warm_up_epochs

Kind = Literal["weights", "theta"]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Every epoch takes all weight steps, then (after the warm-up) all architecture steps; members of a family take turns."""

    epochs: int
    warm_up: int
    weight_steps: int
    theta_steps: int
    temperature_start: float
    temperature_end: float
    members: int = 1

    @classmethod
    def of(cls, config: SearchConfig, weight_steps: int, theta_steps: int, members: int = 1) -> Schedule:
        assert config.epochs is not None and config.temperature_start is not None and config.temperature_end is not None
        start, end = config.temperature_start, config.temperature_end
        return cls(config.epochs, warm_up_epochs(config), weight_steps, theta_steps, start, end, members)

    def steps(self, epoch: int) -> int:
        """Steps of both kinds in ``epoch``."""
        return self.weight_steps + (self.theta_steps if epoch >= self.warm_up else 0)

    def before(self, epoch: int) -> int:
        """Steps of both kinds in all epochs before ``epoch``."""
        return epoch * self.weight_steps + max(epoch - self.warm_up, 0) * self.theta_steps

    def at(self, epoch: int, step: int) -> tuple[Kind, int]:
        """Kind of a step of ``epoch``, and its number among all steps of that kind."""
        if step < self.weight_steps:
            return "weights", epoch * self.weight_steps + step
        return "theta", (epoch - self.warm_up) * self.theta_steps + step - self.weight_steps

    def temperature(self, epoch: int) -> float:
        """Geometric from start (first epoch) to end (last epoch)."""
        share = epoch / max(self.epochs - 1, 1)
        return self.temperature_start * (self.temperature_end / self.temperature_start) ** share

    @property
    def total_weight_steps(self) -> int:
        return self.epochs * self.weight_steps

    @property
    def total_theta_steps(self) -> int:
        """Architecture steps of each member."""
        return -(-(self.epochs - self.warm_up) * self.theta_steps // self.members)
