"""From logits to one network: the likeliest, a random one, or the best that keeps a budget."""

from dnas.derive.likely import (
    argmax,
    argmax_genotype,
    log_probabilities,
    log_probability,
    probabilities,
    sample,
)
from dnas.derive.within import Limit, Shortlist, budget, shortlist

__all__ = [
    "Limit", "Shortlist", "argmax", "argmax_genotype", "budget", "log_probabilities", "log_probability", "probabilities",
    "sample", "shortlist",
]  # fmt: skip
