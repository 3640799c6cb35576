"""Published networks: parameters and MACs, whole and layer by layer, equal those of their reference implementations.

The folder is ``tests/published``; the environment variable DNAS_ARCHITECTURES names another one of the same make
(``archs/*.json``, ``counts.csv``, ``macs_by_resolution.csv``). There, networks whose ops do not exist yet are skipped.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from dnas.arch import Architecture
from dnas.files import dump_json
from dnas.ops import OPS
from dnas.ops.base import LABELS
from dnas.ops.primitives import Conv, Dense, Norm, Primitive, SqueezeExcite

HERE = Path(__file__).parent / "published"
FOLDER = Path(os.environ.get("DNAS_ARCHITECTURES", HERE))
FILES = sorted((FOLDER / "archs").glob("*.json"))
LAYER_FIELDS = ["params", "macs", "out_c", "out_h", "out_w"]
SPLITS = ("expand_splits", "project_splits")
each = pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)


def rows(name: str) -> dict[str, dict[str, str]]:
    with open(FOLDER / name, newline="", encoding="utf-8") as handle:
        return {row["name"]: row for row in csv.DictReader(handle)}


COUNTS, BY_RESOLUTION = rows("counts.csv"), rows("macs_by_resolution.csv")


def not_yet(body: dict[str, Any]) -> str | None:
    """The first op, or field of one, that the layers need and that does not exist."""
    for layer in body["layers"]:
        kind = OPS.get(layer["op"])
        if kind is None:
            return f"op {layer['op']!r}"
        fields = {f.name.rstrip("_"): f for f in dataclasses.fields(kind)}
        if isinstance(layer.get("kernel"), list) and "tuple" not in str(fields["kernel"].type):
            return f"op {layer['op']!r} with split kernels"
        if missing := [n for n in SPLITS if n in layer and n not in fields]:
            return f"op {layer['op']!r} with {missing[0]!r}"
    return None


@lru_cache(maxsize=1)
def load(path: Path) -> tuple[Architecture, dict[str, Any]]:
    body = json.loads(path.read_text(encoding="utf-8"))
    if FOLDER != HERE and (lacking := not_yet(body)):
        pytest.skip(f"{path.stem} needs {lacking}, which does not exist yet")
    return Architecture.load(path), body


def test_the_shipped_networks_are_all_there() -> None:
    shipped = {p.stem for p in (HERE / "archs").glob("*.json")}
    widths = {f"mobilenetv2_{w}" for w in ("035", "050", "075", "100", "130", "140")}
    assert shipped >= widths | {"fbnet_a", "fbnet_c", "fbnetc_100", "mnasnet_050", "mnasnet_075", "mnasnet_100", "mnasnet_140"}
    assert len(shipped) >= 85


def test_every_network_has_counts() -> None:
    assert FILES
    for path in FILES:
        assert path.stem in COUNTS and path.stem in BY_RESOLUTION


@each
def test_counts(path: Path) -> None:
    network, body = load(path)
    row = COUNTS[path.stem]
    assert network.name == path.stem and network.resolution == int(row["resolution"])
    assert (network.params, network.macs) == (int(row["params"]), int(row["macs"]))
    assert (network.params, network.macs) == (body["counts"]["params"], body["counts"]["macs"][row["resolution"]])
    assert network.num_classes == body["num_classes"]


@each
def test_macs_at_other_resolutions(path: Path) -> None:
    network, _ = load(path)
    wanted = {int(r): int(n) for r, n in BY_RESOLUTION[path.stem].items() if r != "name" and n}
    assert len(wanted) >= 2
    for resolution, macs in wanted.items():
        other = network.at(resolution)
        assert (other.macs, other.params) == (macs, network.params), resolution


@each
def test_counts_of_every_layer(path: Path) -> None:
    network, body = load(path)
    counts = body["counts"]
    assert counts["per_layer_fields"] == LAYER_FIELDS and counts["per_layer_at"] == network.resolution
    pairs = zip(network.layers, network.shapes[:-1], network.shapes[1:], strict=True)
    given = [[op.params, op.macs(before), after.channels, after.height, after.width] for op, before, after in pairs]
    for index, (got, wanted) in enumerate(zip(given, counts["per_layer"], strict=True)):
        assert got == wanted, f"layer {index}, {network.layers[index]!r}"


def biases(primitive: Primitive) -> int:
    if isinstance(primitive, SqueezeExcite):
        return primitive.bias * (primitive.channels + primitive.reduce)
    return primitive.bias * primitive.out if isinstance(primitive, Conv | Dense) else 0


@each
def test_parameters_by_kind(path: Path) -> None:
    """weights_only + biases + bn_affine = params, each counted on its own."""
    network, _ = load(path)
    row = COUNTS[path.stem]
    steps = [p for op in network.layers for p in op.primitives()]
    if FOLDER != HERE and not all(row[k] for k in ("weights_only", "biases", "bn_affine")):
        pytest.skip(f"{path.stem}: the source counts the total only")
    assert sum(p.params for p in steps if isinstance(p, Norm)) == int(row["bn_affine"])
    assert sum(map(biases, steps)) == int(row["biases"])
    assert sum(p.params - biases(p) for p in steps if not isinstance(p, Norm)) == int(row["weights_only"])


@each
def test_saved_again_it_is_the_same_network_without_labels(path: Path, tmp_path: Path) -> None:
    network, body = load(path)
    network.save(tmp_path / "again.json")
    text = (tmp_path / "again.json").read_text(encoding="utf-8")
    again = Architecture.load(tmp_path / "again.json")
    assert again == network and hash(again) == hash(network) and again.fingerprint == network.fingerprint
    assert dump_json(again.to_dict(), rows="layers") == text
    saved = json.loads(text)
    assert not {k for layer in saved["layers"] for k in layer} & LABELS
    assert not saved.keys() & {"family", "reference", "published", "notes", "counts"}
    # what is saved says what was given: no field of a layer is lost or changed (bar labels)
    for before, after in zip(body["layers"], saved["layers"], strict=True):
        assert {k: v for k, v in before.items() if k not in LABELS}.items() <= _full(after).items()


def _full(layer: dict[str, Any]) -> dict[str, Any]:
    """``layer`` with its unsaid defaults."""
    defaults = {f.name.rstrip("_"): f.default for f in dataclasses.fields(OPS[layer["op"]])}
    return {k: v for k, v in defaults.items() if v is not dataclasses.MISSING} | layer


@each
def test_batch_norm_momentum_becomes_the_decay(path: Path) -> None:
    network, body = load(path)
    given = body["defaults"]["bn"]["momentum_torch"]
    assert network.defaults.bn_momentum == {0.1: 0.9, 0.01: 0.99, 0.0003: 0.9997}.get(given, pytest.approx(1 - given))
    assert network.defaults.bn_eps == body["defaults"]["bn"]["eps"]
    assert network.defaults.padding == body["defaults"]["padding"]


def test_a_network_of_the_future_is_named_by_what_it_needs() -> None:
    layer = {"op": "ir", "in": 8, "kernel": 3}
    assert not_yet({"layers": [layer]}) is None
    assert not_yet({"layers": [layer, {"op": "nonesuch"}]}) == "op 'nonesuch'"
