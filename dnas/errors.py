"""The typed errors of dnas: each is one sentence of what was given, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DnasError(Exception):
    """A mistake that the user can mend. Commands print its text on one line and exit with code 2."""

    def __str__(self) -> str:
        """The text, cut in its middle where what was given is endless."""
        text = super().__str__()
        return text if len(text) <= 1800 else f"{text[:1200]} ... {text[-500:]}"


class ConfigError(DnasError):
    """An option is out of range, contradicts another one, or names something that does not exist."""


class ArchitectureError(DnasError):
    """An architecture description is malformed, or its shapes do not fit."""


class SpaceError(DnasError):
    """A search space is malformed, or a genotype or an architecture does not belong to it."""


class WeightsError(DnasError):
    """Weights of another program do not fit the network, or cannot be read."""


class ExportError(DnasError):
    """A network cannot be written in a format, its extra is missing, or the file does not compute what the network does."""


class LatencyError(DnasError):
    """A latency table is malformed, or cannot price an op."""


class DataError(DnasError):
    """A data set is missing, damaged, or does not fit the network."""


class NotFiniteError(DnasError):
    """The loss became NaN or infinite."""


class RunError(DnasError):
    """A run folder cannot be written, or cannot be resumed."""


def nearest(name: str, options: Iterable[str], n: int = 3) -> str:
    """A clause that suggests what may have been meant: ``; did you mean 'fbnet'?`` or a list of all options."""
    options = sorted(options)
    close = difflib.get_close_matches(name, options, n=n, cutoff=0.5)
    if close:
        return "; did you mean " + " or ".join(repr(c) for c in close) + "?"
    if not options:
        return ""
    return "; available: " + ", ".join(options[:12]) + (", ..." if len(options) > 12 else "")


class Interrupted(DnasError):
    """Ctrl-C: the state is saved, and the text says how to continue. Commands exit with code 130."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the text alone, because nothing is wrong."""
        return [str(self)]
