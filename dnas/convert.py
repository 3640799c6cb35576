"""Networks from and to the notations of other projects: ``python -m dnas.convert NETWORK --to timm``."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from dnas.arch import Architecture
from dnas.cli import command
from dnas.errors import ArchitectureError, ConfigError
from dnas.files import dump_json, read_json, write_text

Format = Literal["dnas", "timm", "net-config", "hw-nas-bench"]


@dataclasses.dataclass(frozen=True)
class ConvertConfig:
    """Read a network in one notation and write it in another. What a notation cannot hold is refused, with the layer."""

    network: Positional[str]
    """The network: with --from dnas a shipped name (fbnet_c), a family (mobilenetv2:width=0.5) or a file; else a JSON file of
    that notation."""
    from_: Annotated[Format, tyro.conf.arg(name="from")] = "dnas"
    """Notation of the input: dnas (an architecture); timm (block strings and arguments); net-config (ProxylessNAS,
    Once-for-all); hw-nas-bench (22 indices and the data set)."""
    to: Format = "dnas"
    """Notation of the output."""
    out: str = ""
    """File to write (JSON). Default: print it."""
    resolution: int | None = None
    """Side of the input image, in pixels: needed for a net-config, which does not hold it. Default: that of the input."""


def read(body: Any, notation: str, name: str = "network", resolution: int | None = None) -> Architecture:
    """A network from the JSON value of one of the notations. Errors: ArchitectureError."""
    from dnas.interchange import hw_nas_bench, net_config, timm

    if notation == "dnas":
        found = Architecture.from_dict(body)
    elif notation == "timm":
        found = timm.Recipe.from_dict(body).architecture(name)
    elif notation == "net-config":
        return net_config.read(body, resolution, name)
    elif notation == "hw-nas-bench":
        found = hw_nas_bench.read(body, name)
    else:
        raise ArchitectureError(f"notation {notation!r}; expected dnas, timm, net-config or hw-nas-bench")
    return found if resolution is None else found.at(resolution)


def write(network: Architecture, notation: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The JSON value in one of the notations, and what reads back as another layer that computes the same.

    Errors: ArchitectureError with the layer that the notation cannot hold.
    """
    from dnas.interchange import hw_nas_bench, net_config, timm_write

    if notation == "dnas":
        return network.to_dict(), ()
    if notation == "timm":
        recipe, notes = timm_write.write(network)
        return {"name": network.name, **recipe.to_dict()}, notes
    if notation == "net-config":
        return net_config.write(network)
    if notation == "hw-nas-bench":
        return hw_nas_bench.write(network), ()
    raise ArchitectureError(f"notation {notation!r}; expected dnas, timm, net-config or hw-nas-bench")


def main(config: ConvertConfig) -> int:
    """Write or print the converted network; notes go to stderr."""
    if not config.network:
        raise ConfigError("no network; expected a name such as fbnet_c, or a JSON file")
    if config.from_ == "dnas":
        network = Architecture.load(config.network)
        network = network if config.resolution is None else network.at(config.resolution)
    else:
        body = read_json(config.network, ArchitectureError)
        name = body.get("name") if isinstance(body, dict) and config.from_ == "timm" else None
        try:
            network = read(body, config.from_, name or Path(config.network).stem, config.resolution)
        except ArchitectureError as problem:
            raise ArchitectureError(f"{config.network}: {problem}") from None
    found, notes = write(network, config.to)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    text = dump_json(found, {"dnas": "layers", "timm": "arch_def", "net-config": "blocks"}.get(config.to))
    if config.out:
        write_text(config.out, text)
        print(f"written {config.out}: {network}", file=sys.stderr)
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(command("python -m dnas.convert", ConvertConfig, main))
