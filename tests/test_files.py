"""Files: whole or not at all, errors that name them, and no input, however mangled, that breaks the readers."""

from __future__ import annotations

import copy
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_arch import BODY, GONE, TORCH, Path_, canonical, changed

from dnas import files, process
from dnas.arch import Architecture
from dnas.data import load
from dnas.errors import ArchitectureError, ConfigError, DataError, DnasError, LatencyError, RunError, SpaceError
from dnas.files import dump_json, expand, kind, one_line, read_json, sha256, shipped, shown, write_text
from dnas.latency import LatencyTable
from dnas.ops import ConvOp, GlobalPoolOp, InvertedResidualOp, LinearOp, SkipOp
from dnas.runs import read_config
from dnas.space import OneOf, Space, Stage, Template, load_space
from dnas.space_files import shadowed

# -- writing ------------------------------------------------------------------------------------------------------


def test_write_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.json"
    write_text(path, "old\n")
    write_text(str(path), "café\r\n")
    assert path.read_bytes() in ("café\r\n".encode(), "café\r\r\n".encode())  # the latter on Windows
    assert [p.name for p in path.parent.iterdir()] == ["c.json"]


def test_a_written_file_has_ordinary_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "c.json", "x")
        assert os.umask(0o027) == 0o027  # left as it was
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "c.json").stat().st_mode) == 0o640


def full(*_: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("at", ["replace", "fsync", "chmod"])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.json"
    write_text(path, "old")
    monkeypatch.setattr(files.os, at, full)
    with pytest.raises(RunError, match=r"c\.json: cannot be written \(No space left on device\); nothing was changed"):
        write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text(encoding="utf-8") == "old" and os.listdir(tmp_path) == ["c.json"]


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "c.json"
    write_text(path, "old")
    monkeypatch.setattr(files.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text(encoding="utf-8") == "old" and os.listdir(tmp_path) == ["c.json"]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old", encoding="utf-8")
    for path, text in (
        (tmp_path, "a folder"), (tmp_path / "file" / "c.json", "below a file"), (tmp_path / "c.json", "not Unicode \ud800"),
        (tmp_path / "file", "not Unicode \ud800"), (tmp_path / "a\0b", "a null character"),
    ):  # fmt: skip
        with pytest.raises(RunError, match="cannot be written"):
            write_text(path, text)
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_text(encoding="utf-8") == "old"


# -- reading ------------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[bytes, str]] = {
    "NaN": (b'{"a": NaN}', "NaN is not a number"),
    "infinity": (b'{"a": -Infinity}', "-Infinity is not a number"),
    "infinity, spelled as a number": (b'{"a": [1e999]}', "1e999 is not a number"),
    "twice": (b'{"b": {"a": 1, "c": 2, "a": 3}}', "field 'a' appears twice"),
    "binary": (b"\x89PNG\r\n\x1a\n\xff\xfe\x00", "cannot be read as text"),
    "UTF-16": ('{"a": "é"}'.encode("utf-16"), "cannot be read as text"),
    "half a character": (rb'{"a": ["\uD83D"]}', "surrogates not allowed"),
    "empty": (b"", "not JSON at line 1, column 1"),
    "half": (b'{"a": 1,\n "b": ', "not JSON at line 2, column"),
    "more than one": (b"{} {}", "not JSON at line 1, column 4"),
    "comment": (b'{"a": 1} // one', "not JSON at line 1"),
    "deep": (b"[" * 100_000 + b"]" * 100_000, "not acceptable JSON"),
    "unclosed": (b'{"a":' * 100_000, "not acceptable JSON"),
    "digits": (b"1" * 5000, "not acceptable JSON"),
}


@pytest.mark.parametrize("error", [ArchitectureError, SpaceError, LatencyError])
@pytest.mark.parametrize("name", BAD)
def test_bad_json_is_refused_with_the_file_named(name: str, error: type[DnasError], tmp_path: Path) -> None:
    data, words = BAD[name]
    path = tmp_path / "bad.json"
    path.write_bytes(data)
    with pytest.raises(error) as caught:
        read_json(path, error)
    assert str(caught.value).startswith(f"{path}: ") and words in str(caught.value) and "\n" not in str(caught.value)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json: no such file"):
        read_json(tmp_path / "none.json", ConfigError)
    for path in (tmp_path, tmp_path / "a\0b", tmp_path / ("n" * 5000)):
        with pytest.raises(ConfigError, match="cannot be read as text"):
            read_json(path, ConfigError)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(json_values, st.lists(json_values, max_size=3))
def test_json_survives_a_file(tmp_path: Path, value: Any, rows: list[Any]) -> None:
    path = tmp_path / "a.json"
    write_text(path, dump_json(value))
    assert read_json(path, ConfigError) == value
    body = {"first": value, "rows": rows, "last": 1}
    write_text(path, dump_json(body, rows="rows"))
    assert read_json(path, ConfigError) == body and list(read_json(path, ConfigError)) == list(body)


def test_dump_refuses_what_json_does_not_have() -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            dump_json({"a": value})
        with pytest.raises(ValueError, match="not JSON compliant"):
            dump_json({"rows": [value]}, rows="rows")


def test_small_helpers() -> None:
    assert sha256("abc") == sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert (shipped("spaces") / "fbnet.py").is_file() and (shipped("latency_lut") / "samsung_s8.json").is_file()
    assert shown("x") == "'x'" and len(shown("x" * 1000)) == 200 and "too large" in shown(10**5000)
    assert one_line(ValueError(" a\n\tb ")) == "a b" and one_line(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert len(one_line(ValueError("x" * 1000))) == 200


@pytest.mark.parametrize("line", ["raise SystemExit('a\\nb')", "raise ValueError('a\\n  b')", "SPACE = lambda: exit('a\\nb')"])
def test_whatever_a_space_file_raises_is_one_line(line: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(line, encoding="utf-8")
    with pytest.raises(SpaceError, match=r"mine\.py: running it raised \w+: a b$"):
        load_space(tmp_path / "mine.py")


HARMLESS = (
    "none", "n" * 5000, "/".join(["n" * 200] * 50), "a\0b", "\ud800", "~nobody-of-this-name/x", "~\0",
    "locked/x.json", "file/x", "loop",
)  # fmt: skip


@pytest.mark.parametrize("refuse", [False, True])
def test_no_path_makes_the_questions_about_it_fail(refuse: bool, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (in_tmp / "file").write_text("x", encoding="utf-8")
    (in_tmp / "loop").symlink_to("loop")
    assert (kind("file"), kind(in_tmp), kind(os.devnull)) == ("file", "folder", "other")
    if refuse:  # as for a folder above that may not be searched; tests may run as a user whom nothing is refused
        stat = os.stat

        def locked(path: Any, **more: Any) -> Any:
            if isinstance(path, int) or str(path).startswith(str(Path(files.__file__).parent.parent)):
                return stat(path, **more)
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(os, "stat", locked)
    for path in HARMLESS:
        assert kind(path) == "" and kind(in_tmp / path) == "" and str(expand(path)) == path
        for error, call in (
            (SpaceError, lambda p: load_space(p)), (SpaceError, lambda p: load_space(p + ".py")),
            (LatencyError, LatencyTable.load), (DataError, load), (DataError, lambda p: load(f"idx:{p}")),
            (DataError, lambda p: load("idx:x", data_dir=p)), (DataError, lambda p: load(f"npz:{p}_train.npz")),
            (RunError, read_config),
        ):  # fmt: skip
            with pytest.raises(error) as caught:
                call(path)
            assert "\n" not in str(caught.value)
        assert shadowed(path) is None


def test_the_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand("~/x") == tmp_path / "x" and expand("a/~") == Path("a/~")


def test_the_cache_folder_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert process.cache_folder() == tmp_path / "dnas"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert process.cache_folder() == tmp_path / ".cache" / "dnas"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does for an unknown user without $HOME
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert process.cache_folder() is None


# -- mangled input ------------------------------------------------------------------------------------------------

SKIP, C3, C5 = SkipOp(in_=8, out=8), ConvOp(in_=8, out=8, kernel=3), ConvOp(in_=8, out=8, kernel=5)
SPACE = Space(
    "toy",
    (
        ConvOp(in_=3, out=8, kernel=3, stride=2),
        OneOf("a", (C3, C5, SKIP)),
        Template(InvertedResidualOp, in_=8, out=8, mid=OneOf("mid", (8, 16)), kernel=OneOf("k", (3, 5)), residual=True),
        Stage(OneOf("d", (0, 1, 2)), (OneOf("b", (C3, Template(ConvOp, in_=8, out=8, kernel=OneOf("k", (3, 5)), act="swish"))),
                                      C5)),
        GlobalPoolOp(),
        LinearOp(in_=8, out=10),
    ),
    resolution=9,
    num_classes=10,
).to_json()  # fmt: skip

names = st.text(max_size=4) | st.sampled_from(("op", "in", "reduce", "one_of", "options"))
junk = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-3, 40), st.sampled_from((10**30, -(10**400))), st.floats(),
        st.text(max_size=4), st.sampled_from(("op", "ir", "conv", "se", "bn", "symmetric", "dnas-arch/1", "\ud800", "\0")),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def places(value: Any, prefix: Path_ = ()) -> list[Path_]:
    """Every place of a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [prefix, *(p for k, v in items for p in places(v, (*prefix, k)))]


@st.composite
def mutated(draw: st.DrawFn, body: Any) -> Any:
    """``body`` with one to three places removed, replaced by junk or by another part, or given a new field."""
    for _ in range(draw(st.integers(1, 3))):
        everywhere = [p for p in places(body) if p]
        if not everywhere:
            return body
        place = draw(st.sampled_from(everywhere))
        what = draw(st.sampled_from(("junk", "junk", "remove", "swap", "add")))
        if what == "swap":
            value: Any = body
            for step in draw(st.sampled_from(everywhere)):
                value = value[step]
            body = changed(body, place, copy.deepcopy(value))
        elif what == "add":
            body = changed(body, (*place[:-1], draw(st.text(max_size=4))) if isinstance(place[-1], str) else place, draw(junk))
        else:
            body = changed(body, place, GONE if what == "remove" else draw(junk))
    return body


calm = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@calm
@given(mutated(BODY) | mutated(TORCH) | junk)
def test_a_mangled_architecture_is_refused_or_sound(body: Any) -> None:
    try:
        network = Architecture.from_dict(body)
    except DnasError:
        return
    assert Architecture.from_dict(network.to_dict()) == network
    assert network.macs >= 0 and network.params >= 0 and canonical(network) and len(network.fingerprint) == 64


@calm
@given(mutated(SPACE) | junk)
def test_a_mangled_space_is_refused_or_sound(body: Any) -> None:
    try:
        space = Space.from_json(body)
    except DnasError:
        return
    assert Space.from_json(space.to_json()) == space
    genotype = space.sample(0)
    assert space.size >= 1 and space.encode(space.fix(genotype)) is not None and space.canonical(genotype)


NESTED = (
    ("layers", 1), ("layers", 1, "act"), ("layers",), ("name",), ("format",), ("metrics",), ("input",), ("num_classes",),
    ("defaults", "padding"), ("defaults", "bn"), ("layers", 1, "se", "gate"), ("layers", 1, "op"), ("input", "resolution"),
)  # fmt: skip


@pytest.mark.parametrize("place", NESTED, ids=repr)
@pytest.mark.parametrize("depth", [300, 2000])
def test_endless_nesting_is_refused(place: Path_, depth: int) -> None:
    body = changed(BODY, place, None)
    at = body
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = nested = []
    for _ in range(depth):
        nested.append([])
        nested = nested[0]
    with pytest.raises(ArchitectureError) as caught:
        Architecture.from_dict(body)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("depth", [3, 150, 450])
def test_nested_choices_in_a_file_are_read_or_refused(depth: int, tmp_path: Path) -> None:
    text, layer = json.dumps(SPACE), json.dumps(SPACE["layers"][1])
    start = "".join(f'{{"one_of": "z{i}", "options": [' for i in range(depth))
    assert layer in text
    (tmp_path / "deep.json").write_text(text.replace(layer, start + layer + "]}" * depth), encoding="utf-8")
    try:
        space = load_space(tmp_path / "deep.json")
    except SpaceError as problem:
        assert depth > 3 and "deep.json" in str(problem)
    else:
        assert space.size == Space.from_json(SPACE).size


L = "layers"
BAD_SPACES: tuple[tuple[Path_, Any, str], ...] = (
    (("format",), "dnas-arch/1", "format is 'dnas-arch/1'; expected 'dnas-space/1'"), (("layer",), [], "unknown field 'layer'"),
    (("name",), GONE, "missing field 'name'"), (("input",), {}, "input: expected an object"), ((L,), {}, "layers to be a list"),
    (("input", "resolution"), "9", "resolution is '9'"), (("num_classes",), 11, "1x1x10"), (("options",), [], "options is []"),
    (("defaults", "padding"), "none", "defaults.padding is 'none'"), ((L, 1, "options", 0, "out"), 9, "layer 1 (a)"),
    ((L, 0, "kernels"), 3, "layer 0: conv: unknown field 'kernels'"), ((L, 0), "conv", "layer 0: expected an object"),
    ((L, 1, "opts"), 3, "layer 1: a choice has the fields one_of"), ((L, 1, "options"), [], "layer 1: a: no options"),
    ((L, 1, "one_of"), 3, "layer 1: a OneOf needs a name, got 3"), ((L, 2, "op"), [], "layer 2: unknown op []"),
    ((L, 2, "mid", "options"), [8, 0], "layer 2: ir: mid is 0"), ((L, 2, "mid", "options"), [[[5]]], "layer 2: mid: options"),
    ((L, 2, "kernels"), 3, "layer 2: ir: unknown field 'kernels'"), ((L, 3, "depth"), 2, "layer 3: a choice has the fields"),
    ((L, 3, "depth", "options"), [3], "layer 3: d: depths (3,)"), ((L, 3, "width"), 2, "layer 3: a stage has the fields depth"),
)  # fmt: skip


@pytest.mark.parametrize(("place", "value", "words"), BAD_SPACES, ids=lambda v: repr(v)[:40])
def test_a_bad_space_file_is_named_with_layer_and_field(place: Path_, value: Any, words: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(json.dumps(changed(SPACE, place, value)), encoding="utf-8")
    with pytest.raises(SpaceError) as caught:
        load_space(tmp_path / "bad.json")
    assert str(caught.value).startswith(f"{tmp_path / 'bad.json'}: ") and words in str(caught.value)


def test_what_a_killed_write_left_is_removed_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"a.json", ".a.json.abcdefgh", ".part", "x.part", ".a.part", ".hidden"}
    for name in kept:
        (tmp_path / name).write_text("x")
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", lambda *_: 1 / 0)
        patch.setattr(files.os, "unlink", lambda _: None)
        with pytest.raises(ZeroDivisionError):
            files.write_text(tmp_path / "a.json", "new")
    (left,) = {p.name for p in tmp_path.iterdir()} - kept
    assert left.startswith(".a.json.")
    files.remove_leftovers(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == kept and (tmp_path / "a.json").read_text() == "x"
