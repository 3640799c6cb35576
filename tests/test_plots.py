"""What figures show (``info``) is what was given; drawing them works and writes what a person can read."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tiny
from scipy.stats import kendalltau

from dnas import zoo
from dnas.arch import Architecture
from dnas.errors import ConfigError
from dnas.latency import LatencyTable
from dnas.oracle import load
from dnas.plot import breakdown, network, pareto, predicted, ranking, search


def drawn(figure) -> str:
    """The figure as SVG, with text as text."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        file = io.StringIO()
        figure.savefig(file, format="svg")
    return file.getvalue()


def test_breakdown_sums_to_the_latency() -> None:
    network, tables = Architecture.load("fbnet_c"), [LatencyTable.load("samsung_s8"), LatencyTable.load("samsung_s8")]
    tables[1] = tables[1].__class__(**{**{f: getattr(tables[1], f) for f in tables[1].__dataclass_fields__},
                                       "constant_ms": 2.5, "entries": {}, "name": "other"})  # fmt: skip
    found = breakdown.info(network, tables)
    for table in tables:
        total = table.latency_ms(network)
        assert found.total_ms[table.name] == pytest.approx(total)
        assert found.layers_ms[table.name].sum() + found.constant_ms[table.name] == pytest.approx(total)
        kinds = found.kinds_ms[table.name]
        assert sum(kinds.values()) == pytest.approx(total) and list(kinds.values()) == sorted(kinds.values(), reverse=True)
    k5 = [i for i, op in enumerate(network.layers) if getattr(op, "kernel", 0) == 5 and op.op == "ir"]
    name = tables[0].name
    assert found.kinds_ms[name]["ir 5x5"] == pytest.approx(found.layers_ms[name][k5].sum())
    assert found.modelled["other"].sum() == sum(bool(op.primitives()) for op in network.layers) > found.modelled[name].sum()
    assert found.kinds_ms["other"][breakdown.CONSTANT] == 2.5
    text = drawn(breakdown.draw(found))
    assert "fbnet_c" in text and "once per network" in text and "from the cost model" in text


def test_a_front_is_what_no_other_point_beats() -> None:
    rng = np.random.default_rng(0)
    points = [pareto.Point(str(i), *map(float, rng.integers(1, 12, 2))) for i in range(60)]
    front = pareto.front(points)
    assert {(p.cost, p.accuracy) for p in front} == {
        (p.cost, p.accuracy) for p in points
        if not any(q.cost <= p.cost and q.accuracy >= p.accuracy and q[1:3] != p[1:3] for q in points)
    }  # fmt: skip
    assert [p.cost for p in front] == sorted({p.cost for p in front})
    found = pareto.info({"mine": points, "none": []}, [pareto.Point("a $name$", 3.0, 5.0, (2.0, 4.0))])
    assert found.fronts == {"mine": front, "none": ()}
    assert "a $name$" in drawn(pareto.draw(found))
    with pytest.raises(ConfigError, match="bad: cost nan"):
        pareto.info({"mine": [pareto.Point("bad", float("nan"), 1.0)]})


def test_published_networks_are_points() -> None:
    names = [n for n in zoo.names() if n.startswith(("fbnet", "mobilenetv3"))]
    points, left_out = pareto.published("macs", names)
    assert len(points) + len(left_out) == len(names)
    fbnet = next(p for p in points if p.name == "fbnet_c")
    assert fbnet.cost == Architecture.load("fbnet_c").macs and 70 < fbnet.accuracy < 80
    points, left_out = pareto.published(LatencyTable.load("pixel1"), ["fbnet_c", "mnasnet_100"])
    assert [p.name for p in points] == ["mnasnet_100"] and left_out[0].startswith("fbnet_c: ")


def test_predicted_against_measured() -> None:
    found = predicted.info([1.1, 2.0, 2.7], [1.0, 2.0, 3.0], ["a", "b", "c"], ["x", "y", "x"])
    assert (found.n, found.worst, found.tau) == (3, "a", 1.0)
    assert found.mean_error == pytest.approx((0.1 + 0 + 0.1) / 3) and found.bias == pytest.approx((1.1 * 0.9) ** (1 / 3))
    np.testing.assert_array_equal(found.groups["x"], [[1.1, 1.0], [2.7, 3.0]])
    assert "n = 3, mean error 6.7%" in drawn(predicted.draw(found))
    for bad in (([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([], []), ([1.0], [float("nan")])):
        with pytest.raises(ConfigError, match="expected as many of each, all above 0 ms"):
            predicted.info(*bad)


def test_tau_is_inside_bands_of_equal_cost() -> None:
    rng = np.random.default_rng(0)
    costs = rng.uniform(1, 1.5, 400)
    runs = costs[:, None] * 10 + rng.normal(size=(400, 1)) + 0.5 * rng.normal(size=(400, 4))
    found = ranking.info(costs, runs, costs)  # a proxy that knows the cost alone
    assert found.global_tau > 0.5 > 3 * abs(found.tau)  # looks good over all networks, and means little inside the bands
    for band in found.bands:
        assert (costs[band.members] >= band.low).all() and (costs[band.members] < band.high).all()
        wanted = kendalltau(costs[band.members], runs.mean(1)[band.members]).statistic
        assert band.tau == pytest.approx(wanted) and band.high / band.low == pytest.approx(1.1)
    perfect = ranking.info(runs.mean(1), runs, costs)
    assert perfect.tau == 1 > perfect.ceiling > 0.5
    assert ranking.info(runs[:, 0], runs[:, 1], costs).ceiling is None
    text = drawn(ranking.draw(found))
    assert "tau-b" in text and "between seeds" in text
    with pytest.raises(ConfigError, match="no band"):
        ranking.info([1, 2], [1, 2], [1, 5])
    with pytest.raises(ConfigError, match="2 proxies, 3 networks"):
        ranking.info([1, 2], [1, 2, 3], [1, 5])


def test_seeds_of_nas_bench_macro_bound_the_ranking() -> None:
    oracle = load("nas-bench-macro")
    found = ranking.info(oracle.costs("macs"), oracle.runs, oracle.costs("macs"))
    assert 0.5 < found.ceiling < 1 and found.tau < found.ceiling and found.global_tau > found.tau


def test_table_for_breakdown_of_a_tiny_network() -> None:
    space = tiny.plain_space()
    found = breakdown.info(space.fix([0, 1]), tiny.table_for(space, constant_ms=0.25))
    assert found.constant_ms == {"tiny_0": 0.25} and not found.modelled["tiny_0"].any()


def test_networks_are_drawn_on_one_axis_of_ms() -> None:
    space = tiny.plain_space()
    table, searched = tiny.table_for(space, constant_ms=0.25), {s.index for s in space.slots if s.choices}
    found = {}
    for name, genotype in (("with a skip", (3, 0)), ("without", (0, 1))):
        architecture = space.fix(genotype)
        found[name] = network.info(architecture, table.report(architecture), searched)
    figure = network.figure(found)
    (axes,) = figure.axes
    rows = [[p for p in axes.patches if round(p.get_y() + p.get_height() / 2) == row] for row in (0, 1)]
    for blocks, one in zip(rows, found.values(), strict=True):
        assert [p.get_width() for p in blocks] == [b.ms for b in one.blocks if b.ms]
        starts = np.cumsum([0, *(p.get_width() for p in blocks)])[:-1]
        np.testing.assert_allclose([p.get_x() for p in blocks], starts)
    assert len(axes.lines) == 1  # the skip
    text = drawn(figure)
    assert all(words in text for words in ("with a skip", "3x3", "5x5", "not searched", "0.25 that belong to no layer"))


def test_layer_by_candidate_over_time() -> None:
    """Rows are choices, columns candidates; what a choice lacks is no number."""
    chances = {"a": [[0.5, 0.5], [0.1, 0.9]], "b": [[0.2, 0.8], [0.3, 0.7]]}
    empty = {k: None for k in ("train_loss", "train_accuracy", "expected_ms", "entropy", "temperature", "skip_share")}
    history = [
        {"phase": "search", "epoch": i + 1, **empty, "probabilities": {n: v[i] for n, v in chances.items()}} for i in (0, 1)
    ]
    found, labels = search.info(history), {"a": ("k3", "k5"), "b": ("k5", "skip")}
    panels = [axes for axes in search.draw_layers(found, labels).axes if axes.images and axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in panels] == ["probability after epoch 1", "probability after epoch 2"]
    nan = float("nan")
    for axes, i in zip(panels, (0, 1), strict=True):
        wanted = [[*chances["a"][i], nan], [nan, *chances["b"][i]]]
        np.testing.assert_array_equal(np.ma.filled(axes.images[0].get_array(), nan), wanted)
    assert "skip" in drawn(search.draw_now(found, labels)) and len(search.draw_layers(found, labels, [2]).axes) == 2
    many = {n: [f"{n}{i}" for i in range(12)] for n in "ab"}
    wide = search.info([history[0] | {"probabilities": {n: [1 / 12] * 12 for n in "ab"}}])
    assert search.draw_layers(wide, many).axes[0].images[0].get_array().shape == (2, 12)
