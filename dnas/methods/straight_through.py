"""One candidate counts forward, the gradient goes through all of them (Jang et al. 2017, arXiv:1611.01144, section 2.2)."""

from dnas.gates import straight_through
from dnas.methods.base import Form, everywhere

STRAIGHT_THROUGH = Form("straight-through", lambda space, config: everywhere(straight_through))
