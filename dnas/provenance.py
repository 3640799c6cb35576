"""Where a run took place: versions, devices and cores, on which results are the same byte for byte."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import jax


def machine() -> dict[str, Any]:
    """Versions, and the devices and cores on which results are the same byte for byte."""
    device = jax.local_devices()[0]
    return {
        **versions(), "platform": device.platform, "device": device.device_kind, "cores": os.cpu_count(),
        "processes": jax.process_count(),
    }  # fmt: skip


def versions() -> dict[str, str]:
    from dnas import __version__

    names = {n: metadata.version(n) for n in ("jax", "flax", "optax", "numpy")}
    return {"dnas": __version__, "python": platform.python_version(), **names}


def elsewhere(body: dict[str, Any], devices: int | None, options: str = "search") -> tuple[str, ...]:
    """A sentence if a run with the ``config.json`` ``body`` is resumed on another machine than it began on, or ``devices``.

    ``options``: the field of ``body`` that holds those of its command.
    """
    then, now = body.get("machine"), machine() | {"devices": devices}
    changed = ["unknown"]
    if isinstance(then, dict):
        then = {"processes": 1, **then, "devices": body[options].get("devices")}
        changed = [f"{k} {then.get(k)} -> {v}" for k, v in now.items() if then.get(k) != v]
    if not changed:
        return ()
    return (f"Resumed elsewhere than it began ({', '.join(changed)}): the result may differ in rounding.",)
