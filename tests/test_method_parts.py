"""Parts of methods by hand: pairs and their mass, REINFORCE's gradient, options that several methods share, schedules."""

from __future__ import annotations

import itertools
import math
import os
import signal
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from scipy import stats
from test_methods import setup_of
from test_search_steps import images

from dnas import gates, loop, supernet
from dnas.config import SearchConfig, complete, with_recipe
from dnas.errors import ConfigError, Interrupted
from dnas.evaluate import Accuracy
from dnas.methods import METHODS, reinforce, two_path
from dnas.methods.base import Draw
from dnas.methods.structure import identities, neighbours
from dnas.optimisers import sgd_cosine
from dnas.recipes import TRAITS
from dnas.search import choose, init, measured, resume, run
from dnas.search.programs import NEVER
from dnas.search.schedule import Schedule
from dnas.space import Genotype, Width

LOGITS = jnp.array([1.0, 0.0, -1.0, 0.5])


def test_pairs_are_drawn_without_replacement_and_switched_on_by_their_renormalised_chances() -> None:
    drawn = np.asarray(jax.jit(jax.vmap(lambda k: two_path.pair(k, LOGITS)))(jax.random.split(jax.random.key(0), 20_000)))
    p = np.asarray(jax.nn.softmax(LOGITS), float)
    wanted = {}
    for i, j in itertools.permutations(range(4), 2):
        chance = p[i] * p[j] / (1 - p[i]) + p[j] * p[i] / (1 - p[j])  # of the two, in either order
        wanted[i, j] = chance * p[i] / (p[i] + p[j])
    counts = [int(((drawn == pair).all(1)).sum()) for pair in wanted]
    assert sum(counts) == len(drawn)
    assert stats.chisquare(counts, np.array(list(wanted.values())) * len(drawn) / sum(wanted.values())).pvalue > 0.01


def test_the_mass_of_a_pair_stays_and_the_others_are_untouched() -> None:
    before = {"a": LOGITS, "b": LOGITS}
    moves = {"a": jnp.array([True, False, True, False]), "b": jnp.zeros(4, bool)}
    after = two_path.keep_mass(before, {"a": LOGITS + jnp.array([0.3, 0.0, -0.7, 0.0]), "b": LOGITS}, moves)
    old, new = jax.nn.softmax(LOGITS), jax.nn.softmax(after["a"])
    np.testing.assert_allclose(new[jnp.array([1, 3])], old[jnp.array([1, 3])], rtol=1e-6)
    np.testing.assert_allclose(new[0] + new[2], old[0] + old[2], rtol=1e-6)
    np.testing.assert_array_equal(after["a"][jnp.array([1, 3])], LOGITS[jnp.array([1, 3])])
    np.testing.assert_array_equal(after["b"], LOGITS)
    assert float(new[0]) > float(old[0])


@pytest.mark.parametrize("make", [tiny.stage_space, tiny.template_space, tiny.tied_space])
def test_choices_that_meet_in_a_layer_are_paired_one_at_a_time_and_all_in_time(make: Any) -> None:
    space = make()
    method = METHODS["two-path"].make(space, SearchConfig(method="two-path"))
    assert method.theta is not None
    logits = gates.zeros(space)
    draws = jax.jit(jax.vmap(lambda k: method.theta(k, logits, jnp.float32(1))))(jax.random.split(jax.random.key(1), 300))
    paired = {n: np.asarray(v[:, 0] != v[:, 1]) for n, v in draws.gates.active.items()}
    for name, others in neighbours(space).items():
        assert paired[name].any()
        assert not any((paired[name] & paired[m]).any() for m in others)
        np.testing.assert_array_equal(np.asarray(draws.moves[name]).sum(1), 2 * paired[name])


def test_the_quirk_of_the_original_takes_no_gradient_at_an_identity() -> None:
    space = tiny.plain_space()
    skip = int(np.flatnonzero(identities(space)["l1"])[0])
    for keep in (True, False):
        method = METHODS["two-path"].make(space, SearchConfig(method="two-path", zero_gradient=keep))
        assert method.theta is not None
        make = method.theta
        draws = jax.jit(jax.vmap(lambda k, make=make: make(k, gates.zeros(space), jnp.float32(1))))(
            jax.random.split(jax.random.key(1), 200)
        )
        at_skip = np.asarray(draws.gates.active["l1"])[:, 0] == skip
        assert at_skip.any() and np.asarray(draws.moves["l1"])[at_skip].any() == keep
        assert np.asarray(draws.moves["l1"])[~at_skip].any()


def test_reinforce_is_the_gradient_of_the_expected_loss() -> None:
    """Averaged over all networks with their probabilities, whatever the baseline; the baseline follows the losses."""
    logits = {"a": LOGITS}
    losses = jnp.array([0.3, 0.9, 0.1, 0.5])
    memory = reinforce.Baseline(jnp.float32(0.4), jnp.float32(3))
    total = jnp.zeros(4)
    for i, p in enumerate(jax.nn.softmax(LOGITS)):
        drawn = Draw(gates.Gates({}, {"a": jnp.array([i])}), {}, {"a": jnp.ones(4, bool)})
        slope, after = reinforce.gradient(memory, losses[i], logits, drawn)
        total = total + p * slope["a"]
        assert float(after.mean) == pytest.approx(0.95 * 0.4 + 0.05 * float(losses[i]))
    np.testing.assert_allclose(total, jax.grad(lambda v: (jax.nn.softmax(v) * losses).sum())(LOGITS), atol=1e-6)
    first, _ = reinforce.gradient(reinforce.begin(), losses[0], logits, drawn)
    assert not first["a"].any()


def test_gates_per_sample_differ_and_their_latency_is_the_mean() -> None:
    setup = setup_of("gumbel", tiny.plain_space, gates="sample")
    state, programs = init(setup), setup.programs
    maker = setup.method.theta
    assert maker is not None
    many = programs._draw(maker, state.key, state.step, state.logits, jnp.float32(1), 5)
    assert many.gates.weights["l1"].shape == (5, 4) and len(np.unique(np.asarray(many.gates.weights["l1"]), axis=0)) == 5
    np.testing.assert_allclose(many.gates.weights["l1"].sum(1), 1, rtol=1e-5)


def test_identities_are_dropped_at_first_and_never_after_sixty_percent() -> None:
    setup = setup_of("gumbel", tiny.plain_space, skip_dropout=1.0)
    logits, steps = gates.zeros(setup.space), setup.schedule.before(setup.schedule.epochs)
    skips = identities(setup.space)["l1"]
    begin = setup.programs._without_skips(jax.random.key(0), jnp.int32(0), logits)
    assert (np.asarray(begin["l1"])[skips] == NEVER).all() and not np.asarray(begin["l1"])[~skips].any()
    late = setup.programs._without_skips(jax.random.key(0), jnp.int32(0.6 * steps + 1), logits)
    jax.tree.map(np.testing.assert_array_equal, late, logits)


def test_theta_learns_from_images_of_its_own_or_of_the_weights() -> None:
    own, same = (setup_of("gumbel", tiny.plain_space, theta_images=t) for t in (None, "weights"))
    assert own.config.theta_images == "own" and not set(own.splits.architecture.indices) & set(own.splits.weights.indices)
    assert set(same.splits.architecture.indices) == set(own.splits.architecture.indices) < set(same.splits.weights.indices)
    assert same.schedule.theta_steps == own.schedule.theta_steps and same.schedule.weight_steps > own.schedule.weight_steps


def test_the_entropy_of_theta_is_weighed() -> None:
    setup = setup_of("gumbel", tiny.plain_space, entropy_weight=0.5)
    value, slope = setup.programs._entropy(gates.zeros(setup.space))
    assert float(value) == pytest.approx(0.5) and max(float(abs(v).max()) for v in slope.values()) < 1e-6
    _, slope = setup.programs._entropy({n: v.at[0].add(1.0) for n, v in gates.zeros(setup.space).items()})
    assert all(float(v[0]) < 0 for v in slope.values())  # against the gradient the likeliest gains


def test_labels_are_smoothed_for_the_weights_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = setup_of("gumbel", tiny.plain_space, label_smoothing=0.3)
    scores, y = jax.random.normal(jax.random.key(1), (5, 3)), jnp.array([0, 2, 1, 1, 0])
    monkeypatch.setattr(supernet, "apply", lambda net, params, stats, x, *_, **__: (params["w"] * scores, stats))
    key, one = jax.random.key_data(jax.random.key(0)), jnp.float32(1)
    args = ({"w": one}, {}, gates.zeros(setup.space), key, jnp.int32(0), one, jnp.zeros((5, 8, 8, 3)), y)
    for kind, labels in (("weights", 0.7 * jax.nn.one_hot(y, 3) + 0.1), ("theta", jax.nn.one_hot(y, 3))):
        wanted, slope = jax.value_and_grad(lambda w, t=labels: optax.softmax_cross_entropy(w * scores, t).mean())(one)
        found = setup.programs.gradients[kind](*args)
        assert float(found.loss) == pytest.approx(float(wanted), rel=1e-5)
        assert float(found.params["w"]) == pytest.approx(float(slope), rel=1e-4)


def test_optimisers_of_the_weights_by_hand() -> None:
    params, slope = {"kernel": jnp.float32(2.0)}, {"kernel": jnp.float32(3.0)}
    for name, wanted in (("sgd", 3.2), ("nesterov", 1.9 * 3.2), ("rmsprop", 3.2 / (0.9 + 0.1 * 3.2**2 + 1) ** 0.5)):
        made = sgd_cosine(0.5, 10, 0.1, optimiser=name)  # L2: 3 + 0.1 * 2
        assert float(made.update(slope, made.init(params), params)[0]["kernel"]) == pytest.approx(-0.5 * wanted, rel=1e-5)


def test_all_ops_and_all_channels_are_on_in_the_warm_up_of_a_policy() -> None:
    setup = setup_of("reinforce", tiny.width_space)
    assert setup.method.warm is not None
    warm = setup.method.warm(jax.random.key(0), gates.zeros(setup.space), jnp.float32(1)).gates
    assert warm.active is None
    for name, choice in setup.space.choices.items():
        n = len(choice.options)
        wanted = np.eye(n)[np.argmax(choice.options)] if isinstance(choice, Width) else np.full(n, 1 / n)
        np.testing.assert_allclose(warm.weights[name], wanted, rtol=1e-6)
    assert {isinstance(c, Width) for c in setup.space.choices.values()} == {True, False}


def test_schedules_of_methods() -> None:
    every = Schedule(epochs=6, warm_up=2, weight_steps=7, theta_steps=2 * 3, every=3, passes=3)
    order = [every.at(e, k) for e in range(6) for k in range(every.steps(e))]
    assert [n for kind, n in order if kind == "weights"] == list(range(42))
    assert [n for kind, n in order if kind == "theta"] == list(range(24))
    assert [k for k, _ in order[14 : 14 + 13]] == 2 * (3 * ["weights"] + 3 * ["theta"]) + ["weights"]
    assert [every.at(2, k)[0] for k in range(4)] == 3 * ["weights"] + ["theta"]
    linear = Schedule(11, 0, 1, 1, 10.0, 0.1, linear=True)
    assert linear.temperature(5) == pytest.approx(5.05) and linear.temperature(10) == pytest.approx(0.1)
    assert (every.all_on(0), every.all_on(21)) == (1.0, 0.0) and 0 < every.all_on(5) < 1
    alone = Schedule(6, 6, 7, 0, restarts=3)
    assert [e for e in range(6) if alone.begins(e)] == [0, 2, 4] and alone.total_weight_steps == 14


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"method": "two-path", "temperature_start": 1.0}, "two-path does not take --temperature-start; drop it .gumbel"),
        ({"method": "gumbel", "evaluations": 3}, "gumbel does not take --evaluations; .*single-path, random-search take it"),
        ({"method": "gdas", "gates": "sample"}, "gdas does not take --gates"),
        ({"method": "reinforce", "objective": "lagrange"}, "does not take --objective lagrange; it takes absolute, "),
        ({"method": "gumbel", "objective": "mnasnet-soft"}, "does not take --objective mnasnet-soft"),
        ({"method": "single-path", "theta_lr": 0.1}, "single-path does not take --theta-lr"),
    ],
)
def test_options_that_a_method_does_not_take_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        with_recipe(SearchConfig(**given))


def test_every_method_has_its_constants() -> None:
    assert set(TRAITS) == set(METHODS)
    found = with_recipe(SearchConfig(method="two-path", recipe="paper"))
    assert (found.theta_lr, found.theta_beta1, found.theta_every, found.epochs) == (1e-3, 0.0, 5, 160)
    assert (found.optimiser, found.label_smoothing) == ("nesterov", 0.1)
    found = with_recipe(SearchConfig(method="reinforce", target_ms=1.0))
    assert (found.objective, found.strength, found.theta_lr_end) == ("absolute", 0.1, 10.0)
    rate = complete(found, grey=True, theta_steps=4, middle_ms=1.0).theta_lr
    assert rate == pytest.approx(2.5 / (4 * 19))  # from 2.5 / steps to 25 / steps
    for name in METHODS:
        for recipe in ("short", "paper"):
            full = with_recipe(SearchConfig(method=name, recipe=recipe))
            assert with_recipe(full) == full


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "more", "stop_at"),
    [
        ("single-path", {"evaluations": 5}, 9),
        ("random-search", {"evaluations": 2}, 9),
        ("two-path", {}, 20),
        ("reinforce", {}, 9),
    ],
)
def test_interrupted_and_resumed_gives_the_bytes_of_an_uninterrupted_run(
    name: str, more: dict[str, Any], stop_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in a step; and what a kill during evolution leaves: a search that is done, and some networks measured."""
    monkeypatch.setattr(jax, "default_backend", lambda: "other")  # compiles faster
    space = tiny.template_space()
    inputs: dict[str, Any] = {"space": space, "lut": tiny.table_for(space), "data": images()}
    options = {"method": name, "epochs": 4, "batch_size": 8, "train_epochs": 1, "devices": 1, **more}
    whole = run(**inputs, **options, out=tmp_path / "whole", progress=False)
    seen, block = 0, jax.block_until_ready

    def counting(value: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return block(value)

    with monkeypatch.context() as patch:
        patch.setattr(loop.jax, "block_until_ready", counting)
        with pytest.raises(Interrupted):
            run(**inputs, **options, out=tmp_path / "cut", progress=False)
    if name in ("single-path", "two-path"):  # two of the networks, and half a line
        lines = (tmp_path / "whole" / "measured.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "cut" / "measured.jsonl").write_text("".join(lines[:2]) + lines[2][:9])
    again = resume(tmp_path / "cut", **inputs, progress=False)
    assert again.genotype == whole.genotype
    measured_too = ["measured.jsonl"] if name in ("single-path", "two-path") else []
    for file in ("architecture.json", "history.jsonl", *measured_too):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert whole.latency.total_ms <= whole.architecture.provenance["target_ms"]


@pytest.mark.parametrize("unknown", [False, True])
def test_the_smallest_loss_is_chosen_and_not_the_most_accurate(unknown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three networks, the last one's loss is the smallest, or not a number."""
    setup, pool = setup_of("gumbel", tiny.plain_space), [(0, 0), (0, 1), (1, 0)]
    found = dict(
        zip(pool, [Accuracy(9, 10, 0.7), Accuracy(5, 10, 0.6), Accuracy(4, 10, math.nan if unknown else 0.5)], strict=True)
    )
    monkeypatch.setattr(measured, "measure", lambda setup, state, genotype: found[genotype])
    monkeypatch.setattr(choose, "_pool", lambda *given: (pool, {}))
    genotype, own, about = choose._derive(setup, init(setup), Mock(), None, None)
    assert genotype == pool[1 if unknown else 2] and own[genotype] is found[genotype] and about == {"networks": 3}


def test_networks_are_measured_once_and_a_resumed_run_takes_them_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Genotype] = []

    def measure(setup: Any, state: Any, genotype: Genotype) -> Accuracy:
        asked.append(genotype)
        return Accuracy(genotype[0], 10, 0.5)

    monkeypatch.setattr(measured, "measure", measure)
    path, none = tmp_path / measured.FILE, cast(Any, None)
    first = measured.Measured(none, none, path)
    for genotype in ((1, 0), (2, 0), (1, 0)):
        first.of(genotype)
    assert asked == list(first) == [(1, 0), (2, 0)]
    path.write_text(path.read_text()[:-9])  # the second line was cut off
    again = measured.Measured(none, none, path)
    assert [again.of(g).hits for g in ((1, 0), (2, 0))] == [1, 2] and asked == [(1, 0), (2, 0), (2, 0)]
    assert len(measured.Measured(none, none, path)._known) == 2  # no half line is left in between
