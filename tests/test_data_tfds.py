"""TFDS sets in ArrayRecord format: written by TFDS itself, read back without TensorFlow."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dnas.data import Feed, encoded, load
from dnas.errors import DataError

tfds = pytest.importorskip("tensorflow_datasets")

RNG = np.random.default_rng(1)
COLOUR = RNG.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (24, 6, 6, 1), dtype=np.uint8)


def png(image: np.ndarray) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "PNG")
    file.seek(0)
    return file


def prepare(data_dir, name: str, features: dict, splits: dict[str, list[dict]]) -> None:
    """Write a set with TFDS's own writer; TFDS takes encoded images as they are, so no TensorFlow is needed."""

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.2.0")
        pkg_dir_path = None

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, description=name, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, manager):
            return {split: self._generate_examples(rows) for split, rows in splits.items()}

        def _generate_examples(self, rows):
            yield from enumerate(rows)

    Tiny.name = name
    builder = Tiny(data_dir=str(data_dir), file_format="array_record")
    builder.download_and_prepare()


def rows(images, labels, **more):
    return [{"image": png(i), "label": int(y)} | more for i, y in zip(images, labels, strict=True)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    image, label = tfds.features.Image, tfds.features.ClassLabel
    labels = np.arange(24) % 3
    prepare(
        root,
        "tiny_colour",
        {"image": image(shape=(8, 8, 3)), "label": label(names=["ant", "bee", "cat"]), "id": tfds.features.Text()},
        {
            "train": rows(COLOUR[:18], labels[:18], id="x"),
            "test": rows(COLOUR[18:], labels[18:], id="y"),
            "validation": rows(COLOUR[:3], labels[:3], id="z"),
        },
    )
    prepare(
        root,
        "tiny_grey",
        {"image": image(shape=(6, 6, 1)), "label": label(num_classes=3)},
        {
            "train": rows(GREY[:18], labels[:18]),
            "test": rows(GREY[18:], [-1] * 6),  # unlabelled, as ImageNet's
            "validation": rows(GREY[18:], labels[18:]),
        },
    )
    odd = [np.full((10 + i % 3, 8, 3), 10 * i, np.uint8) for i in range(20)]
    prepare(root, "tiny_odd", {"image": image(), "label": label(num_classes=2)}, {"train": rows(odd, np.arange(20) % 2)})
    prepare(
        root,
        "tiny_text",
        {"text": tfds.features.Text(), "label": label(num_classes=2)},
        {"train": [{"text": "a", "label": 0}] * 2},
    )
    prepare(
        root,
        "tiny_unlabelled",
        {"image": image(shape=(8, 8, 3))},
        {"train": [{"image": png(COLOUR[0])}] * 2},
    )
    return root


def refused(message: str, spec: str, **options: object) -> None:
    with pytest.raises(DataError) as error:
        load(spec, **options)  # type: ignore[arg-type]
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_images_labels_and_names_come_back(prepared):
    data = load("tfds:tiny_colour", data_dir=prepared)
    assert data.name == "tfds:tiny_colour" and data.classes == ("ant", "bee", "cat")
    assert np.array_equal(data.train.images, COLOUR[:18]) and np.array_equal(data.test.images, COLOUR[18:])
    assert data.train.labels.tolist() == [0, 1, 2] * 6 and data.test.labels.tolist() == [0, 1, 2] * 2
    for spec in ("tfds:tiny_colour:1.2.0", f"tfds:tiny_colour@{prepared}"):
        assert load(spec, data_dir=prepared).fingerprint == data.fingerprint
    x, _ = Feed(data.train, batch_size=6, resolution=8, channels=3, mean=data.mean, std=data.std).batch(0)
    assert x.shape == (6, 8, 8, 3)


def test_unlabelled_test_images_are_passed_over(prepared):
    data = load("tfds:tiny_grey", data_dir=prepared)
    assert data.train.shape == (18, 6, 6, 1) and data.classes == ("0", "1", "2")
    assert np.array_equal(data.test.images, GREY[18:]) and data.test.labels.tolist() == [0, 1, 2] * 2


def test_images_of_several_sizes(prepared):
    refused("give a resolution", "tfds:tiny_odd", data_dir=prepared)
    data = load("tfds:tiny_odd", data_dir=prepared, resolution=4)
    assert data.train.shape == (16, 4, 4, 3) and len(data.test) == 4
    assert np.array_equal(data.train.images[:, 0, 0, 0], 10 * data.train.indices)


def test_no_tensorflow_is_imported(prepared):
    code = (
        "import sys\n"
        "from dnas.data import Feed, load\n"
        "data = load('tfds:tiny_colour', data_dir=sys.argv[1])\n"
        "odd = load('tfds:tiny_odd', data_dir=sys.argv[1], resolution=8)\n"
        "Feed(data.train, batch_size=6, resolution=8, channels=3, mean=data.mean, std=data.std).batch(0)\n"
        "assert data.train.images.sum() == int(sys.argv[2])\n"
        "assert 'tensorflow_datasets' in sys.modules and 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(prepared), str(COLOUR[:18].sum(dtype=int))], check=True)


def test_large_sets_are_read_on_demand(prepared, monkeypatch, tmp_path):
    memory = load("tfds:tiny_colour", data_dir=prepared)
    monkeypatch.setattr(encoded, "IN_MEMORY_BYTES", 1200)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lazy = load("tfds:tiny_colour", data_dir=prepared)
    assert lazy.train.lazy and not lazy.test.lazy  # 3,456 and 1,152 bytes
    assert lazy.mean == memory.mean and np.array_equal(lazy.train.labels, memory.train.labels)
    options = dict(batch_size=4, resolution=12, channels=3, mean=memory.mean, std=memory.std, augment="crop-flip")
    a, b = Feed(memory.train, **options), Feed(lazy.train, **options)
    for step in range(6):
        assert all(np.array_equal(x, y) for x, y in zip(a.batch(step), b.batch(step), strict=True))
    # the labels were kept, so the files need not be read for them again
    (kept,) = (tmp_path / "dnas").iterdir()
    stored = np.load(kept)
    np.save(kept, stored[::-1].copy())
    assert np.array_equal(load("tfds:tiny_colour", data_dir=prepared).train.labels, stored[::-1])
    kept.write_bytes(b"damaged")
    again = load("tfds:tiny_colour", data_dir=prepared)
    assert np.array_equal(again.train.labels, stored) and again.fingerprint == lazy.fingerprint


def test_sets_that_cannot_be_used(prepared, tmp_path):
    refused("is no set of TensorFlow Datasets; did you mean 'cifar10'", "tfds:cifar_10", data_dir=prepared)
    refused("tfds build cifar10 --file_format=array_record", "tfds:cifar10", data_dir=prepared)
    refused("pip install 'dnas[tfds]'", "tfds:cifar10", data_dir=prepared)
    refused("there is tiny_grey/1.2.0", "tfds:tiny_grey:9.9.9", data_dir=prepared)
    refused("is not prepared in", "tfds:tiny_grey/other", data_dir=prepared)
    refused("cannot be opened", "tfds:a b", data_dir=prepared)
    refused("no image among its features (label, text)", "tfds:tiny_text", data_dir=prepared)
    refused("no label among its features (image)", "tfds:tiny_unlabelled", data_dir=prepared)


def edit(prepared, tmp_path, change) -> None:
    shutil.copytree(prepared / "tiny_grey", tmp_path / "tiny_grey")
    path = tmp_path / "tiny_grey" / "1.2.0" / "dataset_info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def test_sets_in_another_format(prepared, tmp_path):
    edit(prepared, tmp_path, lambda info: info.update(fileFormat="tfrecord"))
    refused("is prepared as tfrecord, which only TensorFlow reads", "tfds:tiny_grey", data_dir=tmp_path)
    refused(f"--file_format=array_record --data_dir={tmp_path}", "tfds:tiny_grey", data_dir=tmp_path)


def test_sets_without_training_images(prepared, tmp_path):
    edit(prepared, tmp_path, lambda info: info.update(splits=info["splits"][1:]))
    refused("has no split 'train'", "tfds:tiny_grey", data_dir=tmp_path)


@pytest.mark.parametrize("damage", ["missing", "cut", "metadata"])
def test_damaged_sets(prepared, tmp_path, damage):
    edit(prepared, tmp_path, lambda info: None)
    folder = tmp_path / "tiny_grey" / "1.2.0"
    (file,) = folder.glob("*train*")
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:300])
    else:
        (folder / "dataset_info.json").write_text("{")
    refused("tfds build tiny_grey", "tfds:tiny_grey", data_dir=tmp_path)


def test_splits_are_named_in_the_notation_of_tfds(prepared):
    whole = load("tfds:tiny_colour", data_dir=prepared)
    part = load("tfds:tiny_colour:1.2.0@train[:50%],validation", data_dir=prepared)
    assert part.name == "tfds:tiny_colour@train[:50%],validation"
    assert np.array_equal(part.train.images, COLOUR[:9]) and np.array_equal(part.test.images, COLOUR[:3])
    alone = load("tfds:tiny_colour@test", data_dir=prepared)
    assert len(alone.train) + len(alone.test) == 6 and whole.fingerprint != part.fingerprint
    refused("no split 'tst'", "tfds:tiny_colour@tst", data_dir=prepared)
    refused(
        "; there is 'train', 'test', 'validation', and parts such as train[:10%]",
        "tfds:tiny_colour@train[5:3",
        data_dir=prepared,
    )
    refused("3 splits", "tfds:tiny_colour@train,test,validation", data_dir=prepared)
    refused("is empty", "tfds:tiny_colour@train[:0%]", data_dir=prepared)
    refused("has no labels", "tfds:tiny_grey@train,test", data_dir=prepared)
