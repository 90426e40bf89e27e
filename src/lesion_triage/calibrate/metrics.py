"""How well scores rank, how honest they are, and what a threshold does; case level, with intervals.

Imports numpy and this room. Every metric takes weights, so that a bootstrap draw is a row of counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion_triage.calibrate.calibrators import logistic_lines
from lesion_triage.calibrate.certificate import sensitivity_lower_bound
from lesion_triage.errors import CalibrationError

Weights = NDArray[np.float64]

INTERVAL_CONFIDENCE = 0.95
BINS = 10
_BLOCK_ELEMENTS = 100_000  # a block of draws stays in the processor's cache
_CLIP = 1e-12  # a score of exactly 0 or 1 would make one case worth infinite log loss
_DEFINED_SHARE = 0.95  # of the draws; with fewer an interval would be of those that happened to work


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its percentile interval from resampling cases."""

    value: float
    low: float
    high: float
    draws: int
    """Draws in which the quantity was defined; at least 95 % of those made."""


@dataclass(frozen=True, slots=True)
class Proportion:
    """A share with its exact two-sided interval (Clopper & Pearson 1934)."""

    successes: int
    trials: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Bin:
    """Cases with neighbouring scores, for a reliability diagram."""

    cases: int
    mean_score: float
    observed: Proportion


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Cases sorted by score, abstentions (+inf) last. Ranking and calibration look at those with a score."""

    scores: NDArray[np.float64]
    positive: NDArray[np.bool_]
    referred: NDArray[np.bool_]
    order: NDArray[np.intp]
    """Position of each sorted case in the data as given."""
    scored: int
    """Cases with a finite score."""
    ties: NDArray[np.intp]
    """Where each distinct finite score begins."""

    @classmethod
    def of(
        cls, scores: NDArray[np.float64], positive: NDArray[np.bool_], threshold: float = math.inf
    ) -> Sample:
        """Sort the cases.

        Args:
            scores: shape (n,), in [0, 1]; +inf where the policy abstained, which counts as referred.
            positive: the reference standard, shape (n,).
            threshold: ``score >= threshold`` refers.

        Raises:
            CalibrationError: shapes that differ, no case, or a score outside [0, 1] that is not +inf.
        """
        values, truth = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=np.bool_)
        if values.shape != truth.shape or values.ndim != 1 or values.size == 0:
            raise CalibrationError(
                f"expected one score per case and at least one case, found {values.shape} and {truth.shape}."
            )
        if not (((values >= 0) & (values <= 1)) | np.isposinf(values)).all():
            raise CalibrationError("a score is NaN or outside [0, 1]; the model or its calibrator is broken.")
        order = np.argsort(values, kind="stable")
        values = values[order]
        scored = int(np.count_nonzero(np.isfinite(values)))
        begins = np.ones(scored, dtype=np.bool_)
        begins[1:] = values[1:scored] != values[: max(scored - 1, 0)]
        return cls(values, truth[order], values >= threshold, order, scored, np.flatnonzero(begins))

    def once(self) -> Weights:
        """Every case counted once, shape (1, n)."""
        return np.ones((1, self.scores.size))


def auroc(sample: Sample, weights: Weights) -> NDArray[np.float64]:
    """Chance that a positive case scores above a negative one, ties counting half.

    Args:
        sample: n cases; those without a score are left out.
        weights: shape (draws, n), in the sample's order.

    Returns:
        Shape (draws,); NaN where a draw lacks a class. The same holds for the other metrics of this module.
    """
    positives, negatives = _by_tie(sample, weights)
    below = np.cumsum(negatives, axis=1) - 0.5 * negatives
    return _ratio(np.einsum("bg,bg->b", positives, below), positives.sum(axis=1) * negatives.sum(axis=1))


def auprc(sample: Sample, weights: Weights) -> NDArray[np.float64]:
    """Average precision: the precision at each distinct score, weighted by the positives found there."""
    positives, negatives = _by_tie(sample, weights)
    found = np.cumsum(positives[:, ::-1], axis=1)
    flagged = found + np.cumsum(negatives[:, ::-1], axis=1)
    precision = np.divide(found, flagged, out=np.zeros_like(found), where=flagged > 0)
    return _ratio(np.einsum("bg,bg->b", positives[:, ::-1], precision), found[:, -1])


def brier(sample: Sample, weights: Weights) -> NDArray[np.float64]:
    """Mean squared difference between score and outcome."""
    scores, positive = _scored(sample)
    return _mean((scores - positive) ** 2, weights[:, : sample.scored])


def log_loss(sample: Sample, weights: Weights) -> NDArray[np.float64]:
    """Mean negative log likelihood in nats; scores are held 1e-12 away from 0 and 1."""
    scores, positive = _scored(sample)
    clipped = np.clip(scores, _CLIP, 1 - _CLIP)
    return _mean(-np.where(positive > 0, np.log(clipped), np.log1p(-clipped)), weights[:, : sample.scored])


def calibration_lines(
    sample: Sample, weights: Weights, start: tuple[float, float] | None = None
) -> NDArray[np.float64]:
    """Slope and intercept of a logistic regression of the outcome on the score's logit, shape (draws, 2).

    (1, 0) is perfect; a slope below 1 means scores that are too extreme (Cox 1958). NaN where the classes are
    separated or the scores constant. ``start`` is a line nearby.
    """
    scores, positive = _scored(sample)
    clipped = np.clip(scores, _CLIP, 1 - _CLIP)
    logits = np.log(clipped) - np.log1p(-clipped)
    return logistic_lines(logits, positive, weights[:, : sample.scored], start)


def calibration_error(sample: Sample, weights: Weights) -> NDArray[np.float64]:
    """Expected calibration error over bins of equal mass; tied scores share a bin, the sample fixes the bins.

    It is biased upwards in small samples: a perfect model does not reach 0.
    """
    scores, positive = _scored(sample)
    weighed = weights[:, : sample.scored]
    gaps = np.add.reduceat(weighed * (positive - scores), _bin_starts(sample), axis=1)
    return _ratio(np.abs(gaps).sum(axis=1), weighed.sum(axis=1))


def sensitivity(sample: Sample, weights: Weights) -> NDArray[np.float64]:
    """Share of all positive cases that is referred; abstentions count as referred."""
    return _mean(sample.referred[sample.positive].astype(np.float64), weights[:, sample.positive])


def specificity(sample: Sample, weights: Weights) -> NDArray[np.float64]:
    """Share of all negative cases that is not referred; abstentions count as referred."""
    return _mean((~sample.referred[~sample.positive]).astype(np.float64), weights[:, ~sample.positive])


def referral_rate(sample: Sample, weights: Weights) -> NDArray[np.float64]:
    """Share of all cases that is referred, abstentions among them."""
    return _mean(sample.referred.astype(np.float64), weights)


def summarise(sample: Sample, draws: int, seed: int) -> dict[str, Estimate | None]:
    """Every metric with its 95 % percentile interval; all of them see the same draws.

    Returns:
        None for a metric that is not defined on the sample, or in fewer than 95 % of the draws.
    """
    point = {name: float(value[0]) for name, value in _all(sample, sample.once()).items()}
    line = (point.get("calibration_slope", math.nan), point.get("calibration_intercept", math.nan))
    start = line if np.isfinite(line).all() else None
    blocks = [
        _all(sample, counts[:, sample.order], start)
        for counts in draw_counts(sample.scores.size, draws, seed)
    ]
    return {
        name: _estimate(value, np.concatenate([block[name] for block in blocks]))
        for name, value in point.items()
    }


def auroc_difference(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    positive: NDArray[np.bool_],
    draws: int,
    seed: int,
) -> Estimate | None:
    """AUROC of ``first`` minus that of ``second`` on the same cases, resampled together.

    Args:
        first: scores in [0, 1], shape (n,).
        second: scores of the same cases.
        positive: the reference standard, shape (n,).
        draws: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        CalibrationError: a score that is not in [0, 1]: an abstention has no rank to compare.
    """
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise CalibrationError("a paired comparison takes a finite score of every case from both.")
    one, other = Sample.of(first, positive), Sample.of(second, positive)
    point = auroc(one, one.once()) - auroc(other, other.once())
    differences = [
        auroc(one, counts[:, one.order]) - auroc(other, counts[:, other.order])
        for counts in draw_counts(positive.size, draws, seed)
    ]
    return _estimate(float(point[0]), np.concatenate(differences))


def auroc_of(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """The AUROC alone, of any finite scores or logits; NaN if a class is missing."""
    ranks = np.unique(np.asarray(scores, dtype=np.float64), return_inverse=True)[1]
    if not np.isfinite(scores).all():
        raise CalibrationError("a score is not finite; the model is broken.")
    sample = Sample.of(ranks / max(len(ranks), 1), positive)
    return float(auroc(sample, sample.once())[0])


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


def reliability(sample: Sample) -> tuple[Bin, ...]:
    """Bins of equal mass, lowest scores first; tied scores share a bin."""
    if sample.scored == 0:
        return ()
    scores, positive = _scored(sample)
    chunks = np.split(np.arange(sample.scored), _bin_starts(sample)[1:])
    return tuple(
        Bin(len(chunk), float(scores[chunk].mean()), proportion(int(positive[chunk].sum()), len(chunk)))
        for chunk in chunks
    )


def draw_counts(cases: int, draws: int, seed: int) -> Iterator[Weights]:
    """How often each case is drawn, in blocks of shape (draws, cases); each row sums to ``cases``."""
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK_ELEMENTS // cases)
    for start in range(0, draws, block):
        rows = min(block, draws - start)
        drawn = generator.integers(0, cases, size=(rows, cases)) + np.arange(rows)[:, None] * cases
        yield np.bincount(drawn.ravel(), minlength=rows * cases).reshape(rows, cases).astype(np.float64)


def _all(
    sample: Sample, weights: Weights, start: tuple[float, float] | None = None
) -> dict[str, NDArray[np.float64]]:
    """Every metric for every draw; those of a score only if some case has one."""
    ranked = (auroc, auprc, brier, log_loss, calibration_error) if sample.scored else ()
    values = {metric.__name__: metric(sample, weights) for metric in ranked}
    if sample.scored:
        lines = calibration_lines(sample, weights, start)
        values |= {"calibration_slope": lines[:, 0], "calibration_intercept": lines[:, 1]}
    decided = (sensitivity, specificity, referral_rate)
    return values | {metric.__name__: metric(sample, weights) for metric in decided}


def _estimate(value: float, drawn: NDArray[np.float64]) -> Estimate | None:
    defined = drawn[np.isfinite(drawn)]
    if not math.isfinite(value) or defined.size < _DEFINED_SHARE * drawn.size:
        return None
    tail = (1 - INTERVAL_CONFIDENCE) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), int(defined.size))


def _scored(sample: Sample) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return sample.scores[: sample.scored], sample.positive[: sample.scored].astype(np.float64)


def _by_tie(sample: Sample, weights: Weights) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight of positives and of negatives at each distinct score, ascending."""
    _, positive = _scored(sample)
    weighed = weights[:, : sample.scored]
    positives = weighed * positive
    negatives = weighed - positives
    if sample.ties.size == sample.scored:
        return positives, negatives
    return np.add.reduceat(positives, sample.ties, axis=1), np.add.reduceat(negatives, sample.ties, axis=1)


def _bin_starts(sample: Sample) -> NDArray[np.intp]:
    wanted = np.rint(np.arange(BINS) * sample.scored / BINS).astype(np.intp)
    starts = sample.ties[np.minimum(np.searchsorted(sample.ties, wanted), sample.ties.size - 1)]
    return np.unique(starts)


def _mean(values: NDArray[np.float64], weights: Weights) -> NDArray[np.float64]:
    return _ratio(weights @ values, weights.sum(axis=1))


def _ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)
