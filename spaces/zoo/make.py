"""Make the networks of this folder again: ``python spaces/zoo/make.py``; with ``--check`` only say what would change.

Families that a rule makes come from ``dnas.families``; the others, which a search found, are converted from the reference
data in tests/published/archs. Accuracies and sources come from there for all of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from dnas import families
from dnas.arch import Architecture

HERE = Path(__file__).parent
PUBLISHED = HERE.parents[1] / "tests" / "published" / "archs"

GENERATED: dict[str, Architecture] = {
    "mobilenetv1_100": families.mobilenetv1(),
    **{f"mobilenetv2_{w:03d}": families.mobilenetv2(w / 100) for w in (35, 50, 75, 100, 130, 140)},
    "mobilenetv3_large_100": families.mobilenetv3_large(),
    "mobilenetv3_small_100": families.mobilenetv3_small(),
    "tf_mobilenetv3_large_100": families.mobilenetv3_large(tf=True),
    "tf_mobilenetv3_small_minimal_100": families.mobilenetv3_small(minimal=True, tf=True),
    **{f"mnasnet_{w:03d}": families.mnasnet_b1(w / 100) for w in (50, 75, 100, 140)},
    **{f"semnasnet_{w:03d}": families.mnasnet_a1(w / 100) for w in (75, 140)},
    "spnasnet_100": families.single_path_nas(),
    "efficientnet_b0": families.efficientnet(),
    "tf_efficientnet_b0": families.efficientnet(tf=True),
    "tf_efficientnet_lite0": families.efficientnet_lite(),
}

# sources that also speak of counts, which are not kept: what they say of the accuracy
SOURCES = {
    "efficientformer_l1": "snap-research/EfficientFormer README.md",
    "efficientnet_b0": "tensorflow/tpu models/official/efficientnet/README.md",
    "tf_efficientnet_b0": "tensorflow/tpu models/official/efficientnet/README.md",
    "mixnet_s": "arXiv:1907.09595, as quoted by PaddleClas",
    "mixnet_l": "tensorflow/tpu mixnet README",
    "fbnetc_100": "facebookresearch/mobile-vision README.md, Caffe2 table",
    "mobilenetv3_small_100": "tensorflow/models research/slim/nets/mobilenet/README.md, a row of an earlier model",
    "tf_mobilenetv3_small_minimal_100": "tensorflow/models research/slim/nets/mobilenet/README.md",
    "mobilenetv4_conv_small": "arXiv:2404.10518, from memory",
    "spnasnet_100": "arXiv:1904.02877, from memory",
}


def network(reference: dict[str, Any]) -> Architecture:
    """The network of one reference file, with where it comes from."""
    name, published = reference["name"], reference["published"]
    found = GENERATED.get(name) or Architecture.from_dict(reference)
    about: dict[str, Any] = {"family": reference["family"]}
    if published["top1"] is not None and name != "timm_fbnetv3_b":  # the figure there is of mobile_cv's network
        metric = "COCO mAP of the SSDLite detector" if reference["family"] == "MobileDet" else "ImageNet top-1 %"
        about["published"] = {"metric": metric, "value": published["top1"], "source": SOURCES.get(name, published["source"])}
    about["reference"] = f"{reference['reference']['impl']}, {reference['reference']['model']}"
    notes = [n for n in reference.get("notes") or [] if not n.startswith("published") and "MACs count" not in n]
    return dataclasses.replace(found, name=name, provenance=about | ({"notes": notes} if notes else {}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a file differs")
    check = parser.parse_args().check
    wanted = {path.stem: network(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(PUBLISHED.glob("*.json"))}
    stale = sorted({p.stem for p in HERE.glob("*.json")} - set(wanted))
    for name, found in wanted.items():
        path = HERE / f"{name}.json"
        if check:
            stale += [] if path.is_file() and path.read_text(encoding="utf-8") == found.to_json() else [name]
        else:
            found.save(path)
    if stale:
        print(f"{len(stale)} files differ from what this script makes: {', '.join(stale)}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
