"""README and docs: python blocks run in order, page by page; commands exist and take the options that they are shown with.

In a page, ``<!-- before: CODE -->`` runs before the next block (for what a reader has); ``<!-- not run: REASON -->`` skips it.
"""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tyro

from dnas import cli

ROOT = Path(__file__).parent.parent
PAGES = [
    p for p in (ROOT / "README.md", ROOT / "latency_lut" / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if p.exists()
]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
pytestmark = pytest.mark.skipif(not (ROOT / "docs").exists(), reason="the wheel has no docs")


class Block(NamedTuple):
    """``line``: of its first line in the page."""

    language: str
    text: str
    before: str
    skip: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    notes = r"((?:<!-- (?:before|not run): [^\n]* -->\s*)*)"
    for found in re.finditer(notes + r"^```(python|bash)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        before = "; ".join(re.findall(r"<!-- before: (.*?) -->", found[1]))
        skip = "".join(re.findall(r"<!-- not run: (.+?) -->", found[1]))
        yield Block(found[2], found[3], before, skip, text[: found.start(3)].count("\n") + 1)


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a shell block as words; variables, comments and what starts other processes are taken off."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for end in [i for i, word in enumerate(words) if word in ("&&", "|", ";", ">")][::-1]:
            yield from _plain(words[end + 1 :])
            words = words[:end]
        yield from _plain(words)


def _plain(words: list[str]) -> Iterator[list[str]]:
    words = [w for w in words if w != "..."]
    while words and (re.match(r"\w+=", words[0]) or words[0] in ("srun", "do", "nice", "time")):
        words = words[1:]
    if words:
        yield words


class Parsed(Exception):
    """The options were understood."""


def parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse ``python -m MODULE ...`` with the module's own options, and run nothing. Raises SystemExit, or DnasError."""

    def only_parse(name: str, kind: Any, main: Any, args: Any = None) -> int:
        tyro.cli(cli._spoken(kind), prog=name, args=args)
        raise Parsed

    module = words[2]
    monkeypatch.setattr(cli, "command", only_parse)
    monkeypatch.setattr(sys, "argv", [module, *words[3:]])
    loaded = sys.modules.pop(f"{module}.__main__", None) or sys.modules.pop(module, None)
    try:
        with pytest.raises(Parsed):
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        if loaded is not None:
            sys.modules[loaded.__name__] = loaded


@each_page
def test_shell_lines_are_commands_with_options_that_exist(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in blocks(page):
        if block.language != "bash" or block.skip:
            continue
        for words in commands(block.text):
            where = f"{page.name}, line {block.line}: {shlex.join(words)}"
            if words[:2] == ["python", "-m"] and words[2].startswith(("dnas", "benchmarks")):
                try:
                    parse(words, monkeypatch)
                except SystemExit as stop:
                    pytest.fail(f"{where}: refused by its own parser ({stop})")
            else:
                assert words[0] in ("python", "pip", "pytest", "git", "bash", "apt-get", "sudo", "docker"), where


@each_page
def test_python_blocks_are_python(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            compile(f"{block.before}\n{block.text}", f"{page.name}:{block.line}", "exec")


@pytest.mark.slow
@each_page
def test_python_blocks_run(page: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dnas.search import whole

    # searches are cut short, and not else changed
    short = {"epochs": 2, "warm_up": 0.5, "train_epochs": 1, "progress": False, "devices": 1}
    run = whole.run
    monkeypatch.setattr(whole, "run", lambda *args, **options: run(*args, **{**short, **options}))
    names: dict[str, Any] = {"__name__": "docs"}
    for block in blocks(page):
        if block.language == "python" and not block.skip:
            lines = "\n" * (block.line - 1 - block.before.count("\n") - bool(block.before))
            code = f"{lines}{block.before}\n{block.text}" if block.before else f"{lines}{block.text}"
            exec(compile(code, str(page), "exec"), names)


def test_what_the_checks_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        parse(shlex.split("python -m dnas.describe fbnet_c --no-such-option"), monkeypatch)
    with pytest.raises(SystemExit):
        parse(shlex.split("python -m dnas.latency shwo pixel1"), monkeypatch)
    parse(shlex.split("python -m dnas.describe fbnet_c --json"), monkeypatch)
    page = tmp_path / "a.md"
    page.write_text(
        "<!-- before: x = 1 -->\n```python\ny = x\n```\n\n<!-- not run: slow -->\n```bash\nA=1 pip x && pytest  # c\n```\n"
    )
    first, second = blocks(page)
    assert (first.before, first.line, second.skip) == ("x = 1", 3, "slow") and list(commands(second.text)) == [
        ["pytest"],
        ["pip", "x"],
    ]
