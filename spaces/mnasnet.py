"""MnasNet's factorised hierarchical space: seven blocks, each with its own op, kernel, squeeze-excite, skip, width and length.

Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for Mobile", CVPR 2019, arXiv:1807.11626, 4.1: all choices of
a block are shared by its layers. Convolution, separable convolution, or inverted residual of expansion 3 or 6; kernel 3 or
5; squeeze-excite of a quarter of the layer's input or none (a plain convolution has none); identity skip or none; 0.75, 1 or
1.25 times MobileNetV2's channels, rounded to multiples of 8; one layer fewer or more than MobileNetV2, or as many. The
paper counts 4 * 2 * 2 * 3 * 3 * 3 = 432 choices of a block. Here a block has less: pooling as a skip is not among this
toolkit's ops, and a block of one layer cannot lose it. The published networks have widths that are no such multiples (112 and
192); these are options of their blocks too. MnasNet-A1 and B1 are points; with ``width`` their 0.5, 0.75 and 1.4 multiples.

Widths are searched by masks on shared convolutions, so the latency of a layer depends on two blocks' choices.
"""

from dnas.choices import Follow, Layer, OneOf, Stage, Template, Width
from dnas.macro import head, round8, rows
from dnas.ops import SE, ConvOp, DsConvOp, InvertedResidualOp
from dnas.space import Space

MOBILENETV2 = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
FURTHER = {96: 112, 160: 192}


def layer(block: str, before: int | Width, out: int | Width, stride: int, first: bool) -> OneOf:
    """A layer of ``block``: all its choices are the block's."""
    skip = False if first else OneOf(f"{block}.skip", (True, False))

    def of_input(make, label: str):
        """What is made of the channels that arrive."""
        if isinstance(before, int):
            return make(before)
        return Follow(before.name, tuple(map(make, before.options)), label)

    kernel = OneOf(f"{block}.kernel", (3, 5))
    se = OneOf(f"{block}.se", (None, of_input(lambda c: SE(round(c / 4), gate="sigmoid"), "se")))
    common = {"in_": of_input(int, "in"), "out": out, "kernel": kernel, "stride": stride, "residual": skip}
    inverted = [
        Template(InvertedResidualOp, label=f"ir_e{e}", mid=of_input(lambda c, e=e: c * e, "mid"), se=se, **common)
        for e in (3, 6)
    ]
    return OneOf(f"{block}.op", (Template(ConvOp, **common), Template(DsConvOp, se=se, **common), *inverted))


def SPACE(width: float = 1.0, stages: int = 7, layers: int = 5, resolution: int = 224, num_classes: int = 1000) -> Space:
    """``stages``, ``layers``: only the first blocks, and of each at most so many layers; ``resolution`` in pixels."""
    before: int | Width = round8(32 * width)
    body: list[Layer] = [ConvOp(in_=3, out=before, kernel=3, stride=2)]
    table = rows(MOBILENETV2, stages, layers)
    for number, (channels, repeats, stride) in enumerate(table, 1):
        block = f"b{number}"
        wanted = sorted({round8(m * channels) for m in (0.75, 1, 1.25)} | {FURTHER.get(channels, channels)})
        widths = tuple(dict.fromkeys(round8(c * width) for c in wanted))
        own = Width(f"{block}.width", widths) if len(widths) > 1 else widths[0]
        lengths = tuple(n for n in (repeats - 1, repeats, repeats + 1) if 1 <= n <= layers)
        inside = [layer(block, before, own, stride, True)]
        inside += [layer(block, own, own, 1, False) for _ in range(max(lengths) - 1)]
        body += [Stage(OneOf(f"{block}.layers", lengths), tuple(inside))] if len(lengths) > 1 else inside
        before = own
    _, *end = head(1280, 1280, num_classes)
    fixed = isinstance(before, int)
    last = ConvOp(in_=before, out=1280) if fixed else Template(ConvOp, in_=Follow(before.name, before.options), out=1280)
    body += [last, *end]
    options = {"width": width, "stages": stages, "layers": layers}
    return Space("mnasnet", tuple(body), 3, resolution, num_classes, options=options)
