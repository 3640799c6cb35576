"""GDAS: the gates of ``straight-through``, but only the candidate that counts is computed (Dong & Yang 2019, arXiv:1910.04465).

The gradient of a gate is <dL/dy, y_i> for the candidate that ran and 0 for the others; the relaxation carries it to all logits
of the choice. Choices that the rest of the draw switches off are left as they are.
"""

from __future__ import annotations

import jax

from dnas import gates
from dnas.config import SearchConfig
from dnas.gates import Logits
from dnas.methods.base import Draw, Form, Method
from dnas.methods.structure import first_path, switched_on, whole
from dnas.space import Space


def make(space: Space, config: SearchConfig) -> Method:
    on = switched_on(space)

    def draw(key: jax.Array, logits: Logits, temperature: jax.Array) -> Draw:
        found = gates.sample(key, logits, temperature)
        assert found.active is not None
        return Draw(found, found.weights, whole(on(first_path(found.active)), space))

    return Method(draw, draw)


GDAS = Form("gdas", make)
