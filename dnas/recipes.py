"""Constants: the recipes' schedules, and what each search method takes, has by default and has in its paper. No JAX here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

# theta_lr is theta_travel / architecture steps where a recipe states no theta_lr: logits can then move by about that much
RECIPES: dict[str, dict[str, Any]] = {
    "short": {
        "objective": "lagrange", "epochs": 25, "batch_size": 64, "train_epochs": 30, "warm_up": 0.3, "theta_images": "own",
        "temperature_start": 5.0, "temperature_end": 0.1, "optimiser": "sgd", "label_smoothing": 0.0, "lr": 0.1,
        "weight_decay": 1e-4, "theta_travel": 25.0,
        "theta_lr_end": 0.1, "theta_beta1": 0.9, "theta_weight_decay": 0.0, "strength": 4.0, "alpha": 0.2, "beta": 0.6,
    },
    "paper": {
        "objective": "mul-log", "epochs": 90, "batch_size": 192, "train_epochs": 30, "warm_up": 10 / 90, "theta_images": "own",
        "temperature_start": 5.0, "temperature_decay": 0.956, "optimiser": "sgd", "label_smoothing": 0.0, "lr": 0.1,
        "weight_decay": 1e-4, "theta_lr": 0.01,
        "theta_lr_end": 1.0, "theta_beta1": 0.9, "theta_weight_decay": 5e-4, "strength": 4.0, "alpha": 0.2, "beta": 0.6,
    },
}  # fmt: skip

TEMPERATURE = ("temperature_start", "temperature_end")
BY_LOSS = ("lagrange", "absolute", "add-linear", "hinge", "mul-log")
BY_REWARD = ("absolute", "add-linear", "hinge", "mnasnet-soft", "mnasnet-hard")
STRENGTHS = {"add-linear": 0.1, "mnasnet-soft": 0.07, "mnasnet-hard": 1.0}  # of objectives that the recipe's does not suit
REFERENCE_BETA = 0.3  # of mul-log with a reference, as ProxylessNAS has it


class Traits(NamedTuple):
    """``defaults``: its constants in any recipe; ``paper``: those of --recipe paper besides. ``lacks``: options that it does
    not take. ``objectives``: what it can minimise; a target picks the first. ``linear``: how its temperature falls."""

    defaults: Mapping[str, Any] = {}
    paper: Mapping[str, Any] = {}
    lacks: tuple[str, ...] = ()
    objectives: tuple[str, ...] = BY_LOSS
    linear: bool = False


_NETWORKS = ("evaluations", "evolution", "band")  # of the methods that compare networks
_SOFT = ("zero_gradient", *_NETWORKS)  # what methods that run all candidates lack
_HARD = (*_SOFT, "gates")  # and those that sample some
_LOGITS = (
    *TEMPERATURE, "zero_gradient", "objective", "strength", "alpha", "beta", "reference_ms", "warm_up", "theta_lr",
    "theta_lr_end", "theta_beta1", "theta_every", "theta_weight_decay", "theta_travel", "derive", "derive_samples",
    "derive_from", "gates", "entropy_weight", "skip_dropout", "theta_images",
)  # fmt: skip
_DARTS = {
    "objective": "lagrange", "epochs": 50, "batch_size": 64, "warm_up": 0.0, "lr": 0.025, "weight_decay": 3e-4,
    "theta_lr": 3e-4, "theta_beta1": 0.5, "theta_weight_decay": 1e-3,
}  # fmt: skip

TRAITS: dict[str, Traits] = {
    "gumbel": Traits(lacks=_SOFT),
    "softmax": Traits({"temperature_start": 1.0, "temperature_end": 1.0}, _DARTS, _HARD),
    "straight-through": Traits(lacks=_SOFT),
    "gdas": Traits(
        {"temperature_start": 10.0, "temperature_end": 0.1}, {**_DARTS, "epochs": 250}, _HARD, linear=True
    ),
    "two-path": Traits(
        {"theta_beta1": 0.0, "theta_every": 5, "zero_gradient": True},
        {
            "objective": "add-linear", "strength": 0.1, "epochs": 160, "batch_size": 256, "warm_up": 0.25, "lr": 0.05,
            "optimiser": "nesterov", "label_smoothing": 0.1, "weight_decay": 4e-5, "theta_lr": 1e-3, "theta_weight_decay": 0.0,
        },
        lacks=(*TEMPERATURE, *_NETWORKS, "gates"),
    ),
    "reinforce": Traits(
        {
            "objective": "absolute", "strength": 0.1, "theta_beta1": 0.0, "theta_lr_end": 10.0, "warm_up": 0.25,
            "theta_travel": 2.5,  # the rate grows tenfold, to that of the others; more, and noise alone decides
        },
        {
            "batch_size": 256, "lr": 0.165, "optimiser": "rmsprop", "label_smoothing": 0.1, "weight_decay": 4e-5,
            "theta_lr": 3e-4, "theta_weight_decay": 0.0,
        },
        lacks=(*TEMPERATURE, *_HARD, "skip_dropout"),
        objectives=BY_REWARD,
    ),
    "single-path": Traits(
        {"evaluations": 200, "evolution": "regularised"},
        {"epochs": 120, "batch_size": 1024, "lr": 0.5, "weight_decay": 4e-5, "evaluations": 1000},
        lacks=(*_LOGITS, "band"),
        objectives=(),
    ),
    "random-search": Traits({"evaluations": 8, "band": 0.9}, lacks=(*_LOGITS, "evolution"), objectives=()),
}  # fmt: skip


def constants(recipe: str, method: str) -> dict[str, Any]:
    """What ``method`` has by ``recipe``; options that it does not take are left out."""
    traits = TRAITS.get(method, Traits())
    own = {**RECIPES[recipe], **traits.defaults, **(traits.paper if recipe == "paper" else {})}
    return {k: v for k, v in own.items() if k not in traits.lacks}
