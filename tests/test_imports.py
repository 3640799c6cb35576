"""What importing starts: nothing for ``import dnas``, no JAX for descriptions, options and tables; imports point downwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

import dnas

ROOT = Path(__file__).parents[1]
HEAVY = (
    "jax", "jaxlib", "flax", "optax", "orbax", "tensorflow", "tensorflow_datasets", "matplotlib", "sklearn", "scipy",
)  # fmt: skip


def modules_after(code: str) -> set[str]:
    """Names of the modules that are loaded in a fresh interpreter after ``code``, which may end in SystemExit."""
    body = f"import sys\ntry:\n    {code}\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
    report = "import json\nprint('\\n' + json.dumps(sorted(sys.modules)))"
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", body + report],
        env={**os.environ, "PYTHONPATH": python_path}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_dnas_starts_nothing() -> None:
    loaded = modules_after("import dnas")
    assert "dnas" in loaded and not loaded & {*HEAVY, "tyro", "rich", "numpy"}
    assert {m for m in loaded if m.startswith("dnas")} == {"dnas"}


def test_descriptions_spaces_tables_and_options_need_no_jax() -> None:
    loaded = modules_after(
        "import dnas.ops, dnas.arch, dnas.space, dnas.config, dnas.latency, dnas.space_files, dnas.search.schedule; "
        "space = dnas.load_space('fbnet_mini'); network = space.fix(space.sample(0)); "
        "space.encode(network), space.size, network.fingerprint; dnas.LatencyTable.load('samsung_s8.json')"
    )
    assert {"dnas.space_files", "dnas.latency.table"} <= loaded and not loaded & {*HEAVY, "tyro", "rich"}


@pytest.mark.parametrize(("command", "config"), [("dnas.search", "dnas.config"), ("dnas.train", "dnas.train.config")])
def test_help_needs_no_jax(command: str, config: str) -> None:
    loaded = modules_after(
        f"import runpy; sys.argv = ['{command}', '--help']; runpy.run_module('{command}', run_name='__main__', alter_sys=True)"
    )
    assert config in loaded and "tyro" in loaded and not loaded & set(HEAVY)


@pytest.mark.parametrize(
    ("module", "above"),
    [
        ("dnas.ops", {"dnas.arch", "dnas.space", "dnas.slots", "dnas.latency", "dnas.layers", "dnas.config"}),
        ("dnas.arch", {"dnas.space", "dnas.slots", "dnas.latency", "dnas.layers", "dnas.config"}),
        ("dnas.space", {"dnas.latency", "dnas.layers", "dnas.supernet", "dnas.config", "dnas.search"}),
        ("dnas.config", {"dnas.space", "dnas.latency", "dnas.layers", "dnas.search"}),
    ],
)
def test_imports_point_downwards(module: str, above: set[str]) -> None:
    loaded = modules_after(f"import {module}")
    assert module in loaded and not loaded & above


def test_public_names_are_what_they_say() -> None:
    for name in dnas.__all__:
        assert getattr(dnas, name) is not None and name in dir(dnas)
    # a module stays a module: a function of that name would break python -m, imports and mocks
    for name in ("data", "derive", "gates", "latency", "search"):
        assert isinstance(getattr(dnas, name), types.ModuleType)
    assert isinstance(dnas.Space, type) and callable(dnas.load_space)
    with pytest.raises(AttributeError, match="module 'dnas' has no attribute 'serach'"):
        dnas.serach  # noqa: B018
