"""Published networks: parameters, MACs and, with hash-filled parameters, float64 logits equal those of their references.

The folder is ``tests/published``; ``pytest tests/test_published.py --architectures FOLDER`` takes another one of the same
make (``archs/*.json``, ``counts.csv``, ``macs_by_resolution.csv``, ``parity.json``), of which everything is checked.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import hash_filled
import numpy as np
import pytest

from dnas.arch import Architecture
from dnas.files import dump_json
from dnas.ops import OPS
from dnas.ops.base import LABELS
from dnas.ops.primitives import Attention, Conv, Dense, LayerNorm, Norm, Primitive, Scale, SqueezeExcite

HERE = Path(__file__).parent / "published"
FOLDER = Path(os.environ.get("DNAS_ARCHITECTURES", HERE))
FILES = sorted((FOLDER / "archs").glob("*.json"))
LAYER_FIELDS = ["params", "macs", "out_c", "out_h", "out_w"]
each = pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)


def rows(name: str) -> dict[str, dict[str, str]]:
    with open(FOLDER / name, newline="", encoding="utf-8") as handle:
        return {row["name"]: row for row in csv.DictReader(handle)}


COUNTS, BY_RESOLUTION = rows("counts.csv"), rows("macs_by_resolution.csv")


@lru_cache(maxsize=1)
def load(path: Path) -> tuple[Architecture, dict[str, Any]]:
    body = json.loads(path.read_text(encoding="utf-8"))
    return Architecture.load(path), body


def test_the_shipped_networks_are_all_there() -> None:
    shipped = {p.stem for p in (HERE / "archs").glob("*.json")}
    widths = {f"mobilenetv2_{w}" for w in ("035", "050", "075", "100", "130", "140")}
    assert shipped >= widths | {"fbnet_a", "fbnet_c", "fbnetc_100", "mnasnet_050", "mnasnet_075", "mnasnet_100", "mnasnet_140"}
    assert len(shipped) == 91


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
    tied = any(op.op == "meta1d" for op in network.layers)  # a table of positions for one size only
    assert wanted and (tied or FOLDER != HERE or len(wanted) >= 2)
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
    """weights_only + biases + bn_affine (+ layer norm, layer scale and positions) = params, each counted on its own."""
    network, _ = load(path)
    row = COUNTS[path.stem]
    steps = [p for op in network.layers for p in op.primitives()]
    steps = [p for p in steps if not isinstance(p, LayerNorm | Scale | Attention)]
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


# -- function -----------------------------------------------------------------------------------------------------

MODELS: dict[str, Any] = json.loads((FOLDER / "parity.json").read_text(encoding="utf-8"))["models"]
FAST = {
    ("fbnet_a", 64),
    ("fbnetc_100", 75),
    ("mobilenetv2_100", 64),
    ("tf_efficientnet_b0", 75),
    ("mobilenetv4_conv_small", 75),
}


def cases() -> Iterator[Any]:
    for name, model in MODELS.items():
        for case in model["cases"]:
            fast = FOLDER != HERE or (name, case["resolution"]) in FAST
            yield pytest.param(name, case, id=f"{name}-{case['resolution']}", marks=() if fast else pytest.mark.slow)


def test_hash_gives_the_known_answers() -> None:
    np.testing.assert_array_equal(hash_filled.hashed(0, 3), [-0.6660352977924049, -0.1791837182827294, 0.24587786989286542])
    assert hash_filled.hashed(-1, 1)[0] == -0.9163104686886072


@pytest.mark.parametrize(("name", "case"), list(cases()))
def test_logits(name: str, case: dict[str, Any]) -> None:
    model = MODELS[name]
    architecture = Architecture.load(FOLDER / model["arch"]).at(case["resolution"])
    hash_filled.assert_equal_logits(architecture, model, case)
