"""ProxylessNAS YAML (mit-han-lab/proxylessnas): text key -> ``count``, ``mean``, ``var``, in ms.

``expanded_conv-input:112x112x16-output:56x56x24-expand:6-kernel:3-stride:2-idskip:0``: ``expand`` is the ratio. Shapes are
height x width x channels. ``Conv`` is the 3x3 stem, ``Conv_1`` the 1x1 head, ``Logits`` the pooling and the classifier.
Cai, Zhu, Han, "ProxylessNAS", ICLR 2019, arXiv:1812.00332. Blocks have relu6 there.
"""

from __future__ import annotations

from pathlib import Path

from dnas.latency.importers.common import Found, Wanted, spellings
from dnas.latency.importers.text_keys import Fields, Ops, inverted, read_text_keys, shape


def read(path: Path, wanted: Wanted) -> Found:
    """Records of ``path`` in ms. Errors: LatencyError."""
    act = wanted.act or "relu6"

    def block(fields: Fields) -> Ops:
        mid = int(fields["expand"]) * shape(fields["input"]).channels
        op, given = inverted(fields, mid, act)
        return [(o, given) for o in spellings(op)]

    source = {"who": "mit-han-lab/proxylessnas", "where": "arXiv:1812.00332", "licence": "MIT"}
    notes = [f"ms are the source's mean; var is not kept. Activation: {act}, which the keys do not state."]
    return read_text_keys(path, block, act, source, notes)
