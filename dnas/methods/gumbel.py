"""FBNet: soft Gumbel-softmax gates over all candidates (Wu et al. 2019, arXiv:1812.03443; SNAS, arXiv:1812.09926)."""

from dnas.gates import gumbel_softmax
from dnas.methods.base import Form, everywhere

GUMBEL = Form("gumbel", lambda space, config: everywhere(gumbel_softmax))
