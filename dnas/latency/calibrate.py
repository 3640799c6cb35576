"""Fitting a cost model to whole-network latencies, and how far it is off on networks that it has not seen.

Non-negative least squares on relative errors: min over c >= 0 of sum_i ((X c)_i / t_i - 1)^2, where row i of X holds
the features of network i and t_i its latency in ms. Relative, because published latencies span a factor of ten and a
small network's matters as much as a large one's. Coefficients are rounded to 6 significant digits, so that the result
is the same text on another linear algebra library.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from scipy.optimize import nnls
from scipy.stats import kendalltau

from dnas.arch import Architecture
from dnas.errors import LatencyError
from dnas.latency.cost_model import FEATURES, FORMULAS, CostModel
from dnas.ops import Op, Shape

NETWORK = "network"  # the feature that is 1 for every network: what a whole-network constant is fitted to


@dataclasses.dataclass(frozen=True)
class Row:
    """One observation: the latency in ms of ``layers``, (op, input shape) in order. ``family`` is held out together."""

    name: str
    family: str
    ms: float
    layers: tuple[tuple[Op, Shape], ...]

    @classmethod
    def of(cls, name: str, family: str, ms: float, architecture: Architecture) -> Row:
        return cls(name, family, ms, tuple(zip(architecture.layers, architecture.shapes[:-1], strict=True)))


class Model(Protocol):
    """What is fitted and held out here: ``Form`` below, or a whole table that is scaled (``dnas.latency.correct``)."""

    @property
    def name(self) -> str: ...

    @property
    def terms(self) -> Mapping[str, Any]:
        """One coefficient each."""

    def matrix(self, rows: Sequence[Row]) -> np.ndarray:
        """X, f64[rows, terms]: ms per unit of each coefficient."""

    def estimate(self, rows: Sequence[Row], coefficients: Sequence[float]) -> list[float]:
        """Latency of each row in ms."""


@dataclasses.dataclass(frozen=True)
class Form:
    """What a model may use: each term is a fixed mix of features and gets one coefficient.

    Arguments: ``name``; ``terms``, term -> (feature -> weight). The feature ``network`` is 1 for every network.
    """

    name: str
    terms: Mapping[str, Mapping[str, float]] = dataclasses.field(hash=False)
    formula: str = "primitives/1"

    def __post_init__(self) -> None:
        used = {f for mix in self.terms.values() for f in mix}
        if self.formula not in FORMULAS or not used or used - {*FEATURES, NETWORK}:
            raise LatencyError(f"{self.name}: {self.formula} with {sorted(used)}; expected features of {FEATURES}")

    def matrix(self, rows: Sequence[Row]) -> np.ndarray:
        """X, f64[rows, terms]."""
        features = [self._features(row) for row in rows]
        return np.array([[sum(w * f[k] for k, w in mix.items()) for mix in self.terms.values()] for f in features])

    def estimate(self, rows: Sequence[Row], coefficients: Sequence[float]) -> list[float]:
        """Latency of each row in ms."""
        model, constant = self.model(coefficients)
        return [math.fsum([constant, *(model.op_ms(op, shape) for op, shape in row.layers)]) for row in rows]

    def model(self, coefficients: Iterable[float]) -> tuple[CostModel, float]:
        """The cost model in ms per unit of each feature, and the constant in ms per network."""
        found: dict[str, float] = {}
        for value, mix in zip(coefficients, self.terms.values(), strict=True):
            for feature, weight in mix.items():
                found[feature] = significant(found.get(feature, 0.0) + value * weight)
        constant = found.pop(NETWORK, 0.0)
        return CostModel(self.formula, found), constant

    def _features(self, row: Row) -> dict[str, float]:
        parts = [FORMULAS[self.formula](op, shape) for op, shape in row.layers]
        return {f: math.fsum(p[f] for p in parts) for f in FEATURES} | {NETWORK: 1.0}


@dataclasses.dataclass(frozen=True)
class Errors:
    """Relative errors (estimated / measured - 1) by row. NaN where the rows left did not determine the model."""

    relative: Mapping[str, float]
    family_of: Mapping[str, str]

    @property
    def mean(self) -> float:
        """Mean absolute relative error over the rows."""
        return float(np.mean(np.abs(list(self.relative.values()))))

    @property
    def worst(self) -> float:
        return float(np.max(np.abs(list(self.relative.values()))))

    @property
    def bias(self) -> float:
        """Mean relative error, with its sign, to 4 decimals."""
        return round(float(np.mean(list(self.relative.values()))), 4)

    @property
    def families(self) -> dict[str, float]:
        """Mean absolute relative error by family."""
        names = dict.fromkeys(self.family_of.values())
        rows = self.relative.items()
        return {f: float(np.mean([abs(e) for n, e in rows if self.family_of[n] == f])) for f in names}

    def to_dict(self, rows: bool = False) -> dict[str, Any]:
        """mean, worst, families and, if asked for, rows; 4 decimals; null for what was not determined."""
        body: dict[str, Any] = {"mean": _decimals(self.mean), "worst": _decimals(self.worst)}
        body["families"] = {f: _decimals(e) for f, e in self.families.items()}
        return body | ({"rows": {n: _decimals(e) for n, e in self.relative.items()}} if rows else {})


def fit(rows: Sequence[Row], form: Form) -> tuple[CostModel, float, Errors]:
    """The cost model, the constant in ms per network (0 unless ``form`` has one), and the errors on ``rows``.

    Errors: LatencyError if the rows do not determine the coefficients.

    >>> from dnas.ops import LinearOp
    >>> layers = [((LinearOp(in_=n, out=n), Shape(1, 1, n)),) for n in (10, 20, 30)]
    >>> rows = [Row(str(n), "linear", ms, layer) for n, ms, layer in zip((10, 20, 30), (3.0, 6.0, 11.0), layers)]
    >>> model, constant_ms, errors = fit(rows, Form("a + b MACs", {"a": {"network": 1}, "b": {"dense_macs": 1}}))
    >>> model.coefficients, constant_ms, round(errors.mean, 6)
    ({'dense_macs': 0.01}, 2.0, 0.0)
    """
    values = coefficients(rows, form)
    return *form.model(values), errors_of(rows, form, values)


def coefficients(rows: Sequence[Row], form: Model) -> list[float]:
    """The coefficients of ``form`` in the order of its terms. Errors: LatencyError if ``rows`` do not determine them."""
    values = _solve(rows, form)
    if values is None:
        raise LatencyError(f"{form.name}: {len(rows)} rows do not determine {len(form.terms)} coefficients; give more")
    return values


def errors_of(rows: Sequence[Row], form: Model, values: Sequence[float]) -> Errors:
    """Errors of ``form`` with the coefficients ``values`` on ``rows``."""
    return _errors(rows, form.estimate(rows, values))


def rank_agreement(rows: Sequence[Row], form: Model, values: Sequence[float]) -> float | None:
    """Kendall's tau-b between measured and estimated latencies: 1 if all pairs are in order; None where all are equal."""
    tau = float(kendalltau([row.ms for row in rows], form.estimate(rows, values)).statistic)
    return round(tau, 4) if math.isfinite(tau) else None


def leave_one_out(rows: Sequence[Row], form: Model) -> Errors:
    """Errors where each row is estimated by a model fitted to the others."""
    return _held_out(rows, form, [row.name for row in rows])


def leave_one_family_out(rows: Sequence[Row], form: Model) -> Errors:
    """Errors where each row is estimated by a model fitted to the rows of other families."""
    return _held_out(rows, form, [row.family for row in rows])


def baseline() -> Form:
    """The two-parameter model that a cost model must beat: a + b x MACs."""
    return Form("a + b x MACs", {"network": {NETWORK: 1.0}, "macs": {"dense_macs": 1.0, "depthwise_macs": 1.0}})


def choose(rows: Sequence[Row], forms: Sequence[Model]) -> Model:
    """The form with the smallest leave-one-out error (to 4 decimals; then the one with fewer coefficients, then the first).

    Errors: LatencyError if ``rows`` determine none of them with one row left out.
    """
    means = {form.name: leave_one_out(rows, form).mean for form in forms}
    known = [form for form in forms if math.isfinite(means[form.name])]
    if not known:
        raise LatencyError(
            f"{len(rows)} rows determine none of {len(forms)} forms when one is left out; measure more networks, of several "
            "widths, depths and resolutions"
        )
    return min(known, key=lambda form: (round(means[form.name], 4), len(form.terms)))


def chosen_inside(rows: Sequence[Row], forms: Sequence[Model]) -> Errors:
    """Leave-one-out where the form itself is chosen again, by leave-one-out over the rows that are left.

    The honest price of having compared ``forms``: no figure here has seen its own row, not even through the choice. NaN
    where the rows left determine no form.
    """
    estimates = []
    for held in rows:
        rest = [row for row in rows if row is not held]
        try:
            best = choose(rest, forms)
        except LatencyError:
            estimates.append(math.nan)
            continue
        estimates += best.estimate([held], coefficients(rest, best))
    return _errors(rows, estimates)


UNSTEADY = 2.0  # a coefficient that changes by more than this factor as single rows are left out is not identified


def unidentified(rows: Sequence[Row], form: Model) -> list[str]:
    """A sentence for every coefficient of ``form`` that ``rows`` do not pin down, and one if they are few.

    A coefficient counts as identified if it is positive and stays within a factor of 2 whichever row is left out.
    """
    sentences = []
    if len(rows) < 3 * len(form.terms):
        sentences.append(f"{len(rows)} networks for {len(form.terms)} coefficients: fewer than three for each.")
    values = coefficients(rows, form)
    others = [_solve([r for r in rows if r is not held], form) for held in rows]
    if lost := [row.name for row, found in zip(rows, others, strict=True) if found is None]:
        sentences.append(f"Without {' or '.join(lost)} the rest does not determine {form.name}.")
    for index, term in enumerate(form.terms):
        found = [v[index] for v in others if v is not None]
        if not values[index]:
            sentences.append(f"The networks give no time to {term}: its coefficient is 0.")
        elif found and (not min(found) or max(found) / min(found) > UNSTEADY):
            sentences.append(
                f"The networks do not identify the coefficient of {term}: it lies between {min(found):.3g} and "
                f"{max(found):.3g}, depending on which one is left out."
            )
    return sentences


def significant(value: float, digits: int = 6) -> float:
    """``value`` rounded to ``digits`` significant digits."""
    return float(f"{value:.{digits - 1}e}")


def _solve(rows: Sequence[Row], form: Model) -> list[float] | None:
    """Coefficients by term; None if the rows do not determine them."""
    ms = np.array([row.ms for row in rows])
    if not np.all(np.isfinite(ms) & (ms > 0)):
        raise LatencyError(f"latencies are {ms.tolist()}; expected positive ms")
    if not form.terms:
        return []
    weighted = form.matrix(rows) / ms[:, None]
    scale = weighted.max(axis=0, initial=0)
    if not scale.all() or np.linalg.matrix_rank(weighted / scale, tol=1e-9) < len(form.terms):
        return None
    values, _ = nnls(weighted / scale, np.ones(len(rows)))
    return [significant(float(v)) for v in values / scale]


def _errors(rows: Sequence[Row], estimates: Sequence[float]) -> Errors:
    relative = {row.name: e / row.ms - 1 for row, e in zip(rows, estimates, strict=True)}
    return Errors(relative, {row.name: row.family for row in rows})


def _held_out(rows: Sequence[Row], form: Model, folds: Sequence[str]) -> Errors:
    estimates = [math.nan] * len(rows)
    for fold in dict.fromkeys(folds):
        values = _solve([row for row, f in zip(rows, folds, strict=True) if f != fold], form)
        if values is None:
            continue
        for index, row in enumerate(rows):
            if folds[index] == fold:
                estimates[index] = form.estimate([row], values)[0]
    return _errors(rows, estimates)


def _decimals(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)
