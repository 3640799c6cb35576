"""What ``python -m dnas.export`` can be told. No JAX here, so that --help is instant."""

from __future__ import annotations

import dataclasses

from tyro.conf import Positional


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Write a trained network for other programs, run what was written, and compare it with the network."""

    network: Positional[str]
    """A network that ships (fbnet_c), a family, a JSON file, or the folder of a finished run (whose weights are then taken)."""
    to: str
    """Formats, separated by commas: onnx, tflite, stablehlo, safetensors, timm, net-config."""
    out: str
    """Folder for the files; it may exist, files of the same names are replaced."""
    weights: str | None = None
    """Trained weights: the folder of a run, or a .safetensors file of dnas.weights. Default: those of the run folder."""
    random_weights: bool = False
    """Export a network that was never trained, to try a format or to time it. No unit."""
    precision: str = "float32"
    """Of the numbers in the files, separated by commas: float32, float16, int8. The last two: tflite only."""
    data: str | None = None
    """Images to compare with, and to calibrate int8: digits, idx:FOLDER, npz:FILE, tfds:NAME, ... Default: those of the run."""
    data_dir: str | None = None
    """Folder of prepared tfds: data sets. Default: that of the run, else TFDS's own."""
    images: int = 1000
    """At most so many test images to compare with (float32: 64 of them): a number from 1."""
    calibration: int = 200
    """Training images, not augmented, that give int8 its ranges: a number from 1."""
    tolerance: float | None = None
    """Largest difference from the network, as a share of its largest output. Default: 1e-4 in float32, 0.02 in float16, 0.3 in
    int8."""
    seed: int = 0
    """Chooses the images for calibration, and random weights: a whole number from 0."""
    json: bool = False
    """Print JSON. No unit."""
