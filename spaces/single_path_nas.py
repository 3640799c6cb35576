"""Single-Path NAS's space: kernel 3 or 5, expansion 3 or 6, or nothing, for each of 20 layers; 224 px.

Stamoulis et al., "Single-Path NAS: Designing Hardware-Efficient ConvNets in less than 4 Hours", ECML PKDD 2019,
arXiv:1904.02877. The macro-architecture is MnasNet-B1's: five stages of four layers between a separable block of 16 and a
block of 320 channels, both fixed, as in the authors' code.

``skip`` is a candidate only where the shape stays: 4^5 * 5^15 = 3.1e13 points (the paper counts 22 layers with 5 choices,
about 2.4e15). Here each candidate has weights of its own; how a method shares them is not part of the space.
"""

from dnas.macro import Place, head, inverted, rows, searchable, skip_where_possible
from dnas.ops import ConvOp, DsConvOp, Op
from dnas.space import Space

STAGES = ((24, 4, 2), (40, 4, 2), (80, 4, 2), (96, 4, 1), (192, 4, 2))


def SPACE(stages: int = 5, layers: int = 4, resolution: int = 224, num_classes: int = 1000) -> Space:
    """``stages``, ``layers``: only the first stages, and of each at most so many layers; ``resolution`` in pixels."""
    table = rows(STAGES, stages, layers)

    def candidates(at: Place) -> list[Op]:
        blocks = [inverted(at, at.in_ * e, k) for k in (3, 5) for e in (3, 6)]
        return [*blocks, *skip_where_possible(at)]

    body = [
        ConvOp(in_=3, out=32, kernel=3, stride=2),
        DsConvOp(in_=32, out=16),
        *searchable(16, table, candidates),
        inverted(Place(table[-1].out, 320, 1, 6, 0), table[-1].out * 6, 3),
        *head(320, 1280, num_classes),
    ]
    options = {"stages": stages, "layers": layers}
    return Space("single_path_nas", tuple(body), 3, resolution, num_classes, options=options)
