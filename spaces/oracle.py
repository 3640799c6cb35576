"""A space small enough to train every network of it: five layers N, T, N, T, N on 14 px grey images, widths 8, 16, 32.

This project's own. N keeps the shape: identity, k3 e1 or k3 e6; T halves the map and doubles the width: k3 e1 or k3 e6.
3^3 * 2^2 = 108 genotypes build 108 different networks: no two identities are neighbours, so none are isomorphic.
``python -m benchmarks.oracle`` trains all of them on Fashion-MNIST made harder.
"""

from dnas.macro import Place, fbnet_block, rows, searchable
from dnas.ops import ConvOp, GlobalPoolOp, LinearOp, Op, SkipOp
from dnas.space import Space

STAGES = ((8, 1, 1), (16, 2, 2), (32, 2, 2))
EXPANSIONS = (1, 6)


def SPACE(width: float = 1.0, resolution: int = 14, num_classes: int = 10) -> Space:
    """``width``: multiple of all widths; ``resolution`` in pixels."""
    table = rows(STAGES, len(STAGES), 2, width)
    stem = table[0].out

    def candidates(at: Place) -> list[Op]:
        skip = [SkipOp(in_=at.in_, out=at.out)] if at.keeps_shape else []
        return [*skip, *(fbnet_block(at.in_, at.out, at.stride, 3, e, 1, expand1=False) for e in EXPANSIONS)]

    body = [ConvOp(in_=1, out=stem, kernel=3, stride=2), *searchable(stem, table, candidates)]
    head = [GlobalPoolOp(), LinearOp(in_=table[-1].out, out=num_classes)]
    return Space("oracle", (*body, *head), 1, resolution, num_classes, options={"width": width})
