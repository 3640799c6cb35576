"""Two real processes on this machine (two simulated devices each) together do what one process does."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from jax.experimental import multihost_utils
from test_search_runs import OPTIONS, folder, search  # noqa: F401 (folder is a fixture)
from test_search_steps import bands, images

from dnas import devices
from dnas.config import SearchConfig
from dnas.data import Split
from dnas.data.feed import Feed
from dnas.errors import ConfigError
from dnas.search import init, prepare, record, step

TESTS = Path(__file__).parent
WAIT_S = 240  # a hang ends here


class Lazy:
    """Images that are read one by one, and a note of which were."""

    def __init__(self, pixels):
        self.pixels, self.was_read = pixels, []
        self.shape = pixels.shape

    def __len__(self):
        return len(self.pixels)

    def read(self, indices):
        self.was_read += [int(i) for i in indices]
        return self.pixels[indices]

    def take(self, indices):
        return Lazy(self.pixels[indices])


@contextlib.contextmanager
def started(*arguments, count=2):
    """``count`` processes of ``python *arguments`` that know each other, killed at the end if they still run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    env = os.environ | {
        "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}", "DNAS_PROCESS_SETUP": "0", "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count),
    }  # fmt: skip
    children = [
        subprocess.Popen(
            [sys.executable, "-W", "error", *map(str, arguments)], env=env | {"JAX_PROCESS_ID": str(i)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for i in range(count)
    ]  # fmt: skip
    try:
        yield children
    finally:
        for child in children:
            child.kill()  # not SIGTERM, which a run takes as a wish
            child.communicate()


# its threads write piece by piece, so that a piece of one may lie anywhere in the line of another
GLOO = re.compile(r"\[Gloo\] |Rank | is connected to |Expected number of connected | peer ranks\. |peer ranks is : ")


def without_gloo(said: str) -> str:
    rest = GLOO.sub("", said)
    return rest if re.sub(r"[\d\s]", "", rest) else ""  # its numbers alone


def ended(children) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each, without what the C++ libraries say."""
    found = []
    for child in children:
        out, err = child.communicate(timeout=WAIT_S)
        found.append((child.returncode, without_gloo(out), err))
    return found


def test_torn_lines_of_a_library_are_not_taken_for_ours():
    line = "[Gloo] Rank 2 is connected to 3 peer ranks. Expected number of connected peer ranks is : 3\n"
    torn = "[Gloo] Rank 2[Gloo] Rank  is connected to 3 is connected to 3 peer ranks.  peer ranks. "
    torn += "Expected number of connected peer ranks is : Expected number of connected peer ranks is : 33\n\n"
    assert without_gloo(line) == without_gloo(torn + line) == ""
    assert "epoch 1 of 4" in without_gloo(torn + "epoch 1 of 4\n" + line)


def together(*arguments) -> list[tuple[int, str, str]]:
    with started(*arguments) as children:
        return ended(children)


def options(inputs, out):
    """What ``test_search_runs.search`` gives to ``run``, as arguments of the command for several processes."""
    given = {k: v for k, v in OPTIONS.items() if k != "devices"}
    named = {"space": inputs / "space.json", "lut": inputs / "lut.json", "data": f"npz:{inputs / 'data.npz'}", "out": out}
    words = [f"--{k.replace('_', '-')}={v}" for k, v in (named | given).items()]
    return ["-m", "dnas.search", "--distributed", *words]


def compute() -> dict[str, np.ndarray]:
    """A step of each kind, and batches of a set in memory and of a lazy one, by all processes."""
    space = tiny.plain_space()
    config = SearchConfig(lut="tiny", space="tiny", data="bands", epochs=4, batch_size=8, train_epochs=1)
    if jax.process_count() == 1:
        config = SearchConfig(**config.to_dict() | {"devices": 1})
    setup = prepare(config, space, tiny.table_for(space), images())
    state, found = init(setup), {}
    for kind, feed in (("weights", "weights"), ("theta", "architecture")):
        state, info = step(setup, state, setup.feeds[feed].batch(0), kind, 1.0)
        parts = {"params": state.params, "stats": state.stats, "logits": state.logits, "loss": info.loss}
        for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(parts)):
            found[f"{kind}{jax.tree_util.keystr(path)}"] = leaf
    pixels, labels = bands(30)
    lazy = Lazy(pixels)
    for name, store in (("memory", pixels), ("lazy", lazy)):
        split = Split(store, labels[2:25], np.arange(2, 25))
        feed = Feed(
            split, batch_size=8, resolution=12, channels=3, mean=(0.5,) * 3, std=(0.2,) * 3, augment="crop-flip", seed=3,
            mesh=devices.shared_mesh(),
        )  # fmt: skip
        for number, batch in enumerate([feed.batch(5), *feed.evaluation(10 if jax.process_count() > 1 else 12)]):
            for part, value in zip(("x", "y", "mask"), batch, strict=False):
                found[f"{name} {number} {part}"] = multihost_utils.process_allgather(value, tiled=True)
    found["read"] = np.unique(lazy.was_read)
    return found


def worker(out: str) -> None:
    devices.start()
    found = compute()
    assert jax.process_count() == 2 and jax.device_count() == 4
    np.savez(f"{out}{jax.process_index()}.npz", **found)
    with pytest.raises(Exception, match="cannot write"):  # an error of process 0 is one of all
        devices.on_first(lambda: 1 / 0 if not devices.is_first() else fail())
    assert devices.on_first(lambda: f"from {jax.process_index()}") == "from 0"
    assert int(devices.agree(jax.process_index() + 5)) == 6


def fail():
    raise OSError("cannot write")


def test_two_processes_make_the_steps_and_batches_of_one(tmp_path):
    found = together("-c", f"import test_hosts; test_hosts.worker({str(tmp_path / 'of')!r})")
    assert [code for code, _, _ in found] == [0, 0], found
    alone = compute()
    first, second = ({k: v for k, v in np.load(tmp_path / f"of{i}.npz").items()} for i in range(2))
    reads = [set(of.pop("read")) for of in (first, second)]
    assert alone.pop("read").tolist() == list(range(2, 25))
    assert set(first) == set(second) == set(alone)
    for name, wanted in alone.items():
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        np.testing.assert_allclose(first[name], wanted, rtol=1e-5, atol=1e-5, err_msg=name)
    assert all(len(r) < 23 for r in reads) and reads[0] | reads[1] == set(range(2, 25))


def test_a_batch_that_all_devices_cannot_share_and_a_number_of_them_are_refused(monkeypatch):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("data",))
    monkeypatch.setattr(devices, "shared_mesh", lambda: mesh)
    assert devices.data_mesh(8) is mesh and devices.data_mesh(8, 4) is mesh
    with pytest.raises(ConfigError, match=r"the 4 devices of the .* processes do not divide batches of 6; .*--batch-size"):
        devices.data_mesh(6)
    with pytest.raises(ConfigError, match="--devices 2: several processes use all their devices, here 4"):
        devices.data_mesh(8, 2)


def test_a_run_resumed_on_other_processes_or_devices_says_so():
    before = {k: v for k, v in record.machine().items() if k != "processes"}  # as written before there were several
    assert record.elsewhere({"machine": before, "search": {"devices": 4}}, 4) == ()
    (words,) = record.elsewhere({"machine": before | {"processes": 2}, "search": {"devices": 4}}, 1)
    assert "(processes 2 -> 1, devices 4 -> 1): the result may differ in rounding" in words


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):  # noqa: F811
    """The folder of a search by two processes, and what these said."""
    out = tmp_path_factory.mktemp("hosts") / "whole"
    found = together(*options(folder, out))
    assert [code for code, _, _ in found] == [0, 0], found
    return out, found


@pytest.mark.slow
def test_a_search_by_two_processes_is_that_of_one(folder, whole, tmp_path):  # noqa: F811
    out, ((_, said, _), (_, silent, errors)) = whole
    assert [p.name for p in out.parent.iterdir()] == ["whole"]
    wanted = {"architecture.json", "config.json", "history.jsonl", "preprocessing.json", "search.png", "report.html"}
    assert {p.name for p in out.iterdir()} - {"weights.safetensors"} == wanted | {"checkpoint", "measured.jsonl", "supernet"}
    assert "on 4 devices" in said and "accuracy" in said and not silent and not errors
    one = search(folder, tmp_path / "one")
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert len(rows) == len(one.history)
    for row, wanted in zip(rows, one.history, strict=True):
        assert row.keys() == wanted.keys() and row.get("genotype") == wanted.get("genotype")
        for name in ("train_loss", "mixture_loss", "argmax_loss", "expected_ms", "train_accuracy"):
            assert (row.get(name) or 0) == pytest.approx(wanted.get(name) or 0, rel=1e-4), name
    body, wanted = (json.loads((p / "architecture.json").read_text()) for p in (out, one.folder))
    assert body["layers"] == wanted["layers"]
    assert "--distributed" in body["provenance"]["command"] and "--devices 4" in body["provenance"]["command"]


@pytest.mark.slow
def test_ctrl_c_in_one_process_stops_both_and_the_run_resumes(folder, whole, tmp_path):  # noqa: F811
    cut = tmp_path / "cut"
    with started(*options(folder, cut)) as children:
        limit = time.monotonic() + WAIT_S
        while not (cut / "history.jsonl").exists() and time.monotonic() < limit and children[1].poll() is None:
            time.sleep(0.02)
        children[1].send_signal(signal.SIGINT)
        found = ended(children)
    assert [code for code, _, _ in found] == [130, 130], found
    assert f"--resume {cut}" in found[0][2] and found[1][1:] == ("", "")
    assert not (cut / "architecture.json").exists() and list((cut / "checkpoint").iterdir())
    found = together("-m", "dnas.search", "--distributed", "--resume", cut)
    assert [code for code, _, _ in found] == [0, 0], found
    for name in ("architecture.json", "history.jsonl", "config.json"):
        assert (cut / name).read_bytes() == (whole[0] / name).read_bytes()


@pytest.mark.slow
def test_seeds_of_two_processes_choose_together(folder, tmp_path):  # noqa: F811
    out = tmp_path / "seeds"
    words = [w for w in options(folder, out) if not w.startswith("--warm-up")]
    first, second = together(*words, "--seeds=2", "--method=single-path", "--evaluations=4")
    assert (first[0], second[0]) == (0, 0) and second[1:] == ("", ""), (first, second)
    chosen = json.loads((out / "seeds.json").read_text())["targets"][0]["together"]
    body = json.loads((out / "together" / "architecture.json").read_text())
    assert "by 2 supernets together" in first[1] and len(chosen["losses"]) == 2
    assert body["provenance"]["genotype"] == chosen["genotype"] and body["provenance"]["derivation"]["seeds"] == [0, 1]


@pytest.mark.parametrize(("env", "words"), [({}, "coordinator_address"), ({"JAX_NUM_PROCESSES": "two"}, "two")])
def test_without_a_cluster_it_is_one_line_that_says_what_to_do(in_tmp, env, words):
    """In a process of its own, because the state of jax.distributed is global."""
    bare = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "OMPI_", "KUBERNETES_", "JAX_COORDINATOR"))}
    found = subprocess.run(
        [sys.executable, "-m", "dnas.search", "--lut", "samsung_s8.json", "--distributed"], text=True, capture_output=True,
        timeout=WAIT_S, env=bare | env | {"PYTHONPATH": str(TESTS.parent), "DNAS_PROCESS_SETUP": "0"},
    )  # fmt: skip
    assert found.returncode == 2 and not found.stdout and not list(in_tmp.iterdir())
    assert found.stderr.startswith("error: --distributed: JAX found no cluster") and found.stderr.count("\n") == 1
    assert words in found.stderr and "JAX_COORDINATOR_ADDRESS=" in found.stderr and "JAX_PROCESS_ID=" in found.stderr
