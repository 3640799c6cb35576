"""Search by a predictor: networks whose value is known say what every option adds, and so which network to try next.

A network is worth an intercept and an effect for each option of the choices that it leaves on; Bayesian ridge regression
(MacKay 1992) gives the effects with their uncertainty. The next network is the best one just below the budget by effects that
are drawn from it (Thompson 1933), so that options of which little is known are tried. As effects add up like logits, it is
found exactly, in the largest space, by the dynamic programming of ``dnas.derive``. A model of accuracies that is linear in the
options and optimised exactly within a latency is BINAS's (Nayman et al. 2021, arXiv:2110.12399); drawing from it is ours.

Options also add something together. A Gaussian process (``fit_process``) learns that where data show it, but nothing can be
maximised exactly by it: it chooses among networks that are given.

>>> import dnas
>>> oracle, lut = dnas.oracle.load("nas-bench-macro"), dnas.LatencyTable.load("samsung_s8.json")
>>> found = search(oracle.space, oracle.accuracy, lut, target_ms=2.5, budget=30, missing="cost-model")
>>> found.best.costs[0] <= 2.5 and len(found.evaluated) == 30
True
>>> model = fit(oracle.space, [e.genotype for e in found.evaluated], [e.value for e in found.evaluated])
>>> mean, sd = model.predict([found.best.genotype])
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dnas.derive.within import highest
from dnas.errors import ConfigError
from dnas.methods.random_search import BAND
from dnas.methods.selection import Evaluate, Outcome, Problem, Proposals, drive, limits_of
from dnas.space import Genotype, Space

if TYPE_CHECKING:
    from dnas.derive.within import Costs, Numbers


@dataclasses.dataclass(frozen=True)
class Predictor:
    """What networks of ``space`` are worth, as a normal distribution. ``effects``, f64[n], one number for each option of all
    choices in their order, and ``covariance``, f64[n, n], are of values less ``intercept``; ``centre``, f64[n]: mean features
    of the networks it has learnt from, which it is surest of; ``noise``: standard deviation of what it does not explain."""

    space: Space
    intercept: float
    effects: np.ndarray
    covariance: np.ndarray
    centre: np.ndarray
    noise: float

    def predict(self, genotypes: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, f64[n] each, of the values of n networks, ``noise`` not counted."""
        x = features(self.space, genotypes)
        off = x - self.centre
        return self.intercept + x @ self.effects, np.sqrt(np.einsum("ni,ij,nj->n", off, self.covariance, off).clip(0))

    def by_choice(self, effects: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """What each option adds, f64[options] by choice: ``self.effects``, or others that were drawn."""
        sizes = [len(c.options) for c in self.space.choices.values()]
        each = np.split(self.effects if effects is None else effects, np.cumsum(sizes)[:-1])
        return dict(zip(self.space.choices, each, strict=True))

    def drawn(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """``by_choice`` of effects that are drawn from what is known of them."""
        return self.by_choice(rng.multivariate_normal(self.effects, self.covariance, method="eigh"))


@dataclasses.dataclass(frozen=True)
class Process:
    """What networks of ``space`` are worth, options that act together included. ``regressor``: scikit-learn's, of values less
    ``mean`` in units of ``unit``."""

    space: Space
    regressor: Any
    mean: float
    unit: float

    @property
    def noise(self) -> float:
        """Standard deviation of what is neither effect nor deviation."""
        return self.unit * float(self.regressor.kernel_.k2.noise_level) ** 0.5

    def predict(self, genotypes: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """As ``Predictor.predict``."""
        mean, sd = self.regressor.predict(features(self.space, genotypes), return_std=True)
        return self.mean + self.unit * mean, np.sqrt(((self.unit * sd) ** 2 - self.noise**2).clip(0))


def features(space: Space, genotypes: Sequence[Sequence[int]]) -> np.ndarray:
    """f64[n, options of all choices]: 1 for the option of each choice that makes a difference; networks that are the same
    have the same. Errors: SpaceError."""
    sizes = [len(c.options) for c in space.choices.values()]
    firsts = np.cumsum([0, *sizes[:-1]])
    found = np.zeros((len(genotypes), sum(sizes)))
    for row, genotype in zip(found, map(space.canonical, genotypes), strict=True):
        active = space.active(genotype)
        row[[first + i for n, first, i in zip(space.choices, firsts, genotype, strict=True) if n in active]] = 1
    return found


def fit(space: Space, genotypes: Sequence[Sequence[int]], values: Sequence[float]) -> Predictor:
    """A model of ``values`` (finite numbers, in any unit) of different ``genotypes``, at least two.

    How much effects scatter, and how much they leave unexplained, is estimated from the same values. Errors: ConfigError,
    SpaceError.
    """
    from sklearn.linear_model import BayesianRidge  # type: ignore[import-untyped,unused-ignore]

    y = _checked(genotypes, values)
    x, unit = features(space, genotypes), float(y.std()) or 1.0
    model = BayesianRidge().fit(x, (y - y.mean()) / unit)
    return Predictor(
        space, float(y.mean() + unit * model.intercept_), unit * model.coef_, unit**2 * model.sigma_, x.mean(0),
        unit * float(model.alpha_) ** -0.5,
    )  # fmt: skip


def fit_process(space: Space, genotypes: Sequence[Sequence[int]], values: Sequence[float]) -> Process:
    """A Gaussian process of ``values``, as ``fit``'s: effects that add up, smooth deviations from them, and noise.

    How large each of the three is, and how far a deviation reaches (Matern's kernel of 3/2 over ``features``), is what makes
    the values likeliest (Rasmussen & Williams 2006, chapters 4 and 5). Time grows with the third power of the networks' number.
    Errors: ConfigError, SpaceError.
    """
    from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped,unused-ignore]
    from sklearn.gaussian_process import GaussianProcessRegressor, kernels  # type: ignore[import-untyped,unused-ignore]

    y = _checked(genotypes, values)
    sum_of_effects = kernels.ConstantKernel(1.0, (1e-3, 1e3)) * kernels.DotProduct(1.0, "fixed")
    together = kernels.ConstantKernel(1.0, (1e-3, 1e3)) * kernels.Matern(2.0, (0.3, 30.0), nu=1.5)
    unit = float(y.std()) or 1.0
    process = GaussianProcessRegressor(sum_of_effects + together + kernels.WhiteKernel(0.3, (1e-3, 10.0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a part that the values do not need ends at its smallest
        process.fit(features(space, genotypes), (y - y.mean()) / unit)
    return Process(space, process, float(y.mean()), unit)


def _checked(genotypes: Sequence[Sequence[int]], values: Sequence[float]) -> np.ndarray:
    y = np.asarray(values, float)
    if len(y) < 2 or y.shape != (len(genotypes),) or not np.isfinite(y).all():
        raise ConfigError(f"{len(genotypes)} networks with {len(y)} values; expected as many finite numbers, two or more")
    return y


def search(
    space: Space,
    evaluate: Evaluate,
    lut: Costs,
    *,
    target_ms: Numbers,
    budget: int = 1000,
    first: int | None = None,
    band: float = BAND,
    seed: int = 0,
    missing: str | None = None,
) -> Outcome:
    """Find the network of the largest ``evaluate(genotype)`` whose table latency is at most ``target_ms``.

    Arguments as in ``dnas.methods.evolution.search``; ``first``: networks of random effects before those of the model, default
    half as many as the space has choices, and at least two; ``band``: all take ``band`` to 1 times the (first) target, while
    there are any that do. It ends early where all networks within the targets are known. Errors: ConfigError for a target that
    no network keeps, LatencyError.
    """
    problem = Problem(space, limits_of(space, lut, target_ms, missing), np.random.default_rng(seed))
    number = max(2, len(space.choices) // 2) if first is None else first
    if number < 2 or not 0 <= band <= 1:
        raise ConfigError(f"first {number}, band {band!r}; expected at least 2 networks to learn from, and a band from 0 to 1")
    return drive(problem, proposals(problem, number, band), evaluate, budget)


def proposals(problem: Problem, first: int, band: float) -> Proposals:
    """Networks to evaluate, each once, until none within the targets is left."""
    known: dict[Genotype, float] = {}
    while found := highest(problem.space, _worth(problem, known, first), problem.limits, band=band, known=known):
        known[found[0]] = yield found[0]


def _worth(problem: Problem, known: dict[Genotype, float], first: int) -> dict[str, np.ndarray]:
    """What each option may add: noise, before ``first`` networks have a finite value."""
    finite = {g: v for g, v in known.items() if np.isfinite(v)}
    if len(finite) < first:
        return {n: problem.rng.normal(size=len(c.options)) for n, c in problem.space.choices.items()}
    return fit(problem.space, list(finite), list(finite.values())).drawn(problem.rng)
