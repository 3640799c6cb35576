"""What to cite: ``python -m dnas.cite RUN`` prints the BibTeX of the method, space, tables and images that a run used.

``dnas/references.bib`` holds every entry; its field ``dnas`` says what uses it. New methods, spaces and tables add their
names there.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path, PurePath
from typing import NamedTuple

from tyro.conf import Positional

from dnas.cli import command
from dnas.errors import ConfigError, nearest
from dnas.files import shown
from dnas.latency.costs import COUNTS, ENERGY
from dnas.runs import read_config

SOFTWARE = ("software:jax", "software:flax")  # what every result was computed with
OWN = frozenset(  # this project's own: nothing to cite
    {
        "objective:hinge",
        *(f"lut:{t}" for t in ("epyc_zen4_fbnet", "epyc_zen4_fbnet_cifar", "epyc_zen4_oracle", "xeon_nas_bench_macro")),
    }
)
KINDS = ("method", "objective", "space", "lut", "data", "oracle")


@dataclasses.dataclass(frozen=True)
class CiteConfig:
    """Print the BibTeX of what a run, or the named parts, are made of; without arguments, of everything that ships."""

    run: Positional[str] = ""
    """A run folder of dnas.search: all that it used. Default: none."""
    method: tuple[str, ...] = ()
    """Search methods (gumbel). No unit."""
    objective: tuple[str, ...] = ()
    """Objectives (lagrange). No unit."""
    space: tuple[str, ...] = ()
    """Search spaces (fbnet). No unit."""
    lut: tuple[str, ...] = ()
    """Latency tables (samsung_s8.json). No unit."""
    data: tuple[str, ...] = ()
    """Data sets (digits, tfds:cifar10). No unit."""
    oracle: tuple[str, ...] = ()
    """Benchmarks with known answers (nas-bench-macro). No unit."""
    json: bool = False
    """Print JSON: key, text and uses of each entry. No unit."""


class Entry(NamedTuple):
    """``text``: the BibTeX without the field ``dnas``; ``uses``: "kind:name" of all that it belongs to."""

    key: str
    text: str
    uses: tuple[str, ...]


@cache
def entries() -> tuple[Entry, ...]:
    """All of ``references.bib``, in its order."""
    text = (Path(__file__).parent / "references.bib").read_text(encoding="utf-8")
    found = []
    for block in re.findall(r"^@.*?^\}$", text, re.MULTILINE | re.DOTALL):
        key = re.match(r"@\w+\{([^,]+),", block)
        uses = re.search(r"^  dnas = \{(.*)\},\n", block, re.MULTILINE)
        assert key and uses, block
        found.append(Entry(key[1], block.replace(uses[0], ""), tuple(uses[1].split())))
    return tuple(found)


def references(**parts: str | Iterable[str]) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """Entries for ``method``, ``objective``, ``space``, ``lut``, ``data``, ``oracle`` (a name or several of each), and a
    sentence for each part for which none is known: your own spaces, tables and images are yours to cite.

    >>> [e.key for e in references(space="fbnet", lut="samsung_s8.json")[0]]
    ['wu2019fbnet']

    Errors: ConfigError for a method, objective, space or oracle that does not exist.
    """
    if unknown := sorted(set(parts) - set(KINDS)):
        raise ConfigError(f"{unknown[0]!r} is nothing that can be cited{nearest(unknown[0], KINDS)}")
    wanted, notes = [], []
    for kind, given in parts.items():
        for name in [given] if isinstance(given, str) else given:
            use = f"{kind}:{_bare(kind, name)}"
            if use in OWN:
                notes.append(f"{kind} {name} is this project's own: nothing to cite")
            elif any(use in entry.uses for entry in entries()):
                wanted.append(use)
            elif kind in ("lut", "data") or name.endswith((".py", ".json")) or os.sep in name:
                notes.append(f"no reference is known for {kind} {name}: cite its source")
            else:
                raise ConfigError(f"nothing is known of {kind} {shown(name)}{nearest(name, _names(kind))}")
    return tuple(e for e in entries() if set(e.uses) & set(wanted)), tuple(notes)


def of_run(folder: str | os.PathLike[str]) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """What the run in ``folder`` used, JAX and Flax included; as ``references``. Errors: RunError, ConfigError."""
    options = read_config(os.fspath(folder), "")["search"]
    parts: dict[str, list[str]] = {k: [options[k]] for k in KINDS if isinstance(options.get(k), str)}
    tables = [text.rpartition("=")[0] for text in options.get("also") or ()]
    parts["lut"] = [*parts.get("lut", []), *(t for t in tables if t not in (*COUNTS, ENERGY))]
    found, notes = references(**parts)
    software = tuple(e for e in entries() if set(e.uses) & set(SOFTWARE))
    return (*found, *software), notes


def main(config: CiteConfig) -> int:
    """Print the entries; notes go to stderr."""
    parts = {k: getattr(config, k) for k in KINDS if getattr(config, k)}
    found, notes = of_run(config.run) if config.run else ((), ())
    if parts:
        more, more_notes = references(**parts)
        found, notes = tuple(dict.fromkeys((*found, *more))), (*notes, *more_notes)
    elif not config.run:
        found = entries()
    if config.json:
        print(json.dumps([e._asdict() for e in found], indent=1, ensure_ascii=False))
    else:
        print("\n\n".join(e.text for e in found))
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return 0


def _bare(kind: str, name: str) -> str:
    """The name that references.bib has: without options, extension, source, folder and version."""
    if kind == "space":
        return name.partition(":")[0]
    if kind == "lut":
        return name.removesuffix(".json")
    if kind == "data":
        source, _, rest = name.partition(":")
        return PurePath(rest).name if source == "idx" else re.split("[/:]", rest)[0] if source == "tfds" else name
    return name


def _names(kind: str) -> list[str]:
    return sorted({use.partition(":")[2] for entry in entries() for use in entry.uses if use.startswith(f"{kind}:")})


if __name__ == "__main__":
    sys.exit(command("python -m dnas.cite", CiteConfig, main))
