"""``tfds:NAME``: image classification sets of TensorFlow Datasets, read without TensorFlow.

TFDS reads sets that are stored in the ArrayRecord format with NumPy and Pillow alone; only preparing (downloading and
converting) most of them needs TensorFlow. Nothing here downloads or runs a set's own code.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dnas import process
from dnas.data import checks, encoded
from dnas.data.arraytypes import Labels, Store
from dnas.data.dataset import Dataset, assemble
from dnas.errors import DataError, nearest
from dnas.files import expand, kind, one_line


def load(argument: str, data_dir: str | None, resolution: int | None) -> Dataset:
    """A prepared set; NAME may carry ``/CONFIG``, ``:VERSION`` and ``@SPLITS``.

    ``@TRAIN,TEST`` names the splits in TFDS's notation (``@train[:10%],test``); of one alone 20 % are held out. Without it they
    are ``train``, and ``test`` or, where there is no labelled one, ``validation``. ``@DIR``, with a slash, overrides
    ``data_dir``. A set whose decoded images exceed
    2 GB stays on disk and is decoded on demand.

    Args:
        argument: such as ``cifar10``, ``cifar10:3.0.2``, ``emnist/balanced``, ``emnist/balanced@train[:50%],test``.
        data_dir: where TFDS keeps its sets; its default is ``$TFDS_DATA_DIR`` or ``~/tensorflow_datasets``.
        resolution: px; needed for sets whose images differ in size.

    Raises:
        DataError: unknown, not prepared, prepared in another format, or no image classification set.
    """
    name, _, more = argument.partition("@")
    splits = ""
    if "/" in more or os.sep in more or more.startswith("~"):
        data_dir = more
    else:
        splits = more
    if data_dir is not None:
        data_dir = str(expand(data_dir))
    builder = _builder(name, data_dir)
    info = builder.info
    image, label = _features(info.features, name)
    train, *others = _splits(info, splits, name)
    sources = {split: _source(builder, split, image, name, data_dir) for split in (train, *others)}
    h, w, c = info.features[image].shape
    crop = h is None or w is None
    if not crop:
        height, width = int(h), int(w)
    elif resolution is None:
        raise DataError(f"the images of tfds:{name} differ in size; give a resolution in px (resolution=224)")
    else:
        height = width = resolution
    c = c or encoded.size(sources[train](0)[image], f"tfds:{name}: image 0")[2]
    if c not in (1, 3, 4):
        raise DataError(f"the images of tfds:{name} have {c} channels; expected 1 (grey) or 3 (RGB)")

    def part(split: str) -> tuple[Store, Labels]:
        record, count = sources[split], info.splits[split].num_examples
        what = f"tfds:{name}, split {split!r}"
        images = encoded.Encoded(lambda i: record(i)[image], np.arange(count), height, width, c, crop, what)

        def read() -> np.ndarray:
            return np.fromiter((record(i)[label] for i in range(count)), np.int64, count)

        numbers = read() if images.fits else _cached(f"{version} {split}", count, read)
        return images.store(), checks.labels(numbers, count, what)

    version = " ".join(
        [info.full_name, image, label, f"{h} {w} {c} {resolution}"]
        + [f"{s} {info.splits[s].shard_lengths} {info.splits[s].num_bytes}" for s in sorted(info.splits)]
        + [splits]
    ).rstrip()
    images, labels = part(train)
    classes = checks.classes(info.features[label].names, labels, f"tfds:{name}")
    labelled = [s for s in others if int(sources[s](0)[label]) >= 0]
    if splits and others and not labelled:
        raise DataError(f"tfds:{name}: the split {others[0]!r} has no labels; name another one")
    test_images, test_labels = part(labelled[0]) if labelled else (None, None)
    lazy = not all(isinstance(store, np.ndarray | None) for store in (images, test_images))
    title = f"tfds:{info.full_name.rpartition('/')[0]}" + (f"@{splits}" if splits else "")
    return assemble(title, images, labels, test_images, test_labels, classes, version=version if lazy else None)


def _splits(info: Any, given: str, name: str) -> list[str]:
    """The training split, then those that may be the test split, the best first. Errors: DataError."""
    known = ", ".join(map(repr, info.splits)) or "none"
    if not given:
        if "train" not in info.splits:
            raise DataError(f"tfds:{name} has no split 'train', only {known}; name one: tfds:{name}@SPLIT")
        return ["train", *(s for s in ("test", "validation") if s in info.splits and info.splits[s].num_examples)]
    wanted = given.split(",")
    if len(wanted) > 2:
        raise DataError(
            f"tfds:{name}@{given}: {len(wanted)} splits; expected one for training, or one for training and one to test"
        )
    for split in wanted:
        try:
            count = info.splits[split].num_examples
        except Exception as error:  # TFDS raises whatever its parser raises
            raise DataError(
                f"tfds:{name}@{given}: no split {split!r} ({one_line(error)}); there is {known}, and parts such as train[:10%]"
            ) from error
        if not count:
            raise DataError(f"tfds:{name}@{given}: the split {split!r} is empty; choose a larger part")
    return wanted


def _builder(name: str, data_dir: str | None) -> Any:
    """TFDS's builder of the prepared files; it neither imports the set's code nor asks the network."""
    try:
        import tensorflow_datasets as tfds  # type: ignore[import-untyped,unused-ignore]
        from tensorflow_datasets.core import read_only_builder  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise DataError(
            f"tfds: sets are read by TensorFlow Datasets, which cannot be imported ({one_line(error)}); "
            "run: pip install tensorflow-datasets importlib_resources"
        ) from error
    try:
        return read_only_builder.builder_from_files(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        where = data_dir or str(tfds.core.constants.DATA_DIR)
        bare = name.partition(":")[0].partition("/")[0]
        known = tfds.list_builders(with_community_datasets=False)
        if bare in known or kind(Path(where) / bare) == "folder":
            others = sorted(str(p.parent.relative_to(where)) for p in Path(where, bare).rglob("dataset_info.json"))
            found = f" (there is {', '.join(others)})" if others else ""
            raise DataError(f"tfds:{name} is not prepared in {where}{found}; {prepare(name, data_dir)}") from error
        raise DataError(f"tfds:{name} is no set of TensorFlow Datasets{nearest(bare, known)}") from error
    except Exception as error:  # TFDS raises whatever its parsers raise
        raise DataError(f"tfds:{name} cannot be opened ({one_line(error)}); {prepare(name, data_dir)}") from error


def prepare(name: str, data_dir: str | None) -> str:
    """The advice how to prepare a set."""
    folder = f" --data_dir={data_dir}" if data_dir else ""
    return f"run: tfds build {name} --file_format=array_record{folder} (preparing needs: pip install 'dnas[tfds]')"


def _features(features: Any, name: str) -> tuple[str, str]:
    """The names of the image and the label feature."""
    import tensorflow_datasets as tfds  # type: ignore[import-untyped,unused-ignore]

    items = dict(sorted(features.items())) if isinstance(features, tfds.features.FeaturesDict) else {}
    images = [k for k, f in items.items() if type(f) is tfds.features.Image and f.np_dtype == np.uint8]
    labels = [k for k, f in items.items() if isinstance(f, tfds.features.ClassLabel)]
    for wanted, found in (("image", images), ("label", labels)):
        if not found:
            raise DataError(
                f"tfds:{name} is no image classification set: no {wanted} among its features "
                f"({', '.join(items) or 'none'}); expected an Image (uint8) and a ClassLabel"
            )
    return "image" if "image" in images else images[0], "label" if "label" in labels else labels[0]


def _source(builder: Any, split: str, image: str, name: str, data_dir: str | None) -> Callable[[int], dict[str, Any]]:
    """A function index -> record, whose images are still encoded."""
    import tensorflow_datasets as tfds  # type: ignore[import-untyped,unused-ignore]

    features = builder.info.features.items()
    skip = {k: tfds.decode.SkipDecoding() for k, f in features if isinstance(f, tfds.features.Image)}
    formats = sorted(f.value for f in builder.info.available_file_formats())
    if "array_record" not in formats:
        raise DataError(
            f"tfds:{name} in {builder.data_path} is prepared as {' and '.join(formats)}, which only TensorFlow "
            f"reads; choose another data_dir, or delete it, and {prepare(name, data_dir)}"
        )
    try:
        data = builder.as_data_source(split, decoders=skip, file_format="array_record")
    except Exception as error:  # missing shards show up as many types
        raise DataError(
            f"tfds:{name}, split {split!r} is damaged ({one_line(error)}); delete it and {prepare(name, data_dir)}"
        ) from error

    def record(index: int) -> dict[str, Any]:
        try:
            return data[index]
        except Exception as error:  # as above
            raise DataError(
                f"tfds:{name}, split {split!r}: record {index} cannot be read ({one_line(error)}); delete "
                f"{builder.data_path} and {prepare(name, data_dir)}"
            ) from error

    return record


def _cached(key: str, count: int, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The labels of a lazy set, kept in the user's cache folder: to find them, all files must be read once."""
    root = process.cache_folder()
    if root is None:
        return compute()
    path = root / f"labels-{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
    try:
        labels = np.load(path, allow_pickle=False)
        if labels.shape == (count,) and labels.dtype == np.int64:
            return np.asarray(labels)
    except (OSError, ValueError, EOFError):
        pass
    labels = compute()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=root, suffix=".npy", delete=False) as file:
            np.save(file, labels)
        os.replace(file.name, path)
    except OSError:
        pass  # a cache that cannot be written only costs time
    return labels
