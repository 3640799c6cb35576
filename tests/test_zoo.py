"""The published networks that ship: remade by their script, equal to the references, addressed by name; families by rule."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dnas import families, zoo
from dnas.arch import Architecture
from dnas.errors import ArchitectureError
from dnas.ops.widths import round8

ROOT = Path(__file__).parents[1]
PUBLISHED = Path(__file__).parent / "published" / "archs"
REFERENCES = sorted(PUBLISHED.glob("*.json"))


def test_the_script_makes_the_folder() -> None:
    script = [sys.executable, ROOT / "spaces" / "zoo" / "make.py", "--check"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(script, capture_output=True, text=True, timeout=120, check=False, env=env)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", REFERENCES, ids=lambda p: p.stem)
def test_networks_are_their_references(path: Path) -> None:
    """The reference files are not made by this package; those of a family come from its rule."""
    network, reference = Architecture.load(path.stem), Architecture.load(path)
    assert network == reference and network.name == path.stem
    about = network.provenance
    assert about["family"] and about["reference"]
    top1 = json.loads(path.read_text(encoding="utf-8"))["published"]["top1"]
    if "published" in about:
        assert about["published"]["value"] == top1 and about["published"]["source"]
        assert ("COCO" in about["published"]["metric"]) == (about["family"] == "MobileDet")
    else:
        assert top1 is None or path.stem == "timm_fbnetv3_b"
    assert Architecture.from_dict(json.loads(network.to_json())) == network


def test_names_and_files(in_tmp: Path) -> None:
    assert zoo.names() == [path.stem for path in REFERENCES]
    network = Architecture.load("fbnet_c")
    assert Architecture.load("fbnet_c.json") == network
    with pytest.raises(ArchitectureError, match=r"unknown network 'fbnet_d'; did you mean .*'fbnet_c'"):
        Architecture.load("fbnet_d")
    Architecture.load("fbnet_a").save("fbnet_c.json")
    with pytest.warns(UserWarning, match=r"fbnet_c: the shipped network is used; write \./fbnet_c\.json"):
        assert Architecture.load("fbnet_c") == network
    assert Architecture.load("./fbnet_c.json") == Architecture.load(Path("fbnet_c.json")) == Architecture.load("fbnet_a")
    network.save("mine.json")
    assert Architecture.load("mine") == Architecture.load("mine.json") == network


@pytest.mark.parametrize("name", families.FAMILIES)
def test_families_at_any_width_depth_and_resolution(name: str) -> None:
    whole = families.make(name)
    options = {"resolution": "96", "num_classes": "10"}
    if "width" in inspect.signature(families.FAMILIES[name]).parameters:
        options["width"] = "0.4"
    small = families.make(f"{name}:" + ",".join(f"{k}={v}" for k, v in options.items()))
    assert (small.resolution, small.num_classes) == (96, 10)
    assert small.params < whole.params and small.macs < whole.macs
    assert [type(op) for op in small.layers] == [type(op) for op in whole.layers]
    widths = [op.out for op in small.layers[:-1] if hasattr(op, "out")]
    assert all(round8(w) == w for w in widths)


def test_efficientnet_grows_by_its_compound_rule() -> None:
    """B4 of arXiv:1905.11946: 1.4 times as wide and 1.8 times as deep; the paper's table: 19 M parameters, 4.2 B MACs."""
    b0, b4 = families.efficientnet(), families.efficientnet(1.4, 1.8, 380)
    repeats = [sum(op.op in ("ir", "ds_conv") for op in network.layers) for network in (b0, b4)]
    assert repeats == [16, 2 + 4 + 4 + 6 + 6 + 8 + 2]
    assert b4.params / 1e6 == pytest.approx(19, abs=0.5) and b4.macs / 1e9 == pytest.approx(4.2, rel=0.07)
    lite = families.efficientnet_lite(1.2, 1.4, 280)
    assert (lite.layers[0], lite.layers[1].op) == (families.efficientnet_lite().layers[0], "ds_conv")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("mobilenetv2:depth=2", "did you mean 'width'"), ("mobilenetv2:width", "expected NAME:option=value"),
        ("mobilenetv2:width=wide", "width is 'wide'; expected float"), ("mobilenetv2:width=0", "more than 0"),
        ("mobilenetv3_small:minimal=maybe", "expected bool"), ("efficientnet:resolution=0", "resolution is 0"),
        ("efficientnet:width=nan", "more than 0"), ("mobilenetv2:num_classes=-1", "num_classes"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_named(spec: str, words: str) -> None:
    with pytest.raises(ArchitectureError, match=words):
        Architecture.load(spec)


def test_names_do_not_depend_on_the_input_size() -> None:
    network = Architecture.load("mobilenetv2:width=0.5,resolution=96")
    assert network == dataclasses.replace(Architecture.load("mobilenetv2_050"), resolution=96)
    assert network.name == "mobilenetv2_w0.5"


def test_families_reduce_less_for_small_images():
    whole, less = (Architecture.load(f"mobilenetv2:width=0.25,resolution=32{more}") for more in ("", ",stride=8"))
    assert less.params == whole.params and str(less.shapes[-4]).startswith("4x4") and less.macs > whole.macs
    assert [op.stride for op in less.layers if getattr(op, "stride", 1) > 1] == [2, 2, 2]
    assert Architecture.load("mobilenetv2:stride=32").layers == Architecture.load("mobilenetv2").layers
