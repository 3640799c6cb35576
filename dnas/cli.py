"""What all commands share: options from a dataclass, one line per mistake, exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import tyro

from dnas.errors import DnasError, Interrupted

Config = TypeVar("Config")


def command(name: str, kind: type[Config], main: Callable[[Config], int]) -> int:
    """Parse the options, call ``main``, and turn a DnasError into one line and exit code 2 (130 after Ctrl-C)."""
    try:
        config = tyro.cli(kind, prog=name, description=(kind.__doc__ or "").strip())
        return main(config)
    except Interrupted as stop:
        print(f"\n{stop}", file=sys.stderr)
        return 130
    except DnasError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted before anything was computed", file=sys.stderr)
        return 130
