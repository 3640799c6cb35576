"""Programs that are compiled before they are called, in a thread beside what runs.

XLA leaves Python, and much of a second core, idle while it compiles; a search needs several programs and knows them all at
its first step.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

_worker = ThreadPoolExecutor(1, "dnas-compile")  # its thread starts with the first job


class Program:
    """A jitted function; ``options`` are those of ``jax.jit``."""

    def __init__(self, function: Callable[..., Any], **options: Any):
        self.jitted: Any = jax.jit(function, **options)
        self._pending: list[Future[None]] = []

    def ahead(self, *args: Any) -> None:
        """Begin to compile for arguments like these: arrays, or what describes them. What goes wrong shows at the call."""
        if jax.process_count() == 1:
            self._pending.append(_worker.submit(self._compile, jax.tree.map(_like, args)))

    def _compile(self, args: Any) -> None:
        with contextlib.suppress(Exception):
            if threading.main_thread().is_alive():  # an interpreter that ends waits for its threads
                self.jitted.lower(*args).compile()

    def __call__(self, *args: Any) -> Any:
        while self._pending:
            job = self._pending.pop()
            if not job.cancel():  # it has begun
                job.result()
        return self.jitted(*args)

    def eval_shape(self, *args: Any) -> Any:
        """What describes the results of a call."""
        return self.jitted.eval_shape(*args)


def _like(value: Any) -> Any:
    """What describes an array, and holds none of its memory; anything else as it is."""
    if not isinstance(value, jax.Array):
        return value
    sharding = value.sharding if value.committed else None
    return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding, weak_type=value.weak_type)
