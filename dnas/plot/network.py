"""A network drawn as a row of blocks, each as wide as it is slow: SVG that needs nothing else, or a figure of several."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from dnas.plot.style import COLOURS, new_figure, plain, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dnas.arch import Architecture
    from dnas.latency.table import LatencyReport, LatencyTable
    from dnas.search.results import SearchResult

KERNEL_COLOURS = {3: COLOURS[0], 5: COLOURS[1], 7: COLOURS[2], 1: COLOURS[3]}  # 1: between fixed and searched, rare
KERNEL_HATCHES = {3: "", 5: "///", 7: "...", 1: "xxx"}
GREY, WIDTH, HEIGHT, GAP = "#8a8a8a", 1000.0, 62.0, 2.0
NARROWEST = 6.0  # a block that takes no time is drawn this wide
WIDE_ENOUGH = 6.2  # pixels for a letter of a block's name


class Block(NamedTuple):
    """One layer. ``kernel`` and ``expansion``: None where it has none; ``searched``: whether the search chose it."""

    number: int
    label: str
    text: str
    output: str
    ms: float
    kernel: int | None
    expansion: float | None
    searched: bool
    is_skip: bool


class NetworkInfo(NamedTuple):
    """What is drawn, and the rest of the latency: ``constant_ms`` belongs to no layer."""

    blocks: tuple[Block, ...]
    constant_ms: float
    total_ms: float


def info(network: Architecture, report: LatencyReport, searched: set[int]) -> NetworkInfo:
    """The layers of ``network`` priced by ``report``; ``searched``: indices of those that the search chose."""
    blocks = []
    for index, (op, output, ms) in enumerate(zip(network.layers, network.shapes[1:], report.layers_ms, strict=True)):
        kernel, mid, width = (getattr(op, name, None) for name in ("kernel", "mid", "in_"))
        largest = max(kernel) if isinstance(kernel, tuple | list) else kernel
        blocks.append(
            Block(
                index, op.label, str(op), str(output), ms, largest if isinstance(largest, int) else None,
                mid / width if isinstance(mid, int) and width else None, index in searched, op.op == "skip",
            )
        )  # fmt: skip
    return NetworkInfo(tuple(blocks), report.constant_ms, report.total_ms)


def of(result: SearchResult, table: LatencyTable | None = None) -> NetworkInfo:
    """The network that a search found, priced by ``table`` (default: that of the search). Errors: LatencyError."""
    report = result.latency if table is None else table.report(result.architecture)
    return info(result.architecture, report, {s.index for s in result.space.slots if s.choices})


def draw(found: NetworkInfo) -> str:
    """One ``<svg>``: searched blocks coloured by kernel size and darker for larger expansions, others grey; legend below."""
    slow = [b for b in found.blocks if b.ms > 0]
    fixed = GAP * len(found.blocks) + NARROWEST * (len(found.blocks) - len(slow))
    total = sum(b.ms for b in slow) or 1.0
    x, parts = 0.0, []
    for block in found.blocks:
        width = (WIDTH - fixed) * block.ms / total if block.ms > 0 else NARROWEST
        parts.append(_block(block, x, width))
        x += width + GAP
    kernels = sorted({b.kernel for b in found.blocks if b.searched and b.kernel})
    expansions = sorted({b.expansion for b in found.blocks if b.searched and b.expansion})
    keys = [(_fill(k, expansions[-1] if expansions else None), f"{k}x{k}", 1.0) for k in kernels]
    keys += [("#555555", f"expansion {e:g}", _opacity(e)) for e in expansions]
    keys += [(GREY, "not searched", 0.45), ("none", "skip", 1.0)]
    legend, at = [], 0.0
    for fill, name, opacity in keys:
        dashed = ' stroke="#555" stroke-dasharray="3 2"' if fill == "none" else ""
        legend.append(
            f'<rect x="{at:g}" y="112" width="13" height="13" rx="2" fill="{fill}" fill-opacity="{opacity:g}"{dashed}/>'
        )
        legend.append(f'<text x="{at + 18:g}" y="123" class="key">{html.escape(name)}</text>')
        at += 34 + 7.2 * len(name)
    what = f"The chosen network: {len(found.blocks)} layers, {found.total_ms:.4g} ms"
    return (
        f'<svg class="network" viewBox="0 0 {WIDTH:g} 132" role="img" aria-label="{html.escape(what)}">'
        + "".join(parts) + "".join(legend) + "</svg>"
    )  # fmt: skip


def figure(networks: Mapping[str, NetworkInfo]) -> Figure:
    """Networks below each other on one axis of ms, in the manner of FBNet's figure (arXiv:1812.03443): searched blocks coloured
    and hatched by kernel size, darker for larger expansions, others grey; a dotted line is a layer that was left out."""
    from matplotlib.patches import Patch, Rectangle

    drawn = new_figure(12, 1.5 + 0.95 * len(networks))
    axes = drawn.subplots()
    longest = max(found.total_ms for found in networks.values())
    keys: dict[str, Patch] = {}
    for row, found in enumerate(networks.values()):
        at = 0.0
        for block in found.blocks:
            if not block.ms > 0:
                if block.is_skip:
                    axes.plot([at, at], [row - 0.46, row + 0.46], ":", color="0.2", linewidth=1.6)
                continue
            style: dict[str, Any] = {"facecolor": GREY, "alpha": 0.45, "hatch": ""}
            if block.searched and block.kernel:
                hatch, shade = KERNEL_HATCHES.get(block.kernel, "++"), _opacity(block.expansion)
                style = {"facecolor": _fill(block.kernel, block.expansion), "alpha": shade, "hatch": hatch}
                keys[f"{block.kernel}x{block.kernel}"] = Patch(**style | {"alpha": 0.8}, edgecolor="white")
            axes.add_patch(Rectangle((at, row - 0.36), block.ms, 0.72, edgecolor="white", linewidth=1.2, **style))
            if block.ms > 0.018 * longest:
                back: dict[str, Any] = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.2}
                words = plain(block.label.replace("_", " "))
                turned = 90 if len(words) * 0.009 * longest > block.ms else 0
                axes.text(at + block.ms / 2, row, words, ha="center", va="center", fontsize=7, rotation=turned, bbox=back)
            at += block.ms
        rest = f" (with {found.constant_ms:.3g} that belong to no layer)" if found.constant_ms else ""
        axes.text(at, row, f"  {found.total_ms:.3g} ms{rest}", va="center", fontsize=8)
    keys["not searched"] = Patch(facecolor=GREY, alpha=0.45, edgecolor="white")
    axes.set(xlim=(0, 1.22 * longest), ylim=(len(networks) - 0.5, -0.5))
    tidy(axes, "", "ms")
    axes.set_yticks(range(len(networks)), [plain(name) for name in networks], fontsize=9)
    axes.tick_params(axis="y", length=0)
    drawn.legend(keys.values(), keys, loc="outside upper left", ncols=len(keys), fontsize=8, frameon=False)
    return drawn


def _block(block: Block, x: float, width: float) -> str:
    """A rectangle with its name, its number below, and all there is to say as a tooltip."""
    tip = f"layer {block.number}: {block.text}\noutput {block.output}, {block.ms:.4f} ms"
    if block.is_skip:
        style = 'fill="none" stroke="#555" stroke-dasharray="3 2"'
    elif block.searched and block.kernel:
        style = f'fill="{_fill(block.kernel, block.expansion)}" fill-opacity="{_opacity(block.expansion):g}"'
    else:
        style = f'fill="{GREY}" fill-opacity="0.45"'
    parts = [
        f'<g><title>{html.escape(tip)}</title><rect x="{x:.1f}" y="4" width="{width:.1f}" height="{HEIGHT:g}" rx="3" {style}/>'
    ]
    dark = block.kernel == 3 and _opacity(block.expansion) > 0.8 and not block.is_skip and block.searched
    name, middle = "" if block.is_skip else block.label.replace("_", " "), x + width / 2
    words = name.split(" ")
    if max(map(len, words)) * WIDE_ENOUGH < width:
        top = 4 + HEIGHT / 2 + 4 - 7 * (len(words) - 1)
        for line, word in enumerate(words):
            parts.append(
                f'<text x="{middle:.1f}" y="{top + 14 * line:.1f}" class="name{" light" * dark}">{html.escape(word)}</text>'
            )
    if width > 13 or not block.number % 2:
        parts.append(f'<text x="{middle:.1f}" y="80" class="number">{block.number}</text>')
    if width > 46:
        parts.append(f'<text x="{middle:.1f}" y="94" class="number">{block.ms:.3g} ms</text>')
    return "".join(parts) + "</g>"


def _fill(kernel: int, expansion: float | None) -> str:
    return KERNEL_COLOURS.get(kernel, COLOURS[5])


def _opacity(expansion: float | None) -> float:
    """Pale for an expansion of 1, full from 6 on."""
    return 1.0 if expansion is None else round(min(0.35 + 0.65 * max(expansion - 1, 0) / 5, 1.0), 3)
