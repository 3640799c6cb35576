"""JPEG and PNG images: decoding, to memory or on demand."""

from __future__ import annotations

import dataclasses
import functools
import io
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from dnas.data.arraytypes import Images, Indices, Shape, Store
from dnas.errors import DataError

IN_MEMORY_BYTES = 2_000_000_000  # larger splits stay encoded
Box = tuple[float, float, float, float]
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@functools.cache
def pool() -> ThreadPoolExecutor:
    """The threads that decode; Pillow releases the interpreter lock while it works."""
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="dnas-data")


@dataclass(frozen=True, eq=False)
class Encoded:
    """A ``Lazy`` store of encoded images.

    Args:
        fetch: index -> the encoded bytes of one image; must be safe to call from several threads.
        indices: which images of ``fetch``, in which order.
        height, width: px of the decoded images.
        channels: 1, 3 or 4; images of other colour models are converted.
        crop: images differ in size: scale the shorter side and cut the centre out. Otherwise another size is an error.
        name: for messages.
        names: index -> name of an image, for messages; by default its number.
    """

    fetch: Callable[[int], bytes]
    indices: Indices
    height: int
    width: int
    channels: int
    crop: bool
    name: str
    names: Callable[[int], str] | None = None

    @property
    def shape(self) -> Shape:
        """(n, h, w, c)."""
        return len(self.indices), self.height, self.width, self.channels

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, indices: Indices) -> Encoded:
        """The same images, restricted to these indices."""
        return dataclasses.replace(self, indices=self.indices[indices])

    def read(self, indices: Indices) -> Images:
        """Decode these images, one after the other, in the calling thread."""
        result = np.empty((len(indices), *self.shape[1:]), np.uint8)
        for place, index in enumerate(self.indices[indices]):
            result[place] = decode(self.fetch(int(index)), self.shape[1:], self.crop, self._what(int(index)))
        return result

    def cuts(self, indices: Indices, draws: np.ndarray, resolution: int, least: float) -> Images:
        """A random part of each of these images, ``uint8[k, resolution, resolution, c]``, cut out of the original.

        ``draws`` and ``least``: as ``dnas.data.augment.cuts`` takes them.
        """
        from dnas.data.augment import cuts

        result = np.empty((len(indices), resolution, resolution, self.channels), np.uint8)
        for place, (index, draw) in enumerate(zip(self.indices[indices], draws, strict=True)):

            def box(height: int, width: int, draw: np.ndarray = draw) -> Box:
                top, left, high, wide = (float(v) for v in cuts(draw, height, width, least))
                return left, top, left + wide, top + high

            shape = (resolution, resolution, self.channels)
            result[place] = decode(self.fetch(int(index)), shape, True, self._what(int(index)), box)
        return result

    def _what(self, index: int) -> str:
        return self.names(index) if self.names else f"{self.name}: image {index}"

    def load(self) -> Images:
        """Decode all images into memory, in threads."""
        result = np.empty(self.shape, np.uint8)

        def part(positions: Indices) -> None:
            result[positions] = self.read(positions)

        list(pool().map(part, np.array_split(np.arange(len(self)), max(1, min(len(self) // 64, 256)))))
        return result

    @property
    def fits(self) -> bool:
        """Whether the decoded images fit into memory (2 GB)."""
        return int(np.prod(self.shape, dtype=np.int64)) <= IN_MEMORY_BYTES

    def store(self) -> Store:
        """Decoded images where they fit into memory, else this object, which decodes on demand."""
        return self.load() if self.fits else self


class SizesDifferError(DataError):
    """The images of a set have several sizes, and no resolution was given."""


def open_store(fetch: Callable[[int], bytes], count: int, resolution: int | None, name: str) -> Store:
    """A store of encoded images whose sizes are not known beforehand.

    Args:
        fetch, name: as in ``Encoded``.
        count: number of images.
        resolution: px, to scale and crop to if the images differ in size; images of one size keep it.

    Raises:
        SizesDifferError: sizes differ and there is no resolution.
        DataError: an image is damaged.
    """
    every = np.arange(count)
    sample = every[:: max(1, count // 256)]
    sizes = [size(fetch(int(i)), f"{name}: image {i}") for i in sample]
    height, width, channels = sizes[0][0], sizes[0][1], max(s[2] for s in sizes)
    alike = Encoded(fetch, every, height, width, channels, False, name)
    if len({s[:2] for s in sizes}) == 1 or resolution is None:
        try:
            return alike.store()
        except SizesDifferError:
            if resolution is None:
                raise
    return Encoded(fetch, every, resolution, resolution, channels, True, name).store()


def size(data: bytes, what: str) -> tuple[int, int, int]:
    """(height, width, channels) from the header of an encoded image.

    Raises:
        DataError: not an image that Pillow can read.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            grey = image.mode in ("1", "L", "I;16", "I")
            return image.height, image.width, 1 if grey else 4 if image.mode in ("RGBA", "LA") else 3
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{what} is not a readable JPEG or PNG image ({len(data)} bytes)") from error


def decode(
    data: bytes, shape: tuple[int, int, int], crop: bool, what: str, box: Callable[[int, int], Box] | None = None
) -> np.ndarray:
    """One encoded image as ``uint8[h, w, c]``.

    Args:
        data: JPEG, PNG or whatever else Pillow reads.
        shape: (h, w, c) to deliver, px; c is 1, 3 or 4.
        crop: scale the shorter side to fit (bilinear with antialiasing) and cut the centre out.
        what: the image's name, for messages.
        box: (height, width) of the image -> (left, top, right, bottom) in px, of the part that is scaled to ``shape``.

    Raises:
        DataError: the bytes are damaged, or the size differs and ``crop`` is false.
    """
    from PIL import Image

    height, width, channels = shape
    try:
        with Image.open(io.BytesIO(data)) as image:
            if crop:  # a JPEG of four times the size or more is decoded at 1/2, 1/4 or 1/8, which is faster
                scale = max(height / image.height, width / image.width)
                if box is not None:
                    left, top, right, bottom = box(image.height, image.width)
                    scale = max(height / (bottom - top), width / (right - left))
                image.draft(_MODES[channels], (2 * math.ceil(image.width * scale), 2 * math.ceil(image.height * scale)))
            picture = image.convert(_MODES[channels])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{what} is not a readable JPEG or PNG image ({len(data)} bytes)") from error
    if box is not None:  # a draft is smaller than the image: the box is found anew
        picture = picture.resize((width, height), Image.Resampling.BILINEAR, box(picture.height, picture.width))
    if crop and (picture.height, picture.width) != (height, width):
        scale = max(height / picture.height, width / picture.width)
        scaled = max(width, round(picture.width * scale)), max(height, round(picture.height * scale))
        picture = picture.resize(scaled, Image.Resampling.BILINEAR)
        left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
        picture = picture.crop((left, top, left + width, top + height))
    if (picture.height, picture.width) != (height, width):
        raise SizesDifferError(
            f"{what} is {picture.height} x {picture.width} px, others are {height} x {width}; "
            "give a resolution (resolution=...) to scale and crop all to one size"
        )
    return np.asarray(picture, np.uint8).reshape(shape)
