"""What a run writes about itself: the resolved configuration, the machine, metrics and provenance."""

from __future__ import annotations

import shlex
from typing import Any

from dnas.arch import Architecture
from dnas.evaluate import Accuracy
from dnas.latency.table import LatencyReport
from dnas.provenance import elsewhere, machine, versions
from dnas.search import diagnosis
from dnas.search.engine import Setup

__all__ = ["command", "config_json", "elsewhere", "finished", "machine", "versions"]


def command(setup: Setup) -> str | None:
    """The command that repeats this search, every option spelled out, without output paths.

    None if space, table or images were given as objects, which no command can name.
    """
    if setup.objects:
        return None
    words = ["python", "-m", "dnas.search"]
    for name, value in (setup.family or setup).config.to_dict().items():
        flag = name.replace("_", "-")
        if value is None or name in ("out", "resume", "checkpoint_s"):
            continue
        if isinstance(value, tuple):
            words += [f"--{flag}", *(v if isinstance(v, str) else repr(v) for v in value)] if value else []
        elif isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", repr(value) if isinstance(value, float) else str(value)]
    return shlex.join(words)


def config_json(setup: Setup) -> dict[str, Any]:
    """``config.json``: every option resolved, fingerprints of what was read, and what it ran on."""
    inputs = {"space": setup.space.fingerprint, "lut": setup.lut.sha256, "data": setup.dataset.fingerprint}
    if setup.supernet_sha256:
        inputs["supernet"] = setup.supernet_sha256
    search = setup.config.to_dict() | {"out": None, "resume": None}
    found = {"search": search, "objects": list(setup.objects), "inputs": inputs, "machine": machine()}
    return found | (
        {"family_ms": list(setup.family.config.family_ms)} if setup.family and len(setup.family.members) > 1 else {}
    )


def finished(
    setup: Setup,
    notes: dict[str, Any],
    last: dict[str, Any],
    architecture: Architecture,
    report: LatencyReport,
    tested: Accuracy,
) -> tuple[Architecture, tuple[str, ...]]:
    """``architecture`` with name, metrics and provenance, and what has to be said about the result."""
    config = setup.config
    more = [c.lut.report(architecture, config.missing) for c in setup.others if c.lut]
    derivation = notes["derivation"]
    warnings = [*report.warnings, *(w for r in more for w in r.warnings), *setup.terms.warnings, *setup.remarks]
    if setup.method.ends == "logits":
        warnings += diagnosis.warnings(setup.space, last, config.target_ms)
    assignment = setup.space.assignment(notes["genotype"])
    for cost in setup.costs if config.derive in ("argmax", "sample") else ():
        value, name = cost.terms.at(assignment), "" if cost is setup.costs[0] else f" ({cost.name})"
        if cost.target is not None and value > cost.target:
            warnings.append(
                f"The network is above its target of {cost.target:.4g} {cost.unit}{name} by {value / cost.target - 1:.1%}: the "
                "likeliest candidates together cost more than their expectation. --derive budget keeps targets."
            )
    if derivation.get("proven") is False:
        warnings.append(
            f"The networks compared were not proven to be the most probable ones within the targets (none scores above "
            f"{derivation['bound']:.6g}; see derivation)."
        )
    metrics = {
        "params": architecture.params, "macs": architecture.macs, "latency": [r.to_dict() for r in (report, *more)],
        "costs": {
            c.name: {"value": c.terms.at(assignment), "unit": c.unit, "target": c.target} for c in setup.others if not c.lut
        },
        "accuracy": {"data": setup.dataset.name, "split": "test", **tested.to_dict()},
    }  # fmt: skip
    provenance = {
        "space": setup.space.name, "space_options": dict(setup.space.options), "space_sha256": setup.space.fingerprint,
        "method": config.method, "genotype": notes["genotype"], "seed": config.seed, "target_ms": config.target_ms,
        "targets": {c.name: c.target for c in setup.costs if c.target is not None}, "derivation": derivation,
        "step": setup.schedule.before(setup.schedule.epochs), "data_sha256": setup.dataset.fingerprint,
        **({"supernet_sha256": setup.supernet_sha256} if setup.supernet_sha256 else {}),
        "command": command(setup), "versions": versions(), "warnings": warnings,
    }  # fmt: skip
    seeds = f"{config.seed}to{config.seed + config.seeds - 1}" if config.seeds > 1 else f"{config.seed}"
    name = f"{setup.space.name}_{setup.dataset.name.split(':')[0]}_s{seeds}"
    return (
        Architecture(
            architecture.layers, architecture.input_channels, architecture.resolution, architecture.num_classes,
            architecture.defaults, name, metrics, provenance,
        ), tuple(warnings),
    )  # fmt: skip
