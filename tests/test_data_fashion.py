"""A real set of TFDS without a network: ``fashion_mnist``, prepared from the files of Debian's ``dataset-fashion-mnist``.

Preparing needs TensorFlow (``pip install 'dnas[tfds]'``) and runs in a process of its own; reading it back, through Grain, must
not need it. Skipped where either is missing.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from dnas.data import load

FILES = Path("/usr/share/datasets/fashion-mnist")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FILES.is_dir(), reason=f"no {FILES}: apt-get install dataset-fashion-mnist"),
    pytest.mark.skipif(find_spec("tensorflow") is None, reason="preparing a TFDS set needs: pip install 'dnas[tfds]'"),
]

PREPARE = """
import shutil, sys
from pathlib import Path
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import resource
files, downloads, out = map(Path, sys.argv[1:])
builder = tfds.builder("fashion_mnist", data_dir=str(out), file_format="array_record")
for url, about in builder.url_infos.items():  # TFDS takes what lies under the name that it would give its own download
    path = downloads / resource.get_dl_fname(url, about.checksum)
    shutil.copy(files / url.rpartition("/")[2], path)
    resource.write_info_file(
        url=url, path=path, dataset_name="fashion_mnist", original_fname=url.rpartition("/")[2], url_info=about
    )
builder.download_and_prepare(download_dir=str(downloads))
"""

READ = """
import sys
import numpy as np
import dnas.data
from dnas.data import encoded
encoded.IN_MEMORY_BYTES = 0  # images stay encoded, and batches come by Grain
data = dnas.data.load("tfds:fashion_mnist:3.0.1@train,test", data_dir=sys.argv[1])
assert data.train.lazy and data.test.lazy
parts = {}
for name in ("train", "test"):
    part = getattr(data, name)
    feed = dnas.data.Feed(part, batch_size=500, resolution=28, channels=1, mean=(0.0,), std=(1.0,), shuffle=False)
    pixels = [np.rint(np.asarray(x) * 255).astype(np.uint8) for x, _, _ in feed.evaluation()]
    parts |= {f"{name}_images": np.concatenate(pixels), f"{name}_labels": part.labels}
assert "tensorflow" not in sys.modules and "grain" in sys.modules
np.savez(sys.argv[2], classes=data.classes, **parts)
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    (root / "downloads").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, str(FILES), str(root / "downloads"), str(root / "sets")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return root / "sets"


def test_fashion_mnist_comes_back_through_grain_without_tensorflow(prepared, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", READ, str(prepared), str(tmp_path / "read.npz")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found, idx = np.load(tmp_path / "read.npz"), load(f"idx:{FILES}")
    assert found["classes"][[0, 9]].tolist() == ["T-shirt/top", "Ankle boot"]
    for name, part, count in (("train", idx.train, 60_000), ("test", idx.test, 10_000)):
        images = found[f"{name}_images"]
        assert images.shape == (count, 28, 28, 1)
        assert _all(images, found[f"{name}_labels"]) == _all(part.images, part.labels)  # TFDS shuffles what it stores


def _all(images, labels):
    return sorted((int(y), x.tobytes()) for x, y in zip(images, labels, strict=True))
