"""How published networks round channel counts."""

from __future__ import annotations


def round8(channels: float, guard: float = 0.9) -> int:
    """The nearest multiple of 8, half up, at least 8; one step up where that would leave less than ``guard`` of it.

    >>> round8(96 * 0.35), round8(16 * 0.35), round8(104 / 4, guard=0.95)
    (32, 8, 32)
    """
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= guard * channels else rounded + 8
