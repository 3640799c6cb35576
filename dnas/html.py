"""What a notebook shows of a network, a space and a latency table."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dnas.arch import Architecture
    from dnas.latency.table import LatencyTable
    from dnas.search.results import FamilyResult, SearchResult, SeedsResult
    from dnas.space import Space


def table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[str]], last: Sequence[str] = ()) -> str:
    """An HTML table; ``last`` is a bold line at its end."""

    def line(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"

    body = "".join(line(row, "td") for row in rows) + (line(last, "th") if last else "")
    head = f"<thead>{line(headings, 'th')}</thead>" if headings else ""
    return f"<table><caption>{html.escape(caption)}</caption>{head}<tbody>{body}</tbody></table>"


def architecture(network: Architecture) -> str:
    """The layer table of ``python -m dnas.describe``."""
    from dnas import describe

    caption = "; ".join(filter(None, (str(network), describe.origin(network))))
    return table(caption, describe.HEADINGS, (row.cells() for row in describe.rows(network)), describe.totals(network))


def space(given: Space) -> str:
    """One row per layer: its candidates, input and output."""
    rows = (
        (
            str(s.index),
            ", ".join(s.choices) or "fixed",
            ", ".join(h.label for h in s.hulls),
            str(s.in_shape),
            str(s.out_shape),
        )
        for s in given.slots
    )
    return table(str(given), ("#", "choice", "candidates", "input", "output"), rows)


def latency_table(given: LatencyTable) -> str:
    """What the table is, and what it covers; not its entries, which are thousands."""
    facts = {
        "device": given.device, "runtime": given.runtime, "precision": given.precision, "status": given.status,
        "meaning": given.meaning, "error": str(given.error.get("summary", "not checked against whole networks")),
        "entries": f"{len(given.entries):,}", "constant": f"{given.constant_ms:g} ms",
        "cost model": given.cost_model.formula if given.cost_model else "none",
        "made for": "{} to {} px".format(*given.resolutions) if given.resolutions else "any resolution",
    }  # fmt: skip
    return table(given.name, (), facts.items())


def search_result(given: SearchResult) -> str:
    """What was found, how accurate and how fast it is, and what has to be said of it; then its layers."""
    arch, report = given.architecture, given.latency
    low, high = report.interval_ms or (None, None)
    target, interval = arch.provenance.get("target_ms"), "" if low is None else f" ({low:.4g} to {high:.4g})"
    facts = {
        "latency": f"{report.total_ms:.4g} ms{interval}, {report.table.status} for {report.table.device}",
        "target": f"{target:.4g} ms" if target else "none",
        "test accuracy": str(given.accuracy),
        "with the supernet's weights": f"{given.inherited} on the selection images{given.caveat}",
        "chosen by": given.chosen_by, "folder": str(given.folder or "not saved"),
        **{f"note {i}": warning for i, warning in enumerate(given.warnings, 1)},
    }  # fmt: skip
    return table(arch.name, (), facts.items()) + architecture(arch)


def family(given: FamilyResult) -> str:
    """One row for each member."""
    table_, several = given.results[0].latency.table, "seeds" in given.results[0].derivation
    supernets = "several supernets" if several else "one supernet"
    caption = f"{len(given.results)} networks of {supernets}; {table_.device}, {table_.status}"
    return table(caption, *given.table())


def seeds(given: SeedsResult) -> str:
    """For each target the spread of every figure."""
    return "".join(table(*each) for each in given.tables())
