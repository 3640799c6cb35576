"""Strict settings for all tests: several simulated devices, no silent rank promotion."""

import os
from pathlib import Path

from dnas.process import compiler_flags  # imports no JAX

# before JAX is imported anywhere; compiled programs are kept, because many tests run the same ones
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ["XLA_FLAGS"] = compiler_flags(  # without its emitters XLA compiles these programs in a third less time
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8 --xla_cpu_use_fusion_emitters=false"
)
os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_addoption(parser):
    parser.addoption(
        "--architectures", metavar="FOLDER", help="test_published.py: networks to check, in place of tests/published"
    )


def pytest_configure(config):
    if folder := config.getoption("--architectures"):
        os.environ["DNAS_ARCHITECTURES"] = str(Path(folder).resolve())  # test_published.py reads it when it is collected


@pytest.fixture
def no_pictures(monkeypatch):
    """For whole runs, whose figures take longer than their searches (fixtures of a module still draw theirs)."""
    from dnas.search import finish

    for name in ("_picture", "_report"):
        monkeypatch.setattr(finish, name, lambda *_: None)


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    """Run a test in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
