"""Checkpoints: whole or not at all, and never one that is not what was written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dnas import checkpoint
from dnas.errors import RunError
from dnas.runs import Journal


def tree(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=(7, 50)).astype(np.float32), "n": np.int32(seed), "key": rng.integers(0, 9, 2, np.uint32)}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with two checkpoints, written after one and two rows of history."""
    journal = Journal(tmp_path)
    for number in (1, 2, 3):
        journal.record({"phase": "search", "epoch": number})
        journal.save("search", number, 0, 10 * number, tree(number), {"note": number})
    assert sorted(p.name for p in (tmp_path / "checkpoint").iterdir()) == ["000000020", "000000030"]
    return tmp_path


def flip(path: Path) -> None:
    """One bit of the file that holds the most of a checkpoint's figures."""
    largest = max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    body = bytearray(largest.read_bytes())
    body[len(body) // 2] ^= 1
    largest.write_bytes(body)


def truncate(path: Path) -> None:
    for file in path.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_what_was_saved_is_read_back_to_the_last_bit(run: Path) -> None:
    journal = Journal.resume(run, 1.0)
    about = journal.about()
    assert about and (about["phase"], about["epoch"], about["rows"], about["notes"]) == ("search", 3, 3, {"note": 3})
    found, wanted = journal.load(tree(0)), tree(3)
    assert {k: np.asarray(v).tobytes() for k, v in found.items()} == {k: v.tobytes() for k, v in wanted.items()}
    assert journal.remarks == ()
    with pytest.raises(RunError, match="another network or optimiser"):
        journal.load({"w": np.zeros((50, 7), np.float32), "n": np.int32(0), "key": np.zeros(2, np.uint32)})


@pytest.mark.parametrize(
    "damage", [flip, truncate, shutil.rmtree, lambda p: [f.unlink() for f in p.rglob("*") if f.is_file()]],
    ids=["one bit", "half of it", "gone", "empty"],
)  # fmt: skip
def test_a_damaged_checkpoint_is_passed_over_and_said_so(run: Path, damage: Any) -> None:
    """The one before is used, the history is cut back to it, and the run goes on from there over the damaged one."""
    newest = run / "checkpoint" / "000000030"
    damage(newest)
    journal = Journal.resume(run, 1.0)
    about = journal.about()
    assert about and about["epoch"] == 2 and len(journal.history) == 2
    assert (run / "history.jsonl").read_text(encoding="utf-8").count("\n") == 2
    assert np.asarray(journal.load(tree(0))["w"]).tobytes() == tree(2)["w"].tobytes()
    if newest.exists():
        (remark,) = journal.remarks
        assert "000000030 is damaged" in remark and remark.endswith("000000020 is used instead")
    journal.record({"phase": "search", "epoch": 3})
    journal.save("search", 2, 5, 25, tree(4), {})
    assert sorted(p.name for p in (run / "checkpoint").iterdir()) == ["000000020", "000000025"]


def test_a_write_that_was_cut_short_is_no_checkpoint(run: Path) -> None:
    """What a killed process leaves has another name until it is whole; the next write removes it."""
    left = run / "checkpoint" / "000000040.orbax-checkpoint-tmp"
    shutil.copytree(run / "checkpoint" / "000000030", left)
    journal = Journal.resume(run, 1.0)
    about = journal.about()
    assert about and about["epoch"] == 3
    journal.save("search", 4, 0, 40, tree(4), {})
    assert sorted(p.name for p in (run / "checkpoint").iterdir()) == ["000000030", "000000040"]


def test_if_all_are_damaged_it_says_what_to_do(run: Path) -> None:
    for path in (run / "checkpoint").iterdir():
        flip(path)
    with pytest.raises(
        RunError, match=r"000000030 is damaged.*000000020 is damaged.*delete .*checkpoint to begin this run again"
    ):
        Journal.resume(run, 1.0)


@pytest.mark.parametrize("version", [2, 99])
def test_another_version_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    """Also where the one before could be read: it would silently throw work away."""
    Journal(tmp_path).save("search", 1, 0, 10, tree(1), {})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "VERSION", version)
        Journal(tmp_path).save("search", 2, 0, 20, tree(2), {})
    with pytest.raises(
        RunError,
        match=f"version {version}; this dnas reads version {checkpoint.VERSION}: finish the run with the dnas that began",
    ):
        Journal.resume(tmp_path, 1.0)


def test_the_checksum_is_of_names_and_figures() -> None:
    one = {"float32": np.arange(3, dtype=np.float32), "int32": np.arange(2, dtype=np.int32)}
    other = {"float32": np.arange(3, dtype=np.float32), "uint32": np.arange(2, dtype=np.uint32)}
    same = {k: one[k].copy() for k in ("int32", "float32")}
    assert checkpoint._sha256(one) == checkpoint._sha256(same) != checkpoint._sha256(other)
