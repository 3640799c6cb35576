"""A network drawn as a row of blocks, each as wide as it is slow: SVG that needs nothing else."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, NamedTuple

from dnas.plot.style import COLOURS

if TYPE_CHECKING:
    from dnas.arch import Architecture
    from dnas.latency.table import LatencyReport

KERNEL_COLOURS = {3: COLOURS[0], 5: COLOURS[1], 7: COLOURS[2], 1: COLOURS[3]}  # 1: between fixed and searched, rare
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
