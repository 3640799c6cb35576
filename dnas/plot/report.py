"""``report.html``: one page on a search, which needs no other file and no network."""

from __future__ import annotations

import html
import io
from typing import TYPE_CHECKING, Any, NamedTuple

from dnas import describe
from dnas.html import table
from dnas.plot import network, search

if TYPE_CHECKING:
    from dnas.search.results import SearchResult

_STYLE = """
body { font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; color: #1d2329; background: #fff;
  max-width: 1080px; margin: 2.2em auto; padding: 0 1.2em; }
h1 { font-size: 1.5em; margin: 0 0 .1em; } h2 { font-size: 1.1em; margin: 2em 0 .5em; }
p, li { max-width: 62em; } .sub { color: #59636e; margin: 0 0 1.2em; }
.tiles { display: flex; flex-wrap: wrap; gap: .7em; }
.tile { border: 1px solid #d5dbe1; border-radius: 8px; padding: .55em .9em; min-width: 10em; flex: 1; }
.tile b { display: block; font-size: 1.4em; line-height: 1.3; } .tile span { color: #59636e; font-size: .87em; }
.warnings { border-left: 4px solid #E69F00; background: #fdf6e7; padding: .5em 1.1em; border-radius: 0 8px 8px 0; }
.warnings ul { margin: 0; padding-left: 1.1em; } .fine { border-color: #009E73; background: #eef8f4; }
svg { width: 100%; height: auto; } .network text { font-family: inherit; text-anchor: middle; }
.network .name { font-size: 11.5px; font-weight: 600; fill: #14181c; } .network .light { fill: #fff; }
.network .number { font-size: 10px; fill: #59636e; }
.network .key { font-size: 12px; text-anchor: start; fill: #1d2329; }
table { border-collapse: collapse; font-size: .87em; margin-top: .6em; } caption { text-align: left; color: #59636e; }
td, th { padding: .16em .8em; border-bottom: 1px solid #e6eaee; text-align: right; }
td:nth-child(2), .facts td { text-align: left; }
.facts td:first-child { color: #59636e; white-space: nowrap; vertical-align: top; padding-left: 0; }
details { margin: .8em 0; } summary { cursor: pointer; color: #0969a8; } code { font-size: .87em; overflow-wrap: anywhere; }
"""


class ReportInfo(NamedTuple):
    """What the page says. ``tiles``: (figure, what it is); ``facts``: (name, value); ``layers``: the layer table as HTML."""

    title: str
    subtitle: str
    tiles: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    network: network.NetworkInfo
    layers: str
    curves: search.SearchInfo
    labels: dict[str, tuple[str, ...]]
    facts: tuple[tuple[str, str], ...]


def info(result: SearchResult) -> ReportInfo:
    """Collect everything from what a search returned."""
    arch, report, by = result.architecture, result.latency, result.derivation
    origin, figures = arch.provenance, result.figures()
    target = f"target {result.target_ms:.4g} ms" if result.target_ms else "no target"
    if report.interval_ms:
        target += ", likely {:.4g} to {:.4g}".format(*report.interval_ms)
    trained = any(row["phase"] == "training" for row in result.history)
    tiles = (
        (f"{report.total_ms:.4g} ms", f"{report.table.status} latency; {target}"),
        (
            f"{result.accuracy.top1:.1%}",
            f"on {result.accuracy.n} test images ({{:.1%}} to {{:.1%}}), ".format(*result.accuracy.interval95)
            + ("after the short training" if trained else "with the supernet's weights"),
        ),
        (f"{arch.params:,}", "parameters"), (f"{arch.macs:,}", "multiply-accumulates"),
    )  # fmt: skip
    learned: tuple[tuple[str, str], ...] = ()
    if result.learned:
        learned = (
            ("log-probability given up against the likeliest one", f"{by['log_probability_given_up']:.3g}"),
            ("latency expected under the probabilities", f"{figures['expected_ms']:.4g} ms"),
            ("latency of the likeliest network", f"{by['argmax_ms']:.4g} ms"),
            ("chosen network less expectation", f"{by['gap_ms']:+.4g} ms"),
        )
    facts = (
        ("network chosen", f"by {result.chosen_by}, of {by['networks']} networks"),
        *learned,
        *((("front over accuracy, costs", f"{len(by['pareto'])} networks, see architecture.json"),) if "pareto" in by else ()),
        ("selection images, supernet's weights", f"{result.inherited}{result.caveat}"),
        ("latency table", f"{report.table.name}: {report.table.summary()}"),
        *(
            (name, f"{cost['value']:.6g} {cost['unit']}" + (f", target {cost['target']:.6g}" if cost["target"] else ""))
            for name, cost in arch.metrics.get("costs", {}).items()
        ),
        ("genotype", " ".join(map(str, result.genotype))), ("method", str(origin["method"])), ("seed", str(origin["seed"])),
        ("steps of the search", str(origin["step"])),
        ("versions", ", ".join(f"{k} {v}" for k, v in origin["versions"].items())),
        ("command", origin["command"] or "none: space, table or images were given as objects in Python"),
    )  # fmt: skip
    layers = table(
        "",
        (*describe.HEADINGS, "ms"),
        (row.cells() for row in describe.rows(arch, (report,))),
        describe.totals(arch, (report,)),
    )
    return ReportInfo(
        f"{origin['space']} on {report.table.device}",
        f"Search on {arch.metrics['accuracy']['data']} for {target.split(',')[0]}, seed {origin['seed']}",
        tiles, result.warnings,
        network.of(result), layers, search.info(result.history, result.target_ms),
        {name: choice.labels for name, choice in result.space.choices.items()}, facts,
    )  # fmt: skip


def draw(found: ReportInfo) -> str:
    """The page: key figures, warnings, the network, curves, heat maps, and where it all comes from."""
    escape = html.escape
    tiles = "".join(f'<div class="tile"><b>{escape(a)}</b><span>{escape(b)}</span></div>' for a, b in found.tiles)
    warnings = "".join(f"<li>{escape(text)}</li>" for text in found.warnings)
    box = f'<div class="warnings"><ul>{warnings}</ul></div>' if warnings else '<div class="warnings fine">No warnings.</div>'
    values = ((escape(a), f"<code>{escape(b)}</code>" if a == "command" else escape(b)) for a, b in found.facts)
    facts = "".join(f"<tr><td>{a}</td><td>{b}</td></tr>" for a, b in values)
    constant = f" {found.network.constant_ms:.4g} ms belong to no layer and are not drawn." if found.network.constant_ms else ""
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(found.title)}</title><style>{_STYLE}</style></head><body>
<h1>{escape(found.title)}</h1><p class="sub">{escape(found.subtitle)}</p>
<div class="tiles">{tiles}</div>
<h2>What to know about this result</h2>{box}
<h2>The chosen network</h2>
<p class="sub">Each block is as wide as it is slow. Point at one for its shapes.{constant}</p>
{network.draw(found.network)}
<details><summary>Layer by layer</summary>{found.layers}</details>
<h2>The search</h2>{_svg(search.draw_curves(found.curves))}
<h2>Probability of each candidate, by epoch</h2>{_svg(search.draw_probabilities(found.curves, found.labels))}
<h2>Where it comes from</h2><table class="facts">{facts}</table>
</body></html>
"""


def _svg(figure: Any) -> str:
    """A Matplotlib figure as inline SVG with real text; the same figure gives the same bytes."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "dnas", "font.family": "sans-serif"}):
        picture = io.StringIO()
        figure.savefig(picture, format="svg", metadata={"Date": None, "Creator": None})
    text = picture.getvalue()
    return text[text.index("<svg") :]
