"""What all commands share: options from a dataclass, one line per mistake, exit codes."""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

from dnas.errors import DnasError, Interrupted

Config = TypeVar("Config")


def command(name: str, kind: type[Config], main: Callable[[Config], int], args: Sequence[str] | None = None) -> int:
    """Parse the options (``args``; default: those of the process), call ``main``, and turn a DnasError into one line and exit
    code 2 (130 after Ctrl-C)."""
    try:
        config = tyro.cli(_spoken(kind), prog=name, description=(kind.__doc__ or "").strip(), args=args)
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


def changed(config: Any, but: Sequence[str] = ()) -> list[str]:
    """The options, as words, that ``config`` (a frozen dataclass with defaults) has otherwise than by default."""
    fields = [f for f in dataclasses.fields(config) if f.name not in but]
    return ["--" + f.name.replace("_", "-") for f in fields if getattr(config, f.name) != f.default]


def _spoken(kind: type[Config]) -> type[Config]:
    """``kind`` with plainer help: an option whose default is None says in its own words what that means."""
    hints, fields = typing.get_type_hints(kind), []
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.default is None:
            (value,) = (a for a in typing.get_args(hints[field.name]) if a is not type(None))
            words = "|".join(typing.get_args(value)) or value.__name__.upper()
            shown = tyro.conf.arg(help_behavior_hint="", metavar=words)
            fields.append((field.name, typing.Annotated[hints[field.name], shown], dataclasses.field(default=None)))
    return dataclasses.make_dataclass(kind.__name__, fields, bases=(kind,), frozen=True)
