"""How far a predicted latency may be off, from whole networks that were both predicted and measured.

For network i of family j, log(measured / predicted) = mu + f_j + e_ij with f_j ~ N(0, tau^2), e_ij ~ N(0, sigma^2). What all
networks of a table or of a family share (mu's own uncertainty, and f_j) is the **systematic** part: more networks of one
search do not average it out, but it cancels where two networks of one family are compared. e_ij is the **independent** part.
Both come from end-to-end residuals; percentiles of single ops do not enter, because their sum is no percentile of the sum.

Variance components by the analysis of variance (Searle, Casella & McCulloch, "Variance Components", 1992), their
degrees of freedom by Satterthwaite's approximation (Biometrics Bulletin 2, 1946).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from dnas.errors import LatencyError
from dnas.files import shown

LEVEL = 0.9
_RANGES = {"bias": (1e-6, 1e6), "degrees_of_freedom": (1, 1e6), "networks": (1, 1e6), "families": (1, 1e6)}
_FIELDS = ("bias", "systematic", "independent", "degrees_of_freedom", "networks", "families")


@dataclasses.dataclass(frozen=True)
class Residuals:
    """Residuals of whole networks. ``bias``: exp(mu), the factor measured / predicted; ``systematic`` and ``independent``:
    standard deviations of its logarithm, about relative errors; ``networks`` and ``families``: how many there were.

    >>> seen = Residuals.of([1.02, 0.98, 1.05, 0.95])
    >>> low, high = seen.interval(10.0)
    >>> round(low, 2), round(high, 2)
    (8.9, 11.22)
    """

    bias: float
    systematic: float
    independent: float
    degrees_of_freedom: float
    networks: int
    families: int

    @classmethod
    def of(cls, measured_over_predicted: Sequence[float], families: Sequence[str] | None = None) -> Residuals:
        """From measured / predicted of each network, and the family of each (None: all of one).

        Errors: LatencyError for fewer than two networks, or ratios that are not positive.
        """
        ratios = list(measured_over_predicted)
        names = ["all"] * len(ratios) if families is None else list(families)
        if len(ratios) < 2 or len(names) != len(ratios):
            raise LatencyError(f"{len(ratios)} networks in {len(names)} families; an interval needs two networks or more")
        if not all(math.isfinite(r) and r > 0 for r in ratios):
            raise LatencyError(f"measured / predicted is {shown(ratios)}; expected positive numbers")
        logs = [math.log(r) for r in ratios]
        groups = [[x for x, n in zip(logs, names, strict=True) if n == name] for name in dict.fromkeys(names)]
        n, k, mu = len(logs), len(groups), math.fsum(logs) / len(logs)
        total = math.fsum((x - mu) ** 2 for x in logs)
        within = math.fsum((x - math.fsum(g) / len(g)) ** 2 for g in groups for x in g)
        between = total - within
        if 1 < k < n:
            size = (n - math.fsum(len(g) ** 2 for g in groups) / n) / (k - 1)  # of a family, on average
            mean_between, mean_within = between / (k - 1), within / (n - k)
            tau2 = (mean_between - mean_within) / size
            if tau2 > 0:
                parts = (mean_between / size, k - 1), (mean_within * (1 - 1 / size), n - k)
                freedom = math.fsum(p for p, _ in parts) ** 2 / math.fsum(p**2 / d for p, d in parts)
                share = math.fsum(len(g) ** 2 for g in groups) / n**2  # variance of mu: tau2 * share + sigma2 / n
                systematic = math.sqrt(tau2 * (1 + share) + mean_within / n)
                return cls(math.exp(mu), systematic, math.sqrt(mean_within), freedom, n, k)
        sigma2 = total / (n - 1)  # no family, each its own, or no more between families than within
        return cls(math.exp(mu), math.sqrt(sigma2 / n), math.sqrt(sigma2), n - 1.0, n, k)

    def interval(self, predicted_ms: float, level: float = LEVEL) -> tuple[float, float]:
        """Where the latency of one more network lies with probability ``level``, in ms.

        predicted * bias * exp(+-t * sqrt(systematic^2 + independent^2)), t being Student's quantile. ``predicted_ms`` is
        positive. Errors: LatencyError for a level outside of 0 to 1.
        """
        width = self._t(level) * math.hypot(self.systematic, self.independent)
        return _spread(predicted_ms * self.bias, width)

    def ratio_interval(self, predicted_ratio: float, level: float = LEVEL) -> tuple[float, float]:
        """The same for the ratio of two networks' latencies: both share the systematic part, which cancels.

        ratio * exp(+-t * independent * sqrt(2)). For networks of one family, as the results of one search are.
        """
        return _spread(predicted_ratio, self._t(level) * self.independent * math.sqrt(2))

    def to_dict(self) -> dict[str, Any]:
        """The object ``error.residuals`` of a table; 6 significant digits."""
        body = dataclasses.asdict(self)
        return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in body.items()}

    @classmethod
    def from_dict(cls, given: Any) -> Residuals:
        """Inverse of ``to_dict``. Errors: LatencyError that names the field."""
        if not isinstance(given, Mapping) or set(given) != set(_FIELDS):
            raise LatencyError(f"error.residuals is {shown(given)}; expected an object with the fields {', '.join(_FIELDS)}")
        for name in _FIELDS:
            value, counted = given[name], name in ("networks", "families")
            low, high = _RANGES.get(name, (0, 10))
            fits = type(value) is int if counted else type(value) in (int, float)
            if not fits or not low <= value <= high:
                expected = f"a {'whole ' if counted else ''}number from {low:g} to {high:g}"
                raise LatencyError(f"error.residuals.{name} is {shown(value)}; expected {expected}")
        return cls(**given)

    def _t(self, level: float) -> float:
        from scipy.special import stdtrit

        if type(level) not in (int, float) or not 0 < level < 1:
            raise LatencyError(f"level is {shown(level)}; expected a probability between 0 and 1")
        return float(stdtrit(self.degrees_of_freedom, (1 + level) / 2))


def _spread(middle: float, width: float) -> tuple[float, float]:
    if width > 700:  # beyond what a float holds
        return 0.0, math.inf
    return middle * math.exp(-width), middle * math.exp(width)
