"""What a result was measured on."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path


def machine() -> dict[str, object]:
    """Processor, cores and versions; no host names."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(), "cores": os.cpu_count(), "python": platform.python_version(),
        **{n: metadata.version(n) for n in ("jax", "flax", "optax", "numpy", "scikit-learn")},
    }  # fmt: skip
