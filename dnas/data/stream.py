"""Images of a lazy set, read by Grain's threads some batches ahead of their use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dnas.data.arraytypes import Images, Indices

Plan = Callable[[int], tuple[Indices, Any]]
Read = Callable[[Indices, Any], Images]


def threads() -> int:
    """As many as there are cores, at most 16."""
    return min(16, os.cpu_count() or 1)


class Stream:
    """Batches in order; while one is used, threads read the next ones.

    Args:
        read: (indices, one more value of the plan for each of them) -> ``uint8[k, h, w, c]``; called from several threads.
        plan: batch number -> (indices, more), all of one length but for the last; called from several threads.
        count: number of images, if there is an end.
        workers: threads; what is read does not depend on their number.
        ahead: batches to read ahead.
    """

    def __init__(self, read: Read, plan: Plan, count: int | None = None, workers: int | None = None, ahead: int = 3) -> None:
        self._read, self._plan, self._count = read, plan, count
        self._workers, self._ahead = workers or threads(), ahead
        self._next = -1
        self._images: Iterator[Images] = iter(())

    def get(self, number: int) -> Images:
        """The images of batch ``number``, ``uint8[b, h, w, c]``; any order of calls is right, ascending is fast.

        Raises:
            DataError: an image is damaged.
        """
        indices, _ = self._plan(number)
        if number != self._next:
            self._images = self._from(number)
        self._next = number + 1
        return np.concatenate([next(self._images) for _ in indices])

    def _from(self, number: int) -> Iterator[Images]:
        """One image after the other, from batch ``number`` on."""
        import grain

        size = len(self._plan(0)[0])

        def one(place: int) -> Images:
            batch, row = divmod(place, size)
            indices, more = self._plan(batch)
            return self._read(indices[row : row + 1], None if more is None else more[row : row + 1])

        options = grain.ReadOptions(num_threads=self._workers, prefetch_buffer_size=max(self._ahead * size, self._workers))
        images: Iterator[Images] = iter(
            grain.MapDataset.range(number * size, self._count or 2**62).map(one).to_iter_dataset(options)
        )
        return images
