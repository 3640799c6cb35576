"""What the commands set up before JAX starts, and programs that are compiled ahead."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import dnas
from dnas import process
from dnas.ahead import Program


@pytest.fixture
def compiled():
    """Names of the programs that XLA compiled, or the cache had, since the test began."""
    from jax._src import monitoring

    names = Counter()

    def listen(event, seconds, **about):
        if event == "/jax/core/compile/backend_compile_duration":
            names[about.get("fun_name")] += 1

    monitoring.register_event_duration_secs_listener(listen)
    yield names
    monitoring.unregister_event_duration_listener(listen)


def test_compiler_flags_leave_those_of_the_user_alone():
    both = process.compiler_flags("")
    assert both.split() == [f"--{name}={value}" for name, value in process.COMPILER.items()]
    given = "--xla_backend_optimization_level=3 --xla_dump_to=x"
    assert process.compiler_flags(given).startswith(f"{given} --xla_backend_extra_options=")
    assert process.compiler_flags(given).count("optimization_level") == 1
    assert process.compiler_flags(both) == both


@pytest.mark.parametrize(
    ("words", "devices"),
    [("--devices 2", 2), ("--space a=b --devices=3 --json", 3), ("--devices 99", 4), ("--devices two", 1), ("--devices", 1),
     ("--epochs 2", 1), ("--resume run", 3), ("--resume none", 1), ("--devices 2 --distributed", 1)],
)  # fmt: skip
def test_a_cpu_is_as_many_devices_as_are_asked_for_up_to_its_cores(words, devices, monkeypatch, in_tmp):
    (in_tmp / "run").mkdir()
    (in_tmp / "run" / "config.json").write_text('{"format": "x", "search": {"devices": 3}}')
    monkeypatch.setattr(process.os, "cpu_count", lambda: 4)
    assert process._devices(words.split()) == devices
    flags = process.compiler_flags("--xla_cpu_multi_thread_eigen=true", devices)
    assert (f"device_count={devices}" in flags) == (devices > 1) and "eigen=false" not in flags
    assert ("eigen=false" in process.compiler_flags("", devices)) == (devices > 1)


@pytest.mark.parametrize(
    ("platforms", "plugin", "flags"), [("cpu", True, True), ("cuda,cpu", False, False), ("", True, False), ("", False, True)]
)
def test_only_a_cpu_gets_compiler_flags_and_computes_in_line(platforms, plugin, flags, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setenv("GLIBC_TUNABLES", "x")  # else the process would start itself again
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "x")
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    monkeypatch.setattr(process, "find_spec", lambda name: object() if plugin and name == "jax_plugins" else None)
    monkeypatch.setattr(process.metadata, "entry_points", lambda group: ())
    monkeypatch.delenv(process.SWITCH, raising=False)
    assert ("XLA_FLAGS" in process.settings()) == flags
    calls: list[str] = []
    monkeypatch.setattr(process, "in_line", lambda: calls.append("in line"))
    process.set_up("dnas.search")
    assert calls == ["in line"] * flags
    assert process.os.environ["XLA_FLAGS"] == (process.compiler_flags("--xla_dump_to=x") if flags else "--xla_dump_to=x")


@pytest.mark.parametrize(("platforms", "folder"), [("cpu", "dnas/jax/3-cores"), ("cuda,cpu", "dnas/jax")])
def test_a_cache_on_a_cpu_is_for_a_number_of_cores(platforms, folder, monkeypatch, in_tmp):
    for name, value in {
        "JAX_PLATFORMS": platforms,
        "GLIBC_TUNABLES": "x",
        "XLA_FLAGS": "",
        "XDG_CACHE_HOME": str(in_tmp),
    }.items():
        monkeypatch.setenv(name, value)
    for name in (process.SWITCH, "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setattr(process, "cores", lambda: 3)
    monkeypatch.setattr(process, "in_line", lambda: None)
    process.set_up("dnas.search")
    assert process.os.environ["JAX_COMPILATION_CACHE_DIR"] == str(in_tmp / folder)


def test_a_call_after_ahead_compiles_nothing(compiled):
    def doubled(tree, factor):
        return {"a": tree["a"] * factor, "n": tree["n"] + 1}

    tree = {"a": jnp.ones((3, 5)), "n": jnp.zeros((), jnp.int32)}
    first, second = Program(doubled), Program(doubled, donate_argnums=0)
    shapes = first.eval_shape(tree, 2.0)
    second.ahead(shapes, jnp.float32(3))
    first.ahead(tree, 2.0)
    for job in (*first._pending, *second._pending):
        job.result()
    assert compiled["jit(doubled)"] == 2
    done = second(first(tree, 2.0), jnp.float32(3))
    np.testing.assert_array_equal(done["a"], np.full((3, 5), 6))
    assert int(done["n"]) == 2 and compiled["jit(doubled)"] == 2
    assert not first._pending and not second._pending


def test_what_cannot_be_compiled_is_said_at_the_call():
    product = Program(lambda a, b: a @ b)
    product.ahead(jnp.ones((2, 3)), jnp.ones((2, 3)))
    with pytest.raises(TypeError, match="contracting"):
        product(jnp.ones((2, 3)), jnp.ones((2, 3)))
    assert product(jnp.ones((2, 3)), jnp.ones((3, 2))).shape == (2, 2)


def test_a_search_compiles_each_program_once(compiled, no_pictures, monkeypatch):
    """Of the supernet one evaluation, whether it was compiled ahead or at the call; of the derived network another."""
    monkeypatch.setattr(jax, "default_backend", lambda: "other")  # compiles faster
    space = tiny.plain_space()
    table = tiny.table_for(space)
    target = float(np.mean(space.latency_range(table)))
    shape = (120, space.resolution, space.resolution, space.input_channels)
    pictures = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    data = dnas.data.Dataset.from_arrays(pictures, np.arange(120) % 3, classes=["a", "b", "c"])
    dnas.search.run(
        space, table, data, target_ms=target, epochs=2, warm_up=0.5, batch_size=8, train_epochs=1, derive_samples=2, devices=1,
        progress=False,
    )  # fmt: skip
    assert compiled["jit(_forward)"] == 2
    assert compiled["jit(traced)"] == 3, "gradients, and the updates of weights and theta"
    assert compiled["jit(train_step)"] == 1
