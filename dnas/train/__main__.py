"""``python -m dnas.train``."""

from __future__ import annotations

import sys

from dnas import process
from dnas.cli import changed, command
from dnas.errors import Interrupted, RunError
from dnas.train.config import TrainConfig


def main(config: TrainConfig) -> int:
    """``dnas.train.run`` with what the options name, or ``dnas.train.resume``."""
    if config.resume and (others := changed(config, ("resume", "distributed"))):
        raise RunError(f"--resume {config.resume} takes its options from the run; drop {', '.join(others)}")
    process.set_up("dnas.train")
    from dnas.devices import is_first
    from dnas.train import resume, run

    try:
        if config.resume:
            resume(config.resume, distributed=config.distributed)
        else:
            given = {k: v for k, v in vars(config).items() if k != "resume"}
            run(given.pop("arch"), given.pop("data"), out=given.pop("out") or True, **given)
    except Interrupted:
        if is_first():
            raise
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(command("python -m dnas.train", TrainConfig, main))
