"""Discrimination, calibration and threshold metrics, per case, with bootstrap intervals.

Imports numpy and this package. Every metric takes counts by cell, which is the form of a bootstrap draw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lesion_triage.calibrate.bootstrap import (
    INTERVAL_CONFIDENCE,
    Estimate,
    bootstrap,
    draw_counts,
    percentile_interval,
)
from lesion_triage.calibrate.calibration_error import (
    calibration_error,
    calibration_noise,
    interval_by_noise,
)
from lesion_triage.calibrate.calibration_slope import calibration_slope_and_intercept
from lesion_triage.calibrate.cells import Cells, Counts, Floats, Sample
from lesion_triage.calibrate.certificate import sensitivity_lower_bound
from lesion_triage.calibrate.smooth_ece import smooth_calibration_error
from lesion_triage.errors import CalibrationError

PLACEMENT_ABOVE_CASES = 50_000
"""Cases above which two AUROCs are compared by placement values."""
SIGN_TEST_MIN_UNITS = 6
"""Fewest units, all changing the same way, for which an exact two-sided sign test at 5 % rejects chance."""

__all__ = [
    "SCORE_METRICS",
    "Cells",
    "Estimate",
    "Proportion",
    "Sample",
    "auprc",
    "auroc",
    "auroc_difference",
    "auroc_from_scores",
    "auroc_with_interval",
    "brier",
    "calibration_error",
    "calibration_slope_and_intercept",
    "log_loss",
    "npv",
    "placement_auroc_difference",
    "ppv",
    "proportion",
    "proportion_difference_interval",
    "referral_rate",
    "sensitivity",
    "smooth_calibration_error",
    "specificity",
    "summarise",
]


@dataclass(frozen=True, slots=True)
class Proportion:
    """A share with its two-sided interval: exact (Clopper & Pearson 1934) or of clustered cases."""

    successes: int
    trials: int
    value: float
    low: float
    high: float


def auroc(cells: Cells, counts: Counts) -> Floats:
    """Probability that a positive case scores above a negative one, ties counting half.

    Args:
        cells: the sample; cases without a score are left out.
        counts: shape (draws, 2, cells).

    Returns:
        Shape (draws,); NaN where a draw lacks a class. The other metrics here take the same arguments, and
        are NaN where a draw lacks the cases they need.
    """
    negatives, positives = _scored_counts(counts)
    below = np.cumsum(negatives, axis=1) - negatives * (1 - cells.concordance[:-1])
    return _ratio(np.einsum("bc,bc->b", positives, below), positives.sum(axis=1) * negatives.sum(axis=1))


def auprc(cells: Cells, counts: Counts) -> Floats:
    """Average precision: the precision at each distinct score, weighted by the positives found there."""
    negatives, positives = (part[:, ::-1] for part in _scored_counts(counts))
    found = np.cumsum(positives, axis=1) - positives * (1 - cells.positives_at_or_above[-2::-1])
    flagged = found + np.cumsum(negatives, axis=1) - negatives * (1 - cells.negatives_at_or_above[-2::-1])
    precision = np.divide(found, flagged, out=np.zeros_like(found), where=flagged > 0)
    return _ratio(np.einsum("bc,bc->b", positives, precision), positives.sum(axis=1))


def brier(cells: Cells, counts: Counts) -> Floats:
    """Mean squared difference between score and outcome."""
    return _mean(cells.squared_error, counts)


def log_loss(cells: Cells, counts: Counts) -> Floats:
    """Mean negative log likelihood in nats; scores are clipped to 1e-12 from 0 and 1."""
    return _mean(cells.log_loss, counts)


def sensitivity(cells: Cells, counts: Counts) -> Floats:
    """Share of all positive cases that is referred; abstentions count as referred."""
    return _ratio(counts[:, 1] @ cells.referred, counts[:, 1].sum(axis=1))


def specificity(cells: Cells, counts: Counts) -> Floats:
    """Share of all negative cases that is not referred; abstentions count as referred."""
    return _ratio(counts[:, 0] @ ~cells.referred, counts[:, 0].sum(axis=1))


def ppv(cells: Cells, counts: Counts) -> Floats:
    """Share of positives among the referred, abstentions included; NaN where nobody is referred."""
    return _ratio(counts[:, 1] @ cells.referred, counts.sum(axis=1) @ cells.referred)


def npv(cells: Cells, counts: Counts) -> Floats:
    """Share of negatives among those not referred; NaN where everybody is referred."""
    return _ratio(counts[:, 0] @ ~cells.referred, counts.sum(axis=1) @ ~cells.referred)


def referral_rate(cells: Cells, counts: Counts) -> Floats:
    """Share of all cases that is referred, abstentions among them."""
    return _ratio(counts.sum(axis=1) @ cells.referred, counts.sum(axis=(1, 2)))


_SCORE_FUNCTIONS = (auroc, auprc, brier, log_loss)
_CALIBRATION_ERRORS = (calibration_error, smooth_calibration_error)
_DECISION_FUNCTIONS = (sensitivity, specificity, ppv, npv, referral_rate)
_LINE_METRIC_NAMES = ("calibration_slope", "calibration_intercept")

SCORE_METRICS = (
    *(metric.__name__ for metric in (*_SCORE_FUNCTIONS, *_CALIBRATION_ERRORS)),
    *_LINE_METRIC_NAMES,
)
"""Names of the metrics that are measured on cases with a score."""


def summarise(
    sample: Sample, draws: int, seed: int, units: NDArray[np.intp] | None = None
) -> dict[str, Estimate | None]:
    """Every metric with its 95 % percentile interval. All metrics share the same draws.

    Args:
        sample: n cases.
        draws: number of bootstrap draws.
        seed: of the bootstrap.
        units: the resampling unit of each case, such as its patient; shape (n,), in the order of the original
            data. None draws cases.

    Returns:
        Estimates by name; ``SCORE_METRICS`` only if some case has a score. None for a metric that is not
        defined on the sample, or in fewer than 95 % of the draws. None also for an AUPRC that is the same in
        every draw, which says nothing about its uncertainty. The AUROC's interval is that of
        ``auroc_with_interval``, and the module ``calibration_error`` has those of calibration errors.

    Raises:
        CalibrationError: ``units`` does not have one entry per case.
    """
    single = (*(_SCORE_FUNCTIONS if sample.scored else ()), *_DECISION_FUNCTIONS)
    names = [metric.__name__ for metric in single]

    def measure(cells: Cells, counts: Counts) -> Floats:
        columns = [metric(cells, counts) for metric in single]
        if sample.scored:
            columns += [calibration_slope_and_intercept(cells, counts), calibration_noise(cells, counts)]
        return np.column_stack(columns)

    if sample.scored:
        names += (*_LINE_METRIC_NAMES, *(metric.__name__ for metric in _CALIBRATION_ERRORS))
    found = dict(zip(names, bootstrap(sample, measure, draws, seed, units), strict=True))
    if sample.scored:
        exact = Cells.exact(sample)
        for metric in _CALIBRATION_ERRORS:
            value = float(metric(exact, exact.sample_counts())[0])
            found[metric.__name__] = interval_by_noise(value, found[metric.__name__])
        found["auroc"] = _widen_by_independent_pairs(found["auroc"], sample, units)
        ranked = found["auprc"]
        found["auprc"] = ranked if ranked is not None and ranked.low < ranked.high else None
    return found


def auroc_with_interval(
    sample: Sample, draws: int, seed: int, units: NDArray[np.intp] | None = None
) -> Estimate | None:
    """The AUROC with its 95 % interval; arguments, None and errors as for ``summarise``.

    If the classes do not overlap, or all scores are tied, every draw has the same AUROC, and percentiles have
    no width. Then all pairs of a positive and a negative case came out alike. Pairs that use no unit twice
    are independent, and their number gives an exact lower bound for the share of pairs that come out this way
    (Clopper & Pearson 1934). The interval lets all other pairs come out in any way.

    An imperfect ranking is no better evidence than a perfect one. So the lower bound is never above that of a
    perfect ranking, nor the upper bound below that of a perfectly reversed one, whatever the draws say: they
    contain no case worse than those of the sample. At a true AUROC of 0.97 to 0.999 with 10 to 60 positive
    cases, percentiles alone cover it in as few as 0.7 of all samples, and with this limit in 0.98 or more.
    """
    (found,) = bootstrap(sample, lambda cells, counts: auroc(cells, counts)[:, None], draws, seed, units)
    return _widen_by_independent_pairs(found, sample, units)


def _widen_by_independent_pairs(
    found: Estimate | None, sample: Sample, units: NDArray[np.intp] | None
) -> Estimate | None:
    if found is None:
        return None
    cases = sample.order[: sample.scored]
    alike = _unanimous_pairs_bound(sample.positive[: sample.scored], cases if units is None else units[cases])
    if found.low < found.high:
        return replace(found, low=min(found.low, alike), high=max(found.high, 1 - alike))
    low = found.value * alike
    return Estimate(found.value, low, low + 1 - alike, draws=0)


def _unanimous_pairs_bound(positive: NDArray[np.bool_], units: NDArray[np.intp]) -> float:
    """Lower bound, at 97.5 % confidence, for the share of pairs that come out as all of these pairs did."""
    pairs = _independent_pairs(positive, units)
    return proportion(pairs, pairs).low if pairs else 0.0


def _independent_pairs(positive: NDArray[np.bool_], units: NDArray[np.intp]) -> int:
    """Largest number of pairs of a positive and a negative case that use no unit twice."""
    one, other = np.unique(units[positive]), np.unique(units[~positive])
    return min(one.size, other.size, np.union1d(one, other).size // 2)


def auroc_difference(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    positive: NDArray[np.bool_],
    draws: int,
    seed: int,
    units: NDArray[np.intp] | None = None,
) -> Estimate | None:
    """AUROC of ``first`` minus that of ``second`` on the same cases, resampled together.

    Percentiles of the draws, with these exceptions:

    Both rank the cases identically: they are taken to do so always, and the interval is left as drawn.

    Every draw has the same difference, as when both separate the classes: the interval allows for pairs that
    come out otherwise, as in ``auroc_with_interval``.

    Fewer than ``SIGN_TEST_MIN_UNITS`` effective units of a class make up the difference: these are too few
    for draws to represent. The interval is widened to include 0 and ``proportion_difference_interval``, for
    the shares of the independent pairs that are gained and lost.

    Args:
        first: scores in [0, 1], shape (n,).
        second: scores of the same cases.
        positive: the reference standard, shape (n,).
        draws: number of bootstrap draws.
        seed: of the bootstrap.
        units: the resampling unit of each case, as for ``summarise``.

    Returns:
        None if the difference is not defined in at least 95 % of the draws, as when a class is missing.

    Raises:
        CalibrationError: a score that is not in [0, 1]: an abstention has no rank to compare.
    """
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise CalibrationError("a paired comparison needs a finite score of every case from both.")
    if positive.size > PLACEMENT_ABOVE_CASES:
        found = placement_auroc_difference(first, second, positive, draws, seed, units)
    else:
        found = _bootstrap_auroc_difference(first, second, positive, draws, seed, units)
    if found is None or np.array_equal(_ranks(first), _ranks(second)):
        return found
    of = np.arange(positive.size) if units is None else np.unique(units, return_inverse=True)[1]
    if found.low == found.high:
        alike = _unanimous_pairs_bound(positive, of)
        middle, reach = found.value * alike, 1 - alike
        return Estimate(found.value, middle - reach, middle + reach, draws=0)
    moved = _placement_values(first, positive) - _placement_values(second, positive)
    for members in (positive, ~positive):
        by_unit = np.bincount(of[members], weights=moved[members]) / np.count_nonzero(members)
        # The effective number of units that make up the difference (Kish 1965).
        if np.abs(by_unit).sum() ** 2 < SIGN_TEST_MIN_UNITS * np.sum(by_unit**2):
            pairs = _independent_pairs(positive, of)
            sides = (float(np.maximum(side, 0).sum()) for side in (by_unit, -by_unit))
            low, high = proportion_difference_interval(
                *(_fractional_proportion(side, pairs) for side in sides)
            )
            found = replace(found, low=min(found.low, low, 0.0), high=max(found.high, high, 0.0))
    return found


def _fractional_proportion(share: float, trials: int) -> Proportion:
    """Interval of a share that may lie between whole numbers of successes; it covers those of both."""
    if not trials:
        return Proportion(0, 0, share, 0.0, 1.0)
    successes = share * trials
    below = proportion(math.floor(successes + 1e-9), trials)
    above = proportion(min(math.ceil(successes - 1e-9), trials), trials)
    return Proportion(below.successes, trials, share, below.low, above.high)


def proportion_difference_interval(gained: Proportion, lost: Proportion) -> tuple[float, float]:
    """Interval of ``gained`` minus ``lost``, two shares of the same cases; no case is in both.

    The square-and-add method (MOVER): the distance to each end combines the distances of one end of either
    interval, with the correlation of two counts of one multinomial (Newcombe 1998, Stat Med 17:2635; Zou &
    Donner 2008, Stat Med 27:1693). From exact 95 % intervals it covers every pair of shares with at least
    95 %, and each end errs in at most 2.7 %: all outcomes of 10 to 600 cases were enumerated.
    """
    value = gained.value - lost.value
    rest = (1 - gained.value) * (1 - lost.value)
    correlation = -math.sqrt(min(gained.value * lost.value / rest, 1.0)) if rest > 0 else -1.0

    def reach(one: float, other: float) -> float:
        return math.sqrt(one**2 + other**2 - 2 * correlation * one * other)

    low = value - reach(gained.value - gained.low, lost.high - lost.value)
    high = value + reach(gained.high - gained.value, lost.value - lost.low)
    return max(low, -1.0), min(high, 1.0)


def _ranks(scores: Floats) -> NDArray[np.intp]:
    ranks: NDArray[np.intp] = np.unique(scores, return_inverse=True)[1]
    return ranks


def _bootstrap_auroc_difference(
    first: Floats,
    second: Floats,
    positive: NDArray[np.bool_],
    draws: int,
    seed: int,
    units: NDArray[np.intp] | None,
) -> Estimate | None:
    one, other = Cells.of(Sample.of(first, positive)), Cells.of(Sample.of(second, positive))
    point = auroc(one, one.sample_counts()) - auroc(other, other.sample_counts())
    differences = [
        auroc(one, one.tally(counts)) - auroc(other, other.tally(counts))
        for counts in draw_counts(positive.size, draws, seed, units)
    ]
    return percentile_interval(float(point[0]), np.concatenate(differences))


def placement_auroc_difference(
    first: Floats,
    second: Floats,
    positive: NDArray[np.bool_],
    draws: int,
    seed: int,
    units: NDArray[np.intp] | None = None,
) -> Estimate | None:
    """``auroc_difference`` for very many cases, by resampling placement values.

    The placement of a case is the share of the other class that it is ranked correctly against (DeLong et al.
    1988, Biometrics 44:837). The AUROC is the mean placement of either class. In a draw it moves by the sum
    of the changes of both means; the neglected term is of order 1 / cases.
    """
    placed = _placement_values(first, positive) - _placement_values(second, positive)

    def measure(cells: Cells, counts: Counts) -> Floats:
        means = np.stack([-cells.residual[0], 1 - cells.residual[1]])  # of the score in each class
        moved = _ratio(np.einsum("bkc,kc->bk", counts, means), counts.sum(axis=2))
        point = float(means[1] @ cells.cases[1] / cells.cases[1].sum())
        return np.asarray(2 * (moved.sum(axis=1) - point) - 1)[:, None]

    return bootstrap(Sample.of(np.clip((placed + 1) / 2, 0, 1), positive), measure, draws, seed, units)[0]


def _placement_values(scores: Floats, positive: NDArray[np.bool_]) -> Floats:
    """Share of the other class below a positive case or above a negative one; ties count half; shape (n,)."""
    placed = np.empty(scores.size)
    for members, sign in ((positive, 1), (~positive, -1)):
        others = np.sort(sign * scores[~members])
        own = sign * scores[members]
        ranks = np.searchsorted(others, own) + np.searchsorted(others, own, side="right")
        placed[members] = ranks / (2 * max(others.size, 1))
    return placed


def auroc_from_scores(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """The AUROC alone, of any finite scores or logits; NaN if a class is missing.

    Raises:
        CalibrationError: a score that is not finite.
    """
    ranks = np.unique(np.asarray(scores, dtype=np.float64), return_inverse=True)[1]
    if not np.isfinite(scores).all():
        raise CalibrationError("a score is not finite; the model is broken.")
    cells = Cells.exact(Sample.of(ranks / max(len(ranks), 1), positive))
    return float(auroc(cells, cells.sample_counts())[0])


def proportion(successes: int, trials: int, confidence: float = INTERVAL_CONFIDENCE) -> Proportion:
    """A share with its exact two-sided interval; ``trials`` is at least 1."""
    one_sided = (1 + confidence) / 2
    return Proportion(
        successes=successes,
        trials=trials,
        value=successes / trials,
        low=sensitivity_lower_bound(trials, trials - successes, one_sided),
        high=1.0 - sensitivity_lower_bound(trials, successes, one_sided),
    )


def _scored_counts(counts: Counts) -> tuple[Floats, Floats]:
    """Negatives and positives without the abstentions."""
    return counts[:, 0, :-1], counts[:, 1, :-1]


def _mean(values: Floats, counts: Counts) -> Floats:
    """Mean over the cases with a score; ``values`` has zeros for abstentions."""
    return _ratio(counts.reshape(len(counts), -1) @ values.ravel(), counts[:, :, :-1].sum(axis=(1, 2)))


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)
