"""Everything that ships says what to cite, in BibTeX that parses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dnas import cite
from dnas.cli import command
from dnas.errors import ConfigError
from dnas.files import dump_json, shipped
from dnas.methods import METHODS
from dnas.objective import OBJECTIVES
from dnas.oracle import SOURCES
from dnas.space_files import shipped_spaces


def test_all_that_ships_has_a_reference_or_is_our_own() -> None:
    every = {
        "method": METHODS, "objective": OBJECTIVES, "space": shipped_spaces(), "oracle": SOURCES,
        "lut": [p.name for p in shipped("latency_lut").glob("*.json")], "data": ["digits"],
    }  # fmt: skip
    for kind, names in every.items():
        for name in names:
            found, notes = cite.references(**{kind: name})
            assert found or "this project's own" in notes[0], f"{kind} {name}: add it to dnas/references.bib, or to cite.OWN"


def test_entries_are_complete_bibtex() -> None:
    keys = [e.key for e in cite.entries()]
    assert len(set(keys)) == len(keys) == Path(cite.__file__).with_name("references.bib").read_text().count("\n@")
    for entry in cite.entries():
        assert entry.text.count("{") == entry.text.count("}") and "dnas =" not in entry.text
        fields = dict(re.findall(r"^  (\w+) = \{(.*)\},$", entry.text, re.MULTILINE))
        assert {"title", "author", "year"} <= set(fields) and re.fullmatch(r"\d{4}", fields["year"])
        assert re.fullmatch(r"\d{4}\.\d{4,5}", fields.get("eprint", "1234.56789"))
        assert str(fields["year"]) in entry.key and len(entry.uses) > 0
        assert len(entry.text.splitlines()) == len(fields) + 2  # nothing but fields
        assert {use.partition(":")[0] for use in entry.uses} <= {*cite.KINDS, "software"}


def test_a_run_cites_what_it_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {
        "space": "proxylessnas:net=mobile", "method": "gumbel", "objective": "lagrange", "lut": "pixel1.json",
        "data": "idx:/somewhere/fashion-mnist", "also": ["./mine.json=3", "macs=2e6", "samsung_s8=4"],
    }  # fmt: skip
    (tmp_path / "config.json").write_text(dump_json({"search": options, "inputs": {}}))
    assert command("dnas.cite", cite.CiteConfig, cite.main, [str(tmp_path), "--json"]) == 0
    text = capsys.readouterr()
    assert {e["key"] for e in json.loads(text.out)} == {
        "cai2019proxylessnas", "wu2019fbnet", "jang2017gumbel", "maddison2017concrete", "stooke2020pid",
        "bertsekas1982lagrange", "stamoulis2019singlepath", "xiao2017fashion", "jax2018", "flax2020",
    }  # fmt: skip
    assert text.err == "note: no reference is known for lut ./mine.json: cite its source\n"


def test_names_and_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert [e.key for e in cite.references(data=["tfds:cifar10:3.0.2", "digits"])[0]] == [
        "alpaydin1998digits",
        "krizhevsky2009cifar",
    ]
    assert cite.references(space="./mine.py")[1] == ("no reference is known for space ./mine.py: cite its source",)
    with pytest.raises(ConfigError, match="nothing is known of space 'fbnt'; did you mean 'fbnet'"):
        cite.references(space="fbnt")
    assert command("dnas.cite", cite.CiteConfig, cite.main, ["--method", "gumbal"]) == 2
    assert "did you mean 'gumbel'" in capsys.readouterr().err
    assert command("dnas.cite", cite.CiteConfig, cite.main, []) == 0
    assert capsys.readouterr().out.count("@") == len(cite.entries())
