"""``python -m dnas.latency probe`` and ``collect``: a folder of probes to be timed on a phone, and the table from its logs."""

from __future__ import annotations

import dataclasses
import datetime
import random
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import dnas
from dnas.arch import Architecture
from dnas.errors import ArchitectureError, LatencyError, RunError
from dnas.files import dump_json, kind, read_json, sha256, shown, write_bytes, write_text
from dnas.latency.assemble import assemble, plain, unmeasured
from dnas.latency.benchmark_logs import BenchmarkLog, parse
from dnas.latency.importers.common import field
from dnas.latency.keys import whole
from dnas.latency.probes import LAUNCH, Probe, network_probes, op_probes, spread, weights
from dnas.latency.table import PLAIN, LatencyTable
from dnas.latency.terms import price
from dnas.latency.timing import Timing
from dnas.runtimes import runtime
from dnas.space import Space

FORMAT = "dnas-probes/1"
PRIOR = "samsung_s8"  # the table whose cost model chooses the networks: what the phone takes is not known yet
SCRIPTS = ("run.sh", "on_phone.sh")
CLOSE = 0.02  # of the largest output: float32 kernels differ by less, also where they compute in another order
NOTED = ("governor", "pinned", "khz", "millidegrees", "waited_s", "threads")


def write(space: Space, folder: Path, networks: int, passes: int, seed: int, each: Callable[[int, int], None]) -> int:
    """Write the probes of ``space`` into ``folder``, new or empty; returns how many. ``each`` is told (done, of how many).

    ``networks``: whole ones, spread over the range; ``passes``: how often every probe will run.
    Errors: RunError, LatencyError, ConfigError without the extra ``litert``.
    """
    if kind(folder) not in ("", "folder") or (kind(folder) and any(folder.iterdir())):
        raise RunError(f"--out {folder} is not empty; expected a new folder")
    engine = runtime("litert")
    probes = op_probes(space)
    if networks:
        terms = price(space, LatencyTable.load(PRIOR), "cost-model")
        probes += network_probes(space, spread(space, terms, networks, seed))
    rows, golden = [], {}
    images = next((p.images(seed) for p in probes if p.genotype is not None), None)
    for number, probe in enumerate(probes):
        each(number, len(probes))
        params, stats = weights(probe.architecture, seed)
        model = engine.write(probe.architecture, params, stats)
        write_bytes(folder / "models" / f"{probe.name}.tflite", model)
        body: dict[str, Any] = {"name": probe.name, "measures": probe.about, "sha256": sha256(model)}
        body |= {"genotype": list(probe.genotype)} if probe.genotype is not None else {}
        rows.append(body | {"architecture": probe.architecture.to_dict()})
        if probe.genotype is not None and images is not None:
            golden[probe.name] = _golden(folder, probe, params, stats, images)
    each(len(probes), len(probes))
    manifest = {
        "format": FORMAT, "space": {"name": space.name, "options": dict(space.options), "sha256": space.fingerprint},
        "resolution": space.resolution, "seed": seed, "precision": "float32", "batch": 1,
        "versions": {"dnas": dnas.__version__, "writer": engine.version()}, "golden": golden, "probes": rows,
    }  # fmt: skip
    _passes(folder, [p.name for p in probes], list(golden), passes, seed)
    write_text(folder / "manifest.json", dump_json(manifest, rows="probes"))
    here = Path(__file__).parent
    for script in SCRIPTS:
        write_bytes(folder / script, (here / script).read_bytes())
    return len(probes)


@dataclasses.dataclass(frozen=True)
class Collected:
    """``table``; ``partly``: probes that were not fully delegated, with the operators left; ``problems``: sentences on probes
    whose logs are missing or say that they failed; ``wrong``: networks whose output is not the golden one, with the largest
    difference as a share of the largest output; ``checked``: networks whose outputs were compared."""

    table: LatencyTable
    partly: Mapping[str, tuple[str, ...]]
    problems: tuple[str, ...]
    wrong: Mapping[str, float]
    checked: int


def collect(folder: Path, about: Mapping[str, Any]) -> Collected:
    """The table of the logs in ``folder/logs``. ``about``: device, runtime, licence, who, where they are given.

    An entry is the median over the passes of what the tool states (its median, else its mean).
    Errors: LatencyError for a folder without logs, or in which no op could be read.
    """
    manifest, probes = _manifest(folder)
    logs, problems = _logs(folder, [p.name for p in probes])
    figures = {name: Timing.of([log.ms for log in found]) for name, found in logs.items() if found}
    lacking = [p.name for p in probes if p.name not in figures]
    problems += [f"{name}: no time of it in any pass" for name in lacking]
    if all(p.key is None or p.name in lacking for p in probes):
        raise LatencyError(f"{folder}: no log of an op could be read; {'; '.join(problems[:3])}")
    partly = _partly(folder, logs)
    wrong, checked = _outputs(folder, manifest["golden"])
    device = _device(folder)
    notes = [log.notes for found in logs.values() for log in found]
    passes = max(len(found) for found in logs.values())
    source = {
        "who": about.get("who") or "measured by whoever ran the script",
        "licence": about.get("licence") or "none stated",
        "date": datetime.date.today().isoformat(),
        "how": f"{passes} passes of TFLite's benchmark_model over the probes of python -m dnas.latency probe",
        "versions": manifest["versions"], "space": manifest["space"], "phone": device, "conditions": _conditions(notes),
        "networks": {p.name: list(p.genotype) for p in probes if p.genotype is not None},
        "golden_outputs": {"compared": checked, "wrong": dict(wrong)},
        PLAIN: plain(probes, partly),
    }  # fmt: skip
    threads = {n["threads"] for n in notes if _whole(n.get("threads", ""))}
    fields: dict[str, Any] = {
        "device": about.get("device") or _name(device),
        "runtime": about.get("runtime") or "TFLite (version not stated), XNNPACK",
        "threads": int(threads.pop()) if len(threads) == 1 else None, "resolutions": (manifest["resolution"],) * 2,
        "source": source,
    }  # fmt: skip
    table = assemble(probes, figures, fields)
    for probe in probes:
        if probe.name in figures and probe.genotype is not None and (ops := unmeasured(table, probe)):
            problems.append(f"{probe.name}: no part of the check, since {len(ops)} of its ops have no time: {ops[0]}")
    return Collected(table, partly, tuple(problems), wrong, checked)


def _golden(folder: Path, probe: Probe, params: Any, stats: Any, images: np.ndarray) -> dict[str, Any]:
    """Write what the network gives for ``images``, by JAX, not by the file that is tested."""
    import jax.numpy as jnp

    from dnas import supernet

    place = folder / "golden"
    if not (place / "images.bin").exists():
        write_bytes(place / "images.bin", np.ascontiguousarray(images).tobytes())
        write_text(place / "input_name.txt", "images\n")  # any name will do, and the model's has a colon
        write_text(place / "input_shape.txt", ",".join(map(str, images.shape)) + "\n")
    outputs = np.asarray(supernet.apply(supernet.Net.of(probe.architecture), params, stats, jnp.asarray(images))[0], np.float32)
    write_bytes(place / f"{probe.name}.bin", outputs.tobytes())
    return {"outputs": list(outputs.shape), "largest": float(np.abs(outputs).max())}


def _passes(folder: Path, names: Sequence[str], golden: Sequence[str], passes: int, seed: int) -> None:
    """The order of every pass; every name on a line."""
    lists = {"profile": list(names), "golden": list(golden)}
    for number in range(1, passes + 1):
        order = list(names)
        random.Random(f"{seed}/{number}").shuffle(order)
        lists[f"pass{number:02d}"] = order
    for name, order in lists.items():
        if order:
            write_text(folder / "passes" / f"{name}.txt", "".join(f"{n}\n" for n in order))


def _manifest(folder: Path) -> tuple[dict[str, Any], list[Probe]]:
    path = folder / "manifest.json"
    body = read_json(path, LatencyError)
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise LatencyError(f"{path}: expected what python -m dnas.latency probe writes (format {FORMAT})")
    try:
        probes = [_probe(row, f"probes[{index}]") for index, row in enumerate(field(body, "it", "probes", list))]
        names = {p.name for p in probes}
        if len(names) < len(probes):
            raise LatencyError("probes: a name is there twice")
        for name, kind_ in (("space", dict), ("versions", dict), ("golden", dict)):
            field(body, "it", name, kind_)
        whole("resolution", body.get("resolution"))
        for name, about in body["golden"].items():
            if name not in names:
                raise LatencyError(f"golden: {shown(name)} is no probe")
            if not 0 < field(about, f"golden.{name}", "largest", (int, float)) < 1e30:
                raise LatencyError(f"golden.{name}: largest is {shown(about['largest'])}; expected a positive number")
    except LatencyError as problem:
        raise LatencyError(f"{path}: damaged ({problem}); write the probes again") from None
    return body, probes


def _probe(row: Any, where: str) -> Probe:
    """One row of the manifest. Errors: LatencyError that names the field."""
    name = field(row, where, "name", str)
    if not re.fullmatch(r"\w+", name, re.ASCII):
        raise LatencyError(f"{where}: name is {shown(name)}; expected letters and digits")
    codes = field(row, where, "genotype", list) if "genotype" in row else None
    if codes is not None and any(type(code) is not int for code in codes):
        raise LatencyError(f"{where}: genotype is {shown(codes)}; expected whole numbers")
    try:
        network = Architecture.from_dict(field(row, where, "architecture", dict))
    except ArchitectureError as problem:
        raise LatencyError(f"{where}: architecture: {problem}") from None
    alone = codes is None and name != LAUNCH
    key = network.layers[0].price_fields(network.shapes[0]) if alone else None
    return Probe(name, network, key, None if codes is None else tuple(codes))


def _logs(folder: Path, names: Sequence[str]) -> tuple[dict[str, list[BenchmarkLog]], list[str]]:
    """The logs of every probe, of all passes but those for profile and golden outputs; and what is wrong with some."""
    passes = sorted(p for p in (folder / "logs").glob("pass*") if p.is_dir())
    if not passes:
        raise LatencyError(f"{folder / 'logs'}: no logs; run {folder / 'run.sh'} with a phone connected")
    found: dict[str, list[BenchmarkLog]] = {name: [] for name in names}
    problems = []
    for place in passes:
        for name in names:
            path = place / f"{name}.txt"
            try:
                found[name].append(parse(path.read_text(encoding="utf-8", errors="replace"), str(path)))
            except FileNotFoundError:
                problems.append(f"{path}: no such log")
            except (OSError, LatencyError) as problem:
                problems.append(str(problem))
    return found, problems


def _partly(folder: Path, logs: Mapping[str, Sequence[BenchmarkLog]]) -> dict[str, tuple[str, ...]]:
    """Probes that the delegate did not take whole, by their profile and by what the other passes say."""
    partly: dict[str, tuple[str, ...]] = {}
    for name, found in logs.items():
        path = folder / "logs" / "profile" / f"{name}.txt"
        try:
            profile = [parse(path.read_text(encoding="utf-8", errors="replace"), str(path))]
        except (OSError, LatencyError):
            profile = []
        if any(log.delegated is False for log in [*profile, *found]):
            partly[name] = tuple(dict.fromkeys(n for log in profile for n in log.left))
    return partly


def _outputs(folder: Path, golden: Mapping[str, Any]) -> tuple[dict[str, float], int]:
    wrong, checked = {}, 0
    for name, about in golden.items():
        path = folder / "logs" / "golden" / f"{name}.bin"
        if not path.exists():
            continue
        try:
            wanted, found = (np.fromfile(file, np.float32) for file in (folder / "golden" / f"{name}.bin", path))
        except OSError as problem:
            raise LatencyError(f"{problem.filename}: cannot be read ({problem.strerror})") from None
        checked += 1
        away = float("inf") if found.shape != wanted.shape else float(np.abs(found - wanted).max()) / about["largest"]
        if not away <= CLOSE:
            wrong[name] = round(away, 6) if np.isfinite(away) else 1e9
    return wrong, checked


def _device(folder: Path) -> dict[str, str]:
    path = folder / "logs" / "device.txt"
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return {n: v.strip() for n, _, v in (line.partition("=") for line in text.splitlines()) if v.strip()}


def _name(device: Mapping[str, str]) -> str:
    model = " ".join(filter(None, (device.get(f"ro.product.{n}") for n in ("manufacturer", "model"))))
    chip = device.get("ro.soc.model") or device.get("ro.board.platform")
    if not model:
        raise LatencyError("the logs do not name the phone: say --device")
    return f"{model} ({chip})" if chip else model


def _whole(text: str) -> bool:
    return bool(re.fullmatch("[0-9]{1,15}", text))


def _conditions(notes: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """What the script noted before every run: values seen, numbers as [least, median, most]."""
    found: dict[str, Any] = {}
    for name in NOTED:
        values = [n[name] for n in notes if name in n]
        numbers = [int(v) for v in values if _whole(v)]
        if numbers and len(numbers) == len(values) and len(set(numbers)) > 1:
            found[name] = [min(numbers), statistics.median(numbers), max(numbers)]
        elif values:
            found[name] = sorted(set(values))
    return found
