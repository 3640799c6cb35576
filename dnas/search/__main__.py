"""``python -m dnas.search``."""

from __future__ import annotations

import sys

from dnas import process
from dnas.cli import command
from dnas.config import SearchConfig
from dnas.errors import Interrupted, RunError


def main(config: SearchConfig) -> int:
    """``dnas.search.run`` with what the options name, or ``dnas.search.resume``."""
    given = config.to_dict()
    changed = [
        "--" + k.replace("_", "-")
        for k, v in given.items()
        if k not in ("resume", "distributed") and v != getattr(SearchConfig(), k)
    ]
    if config.resume and changed:
        raise RunError(f"--resume {config.resume} takes its options from the run; drop {', '.join(changed)}")
    process.set_up("dnas.search")
    from dnas.devices import is_first
    from dnas.search import resume, run

    try:
        if config.resume:
            resume(config.resume, distributed=config.distributed)
        else:
            given.pop("resume")
            run(given.pop("space"), given.pop("lut"), given.pop("data"), out=given.pop("out") or True, **given)
    except Interrupted:
        if is_first():
            raise
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(command("python -m dnas.search", SearchConfig, main))
