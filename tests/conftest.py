"""Strict settings for all tests: several simulated devices, no silent rank promotion."""

import os

# before JAX is imported anywhere
os.environ["XLA_FLAGS"] = (os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8").strip()
os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    """Run a test in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
