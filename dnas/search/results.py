"""What searches return: one network, a family of them, or the same search from several seeds."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dnas.arch import Architecture
from dnas.evaluate import Accuracy
from dnas.latency.table import LatencyReport
from dnas.space import Genotype, Space

# what a summary of seeds has the spread of, and how each is printed
FIGURES = {
    "test_top1": ".2%", "latency_ms": ".4g", "expected_ms": ".4g", "argmax_ms": ".4g", "entropy": ".3f", "skip_share": ".3f",
    "params": ",.0f", "macs": ",.0f",
}  # fmt: skip
OF_ONE = ("expected_ms", "argmax_ms", "entropy", "skip_share", "seed")  # figures of a seed's logits, which no network has


@dataclasses.dataclass(frozen=True, repr=False)
class SearchResult:
    """What a search found.

    ``architecture`` (with metrics and provenance), ``history`` (one dict per epoch), ``accuracy`` on the test images after
    the short training, ``inherited`` on the selection images before it (the best of ``draws`` networks chosen by these
    images), ``latency`` with its parts, ``derivation`` (how it was chosen, and what the likeliest network would have been),
    ``warnings`` as sentences, ``folder`` (None if nothing was written), ``space`` with the data's classes, trained ``params``
    and ``stats``, and ``compared``: the accuracy on the selection images of each network that it was chosen from.
    ``supernet``: (params, stats) that the search ended with, while they are needed and no folder has them.
    """

    architecture: Architecture
    genotype: Genotype
    history: list[dict[str, Any]]
    accuracy: Accuracy
    inherited: Accuracy
    draws: int
    latency: LatencyReport
    derivation: dict[str, Any]
    warnings: tuple[str, ...]
    folder: Path | None
    space: Space = dataclasses.field(repr=False)
    params: Any = dataclasses.field(repr=False)
    stats: Any = dataclasses.field(repr=False)
    compared: Mapping[Genotype, Accuracy] = dataclasses.field(default_factory=dict, repr=False)
    supernet: Any = dataclasses.field(default=None, repr=False)

    def __repr__(self) -> str:
        return (
            f"SearchResult({self.architecture}; {self.latency.total_ms:.4g} ms on {self.latency.table.name}; {self.accuracy})"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: figures, remarks and layers."""
        from dnas import html

        return html.search_result(self)

    @property
    def results(self) -> tuple[SearchResult, ...]:
        """Itself: a family of one."""
        return (self,)

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        return (self.architecture,)

    @property
    def target_ms(self) -> float | None:
        target: float | None = self.architecture.provenance.get("target_ms")
        return target

    @property
    def label(self) -> str:
        """What it is called in a family."""
        return "no target" if self.target_ms is None else f"{self.target_ms:g}ms"

    @property
    def learned(self) -> bool:
        """Whether logits chose the network, and not evolution or trainings one by one, to which likely ones mean nothing."""
        return self.derivation["by"] not in ("evolution", "random-search", "together", "predictor")

    @property
    def chosen_by(self) -> str:
        """What chose the network."""
        by, seeds = str(self.derivation["by"]), self.derivation.get("seeds")
        return f"{len(seeds)} supernets {by}" if seeds else by

    @property
    def caveat(self) -> str:
        """What has to be said after ``inherited``, as a network is chosen by the images that it is measured on; "" of one."""
        one = "seeds" in self.derivation or self.derivation["by"] == "predictor"
        which = "one of {} networks compared" if one else "the best of {} networks"
        return f"; {which.format(self.draws)} on these images, so optimistic" if self.draws > 1 else ""

    def figures(self) -> dict[str, Any]:
        """The figures of ``FIGURES``, with the target and what the accuracy was measured on."""
        last = next(r for r in reversed(self.history) if r["phase"] == "search")
        low, high = self.accuracy.interval95
        return {
            "target_ms": self.target_ms, "latency_ms": self.latency.total_ms, "expected_ms": last["expected_ms"],
            "argmax_ms": self.derivation["argmax_ms"], "test_top1": self.accuracy.top1, "interval95": [low, high],
            "n_test": self.accuracy.n, "selection_top1": self.inherited.top1, "entropy": last["entropy"],
            "skip_share": last["skip_share"], "params": self.architecture.params, "macs": self.architecture.macs,
            "genotype": list(self.genotype), "seed": self.architecture.provenance["seed"],
        }  # fmt: skip

    def plot(self) -> Any:
        """Figure of losses, latency and probabilities over time."""
        from dnas.plot.search import draw, info

        labels = {name: choice.labels for name, choice in self.space.choices.items()}
        return draw(info(self.history, self.target_ms), labels)

    def report(self) -> str:
        """``report.html``: a page with figures, warnings, the network drawn, curves and heat maps."""
        from dnas.plot.report import draw, info

        return draw(info(self))


@dataclasses.dataclass(frozen=True)
class FamilyResult:
    """What one supernet gave for several targets: ``results``, in the order of the targets."""

    results: tuple[SearchResult, ...]
    folder: Path | None

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        return tuple(r.architecture for r in self.results)

    def to_dict(self) -> dict[str, Any]:
        """``family.json``. ``front``: members that no other one is at least as fast and as accurate as."""
        from dnas.plot.pareto import front

        rows = [{"name": r.label, **r.figures()} for r in self.results]
        return {"format": "dnas-family/1", "members": rows, "front": [p.name for p in front(self._points)]}

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Headings, and a row of texts for each member."""
        on_front = self.to_dict()["front"]
        rows: list[tuple[str, ...]] = [
            (
                r.label, f"{f['latency_ms']:.4g} ms", f"{f['expected_ms']:.4g} ms", f"{f['test_top1']:.2%}",
                "{:.2%} to {:.2%}".format(*f["interval95"]), f"{f['params']:,}", "yes" if r.label in on_front else "",
            ) for r in self.results for f in [r.figures()]
        ]  # fmt: skip
        return ("target", "latency", "expected", "accuracy", "95 % interval", "params", "on the front"), rows

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from dnas import html

        return html.family(self)

    def plot(self) -> Any:
        """Figure of accuracy against latency, with the targets as dotted lines."""
        from dnas.plot.pareto import draw, info

        table = self.results[0].latency.table
        figure = draw(info({f"{table.device}, {table.status}": self._points}))
        for result in self.results:
            if result.target_ms:
                figure.axes[0].axvline(result.target_ms, color="0.7", linewidth=0.9, linestyle=":", zorder=0)
        return figure

    @property
    def _points(self) -> list[Any]:
        from dnas.plot.pareto import of

        return [of(r.architecture)._replace(name=r.label) for r in self.results]


@dataclasses.dataclass(frozen=True)
class SeedsResult:
    """The same search from several seeds: ``runs``, one for each seed, and ``together``, what all of their supernets chose
    (None for searches without a supernet each)."""

    runs: tuple[SearchResult | FamilyResult, ...]
    folder: Path | None
    together: SearchResult | FamilyResult | None = None

    @property
    def results(self) -> tuple[SearchResult, ...]:
        """All of all seeds."""
        return tuple(r for run in self.runs for r in run.results)

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        return tuple(r.architecture for r in self.results)

    def to_dict(self) -> dict[str, Any]:
        """``seeds.json``: for each target the figures of every seed, their mean, standard deviation (of one seed, with n - 1),
        smallest and largest, and those of the network that all chose together. No seed is singled out."""
        found = []
        for index, same in enumerate(zip(*(run.results for run in self.runs), strict=True)):
            rows = [r.figures() for r in same]
            summary = {name: _spread([float(r[name]) for r in rows]) for name in FIGURES}
            different = len({r.architecture.fingerprint for r in same})
            found.append({"name": same[0].label, "n": len(rows), "networks": different, "summary": summary, "seeds": rows})
            if self.together:
                chosen = self.together.results[index]
                told = {k: chosen.derivation[k] for k in ("networks", "losses", "inherits_seed")}
                found[-1]["together"] = {**{k: v for k, v in chosen.figures().items() if k not in OF_ONE}, **told}
        return {"format": "dnas-seeds/1", "targets": found}

    def tables(self) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
        """For each target a caption, headings, and a row of texts for every figure."""
        found: list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]] = []
        for target in self.to_dict()["targets"]:
            together, rows = target.get("together", {}), []
            for name, of in target["summary"].items():
                values = [*(of.get(k) for k in ("mean", "sd", "min", "max")), *([together.get(name)] if together else [])]
                rows.append((name, *("-" if v is None else format(v, FIGURES[name]) for v in values)))
            caption = f"{target['name']}: {target['n']} seeds, {target['networks']} different networks"
            headings = ("", "mean", "sd of a seed", "smallest", "largest", *(["together"] if together else []))
            found.append((caption, headings, rows))
        return found

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from dnas import html

        return html.seeds(self)


def _spread(values: list[float]) -> dict[str, float]:
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    found = {"mean": statistics.fmean(values), "sd": deviation, "min": min(values), "max": max(values)}
    return {k: v for k, v in found.items() if not math.isnan(v)}
