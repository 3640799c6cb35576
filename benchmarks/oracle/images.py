"""Fashion-MNIST made harder in a fixed way, so that networks of one latency differ by points.

As it is any small network learns it in seconds, and what networks differ by is as small as what two trainings of one differ by.
Every image, of training and test alike, is turned by any angle, shrunk to 70 to 100 %, moved by up to 3 px, and every
second one inverted. The drawings are those of a fixed seed: all networks, seeds and searches see the same images.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import affine_transform

from dnas.data import Dataset, load

SCALE = (0.7, 1.0)
SHIFT_PX = 3.0


def fashion(source: str) -> Dataset:
    """The images of the oracle, from Fashion-MNIST as a data set of dnas."""
    data = load(source)
    train, test = (turned(np.asarray(split.images), seed) for seed, split in enumerate((data.train, data.test)))
    return Dataset.from_arrays(
        train, data.train.labels, test, data.test.labels, classes=data.classes, name=f"{data.name}, turned"
    )


def turned(images: np.ndarray, seed: int) -> np.ndarray:
    """``images`` u8[n, h, w, 1], each under a random similarity (bilinear, black outside), half of them as negatives."""
    rng, n = np.random.default_rng(seed), len(images)
    angle, scale = rng.uniform(0, 2 * math.pi, n), rng.uniform(*SCALE, n)
    shift, negative = rng.uniform(-SHIFT_PX, SHIFT_PX, (n, 2)), rng.random(n) < 0.5
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale  # from there to here
    centre = (np.array(images.shape[1:3]) - 1) / 2
    found = np.empty_like(images)
    for i, image in enumerate(images[..., 0]):
        offset = centre - turn[..., i] @ (centre + shift[i])
        found[i, ..., 0] = np.rint(affine_transform(image.astype(np.float64), turn[..., i], offset, order=1))
    return np.where(negative[:, None, None, None], 255 - found, found)
