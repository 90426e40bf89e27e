"""Planning a certificate before its cases are collected: how many it takes, what it gives, what it costs.

Imports numpy, the standard library and this package's certificate. Sums and one quadrature; no simulation.

Two plans that are often confused
    *A new threshold* is chosen on n positive cases. The certificate is sure once n suffices; what is random
    is the sensitivity obtained. Without tied scores it is Beta(n - k, k + 1), the distribution of an order
    statistic, whose p-quantile is ``sensitivity_lower_bound(n, k, 1 - p)``. Ties only raise it.

    *An existing threshold* of true sensitivity s is certified on n positive cases of another site. Here the
    threshold is fixed and the certificate is random: it is issued if at most k are missed, which has
    probability ``P(Bin(n, 1 - s) <= k)``. As k is an integer, this power is a sawtooth in n: it jumps where
    one more miss is allowed and falls until the next.

What it costs
    A negative case of score x stays below a new threshold s(k+1) if and only if at most k of the n positive
    cases score x or less. Hence the expected specificity is ``E P(Bin(n, F(X)) <= k)``, where X is the score
    of a negative case and F the distribution function of the positive ones. With G independent groups under
    one common threshold, the lowest of theirs, it is ``E P(Bin(n, F(X)) <= k)^G``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import count
from statistics import NormalDist
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lesion_triage.calibrate.certificate import allowed_misses, minimum_positives, sensitivity_lower_bound
from lesion_triage.errors import CalibrationError

MAX_POSITIVES = 100_000
MAX_MISSES = 1_000
LOW_QUANTILE, HIGH_QUANTILE = 0.05, 0.95
"""Quantile levels of the band around an expected value."""

_NORMAL = NormalDist()
_INTEGRATION_LIMIT_SD = (
    9.0  # standard deviations; a negative case lies outside with a probability of about 1e-19
)
_NODES_PER_WIDTH = 4
_cached_minimum_positives = cache(minimum_positives)


@dataclass(frozen=True, slots=True)
class SampleSizeStep:
    """A range of numbers of positive cases at which the same number of misses is allowed."""

    misses: int
    positives: int
    """The smallest: from here on, this many misses are allowed."""
    last: int
    """The largest: with one more positive case, one more miss is allowed."""
    lower_bound: float
    """Of the sensitivity, one-sided, with ``positives`` cases; never below the target."""

    @property
    def missed_share(self) -> float:
        """Misses allowed, as a share of ``positives``."""
        return self.misses / self.positives


@dataclass(frozen=True, slots=True)
class Spread:
    """A quantity that depends on the draw of the calibration cases: its mean and two of its quantiles."""

    mean: float
    low: float
    """5 % quantile."""
    high: float
    """95 % quantile."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What to expect of a new threshold that is certified on so many positive cases."""

    positives: int
    misses: int
    sensitivity: Spread
    median_sensitivity: float
    specificity: Spread
    oracle_specificity: float
    """At the threshold of exactly the target sensitivity, which only an oracle knows."""

    @property
    def cost(self) -> float:
        """Mean specificity lost because the threshold has to be certified on a sample."""
        return self.oracle_specificity - self.specificity.mean


@dataclass(frozen=True, slots=True)
class JointForecast:
    """Expected specificity if each of several groups is promised the target, jointly.

    All groups are assumed to have the same score distributions. None: no certificate is possible.
    """

    positives: int
    """In each group."""
    common_misses: int | None
    common_specificity: float | None
    """One threshold for all, the lowest of theirs, each at the full confidence."""
    own_misses: int | None
    own_specificity: float | None
    """A threshold for each group, the error probability divided by the number of groups."""


class Population(Protocol):
    """Score distributions of the positive and the negative cases."""

    def specificity_at(self, sensitivity: float) -> float:
        """Specificity at the threshold of exactly this sensitivity, in (0, 1)."""

    def expected_specificity(self, positives: int, misses: int, groups: int = 1) -> float:
        """Mean specificity of the lowest of ``groups`` thresholds, each chosen on its own positive cases."""


@dataclass(frozen=True, slots=True)
class Binormal:
    """Normal scores, the positive ones shifted upwards: a smooth ROC curve with the given area under it.

    The scores themselves need not be normal: any increasing function of them gives the same answers.
    """

    auroc: float

    def __post_init__(self) -> None:
        if not 0.5 <= self.auroc < 1:
            raise CalibrationError(
                f"expected an AUROC of at least 0.5 and below 1, found {self.auroc}; take it from a report."
            )

    @property
    def separation(self) -> float:
        """Distance of the means in standard deviations: AUROC = Phi(separation / sqrt 2)."""
        return math.sqrt(2) * _NORMAL.inv_cdf(self.auroc)

    def specificity_at(self, sensitivity: float) -> float:
        """Phi(separation - Phi^-1(sensitivity))."""
        return _NORMAL.cdf(self.separation - _NORMAL.inv_cdf(sensitivity))

    def expected_specificity(self, positives: int, misses: int, groups: int = 1) -> float:
        """By the trapezoidal rule over the score of a negative case.

        For an integrand that is analytic and decays on both sides it converges faster than any power of the
        step (Trefethen & Weideman 2014, SIAM Review 56:385), provided that the step resolves the narrowest
        feature. An order statistic has a standard deviation of at least 1.25 / sqrt(n).
        """
        step = 1 / (_NODES_PER_WIDTH * math.sqrt(positives))
        scores = np.arange(-_INTEGRATION_LIMIT_SD, _INTEGRATION_LIMIT_SD, step)
        density = np.exp(-(scores**2) / 2) / math.sqrt(2 * math.pi)
        spared = binomial_cdf(misses, positives, _normal_cdf(scores - self.separation)) ** groups
        return float(step * (density @ spared))


class EmpiricalPopulation:
    """A site's own scored cases as the population: positive cases are drawn from them with replacement.

    The expectation over the draws is a finite sum, so nothing is simulated.
    """

    def __init__(self, positive_scores: NDArray[np.float64], negative_scores: NDArray[np.float64]) -> None:
        """Rank the negative cases among the positive ones.

        Args:
            positive_scores: shape (m,); +inf for a case on which the policy abstained. If so many are
                infinite that the threshold might be, the answer errs on the high side.
            negative_scores: shape (l,), likewise.

        Raises:
            CalibrationError: a class without cases, or a score that is NaN or -inf.
        """
        for name, scores in (("positive", positive_scores), ("negative", negative_scores)):
            if scores.size == 0:
                raise CalibrationError(f"expected at least one {name} case with a score, found none.")
            if (np.isnan(scores) | np.isneginf(scores)).any():
                raise CalibrationError(f"a score among the {name} cases is NaN or -inf; expected numbers.")
        ordered = np.sort(positive_scores)
        self.positives, self.negatives = ordered.size, negative_scores.size
        below = np.searchsorted(ordered, negative_scores, side="left")
        not_above = np.searchsorted(ordered, negative_scores, side="right")
        self.auroc = float(1 - (below + not_above).mean() / (2 * ordered.size))
        ranks, counts = np.unique(not_above, return_counts=True)
        self._shares, self._weights = ranks / ordered.size, counts / counts.sum()

    def specificity_at(self, sensitivity: float) -> float:
        """Share of the negative cases above no more than ``1 - sensitivity`` of the positive ones."""
        return float(self._weights @ (self._shares <= 1 - sensitivity + 1e-12))  # in floats 1 - 0.9 < 0.1

    def expected_specificity(self, positives: int, misses: int, groups: int = 1) -> float:
        """Exact: a sum over the negative cases."""
        return float(self._weights @ binomial_cdf(misses, positives, self._shares) ** groups)


def binomial_cdf(misses: int, positives: int, rate: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """``P(Bin(positives, rate) <= misses)`` for many rates in [0, 1] at once, to about eleven digits.

    Args:
        misses: from 0 to ``positives``.
        positives: cases, at least 1.
        rate: probability that a case is missed, any shape.
    """
    # Avoids log(0); the change is below one part in 10^13.
    kinds = np.finfo(np.float64)
    rates = np.clip(np.asarray(rate, dtype=np.float64), kinds.tiny, 1 - kinds.epsneg)
    log_missed, log_found = np.log(rates), np.log1p(-rates)
    total, log_ways = np.zeros_like(rates), 0.0
    for i in range(misses + 1):
        total += np.exp(log_ways + i * log_missed + (positives - i) * log_found)
        log_ways += math.log((positives - i) / (i + 1)) if i < positives else 0.0
    return np.asarray(np.minimum(total, 1.0))


def sample_size_steps(target: float, confidence: float, misses: int) -> tuple[SampleSizeStep, ...]:
    """Smallest and largest number of positive cases for 0, 1, ... ``misses`` allowed misses.

    Raises:
        CalibrationError: a rate outside (0, 1), or misses outside 0 to 1,000.
    """
    if not 0 <= misses <= MAX_MISSES:
        raise CalibrationError(f"expected 0 to {MAX_MISSES} allowed misses, found {misses}.")
    starts = [_cached_minimum_positives(target, confidence, i) for i in range(misses + 2)]
    return tuple(
        SampleSizeStep(i, start, starts[i + 1] - 1, sensitivity_lower_bound(start, i, confidence))
        for i, start in enumerate(starts[:-1])
    )


def forecast(positives: int, target: float, confidence: float, population: Population) -> Forecast | None:
    """What a new threshold gives and costs, if chosen on ``positives`` positive cases.

    Returns:
        None if they are too few for a certificate.

    Raises:
        CalibrationError: a rate outside (0, 1), or positives outside 1 to 100,000.
    """
    misses = _checked_allowed_misses(positives, target, confidence)
    if misses is None:
        return None
    low, median, high = (
        sensitivity_lower_bound(positives, misses, 1 - level) for level in (LOW_QUANTILE, 0.5, HIGH_QUANTILE)
    )
    specificity = Spread(
        population.expected_specificity(positives, misses),
        population.specificity_at(high),
        population.specificity_at(low),
    )
    return Forecast(
        positives=positives,
        misses=misses,
        sensitivity=Spread((positives - misses) / (positives + 1), low, high),
        median_sensitivity=median,
        specificity=specificity,
        oracle_specificity=population.specificity_at(target),
    )


def joint_forecast(
    positives: int, groups: int, target: float, confidence: float, population: Population
) -> JointForecast:
    """The price of promising the target to several groups jointly.

    A common threshold needs no correction. Take the group with the lowest threshold at which it still reaches
    the target. If any group falls short, so does this one by its own certified threshold, which has
    probability at most 1 - confidence. Thresholds of their own can fail separately, hence the error is
    divided (Bonferroni).

    Args:
        positives: positive cases in each group.
        groups: how many, at least 1.
        target: sensitivity promised to each.
        confidence: one-sided, that all promises hold together.
        population: the score distributions, the same in every group.

    Raises:
        CalibrationError: a rate outside (0, 1), positives outside 1 to 100,000, groups below 1.
    """
    common = _checked_allowed_misses(positives, target, confidence)
    own = _checked_allowed_misses(positives, target, bonferroni_confidence(confidence, groups))
    return JointForecast(
        positives=positives,
        common_misses=common,
        common_specificity=None
        if common is None
        else population.expected_specificity(positives, common, groups),
        own_misses=own,
        own_specificity=None if own is None else population.expected_specificity(positives, own),
    )


def bonferroni_confidence(confidence: float, groups: int) -> float:
    """Confidence that each of ``groups`` separate certificates needs, so that all hold together."""
    if groups < 1:
        raise CalibrationError(f"expected at least 1 group, found {groups}.")
    return 1 - (1 - confidence) / groups


def power(positives: int, true_sensitivity: float, target: float, confidence: float) -> float:
    """Probability that an existing threshold of this true sensitivity is certified on new positive cases.

    Returns:
        0 if the cases are too few for any certificate; at most ``1 - confidence`` if the true sensitivity is
        below the target.

    Raises:
        CalibrationError: a rate outside (0, 1), or positives outside 1 to 100,000.
    """
    _check_true_sensitivity(true_sensitivity)
    misses = _checked_allowed_misses(positives, target, confidence)
    return 0.0 if misses is None else float(binomial_cdf(misses, positives, 1 - true_sensitivity))


def positives_for_power(
    target_power: float, true_sensitivity: float, target: float, confidence: float
) -> int | None:
    """Smallest number of positive cases from which on the power is always at least ``target_power``.

    Within a step of the staircase the power falls, so each step is judged by its last number. Steps are
    visited up to the point where Chernoff's inequality shows that no further step falls short.

    Returns:
        None if the true sensitivity is not above the target, or so close to it that the proof would have to
        go beyond 1,000 allowed misses.

    Raises:
        CalibrationError: a rate outside (0, 1).
    """
    _check_true_sensitivity(true_sensitivity)
    if not 0 < target_power < 1:
        raise CalibrationError(f"expected a power between 0 and 1, found {target_power}.")
    enough = _cached_minimum_positives(target, confidence, 0)
    horizon = _guaranteed_power_from(target_power, true_sensitivity, target, confidence)
    if horizon is None:
        return None
    for misses in count():
        following = _cached_minimum_positives(target, confidence, misses + 1)
        if binomial_cdf(misses, following - 1, 1 - true_sensitivity) < target_power:
            enough = following
        if following > horizon:
            break
    return enough


def _guaranteed_power_from(
    target_power: float, true_sensitivity: float, target: float, confidence: float
) -> int | None:
    """A number of positive cases from which on the power is proved to be at least ``target_power``.

    Let b = 1 - target, m = 1 - truth < b, c = (k + 1) / n and D the divergence of two Bernoulli
    distributions. One miss more than the k allowed is too many, so that
    ``1 - confidence < P(Bin(n, b) <= k + 1) <= exp(-n D(c, b))`` if c < b. So c lies above the root of
    ``n D(c, b) = -log(1 - confidence)``, which rises with n. Failing takes k + 1 misses, with probability at
    most ``exp(-n D(c, m))`` (Chernoff 1952, Annals of Mathematical Statistics 23:493). None if more than
    1,000 misses would be allowed by then.
    """
    allowed, missed = 1 - target, 1 - true_sensitivity

    def proved(positives: int) -> bool:
        limit = -math.log1p(-confidence) / positives
        share = _root_below(allowed, limit)
        return share > missed and positives * _bernoulli_divergence(share, missed) >= -math.log1p(
            -target_power
        )

    enough = _cached_minimum_positives(target, confidence, 0)
    while not proved(enough):
        enough *= 2
        if enough * allowed > 2 * MAX_MISSES:
            return None
    too_few = enough // 2
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        enough, too_few = (middle, too_few) if proved(middle) else (enough, middle)
    return enough if enough * allowed <= MAX_MISSES else None


def _root_below(rate: float, limit: float) -> float:
    """The c in [0, rate] with ``D(c, rate) = limit``; 0 if even ``D(0, rate)`` is smaller."""
    low, high = 0.0, rate
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _bernoulli_divergence(middle, rate) > limit else (low, middle)
    return low


def _bernoulli_divergence(first: float, second: float) -> float:
    """Kullback-Leibler divergence of two Bernoulli distributions, in nats; ``second`` in (0, 1)."""
    heads = first * math.log(first / second) if first > 0 else 0.0
    return heads + (1 - first) * math.log((1 - first) / (1 - second))


def _checked_allowed_misses(positives: int, target: float, confidence: float) -> int | None:
    if not 1 <= positives <= MAX_POSITIVES:
        raise CalibrationError(f"expected 1 to {MAX_POSITIVES} positive cases, found {positives}.")
    return allowed_misses(positives, target, confidence)


def _check_true_sensitivity(sensitivity: float) -> None:
    if not 0 < sensitivity < 1:
        raise CalibrationError(f"expected a true sensitivity between 0 and 1, found {sensitivity}.")


def _normal_cdf(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([math.erfc(-value) / 2 for value in values / math.sqrt(2)])
