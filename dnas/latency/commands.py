"""The subcommands of ``python -m dnas.latency``: each prints, and returns the exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dnas.errors import DnasError, LatencyError
from dnas.files import kind
from dnas.latency.check import Verdict, check, coverage
from dnas.latency.find import find, shipped_tables
from dnas.latency.measuring import build_table, collect_logs, write_probes
from dnas.latency.options import Build, Calibrate, Check, Collect, Import, List, Probe, Show
from dnas.latency.printing import MOST, coverage_lines, percent, plain_lines, print_json, print_lines
from dnas.latency.table import FORMAT, LatencyTable

HEAD = 65_536  # bytes of a JSON file in which its format is looked for


def list_tables(given: List) -> int:
    """Shipped tables, then those in the working folder."""
    rows = []
    for place, names in (("shipped", shipped_tables()), ("working folder", _local())):
        for name in names:
            row: dict[str, Any] = {"name": name if place == "shipped" else f"./{name}", "where": place}
            try:
                table = LatencyTable.load(row["name"])
                row |= {"device": table.device, "status": table.status, "entries": len(table.entries), "about": table.summary()}
            except LatencyError as problem:
                row["problem"] = str(problem)
            rows.append(row)
    if given.json:
        return print_json(rows)
    for row in rows:
        print(f"{row['name']:<28}", row.get("about") or f"cannot be read: {row['problem']}")
    return 0


def show(given: Show) -> int:
    """One table; its plot where it is asked for."""
    table = _load(given.table)
    facts = {
        "name": table.name, "device": table.device, "runtime": table.runtime, "precision": table.precision,
        "threads": table.threads, "batch": table.batch, "unit": table.unit, "status": table.status, "meaning": table.meaning,
        "source": dict(table.source), "error": dict(table.error), "sha256": table.sha256, **coverage(table),
    }  # fmt: skip
    if given.plot:
        from dnas.plot import latency as plot

        try:
            plot.draw(plot.info(table)).savefig(given.plot, dpi=150)
        except (OSError, ValueError) as problem:
            raise LatencyError(f"--plot {given.plot}: cannot be written ({problem})") from None
    if given.json:
        return print_json(facts)
    for name in ("name", "device", "runtime", "precision", "threads", "batch", "status", "meaning"):
        print(f"{name:<12}{'not stated' if facts[name] is None else facts[name]}")
    for name in ("who", "where", "how", "licence", "date"):
        if table.source.get(name):
            print(f"{name:<12}{table.source[name]}")
    print(f"{'error':<12}{table.error.get('summary', 'not checked against whole networks')}")
    for warning in table.error.get("warnings", []):
        print(f"{'':<12}{warning}")
    plain_lines(table, 1)
    coverage_lines(facts)
    return 0


def check_table(given: Check) -> int:
    """0 if the table is sound and covers the space, else 1 with the list of what is wrong."""
    from dnas.space import load_space

    path, _ = find(given.table)
    if kind(path) != "file":
        raise LatencyError(f"{path}: no such file")
    space = load_space(given.space) if given.space else None
    try:
        verdict = check(_load(given.table), space, given.networks or None)
    except LatencyError as problem:
        verdict = Verdict((str(problem),), {})
    if given.json:
        print_json({"table": given.table, "problems": list(verdict.problems), **verdict.facts})
        return 1 if verdict.problems else 0
    if verdict.facts:
        coverage_lines(verdict.facts)
    if covered := verdict.facts.get("space"):
        low, high = covered["range_ms"] or (None, None)
        span = "no range, prices are missing" if low is None else f"{low:.4g} to {high:.4g} ms"
        model = covered["from_the_cost_model"]
        print(f"{'space':<12}{covered['name']}: {covered['ops']} ops, {model} from the cost model; {span}")
    networks = verdict.facts.get("networks", {})
    for name, priced in networks.items():
        if priced:
            model = f", {priced['modelled_ms']:.4g} of it from the cost model" if priced["modelled_ms"] else ""
            how = f"{priced['latency_ms']:.4g} ms{model}" + (", extrapolated" if priced["extrapolated"] else "")
            print(f"{'network':<12}{name}: {how}")
    if lacking := [name for name, priced in networks.items() if not priced]:
        print(f"{'no price':<12}{len(lacking)} networks: {', '.join(lacking[:MOST])}{', ...' if len(lacking) > MOST else ''}")
    print_lines("problem", verdict.problems)
    print(f"{given.table}: " + (f"{len(verdict.problems)} problems" if verdict.problems else "nothing wrong"))
    return 1 if verdict.problems else 0


def import_file(given: Import) -> int:
    """Write the table; list what could not be mapped. With --check, 1 if --out differs."""
    from dnas.latency.importers import Wanted, import_table

    about = {k: getattr(given, k) for k in ("device", "runtime", "precision", "threads", "licence")}
    found = import_table(given.file, given.from_, Wanted(given.act, given.part, given.spaces), about)
    table = found.table
    if given.networks:
        from dnas.latency.correct import validated
        from dnas.latency.measured import read_networks

        table = validated(table, read_networks(given.networks))
    facts = {"out": given.out, **found.to_dict()}
    if given.json:
        print_json(facts)
    else:
        print(f"{given.file}: {found.total} records -> {len(table.entries)} entries ({found.averaged} are averages)")
        print_lines("note", found.notes)
        print_lines("not mapped", [f"{name}: {why}" for name, why in found.left])
        print(f"{'not mapped':<12}{len(found.left)} of {found.total} records")
    return _write(given.out, table, given.check, quiet=given.json)


def calibrate_table(given: Calibrate) -> int:
    """Write the corrected or fitted table. With --check, 1 if --out differs."""
    from dnas.latency.measured import read_networks

    rows, header = read_networks(given.measured), _load(given.table)
    about = {k: getattr(given, k) for k in ("device", "runtime", "precision", "threads")}
    only_fit = {k: getattr(given, k) for k in ("forms", "spaces", "blocks", "blocks_from")}
    if wrong := [k for k, v in (about | {"missing": given.missing} if given.fit else only_fit).items() if v]:
        flag = wrong[0].replace("_", "-")
        raise LatencyError(f"--{flag} has no place {'with' if given.fit else 'without'} --fit")
    if given.fit:
        table = _fitted(given, header, rows)
    else:
        from dnas.latency.correct import correct

        table = correct(header, rows, given.missing, about)
    if given.json:
        print_json({"out": given.out, "networks": len(rows), "status": table.status, "error": dict(table.error)})
    else:
        print(f"{len(rows)} networks: {table.error['summary']}")
        compared = table.error.get("forms_compared") or table.error["calibration"]["leave_one_out"]
        print(f"{'form':<44}{'leave one out':>14}{'family out':>12}")
        for name, row in compared.items():
            single, family = (row.get(k) for k in ("leave_one_out", "leave_one_family_out"))
            if "mean" in row:
                single, family = row["mean"], table.error["calibration"]["leave_one_family_out"][name]["mean"]
            print(f"{name:<44}{percent(single):>14}{percent(family):>12}")
        if given.fit:
            held = (table.error["baseline"][k]["mean"] for k in ("leave_one_out", "leave_one_family_out"))
            print(f"{'a + b x MACs':<44}" + "".join(f"{percent(e):>{w}}" for e, w in zip(held, (14, 12), strict=True)))
        print_lines("warning", table.error["warnings"])
    return _write(given.out, table, given.check, quiet=given.json)


def _fitted(given: Calibrate, header: LatencyTable, rows: Any) -> LatencyTable:
    from dnas.latency import forms
    from dnas.latency.fitted import fit_table
    from dnas.latency.importers.common import read

    if (given.blocks is None) != (given.blocks_from is None):
        raise LatencyError("--blocks and --blocks-from go together: a file, and its format")
    ratio = None
    if given.blocks and given.blocks_from:
        ratio = forms.depthwise_ratio(read(given.blocks, given.blocks_from).records)
    chosen = [forms.form(name) for name in given.forms] or forms.compared(ratio)
    return fit_table(header, rows, chosen, given.spaces, ratio)


RUN: dict[type, Callable[[Any], int]] = {
    List: list_tables, Show: show, Check: check_table, Import: import_file, Calibrate: calibrate_table,
    Build: build_table, Probe: write_probes, Collect: collect_logs,
}  # fmt: skip


def _load(name: str) -> LatencyTable:
    table = LatencyTable.load(name)
    if table.notice:
        print(table.notice, file=sys.stderr)
    return table


def _local() -> list[str]:
    """JSON files of the working folder that say near their beginning that they are tables."""
    found = []
    for path in sorted(Path().glob("*.json")):
        try:
            with open(path, "rb") as handle:
                found += [path.name] if f'"{FORMAT}"'.encode() in handle.read(HEAD) else []
        except OSError:
            continue
    return found


def _write(out: str, table: LatencyTable, compare: bool, quiet: bool) -> int:
    """Save ``table``, or compare it with the file."""
    if not compare:
        table.save(out)
        if not quiet:
            print(f"{'written':<12}{out}: {table.summary()}")
        return 0
    try:
        same = Path(out).read_bytes() == table.to_json().encode()
    except (OSError, ValueError) as problem:
        raise DnasError(f"--check: {out} cannot be read ({getattr(problem, 'strerror', None) or problem})") from None
    if not quiet or not same:  # not into the JSON
        words = "the same" if same else "differs from what this command makes"
        print(f"{out}: {words}", file=sys.stderr if quiet else sys.stdout)
    return 0 if same else 1
