"""Search methods: how gates are made from logits. One file each, one entry in ``METHODS``; ``traits`` has their defaults."""

from dnas.errors import ConfigError, nearest
from dnas.methods.base import Draw, Form, Method, Score, drawn, everywhere
from dnas.methods.gdas import GDAS
from dnas.methods.gumbel import GUMBEL
from dnas.methods.random_search import RANDOM_SEARCH
from dnas.methods.reinforce import REINFORCE
from dnas.methods.single_path import SINGLE_PATH
from dnas.methods.softmax import SOFTMAX
from dnas.methods.straight_through import STRAIGHT_THROUGH
from dnas.methods.two_path import TWO_PATH

METHODS: dict[str, Form] = {
    m.name: m for m in (GUMBEL, SOFTMAX, STRAIGHT_THROUGH, GDAS, TWO_PATH, REINFORCE, SINGLE_PATH, RANDOM_SEARCH)
}


def method(name: str) -> Form:
    """Look ``name`` up. Errors: ConfigError with the nearest names."""
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}{nearest(name, METHODS)}")
    return METHODS[name]


__all__ = ["METHODS", "Draw", "Form", "Method", "Score", "drawn", "everywhere", "method"]
