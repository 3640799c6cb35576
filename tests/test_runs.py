"""Run folders: where a new one lies, and what is refused when one is continued."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from dnas import checkpoint
from dnas.errors import DataError, RunError
from dnas.runs import Journal, begun_in, read_config

ROW = b'{"phase": "search", "epoch": 1}\n'


def test_a_default_folder_is_new_and_lies_in_runs(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda _: "now")  # several runs in one second
    folders = [Journal.create(None, name, 1.0).folder for name in ("a", "a", "a", "../../x y/é", "n" * 5000)]
    names = ["a-now", "a-now-2", "a-now-3", ".._.._x_y__-now", "n" * 100 + "-now"]
    assert [str(f) for f in folders] == [f"runs/{n}" for n in names] and all(f and f.is_dir() for f in folders)


def test_folders_that_cannot_be_taken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for out, words in (
        (tmp_path / "file", "file is a file; expected a folder"), (tmp_path, "is not empty; .* --resume"),
        (tmp_path / "file" / "x", "cannot be made"), (tmp_path / ("n" * 5000), "cannot be made .File name too long"),
        (tmp_path / "a\0b", "cannot be made"),
    ):  # fmt: skip
        with pytest.raises(RunError, match=words) as caught:
            Journal.create(str(out), "", 1.0)
        assert "\n" not in str(caught.value)
    (tmp_path / "empty").mkdir()
    assert Journal.create(str(tmp_path / "empty"), "", 1.0).folder == tmp_path / "empty"


@pytest.mark.parametrize(
    ("history", "words"),
    [
        (ROW + ROW + ROW, None),
        (ROW + b"\xff\xfe\x00\x89PNG\n", "cannot be read"),
        (ROW + b'{"phase": \n', "cannot be read"),
        (ROW + b"[" * 100_000 + b"\n", "cannot be read"),
        (ROW + b"3\n", "row 2 is 3; expected an object with a text field 'phase'"),
        (ROW + b'{"epoch": 2}\n', "row 2 is {'epoch': 2}; expected an object"),
        (ROW + b'{"phase": null}\n', "row 2 is {'phase': None}; expected an object"),
        (ROW, "has 1 rows; its checkpoint was written after 2"),
    ],
)
def test_a_damaged_history_is_refused(
    history: bytes, words: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = checkpoint.Kept(tmp_path, {}, {"rows": 2}, "")
    monkeypatch.setattr(checkpoint, "newest", lambda folder: kept)
    (tmp_path / "history.jsonl").write_bytes(history)
    if words is None:
        assert len(Journal.resume(tmp_path, 1.0).history) == 2 and (tmp_path / "history.jsonl").read_bytes() == ROW + ROW
        return
    with pytest.raises(RunError) as caught:
        Journal.resume(tmp_path, 1.0)
    text = str(caught.value)
    assert words in text and "history.jsonl" in text and "restore the file, or start a new run" in text and "\n" not in text


def test_a_config_is_checked(tmp_path: Path) -> None:
    for body, words in (
        ([], "config.json: .*'search'"), ({"search": 3}, "3; expected an object with a field 'search'"),
        ({"search": {}, "inputs": [1]}, r"\[1\]; expected an object with a field 'inputs'"), ({"search": {}}, "'inputs'"),
    ):  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps(body), encoding="utf-8")
        with pytest.raises(RunError, match=words):
            read_config(str(tmp_path))
    (tmp_path / "config.json").write_text('{"search": {}, "inputs": {}}', encoding="utf-8")
    assert read_config(str(tmp_path)) == {"search": {}, "inputs": {}}
    for folder in ("n" * 5000, "a\0b", "none"):
        with pytest.raises(RunError, match="no such run folder"):
            read_config(folder)


def test_a_path_from_the_folder_that_a_run_was_begun_in_is_said_to_be_one(in_tmp: Path) -> None:
    def attempt(path: str) -> None:
        with begun_in("--resume runs/a", ("samsung_s8.json", None, path)):
            raise DataError(f"{path} cannot be read")

    with pytest.raises(RunError, match=r"^--resume runs/a: d.npz cannot be read; the run has d.npz as .*: go there"):
        attempt("d.npz")
    Path("d.npz").touch()
    for path in ("d.npz", str(in_tmp / "none.npz"), "samsung_s8.json", "digits"):
        with pytest.raises(DataError, match=f"^{path} cannot be read$"):
            attempt(path)
