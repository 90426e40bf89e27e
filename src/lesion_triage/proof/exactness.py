"""Misses allowed and lower bound, compared with the published table and with independent implementations.

Imports ``calibrate.certificate`` and this package; scipy only if it is installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from lesion_triage.calibrate.certificate import allowed_misses, minimum_positives, sensitivity_lower_bound
from lesion_triage.proof.exact_distributions import binomial_tail, granted_misses

CONFIDENCE = 0.95
PUBLISHED = {59: 0, 93: 1, 124: 2, 181: 4, 234: 6, 300: 8, 350: 10, 500: 16, 1000: 38}
"""Positive cases -> misses allowed for sensitivity 0.95: exact binomial tables (Clopper & Pearson 1934)."""
ZERO_MISS = {0.90: 29, 0.95: 59, 0.97: 99, 0.98: 149, 0.99: 299}
"""Target -> the fewest positive cases that certify it: ``ln 0.05 / ln target``, rounded up."""

_COUNTS = (*range(1, 200), *range(200, 2001, 20))
_CLOSE = 1e-9


@dataclass(frozen=True)
class Step:
    """Misses allowed among some number of positive cases, and the risk with one more."""

    positives: int
    misses_allowed: int | None
    published: int
    failure: float
    """Probability of a broken promise at the misses allowed, for scores without ties; at most delta."""
    failure_with_one_more: float
    """Must be above delta, else the rule would give specificity away."""

    @property
    def passed(self) -> bool:
        """Whether the step is as published, valid and not wasteful."""
        delta = 1 - CONFIDENCE
        return self.misses_allowed == self.published and self.failure <= delta < self.failure_with_one_more


@dataclass(frozen=True)
class Comparison:
    """Our numbers beside those of another implementation."""

    what: str
    numbers: int
    """How many were compared; 0 if the other is not installed."""
    largest_difference: float

    @property
    def passed(self) -> bool:
        """Whether all agree."""
        return self.largest_difference <= _CLOSE


def steps() -> Iterator[Step]:
    """The published table, line by line, at 0.95 and 95 %."""
    for positives, published in PUBLISHED.items():
        allowed = allowed_misses(positives, 0.95, CONFIDENCE)
        k = -1 if allowed is None else allowed
        yield Step(
            positives,
            allowed,
            published,
            binomial_tail(k, positives, 0.05),
            binomial_tail(k + 1, positives, 0.05),
        )


def comparisons() -> Iterator[Comparison]:
    """Differences from the table of minima, from our second implementation, and from scipy."""
    pairs = [(n, target) for target in ZERO_MISS for n in _COUNTS]
    own = {(n, target): allowed_misses(n, target, CONFIDENCE) for n, target in pairs}
    fewest = [abs(minimum_positives(target, CONFIDENCE) - n) for target, n in ZERO_MISS.items()]
    yield Comparison("fewest positives that certify: published minimum", len(fewest), max(fewest))
    again = [abs(_or_none(own[pair]) - granted_misses(*pair, CONFIDENCE)) for pair in pairs]
    yield Comparison("misses allowed: binomial terms from lgamma", len(again), max(again))
    if find_spec("scipy"):
        yield _misses_by_scipy(own)
        yield _bounds_by_scipy(own)
    else:
        yield Comparison("scipy: not installed", 0, 0.0)


def _misses_by_scipy(own: dict[tuple[int, float], int | None]) -> Comparison:
    """Rounding moves ``ppf`` by at most one, so the tail probability there decides."""
    stats = import_module("scipy.stats")
    differences = []
    for (n, target), allowed in own.items():
        k = int(stats.binom.ppf(1 - CONFIDENCE, n, 1 - target))
        granted = k if stats.binom.cdf(k, n, 1 - target) <= 1 - CONFIDENCE else k - 1
        differences.append(abs(_or_none(allowed) - granted))
    return Comparison("misses allowed: scipy.stats.binom", len(differences), max(differences))


def _bounds_by_scipy(own: dict[tuple[int, float], int | None]) -> Comparison:
    stats = import_module("scipy.stats")
    differences = [
        abs(sensitivity_lower_bound(n, k, CONFIDENCE) - float(stats.beta.ppf(1 - CONFIDENCE, n - k, k + 1)))
        for (n, _), k in own.items()
        if k is not None
    ]
    return Comparison("lower bound: scipy.stats.beta", len(differences), max(differences))


def _or_none(misses: int | None) -> int:
    return -1 if misses is None else misses
