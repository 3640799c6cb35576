"""What a measurement ran on: processor, cores, and what may disturb it. No host names."""

from __future__ import annotations

import os
import platform
from pathlib import Path

ZEN = {(23, 1): "Zen", (23, 49): "Zen 2", (25, 1): "Zen 3", (25, 17): "Zen 4", (25, 160): "Zen 4c", (26, 2): "Zen 5"}
"""Generations of AMD's server processors by (family, model): virtual machines hide the model's name."""


def processor(cpuinfo: str | None = None) -> str:
    """Model name as the system states it, and what tells its generation where that name does not.

    ``cpuinfo``: text of ``/proc/cpuinfo`` (default: of this machine).

    >>> processor("vendor_id : AuthenticAMD\\ncpu family : 25\\nmodel : 17\\nmodel name : AMD EPYC")
    'AMD EPYC (family 25, model 17: Zen 4)'
    """
    if cpuinfo is None:
        path = Path("/proc/cpuinfo")
        cpuinfo = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    facts: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    name = facts.get("model name") or facts.get("Hardware") or platform.processor() or platform.machine()
    if any(c.isdigit() for c in name) or "cpu family" not in facts:
        return name
    family, model = facts["cpu family"], facts.get("model", "")
    known = facts.get("vendor_id") == "AuthenticAMD" and family.isdigit() and model.isdigit()
    generation = ZEN.get((int(family), int(model))) if known else None
    return f"{name} (family {family}, model {model}{f': {generation}' if generation else ''})"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def virtual(cpuinfo: str | None = None) -> bool:
    """Whether this is a virtual machine, as far as the processor says."""
    if cpuinfo is None:
        path = Path("/proc/cpuinfo")
        cpuinfo = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return " hypervisor" in cpuinfo


def device() -> str:
    """This machine, as it stands in a latency table: processor, cores, and whether it is a virtual machine."""
    many = cores()
    return f"{processor()}, {many} core{'s' if many > 1 else ''}{', virtual machine' if virtual() else ''}"


def governor() -> str | None:
    """The frequency governor of the first core; None where the system does not say (virtual machines)."""
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text(encoding="utf-8").strip()
    except OSError:
        return None
