"""Options of the search: help that states unit and default, ranges, and the constants of the recipes."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from dnas import config as config_module
from dnas import recipes
from dnas.config import SearchConfig, complete, warm_up_epochs, with_recipe
from dnas.errors import ConfigError
from dnas.search.schedule import Schedule

FIELDS = {f.name: f for f in dataclasses.fields(SearchConfig)}
HINTS = get_type_hints(SearchConfig)
UNIT = re.compile(r"No unit|\bms\b|\bseconds\b|\bper step\b|^Passes over|^Images per step|^Share of the epochs|^Networks drawn")
# what depends on data and space is completed later; these may stay open
OPEN = {
    "data_dir", "out", "resume", "missing", "devices", "reference_ms", "from_supernet", "theta_every", "zero_gradient",
    "evaluations", "evolution", "band", "gates", "entropy_weight", "skip_dropout", "min_depth", "derive_from",
}  # fmt: skip


def flag(field: str) -> str:
    return "--" + field.replace("_", "-")


def docstrings() -> dict[str, str]:
    """The text below every field of SearchConfig, which is its --help."""
    body = next(n for n in ast.parse(inspect.getsource(config_module)).body if isinstance(n, ast.ClassDef)).body
    found = {}
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = inspect.cleandoc(text.value.value)
    return found


def kinds(field: str) -> set[Any]:
    """The types that the field takes, without None; a Literal stands for itself."""
    hint = HINTS[field]
    members = get_args(hint) if isinstance(hint, types.UnionType) or get_origin(hint) not in (None, Literal) else (hint,)
    return {m for m in members if m is not type(None)}


def words(field: str) -> tuple[str, ...]:
    return next((get_args(k) for k in kinds(field) if get_origin(k) is Literal), ())


NUMBERS = [f for f in FIELDS if kinds(f) <= {int, float}]
WHOLE = [f for f in NUMBERS if kinds(f) == {int}]
WORDS = [f for f in FIELDS if words(f)]

# -- help ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", FIELDS)
def test_every_option_states_its_unit_and_default(field: str) -> None:
    text = docstrings()[field]
    assert UNIT.search(text), f"{flag(field)}: {text}"
    if FIELDS[field].default is None:  # tyro writes "(default: None)", which says nothing
        assert "Default: " in text, f"{flag(field)}: {text}"
    if FIELDS[field].default == "":
        assert "Needed unless --resume" in " ".join(text.split())
    for word in words(field):
        assert word in text or field in ("missing", "augment"), f"{flag(field)} does not explain {word}"


@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_defaults_in_the_help_are_those_of_the_recipe(recipe: str) -> None:
    texts = docstrings()
    for field in ("epochs", "batch_size"):
        stated = re.search(rf"\b{recipe} ([0-9.e-]+)", texts[field])
        assert stated and float(stated[1]) == recipes.RECIPES[recipe][field]
    for field in ("train_epochs", "lr", "temperature_start", "strength", "alpha", "beta", "weight_decay"):
        stated = re.search(r"the recipe's \(([0-9.e-]+)\)", texts[field])
        assert stated and float(stated[1]) == recipes.RECIPES[recipe][field]


def test_help_shows_every_option() -> None:
    root = Path(__file__).parents[1]
    python_path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "dnas.search", "--help"], capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": python_path, "COLUMNS": "200", "PYTHONIOENCODING": "utf-8"}, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr
    shown = " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.stdout).split())
    starts = {f: re.search(rf"{flag(f)},? (?=\S)", shown) for f in FIELDS}
    assert all(starts.values()), [f for f, s in starts.items() if s is None]
    for field, text in docstrings().items():
        assert " ".join(text.split()) in shown, flag(field)


# -- values -------------------------------------------------------------------------------------------------------


def test_the_defaults_are_valid_and_every_option_is_checked() -> None:
    assert with_recipe(SearchConfig()) == with_recipe(SearchConfig(recipe="short"))
    assert set(NUMBERS) == {name for name, _, _ in config_module._RANGES}
    assert {f: words(f) for f in WORDS} == config_module._WORDS


@pytest.mark.parametrize(("field", "low", "high"), config_module._RANGES)
def test_numbers_out_of_range_are_refused_with_the_flag(field: str, low: float, high: float) -> None:
    whole = field in WHOLE
    for value in (low, high):
        SearchConfig(**{field: int(value) if whole else value})
    step = 1 if whole else 0.1 * max(low, 1e-9)
    for value in (low - step, high * 1.5 + 1, float("nan"), float("inf"), -float("inf"), True, "5", [5]):
        with pytest.raises(ConfigError, match=rf"^{flag(field)} is .*; expected "):
            SearchConfig(**{field: value})
    if whole:
        with pytest.raises(ConfigError, match=rf"^{flag(field)} is {low + 1.5}; expected a whole number"):
            SearchConfig(**{field: low + 1.5})


@pytest.mark.parametrize("field", WORDS)
def test_unknown_words_are_refused_with_the_nearest(field: str) -> None:
    for word in words(field):
        assert getattr(SearchConfig(**{field: word}), field) == word
        with pytest.raises(ConfigError, match=rf"^{flag(field)} is '{word}x'; did you mean '{word}'"):
            SearchConfig(**{field: word + "x"})


def full(grey: bool = True, theta_steps: int = 7, **given: Any) -> SearchConfig:
    return complete(with_recipe(SearchConfig(**given)), grey=grey, theta_steps=theta_steps, middle_ms=3.5)


@pytest.mark.parametrize("grey", [True, False])
@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_recipes_leave_nothing_open(recipe: str, grey: bool) -> None:
    found = full(grey, recipe=recipe)
    unset = {f for f in FIELDS if getattr(found, f) is None}
    assert unset == OPEN | ({"target_ms"} if found.objective == "mul-log" else set())
    assert found.augment == ("crop" if grey else "crop-flip")
    assert complete(with_recipe(found), grey=not grey, theta_steps=99, middle_ms=9.0) == found  # a second time changes nothing
    assert SearchConfig(**found.to_dict()) == found


@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_what_is_given_wins_over_the_recipe(recipe: str) -> None:
    given: dict[str, Any] = {
        "objective": "absolute", "target_ms": 2.5, "epochs": 4, "batch_size": 3, "train_epochs": 0, "augment": "none",
        "warm_up": 0.0, "temperature_start": 2.0, "temperature_end": 1.0, "lr": 0.0, "weight_decay": 0.0, "theta_lr": 0.0,
        "theta_weight_decay": 0.25, "strength": 0.0, "alpha": 0.0, "beta": 0.0, "seed": 3,
    }  # fmt: skip
    found = full(recipe=recipe, **given)
    assert {k: getattr(found, k) for k in given} == given


def test_constants_of_the_paper() -> None:
    """Wu et al., arXiv:1812.03443, section 4.1."""
    found = full(recipe="paper", theta_steps=5)
    assert (found.lr, found.batch_size, found.epochs, warm_up_epochs(found)) == (0.1, 192, 90, 10)
    assert (found.theta_lr, found.theta_weight_decay, found.weight_decay) == (0.01, 5e-4, 1e-4)
    assert (found.objective, found.alpha, found.beta) == ("mul-log", 0.2, 0.6)
    relative = with_recipe(SearchConfig(recipe="paper", reference_ms=80.0))  # ProxylessNAS, arXiv:1812.00332, its scripts
    assert (relative.objective, relative.alpha, relative.beta) == ("mul-log", 0.2, 0.3)
    schedule = Schedule.of(found, 20, 5)
    for epoch in range(90):
        assert schedule.temperature(epoch) == pytest.approx(5 * 0.956**epoch, rel=1e-12)
    assert schedule.steps(9) == 20 and schedule.steps(10) == 25  # logits are trained from the 11th epoch


@pytest.mark.parametrize(("epochs", "theta_steps"), [(30, 7), (3, 100), (1, 1), (200, 3)])
def test_logits_can_travel_equally_far_in_short_runs(epochs: int, theta_steps: int) -> None:
    found = full(epochs=epochs, theta_steps=theta_steps)
    assert found.theta_lr is not None
    steps = sum(Schedule.of(found, 11, theta_steps).steps(e) - 11 for e in range(epochs))
    assert steps == theta_steps * (epochs - warm_up_epochs(found)) > 0
    assert found.theta_lr * steps == pytest.approx(25)
    schedule = Schedule.of(found, 11, theta_steps)
    assert schedule.temperature(0) == 5 and (epochs == 1 or schedule.temperature(epochs - 1) == pytest.approx(0.1))


def test_warm_up_is_rounded_to_whole_epochs() -> None:
    for epochs, share, wanted in ((10, 0.16, 2), (10, 0.14, 1), (1, 0.3, 0), (1, 1.0, 1), (45, 10 / 90, 5)):
        assert warm_up_epochs(SearchConfig(epochs=epochs, warm_up=share)) == wanted


def test_a_run_that_is_all_warm_up_trains_no_logits() -> None:
    found = full(warm_up=1.0, epochs=3)
    assert warm_up_epochs(found) == 3 and Schedule.of(found, 11, 7).before(3) == 33
    assert full(warm_up=0.0, epochs=3, theta_steps=0).theta_lr == 25


def test_the_target_is_the_middle_of_the_range_unless_given() -> None:
    assert full().target_ms == 3.5 and full(target_ms=2.0).target_ms == 2.0
    assert full(recipe="paper").target_ms is None and full(recipe="paper", objective="absolute").target_ms == 3.5
    with pytest.raises(ConfigError, match=r"--target-ms has no place in the objective mul-log.*--objective lagrange"):
        with_recipe(SearchConfig(target_ms=2.0, objective="mul-log"))


def test_a_target_alone_picks_lagrange_and_a_network_that_keeps_it() -> None:
    for recipe in recipes.RECIPES:
        found = full(recipe=recipe, target_ms=2.0)
        assert (found.objective, found.derive, found.derive_samples) == ("lagrange", "budget", 32)
    assert full(recipe="paper", also=("macs=1e6",)).objective == "lagrange"
    assert full(recipe="paper").derive == "argmax" and full(derive="sample").derive_samples == 16
    assert full(objective="add-linear").strength == 0.1 and full(objective="add-linear", strength=2.0).strength == 2.0
    with pytest.raises(ConfigError, match="--also is 'macs=1'; expected texts"):
        SearchConfig(also="macs=1")  # type: ignore[arg-type]
