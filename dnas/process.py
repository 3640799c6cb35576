"""Process settings that make JAX on a CPU fast. Commands call ``set_up`` before JAX starts; ``import dnas`` changes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from dnas.machine import cores

SWITCH = "DNAS_PROCESS_SETUP"  # set to 0 to leave the process as it is
MALLOC = ":".join(f"glibc.malloc.{k}={v}" for k, v in {"hugetlb": 1, "mmap_max": 0, "trim_threshold": 2**40}.items())

COMPILER = {
    "xla_backend_optimization_level": "1",
    "xla_backend_extra_options": "xla_cpu_disable_slp_vectorizer,xla_cpu_disable_loop_unrolling",
}


def settings(devices: int = 1, given: str = "") -> dict[str, str]:
    """What the commands put into the environment of a process; for benchmarks, whose processes are others. ``given``: XLA
    flags that a user had set."""
    return {"GLIBC_TUNABLES": MALLOC} | ({"XLA_FLAGS": compiler_flags(given, devices)} if _only_cpu() else {})


def set_up(module: str) -> None:
    """Prepare the process of the command ``python -m module``; call it before JAX is imported.

    Huge pages for malloc, and heaps that keep what was freed (Linux, glibc): XLA:CPU allocates its buffers anew for every
    call, and faulting their pages in takes up to half of a step, also with huge pages where a virtual machine gives free memory
    back to its host. glibc reads these settings at start only, so the command starts itself again, once. The persistent
    compilation cache lies in the user's cache folder, on a CPU by the number of cores that the process may use: programs are
    compiled for so many, and JAX's keys do not say it. Where JAX has nothing but the CPU, XLA compiles with
    ``COMPILER``, so that compilation and steps take less CPU time, and computes ``in_line``. ``--devices N`` makes N devices of
    the CPU there, with a thread each. Settings that the user made are left alone.
    """
    if os.environ.get(SWITCH, "1") == "0":
        return
    folder = cache_folder()
    if folder and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "jax" / (f"{cores()}-cores" if _only_cpu() else ""))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    if _only_cpu():
        os.environ["XLA_FLAGS"] = compiler_flags(os.environ.get("XLA_FLAGS", ""), _devices(sys.argv[1:]))
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = MALLOC
        arguments = [sys.executable, *_interpreter_options(), "-m", module, *sys.argv[1:]]
        sys.stdout.flush()
        with contextlib.suppress(OSError):
            os.execv(sys.executable, arguments)
    if _only_cpu():
        in_line()


def in_line() -> None:
    """JAX's CPU computes in the thread that asks for it; to be called before it computes anything.

    Of glibc's heaps only the main thread's keeps buffers of more than 64 MB. Those that JAX's own threads allocate are mapped
    anew in every step.
    """
    import jax

    with contextlib.suppress(AttributeError):  # a JAX without this flag is slower, not wrong
        jax.config.update("jax_cpu_enable_async_dispatch", False)


def compiler_flags(given: str, devices: int = 1) -> str:
    """The value of ``XLA_FLAGS``: ``given``, and where that says nothing ``COMPILER`` and as many ``devices`` of one thread."""
    several = {"xla_force_host_platform_device_count": str(devices), "xla_cpu_multi_thread_eigen": "false"}
    flags = COMPILER | (several if devices > 1 else {})
    return " ".join([given, *(f"--{name}={value}" for name, value in flags.items() if f"--{name}=" not in given)]).strip()


def _devices(arguments: list[str]) -> int:
    """What ``--devices`` asks for, or the run that ``--resume`` continues, up to the number of cores; 1 for several processes,
    which have devices of their own."""
    given = dict(pairwise(arguments)) | dict(a.split("=", 1) for a in arguments if "=" in a)
    wanted = given.get("--devices", "")
    if "--resume" in given:
        with contextlib.suppress(OSError, ValueError, AttributeError, RecursionError):  # what is wrong with it is said later
            body = json.loads(Path(given["--resume"], "config.json").read_text(encoding="utf-8"))
            wanted = str(next((v["devices"] for v in body.values() if isinstance(v, dict) and "devices" in v), ""))
    if "--distributed" in arguments or not wanted.isdecimal():
        return 1
    return min(int(wanted), os.cpu_count() or 1)


def _only_cpu() -> bool:
    """Whether JAX will find no accelerator: it is told so, or has no plugin for one."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms == "cpu"
    return not metadata.entry_points(group="jax_plugins") and not any(map(find_spec, ("jax_plugins", "libtpu")))


def _interpreter_options() -> list[str]:
    """-W, -X and the like, as this interpreter was given them."""
    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]


def cache_folder() -> Path | None:
    """``$XDG_CACHE_HOME/dnas`` or ``~/.cache/dnas``; None without a home folder: what is cached must be the user's own."""
    given, home = os.environ.get("XDG_CACHE_HOME"), os.path.expanduser("~")
    return Path(given or Path(home, ".cache")) / "dnas" if given or home != "~" else None
