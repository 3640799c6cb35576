"""Spaces in files: finding and running ``spaces/NAME.py``, and the JSON form."""

from __future__ import annotations

import contextlib
import inspect
import runpy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dnas.arch import Defaults
from dnas.choices import Follow, Layer, OneOf, Stage, Template, Width
from dnas.errors import ArchitectureError, DnasError, SpaceError, nearest
from dnas.files import kind, one_line, read_json, shipped, shown
from dnas.ops import OPS, SE, Op, op_from_dict
from dnas.ops.base import LABELS
from dnas.space import Space

FORMAT = "dnas-space/1"
_KIND = {OneOf: "one_of", Width: "width"}
_OPEN = ("one_of", "width", "follow")


def shipped_spaces() -> list[str]:
    """Names of the spaces that come with the package."""
    return sorted(p.stem for p in shipped("spaces").glob("*.py") if not p.stem.startswith("_"))


def shadowed(spec: str) -> str | None:
    """A line that says how to address a file of the working folder whose name is that of a shipped space."""
    name = spec.partition(":")[0].removesuffix(".py")
    if name in shipped_spaces() and kind(f"{name}.py") == "file":
        return f"{spec} is the shipped space; for the file in this folder write ./{name}.py"
    return None


def load(spec: str) -> Space:
    """See ``dnas.load_space``."""
    path, _, tail = spec.partition(":")
    options = _parse_options(tail, spec)
    name = path.removesuffix(".py")
    bare = "/" not in path and "\\" not in path and not path.endswith(".json")
    file = shipped("spaces") / f"{name}.py" if bare and name in shipped_spaces() else Path(path)
    if kind(file) != "file" and bare and kind(f"{path}.py") == "file":
        file = Path(f"{path}.py")
    if kind(file) != "file":
        raise SpaceError(f"unknown space {shown(path)}{nearest(name, shipped_spaces())} (or give a .py or .json file)")
    if file.suffix == ".json":
        if options:
            raise SpaceError(f"{file}: a .json space takes no options, got {', '.join(options)}")
        body = read_json(file, SpaceError)
        try:
            return from_json(body)
        except SpaceError as problem:
            raise SpaceError(f"{file}: {problem}") from None
    with _named(file):
        value = runpy.run_path(str(file)).get("SPACE")
    return _with_options(value, options, file)


@contextlib.contextmanager
def _named(file: Path) -> Iterator[None]:
    """Whatever the code in ``file`` raises becomes a SpaceError that names the file."""
    try:
        yield
    except DnasError as problem:
        raise SpaceError(f"{file}: {problem}") from None
    except (Exception, SystemExit) as problem:
        raise SpaceError(f"{file}: running it raised {type(problem).__name__}: {one_line(problem)}") from None


def _with_options(value: Any, options: dict[str, str], file: Path) -> Space:
    if isinstance(value, Space):
        if options:
            raise SpaceError(f"{file}: this space takes no options, got {', '.join(options)}")
        return value
    if not callable(value):
        raise SpaceError(f"{file}: expected a value SPACE (a dnas.Space, or a function that returns one)")
    with _named(file):
        parameters = inspect.signature(value, eval_str=True).parameters
    arguments = {}
    for name, text in options.items():
        if name not in parameters:
            raise SpaceError(f"{file.stem}: unknown option {name!r}{nearest(name, parameters)}")
        arguments[name] = _parse(text, parameters[name].annotation, f"{file.stem}: option {name}")
    with _named(file):
        space = value(**arguments)
    if not isinstance(space, Space):
        raise SpaceError(f"{file}: SPACE() returned {type(space).__name__}; expected a dnas.Space")
    return space


def _parse_options(tail: str, spec: str) -> dict[str, str]:
    options = {}
    for item in filter(None, tail.split(",")):
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise SpaceError(f"{spec!r}: expected NAME:option=value,option=value, got {item!r}")
        options[name.strip()] = text.strip()
    return options


def _parse(text: str, kind: Any, where: str) -> Any:
    words = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
    readers: dict[Any, Callable[[str], Any]] = {bool: lambda t: words[t.lower()], int: int, float: float, str: str}
    try:
        return readers.get(kind, str)(text)
    except (KeyError, ValueError):
        raise SpaceError(f"{where} is {text!r}; expected {getattr(kind, '__name__', kind)}") from None


# -- JSON ---------------------------------------------------------------------------------------------------------


def to_json(space: Space) -> dict[str, Any]:
    """The ``dnas-space/1`` object: an architecture's, with ``{"one_of": name, "options": [...]}`` where there is a choice."""
    return {
        "format": FORMAT,
        "name": space.name,
        "input": {"channels": space.input_channels, "resolution": space.resolution},
        "num_classes": space.num_classes,
        "defaults": space.defaults.to_dict(),
        "options": dict(space.options),
        "layers": [_item_to_json(layer) for layer in space.layers],
    }


def _item_to_json(item: Any) -> Any:
    if isinstance(item, Op):
        return item.to_dict()
    if isinstance(item, OneOf):
        return {_KIND[type(item)]: item.name, "options": [_item_to_json(o) for o in item.options]}
    if isinstance(item, Follow):
        return {"follow": item.choice, "options": [_item_to_json(o) for o in item.options], "label": item.label}
    if isinstance(item, Template):
        label = {} if item.label == item.kind.op else {"label": item.label}
        return {"op": item.kind.op} | {k.rstrip("_"): _item_to_json(v) for k, v in item.fields} | label
    if isinstance(item, Stage):
        return {"depth": _item_to_json(item.depth), "layers": [_item_to_json(layer) for layer in item.layers]}
    return item.to_dict() if isinstance(item, SE) else list(item) if isinstance(item, tuple) else item


def from_json(given: Any) -> Space:
    """Inverse of ``to_json``. Errors: SpaceError that names the layer and the field."""
    needed = {"format", "name", "input", "num_classes", "defaults", "layers"}
    if not isinstance(given, Mapping) or given.get("format") != FORMAT:
        found = given.get("format") if isinstance(given, Mapping) else type(given).__name__
        raise SpaceError(f"format is {shown(found)}; expected {FORMAT!r}")
    for name in given:
        if name not in needed | {"options"}:
            raise SpaceError(f"unknown field {shown(name)}{nearest(shown(name), needed)}")
    if missing := sorted(needed - set(given)):
        raise SpaceError(f"missing field {missing[0]!r}")
    size = given["input"]
    if not isinstance(size, Mapping) or set(size) != {"channels", "resolution"}:
        raise SpaceError("input: expected an object with channels and resolution")
    if not isinstance(given["layers"], list) or not isinstance(given["name"], str):
        raise SpaceError("expected layers to be a list, and name to be text")
    if not isinstance(given.get("options", {}), Mapping):
        raise SpaceError(f"options is {shown(given['options'])}; expected an object")
    layers: list[Layer] = []
    for index, layer in enumerate(given["layers"]):
        try:
            layers.append(_layer_from_json(layer))
        except (ArchitectureError, SpaceError) as problem:
            raise SpaceError(f"layer {index}: {problem}") from None
        except RecursionError:
            raise SpaceError(f"layer {index}: choices are nested too deeply") from None
    try:
        return Space(
            given["name"], tuple(layers), size["channels"], size["resolution"], given["num_classes"],
            Defaults.from_dict(given["defaults"]), dict(given.get("options", {})),
        )  # fmt: skip
    except ArchitectureError as problem:
        raise SpaceError(str(problem)) from None


def _layer_from_json(given: Any) -> Any:
    if not isinstance(given, Mapping):
        raise SpaceError(f"expected an object, got {shown(given)}")
    if "one_of" in given:
        return _choice(given, _layer_from_json)
    if "depth" in given:
        if set(given) != {"depth", "layers"} or not isinstance(given["layers"], list):
            raise SpaceError("a stage has the fields depth and layers (a list)")
        return Stage(_choice(given["depth"], _value), tuple(_layer_from_json(layer) for layer in given["layers"]))
    chosen = {k: v for k, v in given.items() if isinstance(v, Mapping) and set(v) & set(_OPEN)}
    if not chosen and "label" not in given:
        return op_from_dict(given)
    if not isinstance(given.get("op"), str) or given["op"] not in OPS:
        raise SpaceError(f"unknown op {shown(given.get('op'))}{nearest(shown(given.get('op')), OPS)}")
    label = given.get("label", "")
    if not isinstance(label, str):
        raise SpaceError(f"label is {shown(label)}; expected text")
    given = {k: v for k, v in given.items() if k != "label"}
    fields = {k: _value(v) for k, v in given.items() if k != "op" and k not in LABELS}
    # building the first option of each choice checks the names and types of all fields
    op_from_dict({k: _first(v) for k, v in given.items()})
    return Template(OPS[given["op"]], label=label, **{"in_" if k == "in" else k: v for k, v in fields.items()})


def _choice(given: Any, read: Callable[[Any], Any]) -> OneOf:
    kind = next((k for k in _KIND.values() if isinstance(given, Mapping) and k in given), "one_of")
    if not isinstance(given, Mapping) or set(given) != {kind, "options"} or not isinstance(given["options"], list):
        raise SpaceError(f"a choice has the fields one_of (its name) and options (a list), got {shown(given)}")
    options = tuple(read(o) for o in given["options"])
    return Width(given[kind], options) if kind == "width" else OneOf(given[kind], options)


def _follow(given: Mapping[str, Any]) -> Follow:
    label = given.get("label", "follows")
    if set(given) - {"label"} != {"follow", "options"} or not isinstance(given["options"], list) or not isinstance(label, str):
        raise SpaceError(f"what follows a choice has the fields follow (its name) and options (a list), got {shown(given)}")
    return Follow(given["follow"], tuple(_value(o) for o in given["options"]), label)


def _first(given: Any) -> Any:
    """The first value of a field that is open, or follows a choice."""
    while isinstance(given, Mapping) and set(given) & set(_OPEN) and given.get("options"):
        given = given["options"][0]
    return given


def _value(given: Any) -> Any:
    if isinstance(given, Mapping) and "follow" in given:
        return _follow(given)
    if isinstance(given, Mapping) and set(given) & set(_OPEN):
        return _choice(given, _value)
    if isinstance(given, Mapping):
        try:
            return SE(**given)
        except TypeError:
            raise SpaceError(f"expected a value or a squeeze-excite object, got {shown(given)}") from None
    return tuple(given) if isinstance(given, list) else given
