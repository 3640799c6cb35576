"""``python -m dnas.search``."""

from __future__ import annotations

import sys

from dnas import process
from dnas.cli import command
from dnas.config import SearchConfig


def main(config: SearchConfig) -> int:
    process.set_up("dnas.search")
    from dnas.search.console import Console
    from dnas.search.whole import run_config

    run_config(config, Console(True))
    return 0


if __name__ == "__main__":
    sys.exit(command("python -m dnas.search", SearchConfig, main))
