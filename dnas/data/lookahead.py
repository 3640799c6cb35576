"""Reading batches of a lazy set in threads, ahead of their use."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

import numpy as np

from dnas.data.arraytypes import Images, Indices, Lazy
from dnas.data.encoded import pool


class LookAhead:
    """While one batch is used, threads decode the next ones.

    Args:
        store: what to read from.
        plan: batch number -> indices into the store, or None past the end.
        ahead: how many batches to read ahead.
    """

    def __init__(self, store: Lazy, plan: Callable[[int], Indices | None], ahead: int = 3) -> None:
        self._store = store
        self._plan = plan
        self._ahead = ahead
        self._pending: dict[int, list[Future[Images]]] = {}

    def get(self, number: int) -> Images:
        """The images of batch ``number``, ``uint8[b, h, w, c]``; any order of calls is right, ascending is fast.

        Raises:
            DataError: an image is damaged.
        """
        wanted = range(number, number + 1 + self._ahead)
        for old in [n for n in self._pending if n not in wanted]:
            for future in self._pending.pop(old):
                future.cancel()
        for n in wanted:
            if n not in self._pending:
                indices = self._plan(n)
                if indices is None:
                    break
                parts = np.array_split(indices, min(len(indices), 8))
                self._pending[n] = [pool().submit(self._store.read, part) for part in parts]
        return np.concatenate([future.result() for future in self._pending.pop(number)])
