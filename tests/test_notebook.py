"""Notebooks: progress in one output that is kept; ``on_epoch``; a kernel that is interrupted loses nothing."""

from __future__ import annotations

import queue
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dnas import console, loop, notebook
from dnas.errors import Interrupted
from dnas.runs import Journal

TESTS = Path(__file__).parent


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """As in a kernel: the outputs of a cell, as they are after every message."""
    display = pytest.importorskip("IPython.display")
    outputs: list[str] = []

    class Handle:
        def update(self, data: dict[str, str], raw: bool) -> None:
            outputs[-1] = data["text/plain"]

    def shown(data: dict[str, str], raw: bool, display_id: bool) -> Handle:
        outputs.append(data["text/plain"])
        return Handle()

    monkeypatch.setattr(display, "display", shown)
    monkeypatch.setattr(notebook, "running", lambda: True)
    yield outputs


def test_all_that_a_run_says_is_one_output(cell: list[str]) -> None:
    """Lines above, bars below while they move; at the end the bars are lines, too."""
    talker = console.Talker(True)
    talker.columns, talker.phase = (("epoch", "epoch", "5d"), ("loss", "train_loss", "7.3f")), "search"
    talker.note("space    [tiny], which is no markup")
    with talker.progress() as watcher:
        watcher.begin("search", 4, 0)
        watcher.advance("search")
        watcher.bars.live.refresh()
        assert cell[0].splitlines()[0] == "space    [tiny], which is no markup" and "1/4" in cell[0].splitlines()[-1]
        watcher.row({"phase": "search", "epoch": 1, "train_loss": 0.5})
        watcher.bars.live.refresh()
        assert cell[0].splitlines()[1:3] == ["epoch     loss", "    1    0.500"] and "1/4" in cell[0].splitlines()[3]
        for _ in range(3):
            watcher.advance("search")
    talker.note("found")
    lines = cell[0].splitlines()
    assert len(cell) == 1 and lines[-1] == "found" and sum("4/4" in line for line in lines) == 1
    assert "\x1b" not in cell[0] and not any("1/4" in line for line in lines)


def test_nobody_is_told_where_nobody_listens(cell: list[str]) -> None:
    with console.Talker(False).progress() as watcher:
        watcher.begin("search", 4, 0)
        watcher.advance("search")
    assert cell == []


def test_bars_move_on_terminals_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Kernels set FORCE_COLOR for what they start; what is written into a file or an output must not move the cursor."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    with console.Talker(True).progress() as watcher:
        watcher.begin("search", 4, 0)
        for _ in range(4):
            watcher.advance("search")
            watcher.bars.live.refresh()
    text = capsys.readouterr().out
    assert text.count("4/4") == 1 and "1/4" not in text and "\x1b" not in text


def test_how_to_go_on_is_said_in_the_readers_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "my run")
    assert loop.how_to_resume(journal, "here").endswith(f"python -m dnas.search --resume '{tmp_path / 'my run'}'")
    journal.objects = ("space", "lut")
    assert loop.how_to_resume(journal, "here").endswith(
        f"dnas.search.resume({str(tmp_path / 'my run')!r}, space=space, lut=lut)"
    )
    monkeypatch.setattr(notebook, "running", lambda: True)
    journal.objects, journal.command = (), "dnas.train"
    assert loop.how_to_resume(journal, "here").endswith(f"dnas.train.resume({str(tmp_path / 'my run')!r})")
    assert Interrupted("one line")._render_traceback_() == ["one line"]


@pytest.mark.slow
def test_an_interrupted_kernel_loses_nothing(tmp_path: Path) -> None:
    """Stop button during a search that was given no folder: one line that says how to go on, and going on ends the run."""
    pytest.importorskip("ipykernel")
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3", cwd=str(tmp_path))

    def execute(code: str, stop_at: str = "") -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Outputs of the cell (updates in their place), and its error."""
        asked, found, error, ids = client.execute(code), [], {}, []
        for _ in range(10_000):
            try:
                message = client.get_iopub_msg(timeout=5)
            except queue.Empty:
                assert manager.is_alive()
                continue
            kind, content = message["msg_type"], message["content"]
            if kind in ("display_data", "execute_result", "update_display_data"):
                name = content.get("transient", {}).get("display_id")
                if kind == "update_display_data":
                    found[ids.index(name)] = content["data"]
                else:
                    found.append(content["data"])
                    ids.append(name)
                if stop_at and re.search(stop_at, content["data"].get("text/plain", "")):
                    manager.interrupt_kernel()
                    stop_at = ""
            elif kind == "error":
                error = content
            elif kind == "status" and content["execution_state"] == "idle" and message["parent_header"]["msg_id"] == asked:
                break
        return found, error

    try:
        execute(f"import sys; sys.path.insert(0, {str(TESTS)!r}); import dnas, tiny; from test_search_steps import images")
        execute("import jax; jax.default_backend = lambda: 'other'")  # compiles faster
        execute("space = tiny.template_space(); lut = tiny.table_for(space); data = images(); told = []")
        options = "epochs=4, batch_size=8, train_epochs=1, devices=1"
        (output,), error = execute(
            f"dnas.search.run(space, lut, data, on_epoch=told.append, {options})", stop_at=r"(?m)^ +1 +\d"
        )
        assert error["ename"] == "Interrupted" and len(error["traceback"]) == 1, error
        (call,) = re.findall(r"dnas\.search\.resume\(.*\)$", error["traceback"][0])
        assert call.endswith(", space=space, lut=lut, data=data)") and "search " in output["text/plain"]
        (shown, result), error = execute(f"more = []; result = {call[:-1]}, on_epoch=more.append); result")
        assert not error and "text/html" in result and shown["text/plain"].count("\n    4  ") == 1
        check = "[(e.phase, e.epoch) for e in told + more] == [*(('search', i) for i in (1, 2, 3, 4)), ('training', 1)]"
        ((answer,), _) = execute(f"{check}, (result.folder / 'report.html').exists(), [*more[-1].history] == result.history")
        assert answer["text/plain"] == "(True, True, True)"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        time.sleep(0.1)
