"""Once-for-all YAML (mit-han-lab/once-for-all): text key -> ``count``, ``mean``, ``std``, in ms; one file per resolution.

``expanded_conv-input:10x10x136-output:5x5x192-expand:408-kernel:3-stride:2-idskip:0-se:1-hs:1``: ``expand`` is the number of
middle channels; ``se`` squeeze-excite, ``hs`` h-swish (else relu); their place in the key varies.
Cai et al., "Once-for-All", ICLR 2020, arXiv:1908.09791.
"""

from __future__ import annotations

from pathlib import Path

from dnas.latency.importers.common import Found, Wanted, spellings
from dnas.latency.importers.text_keys import Fields, Ops, flag, inverted, read_text_keys
from dnas.ops import SE
from dnas.ops.widths import round8


def read(path: Path, wanted: Wanted) -> Found:
    """Records of ``path`` in ms. Errors: LatencyError."""

    def block(fields: Fields) -> Ops:
        mid = int(fields["expand"])
        act = "hswish" if flag(fields, "hs") else wanted.act or "relu"
        op, given = inverted(fields, mid, act, se=SE(se_width(mid)) if flag(fields, "se") else None)
        return [(o, given) for o in spellings(op)]

    source = {"who": "mit-han-lab/once-for-all", "where": "arXiv:1908.09791", "licence": "MIT; earlier versions Apache-2.0"}
    notes = ["ms are the source's mean; std is not kept. Squeeze-excite width: a quarter of the middle channels, by eights."]
    return read_text_keys(path, block, "hswish", source, notes)


def se_width(mid: int) -> int:
    """Once-for-all's squeeze-excite width: ``mid`` // 4 to the nearest multiple of 8, up if that loses more than 10 %.

    >>> se_width(96), se_width(72), se_width(640)
    (24, 24, 160)
    """
    return round8(mid // 4)
