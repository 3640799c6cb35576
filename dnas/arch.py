"""A finished network: a flat list of ops that any program can rebuild from its JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from dnas import zoo
from dnas.errors import ArchitectureError, nearest
from dnas.files import dump_json, read_json, sha256, shown, write_text
from dnas.ops import GlobalPoolOp, LinearOp, Op, Shape, op_from_dict
from dnas.ops.base import MAX_SIZE, PADDINGS

FORMAT = "dnas-arch/1"
_LABELS = frozenset({"family", "reference", "published", "notes", "counts"})
_FIELDS = frozenset({"format", "name", "input", "num_classes", "defaults", "layers", "metrics", "provenance"})


@dataclasses.dataclass(frozen=True)
class Defaults:
    """What holds for all layers: BN epsilon, decay of its running statistics, and the padding rule."""

    bn_eps: float = 1e-5
    bn_momentum: float = 0.9
    padding: str = "symmetric"

    def __post_init__(self) -> None:
        if not (0 < self.bn_eps < 1 and 0 <= self.bn_momentum < 1):
            raise ArchitectureError(
                f"defaults.bn: eps {self.bn_eps} and momentum {self.bn_momentum}; expected 0 < eps < 1, 0 <= momentum < 1"
            )
        if self.padding not in PADDINGS:
            raise ArchitectureError(f"defaults.padding is {shown(self.padding)}{nearest(shown(self.padding), PADDINGS)}")

    def to_dict(self) -> dict[str, Any]:
        return {"bn": {"eps": self.bn_eps, "momentum": self.bn_momentum}, "padding": self.padding}

    @classmethod
    def from_dict(cls, given: Any) -> Defaults:
        body = _object(given, "defaults", {"bn", "padding", "se_rule"}, {"bn", "padding"})
        bn = _object(body["bn"], "defaults.bn", {"eps", "momentum", "momentum_torch"}, {"eps"})
        if ("momentum" in bn) == ("momentum_torch" in bn):
            raise ArchitectureError("defaults.bn: expected one of momentum (decay) or momentum_torch (1 - decay)")
        for name, value in bn.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ArchitectureError(f"defaults.bn.{name} is {shown(value)}; expected a number from 0 to 1")
        # 1 - 0.0003 as people write it (0.9997), not with the float's rounding error
        momentum = bn["momentum"] if "momentum" in bn else float(f"{1 - bn['momentum_torch']:.12g}")
        return cls(float(bn["eps"]), float(momentum), body["padding"])


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network as data. Equal architectures compute the same function of the same parameters.

    Arguments: ``layers`` in order; ``input_channels``; ``resolution`` in pixels; ``num_classes`` (0: the output is a
    feature map). ``name``, ``metrics`` and ``provenance`` describe it and take no part in equality.
    Errors: ArchitectureError that names the layer whose shapes cannot work.
    """

    layers: tuple[Op, ...]
    input_channels: int = 3
    resolution: int = 224
    num_classes: int = 1000
    defaults: Defaults = Defaults()
    name: str = dataclasses.field(default="network", compare=False)
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for field in ("input_channels", "resolution", "num_classes"):
            value = getattr(self, field)
            least = int(field != "num_classes")
            if type(value) is not int or not least <= value <= MAX_SIZE:
                raise ArchitectureError(
                    f"{self.name}: {field} is {shown(value)}; expected a whole number from {least} to {MAX_SIZE}"
                )
        if not self.layers:
            raise ArchitectureError(f"{self.name}: no layers; expected at least one")
        out = self.shapes[-1]
        if self.num_classes and out != Shape(1, 1, self.num_classes):
            raise ArchitectureError(
                f"{self.name}: the last layer gives {out}; expected 1x1x{self.num_classes} for num_classes "
                f"{self.num_classes} (num_classes 0 is for feature maps)"
            )

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The input's shape, then the output shape of every layer."""
        shapes = [Shape(self.resolution, self.resolution, self.input_channels)]
        for index, op in enumerate(self.layers):
            try:
                shapes.append(op.out_shape(shapes[-1]))
            except ArchitectureError as problem:
                raise ArchitectureError(f"{self.name}: layer {index}: {problem}") from None
        return tuple(shapes)

    @property
    def params(self) -> int:
        """All trainable parameters: weights, biases, BN gamma and beta."""
        return sum(op.params for op in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and matrix products, batch 1."""
        return sum(op.macs(shape) for op, shape in zip(self.layers, self.shapes, strict=False))

    @property
    def peak_activation_bytes(self) -> int:
        """The most memory that feature maps take at one time, layer after layer: batch 1, float32 (see ``Op``)."""
        return max(op.peak_activation_bytes(shape) for op, shape in zip(self.layers, self.shapes, strict=False))

    def at(self, resolution: int | None = None, num_classes: int | None = None) -> Architecture:
        """The same network for other images: pixels, or number of classes (the classifier's width follows).

        A network whose output is a feature map gets a global pool and a classifier. Metrics are dropped.
        Errors: ArchitectureError.
        """
        classes = self.num_classes if num_classes is None else num_classes
        layers = self.layers
        if classes != self.num_classes:
            if not self.num_classes:
                layers = (*layers, GlobalPoolOp(), LinearOp(in_=self.shapes[-1].channels, out=classes))
            elif getattr(layers[-1], "out", None) == self.num_classes:
                layers = (*layers[:-1], dataclasses.replace(layers[-1], out=classes))  # type: ignore[call-arg]
            else:
                raise ArchitectureError(f"{self.name}: its last layer is not a classifier of {self.num_classes} classes")
        resolution = self.resolution if resolution is None else resolution
        return dataclasses.replace(self, layers=layers, resolution=resolution, num_classes=classes, metrics={})

    @property
    def fingerprint(self) -> str:
        """sha256 of the network itself (name, metrics and provenance apart)."""
        body = self.to_dict()
        return sha256(dump_json({k: body[k] for k in ("input", "num_classes", "defaults", "layers")}))

    def to_dict(self) -> dict[str, Any]:
        """The ``dnas-arch/1`` object."""
        body: dict[str, Any] = {
            "format": FORMAT,
            "name": self.name,
            "input": {"channels": self.input_channels, "resolution": self.resolution},
            "num_classes": self.num_classes,
            "defaults": self.defaults.to_dict(),
            "layers": [op.to_dict() for op in self.layers],
        }
        extra = {"metrics": dict(self.metrics), "provenance": dict(self.provenance)}
        return body | {k: v for k, v in extra.items() if v}

    @classmethod
    def from_dict(cls, given: Any) -> Architecture:
        """Read a ``dnas-arch/1`` or ``archref-1`` object. Errors: ArchitectureError that names the field or the layer."""
        body = _object(given, "architecture", _FIELDS | _LABELS, {"input", "num_classes", "defaults", "layers"})
        if body.get("format") not in (FORMAT, "archref-1"):
            raise ArchitectureError(f"format is {shown(body.get('format'))}; expected {FORMAT!r} or 'archref-1'")
        size = _object(body["input"], "input", {"channels", "resolution"}, {"channels", "resolution"})
        if not isinstance(body["layers"], list):
            raise ArchitectureError(f"layers is {type(body['layers']).__name__}; expected a list of objects")
        layers = []
        for index, layer in enumerate(body["layers"]):
            try:
                layers.append(op_from_dict(layer))
            except ArchitectureError as problem:
                raise ArchitectureError(f"layer {index}: {problem}") from None
        for field in ("metrics", "provenance"):
            try:
                json.dumps(_object(body.get(field, {}), field, None, set()), allow_nan=False)
            except (TypeError, ValueError, RecursionError) as problem:
                raise ArchitectureError(f"{field}: not acceptable as JSON: {problem}") from None
        name = body.get("name", "network")
        if not isinstance(name, str):
            raise ArchitectureError(f"name is {shown(name)}; expected text")
        return cls(
            tuple(layers), size["channels"], size["resolution"], body["num_classes"],
            Defaults.from_dict(body["defaults"]), name, body.get("metrics", {}), body.get("provenance", {}),
        )  # fmt: skip

    @classmethod
    def load(cls, source: str | os.PathLike[str] | Mapping[str, Any]) -> Architecture:
        """From a JSON file, an object, the name of a published network that ships (``fbnet_c``; all: ``dnas.zoo.names()``),
        or a family with its options (``mobilenetv2:width=0.5,resolution=160``; all: ``dnas.families.FAMILIES``).

        A bare name means what ships; a warning says so where the working folder has a file of that name.
        Errors: ArchitectureError that names file, layer and field.
        """
        if isinstance(source, Mapping):
            return cls.from_dict(source)
        if isinstance(source, str) and not source.endswith(".json"):
            from dnas import families

            if source.partition(":")[0] in families.FAMILIES:
                return families.make(source)
        path, notice = zoo.find(source)
        if notice:
            warnings.warn(notice, stacklevel=2)
        body = read_json(path, ArchitectureError)
        try:
            return cls.from_dict(body)
        except ArchitectureError as problem:
            raise ArchitectureError(f"{path}: {problem}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON atomically; the same network gives the same text."""
        write_text(path, self.to_json())

    def to_json(self) -> str:
        """The text of the file: one layer per line."""
        return dump_json(self.to_dict(), rows="layers")

    def __str__(self) -> str:
        return f"{self.name}: {len(self.layers)} layers, {self.params:,} parameters, {self.macs:,} MACs at {self.resolution} px"

    def _repr_html_(self) -> str:
        """What a notebook shows: the layer table."""
        from dnas import html

        return html.architecture(self)


def _object(given: Any, where: str, known: frozenset[str] | set[str] | None, needed: set[str]) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ArchitectureError(f"{where} is {type(given).__name__}; expected an object")
    for name in given:
        if known is not None and name not in known:
            raise ArchitectureError(f"{where}: unknown field {shown(name)}{nearest(shown(name), known)}")
    missing = sorted(needed - set(given))
    if missing:
        raise ArchitectureError(f"{where}: missing field {missing[0]!r}")
    return dict(given)
