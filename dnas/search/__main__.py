"""``python -m dnas.search``."""

from __future__ import annotations

import sys

from dnas import process
from dnas.cli import command
from dnas.config import SearchConfig
from dnas.errors import Interrupted, RunError


def plain(words: list[str]) -> list[str]:
    """The options as SearchConfig has them: a ``--lut`` after the first, with the ``--target-ms`` after it, and each ``--cost``
    with its ``--target`` become ``--also TABLE.json=MS`` and ``--also macs=N``; ``--target-ms`` with commas becomes
    ``--family-ms``; what is wrong is left for the parser."""
    given: list[str] = []
    for word in words:
        flag, equals, value = word.partition("=")
        given += [flag, value] if flag in ("--lut", "--target-ms", "--cost", "--target") and equals else [word]
    kept: list[str] = []
    also: list[str] = []
    seen: set[str] = set()
    while given:
        word, value = given.pop(0), given[0] if given else ""
        partner = {"--lut": "--target-ms", "--cost": "--target"}.get(word)
        if partner and (word == "--cost" or word in seen) and value:
            given.pop(0)
            target = given[1] if given[:1] == [partner] and len(given) > 1 else ""
            given = given[2:] if target else given
            also.append(f"{value}={target}")
        elif word == "--target-ms" and "," in value:
            given.pop(0)
            kept += ["--family-ms", *filter(None, (part.strip() for part in value.split(",")))]
        else:
            kept.append(word)
            seen.add(word)
    if also and "--also" not in kept:
        kept.append("--also")
    place = kept.index("--also") + 1 if also else 0
    return [*kept[:place], *also, *kept[place:]]


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
            del given["resume"]
            if config.from_supernet:  # what is not given is as in that run
                given = {k: v for k, v in given.items() if v != getattr(SearchConfig(), k)}
            run(**{**given, "out": given.get("out") or True})
    except Interrupted:
        if is_first():
            raise
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(command("python -m dnas.search", SearchConfig, main, plain(sys.argv[1:])))
