"""From logits to one network: the likeliest, a random one, or the best that keeps a budget."""

from dnas.derive.banded import Banded, banded
from dnas.derive.likely import (
    argmax,
    argmax_genotype,
    log_probabilities,
    log_probability,
    probabilities,
    sample,
)
from dnas.derive.within import Limit, Shortlist, budget, highest, shortlist

__all__ = [
    "Banded", "Limit", "Shortlist", "argmax", "argmax_genotype", "banded", "budget", "highest", "log_probabilities",
    "log_probability", "probabilities", "sample", "shortlist",
]  # fmt: skip
