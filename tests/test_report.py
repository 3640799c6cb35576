"""The page on a search: what it says, in words and in the drawing, and that it needs nothing else."""

from __future__ import annotations

import dataclasses
import math
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import dnas
from dnas import derive
from dnas.arch import Architecture
from dnas.evaluate import Accuracy
from dnas.latency.terms import price
from dnas.plot import network, report, search
from dnas.search import SearchResult, diagnosis
from dnas.space import Space

SPACE = dnas.load_space("fbnet_mini")
LUT = dnas.LatencyTable.load("samsung_s8.json")
TARGET_MS = 0.7


def row(epoch: int, logits: dict[str, np.ndarray], **more: Any) -> dict[str, Any]:
    """What the search writes after an epoch with these logits."""
    chances = {n: derive.probabilities(v) for n, v in logits.items()}
    entropy = np.mean([-(p * np.log(p)).sum() / math.log(len(p)) for p in chances.values()])
    same = dict.fromkeys(
        ("train_loss", "train_accuracy", "mixture_loss", "mixture_accuracy", "argmax_loss", "argmax_accuracy"), 0.5
    )
    return {
        "phase": "search", "epoch": epoch, "temperature": 1.0, **same, "expected_ms": TARGET_MS, "argmax_ms": 0.8,
        "derived_ms": 0.69, "others": {}, "entropy": float(entropy), "skip_share": 0.1, "genotype": [],
        "probabilities": {n: p.tolist() for n, p in chances.items()}, "multipliers": [0.5], "cost_share": 0.4, **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def result() -> SearchResult:
    """A search's result without the search: random logits, and a network within the target."""
    rng = np.random.default_rng(0)
    logits = {n: 3 * rng.normal(size=len(c.options)) for n, c in SPACE.choices.items()}
    history = [row(1, {n: 0 * v for n, v in logits.items()}, mixture_loss=None, cost_share=None), row(2, logits)]
    found = derive.shortlist(SPACE, logits, [derive.Limit(price(SPACE, LUT), TARGET_MS)], 1)
    fixed = SPACE.fix(found.genotypes[0])
    by = {"by": "budget", "networks": 1, "argmax_ms": 0.8, "gap_ms": -0.01, "log_probability_given_up": 1.0}
    provenance = {
        "space": "<b>mine</b>", "method": "gumbel", "seed": 3, "step": 443, "versions": {"jax": "0"}, "command": None,
        "target_ms": TARGET_MS,
    }  # fmt: skip
    architecture = Architecture(
        fixed.layers, fixed.input_channels, fixed.resolution, fixed.num_classes, fixed.defaults, "x",
        {"accuracy": {"data": "digits"}}, provenance,
    )  # fmt: skip
    accuracy = Accuracy(350, 359, 0.1)
    return SearchResult(
        architecture, found.genotypes[0], history, accuracy, Accuracy(140, 144, 0.1), 1, LUT.report(fixed), by,
        ("Extrapolated & said.",), None, SPACE, None, None,
    )  # fmt: skip


class Reader(HTMLParser):
    """Checks that elements nest, and collects what the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v and not v.startswith(("#", "data:"))]
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open = self.open[:-1] if tag not in ("meta", "br", "link") else self.open

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_says_it_all_loads_nothing_and_repeats(result: SearchResult) -> None:
    page = result.report()
    reader = Reader()
    reader.feed(page)
    assert reader.open == [] and reader.loads == [] and "<script" not in page and "@import" not in page
    assert "&lt;b&gt;mine&lt;/b&gt;" in page and "<b>mine" not in page
    assert "Extrapolated &amp; said." in page and "estimated latency; target 0.7 ms" in page
    assert f"{result.accuracy.top1:.1%}" in page and "on 359 test images" in page and "with the supernet&#x27;s weights" in page
    assert page.count("<svg") == 3 and page == result.report()
    assert "No warnings." in report.draw(report.info(result)._replace(warnings=()))


def test_what_logits_say_is_left_out_where_evolution_chose(result: SearchResult) -> None:
    evolved = dataclasses.replace(result, derivation={**result.derivation, "by": "evolution", "pareto": [{}, {}]})
    names, others = (dict(report.info(r).facts) for r in (result, evolved))
    assert set(names) - set(others) == {
        "log-probability given up against the likeliest one", "latency expected under the probabilities",
        "latency of the likeliest network", "chosen network less expectation",
    }  # fmt: skip
    assert others["front over accuracy, costs"].startswith("2 networks")


def test_blocks_are_as_wide_as_they_are_slow(result: SearchResult) -> None:
    found = network.info(result.architecture, result.latency, {s.index for s in SPACE.slots if s.choices})
    assert [b.ms for b in found.blocks] == list(result.latency.layers_ms)
    assert [b.searched for b in found.blocks] == [bool(s.choices) for s in SPACE.slots]
    drawn = re.findall(r'<rect x="([\d.]+)" y="4" width="([\d.]+)"', network.draw(found))
    assert len(drawn) == len(found.blocks)
    widths = np.array([float(w) for _, w in drawn])
    slow = np.array([b.ms for b in found.blocks])
    per_ms = widths[slow > 0] / slow[slow > 0]
    np.testing.assert_allclose(per_ms, per_ms.mean(), rtol=0.01)
    assert (widths[slow == 0] == network.NARROWEST).all()
    ends = [float(x) + float(w) for x, w in drawn]
    assert ends[-1] <= network.WIDTH and all(float(x) > end for (x, _), end in zip(drawn[1:], ends, strict=False))


def test_what_was_not_measured_is_not_drawn(result: SearchResult) -> None:
    found = search.info(result.history, TARGET_MS)
    assert np.isnan(found.cost_share[0]) and found.multipliers["latency"].tolist() == [0.5, 0.5]
    old = [{k: v for k, v in r.items() if k not in ("cost_share", "multipliers", "derived_ms")} for r in result.history]
    bare = search.info(old, None)
    assert bare.multipliers == {} and np.isnan(bare.cost_share).all()
    shown = {a.get_title(loc="left") for a in search.draw_curves(bare).axes if a.get_visible()}
    assert "latency, ms" in shown and "share of theta's gradient from the costs" not in shown


def decided(space: Space, option: str | None, share: float = 0.999) -> dict[str, np.ndarray]:
    """Logits under which each choice takes ``option`` (its first one where it has none such) with probability ``share``."""
    found = {}
    for name, choice in space.choices.items():
        at = choice.labels.index(option) if option in choice.labels else 0
        chances = np.full(len(choice.options), (1 - share) / (len(choice.options) - 1))
        chances[at] = share
        found[name] = np.log(chances)
    return found


@pytest.mark.parametrize(
    ("option", "share", "more", "words"),
    [
        ("k3_e1", 0.999, {}, []),
        ("k3_e1", 0.3, {}, ["Theta has not decided: the mean entropy of the choices is 0."]),
        ("skip", 0.95, {}, [rf"Skip collapse in stage {i} \(s{i}.b1 to s{i}.b4\): its 3 layers .* 0.95" for i in range(2, 7)]),
        ("k3_e1", 0.999, {"expected_ms": 1.05 * TARGET_MS}, [r"expected latency ended \+5.0% from its target of 0.7 ms"]),
        ("k3_e1", 0.999, {"cost_share": 0.97}, ["Latency decides almost alone: 97% of theta's gradient"]),
    ],
)
def test_warnings_are_words(option: str, share: float, more: dict[str, float], words: list[str]) -> None:
    space = dnas.load_space("fbnet")  # whose stages have up to three layers that may be skipped
    said = diagnosis.warnings(space, row(9, decided(space, option, share), **more), TARGET_MS)
    assert len(said) == len(words)
    for sentence, wanted in zip(said, words, strict=True):
        assert re.search(wanted, sentence) and sentence.endswith(".")
