"""What a training tells its caller at the end of each epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dnas import loop


class Epoch(loop.Epoch):
    """What ``on_epoch`` of a training is told."""

    def plot(self) -> Any:
        """Figure of loss, accuracy and learning rate so far."""
        from dnas.plot.train import draw, info

        return draw(info(list(self.history)))


OnEpoch = Callable[[Epoch], object]
