"""FBNet: soft Gumbel-softmax gates over all candidates (Wu et al. 2019, arXiv:1812.03443; SNAS, arXiv:1812.09926)."""

from dnas.gates import gumbel_softmax
from dnas.methods.base import Method

GUMBEL = Method("gumbel", gumbel_softmax)
