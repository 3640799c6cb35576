"""Search methods: how gates are made from logits. One file each, one entry in ``METHODS``."""

from dnas.errors import ConfigError, nearest
from dnas.methods.base import Method
from dnas.methods.gumbel import GUMBEL

METHODS: dict[str, Method] = {m.name: m for m in (GUMBEL,)}


def method(name: str) -> Method:
    """Look ``name`` up. Errors: ConfigError with the nearest names."""
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}{nearest(name, METHODS)}")
    return METHODS[name]


__all__ = ["METHODS", "Method", "method"]
