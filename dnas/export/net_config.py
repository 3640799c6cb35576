"""``net.config`` of ProxylessNAS and Once-for-all: the architecture alone, without weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dnas.convert import write as convert
from dnas.export.trained import Trained
from dnas.files import dump_json


def write(network: Trained, about: Mapping[str, str] | None = None) -> bytes:
    """The JSON file. Errors: ArchitectureError with the layer that the notation cannot hold."""
    body, _ = convert(network.architecture, "net-config")
    return dump_json(body, "blocks").encode()


def run(data: bytes, images: np.ndarray) -> None:
    """Nothing to run: the file has no weights."""
