"""The certified threshold: one theorem, on numbers alone.

Imports numpy, math, ``binomial`` and the exception tree. ``cases`` says what a case is, ``policy_fit`` which
data it may come from.

Theorem
    Let s(1) <= ... <= s(n) be the sorted scores of n positive cases, drawn exchangeably with the future
    positive cases and not used to choose the model or its calibrator. Let 1 - b be the target sensitivity,
    1 - d the confidence, and k the largest integer with ``P(Bin(n, b) <= k) <= d``. Refer a case if
    ``score >= s(k+1)``. Then, with probability at least 1 - d over the draw of the n cases, at least a share
    1 - b of the future positive cases is referred. If no k >= 0 exists there is no certificate.

Proof
    Let q be the largest threshold at which the share of positive cases scoring below it is at most b. The
    promise is broken only if s(k+1) > q, that is, if at most k of the n cases score q or less. Each does so
    with probability at least b, by the choice of q, so this event has probability at most
    ``P(Bin(n, b) <= k) <= d``. Nothing is assumed about the distribution of the scores: atoms (tied scores)
    only make the rule more conservative, because of the ``>=``.

The same rule has three names: inversion of the exact binomial interval (Clopper & Pearson 1934, Biometrika
26:404); the Neyman-Pearson umbrella algorithm (Tong, Feng & Li 2018, Science Advances 4:eaao1659); Learn then
Test with exact binomial p-values and fixed-sequence testing (Angelopoulos et al. 2021, arXiv:2110.01052). The
risk is monotone in the threshold, so it takes no grid and no multiplicity correction.
"""

from __future__ import annotations

import math
from itertools import islice, takewhile
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lesion_triage.calibrate.binomial import log_cdf, log_cdfs
from lesion_triage.errors import CalibrationError

Verdict = Literal["holds", "fails", "undecided"]


def allowed_misses(positives: int, target: float, confidence: float) -> int | None:
    """Largest k with ``P(Bin(positives, 1 - target) <= k) <= 1 - confidence``.

    Args:
        positives: positive cases in the calibration data.
        target: sensitivity to certify, in (0, 1).
        confidence: one-sided, in (0, 1).

    Returns:
        How many of them may score below the threshold; None if they are too few for any certificate.

    Raises:
        CalibrationError: an argument out of range.
    """
    _check_arguments(positives, target, confidence)
    limit = math.log1p(-confidence)
    tails = islice(log_cdfs(positives, target), positives)
    granted = sum(1 for _ in takewhile(lambda tail: tail <= limit, tails))
    return granted - 1 if granted else None


def minimum_positives(target: float, confidence: float, misses: int = 0) -> int:
    """Smallest number of positive cases that certifies ``target`` with ``misses`` of them missed.

    Raises:
        CalibrationError: an argument out of range.
    """
    _check_arguments(misses, target, confidence)
    limit = math.log1p(-confidence)
    enough = misses + 1
    while log_cdf(enough, misses, target) > limit:
        enough *= 2
    too_few = misses if enough == misses + 1 else enough // 2
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if log_cdf(middle, misses, target) <= limit:
            enough = middle
        else:
            too_few = middle
    return enough


def sensitivity_lower_bound(positives: int, misses: int, confidence: float) -> float:
    """One-sided exact lower bound of the sensitivity (Clopper & Pearson 1934).

    The sensitivity at which missing ``misses`` or fewer of ``positives`` cases has probability
    ``1 - confidence``. Valid only if ``misses`` was not counted after choosing the threshold on the same
    cases. For the certified threshold, pass the misses allowed, which depend on n alone, not the misses seen.

    Args:
        positives: positive cases, at least 1.
        misses: how many of them count as missed.
        confidence: one-sided, in (0, 1); a two-sided 95 % interval takes 0.975.

    Raises:
        CalibrationError: an argument out of range.
    """
    _check_arguments(positives, 0.5, confidence)
    if not 0 <= misses <= positives or positives == 0:
        raise CalibrationError(f"expected 0 to {positives} misses among {positives} cases, found {misses}.")
    if misses == positives:
        return 0.0
    limit = math.log1p(-confidence)
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        if log_cdf(positives, misses, middle) <= limit:
            low = middle
        else:
            high = middle
    return low


def sensitivity_verdict(positives: int, misses: int, target: float, confidence: float) -> Verdict:
    """Whether a threshold that was chosen elsewhere reaches the target on these cases.

    Both answers are exact tests of level ``1 - confidence``; the threshold must not have been chosen on them.

    Returns:
        ``holds``: so few misses that a sensitivity below the target is refuted. ``fails``: so many that the
        target is refuted. ``undecided``: neither; it takes more cases.

    Raises:
        CalibrationError: an argument out of range.
    """
    if not 0 <= misses <= positives:
        raise CalibrationError(f"expected 0 to {positives} misses among {positives} cases, found {misses}.")
    allowed = allowed_misses(positives, target, confidence)
    if allowed is not None and misses <= allowed:
        return "holds"
    # P(at least `misses` misses) at the target: the same test with hits and misses exchanged.
    if misses and sensitivity_lower_bound(positives, positives - misses, confidence) > 1.0 - target:
        return "fails"
    return "undecided"


def require_enough_positives(
    positives: int, target: float, confidence: float, *, unit: str = "case", split: str = "calibration"
) -> int:
    """Misses allowed among ``positives``, which must be enough for a certificate.

    Raises:
        CalibrationError: too few; the message says how many it takes.
    """
    allowed = allowed_misses(positives, target, confidence)
    if allowed is None:
        raise CalibrationError(_too_few_message(positives, target, confidence, unit, split))
    return allowed


def order_statistic_threshold(
    positive_scores: NDArray[np.float64], target: float, confidence: float
) -> tuple[float, int]:
    """The theorem's threshold s(k+1), and k; every certificate is issued by this function.

    Args:
        positive_scores: one score per positive case, shape (n,); +inf where the policy abstained, because
            an abstention goes up and counts as referred.
        target: sensitivity to certify, in (0, 1).
        confidence: one-sided, in (0, 1).

    Returns:
        The threshold, +inf if so many abstained that any will do, and the misses allowed.

    Raises:
        CalibrationError: too few positive cases, or a score that is NaN or -inf.
    """
    scores = np.asarray(positive_scores, dtype=np.float64)
    if scores.ndim != 1:
        raise CalibrationError(f"expected one score per positive case, found an array {scores.shape}.")
    refused = int(np.count_nonzero(np.isnan(scores) | np.isneginf(scores)))
    if refused:
        raise CalibrationError(
            f"{refused} of {scores.size} positive scores are NaN or -inf, expected finite numbers or +inf "
            "for an abstention; the model is broken, nothing was certified."
        )
    allowed = require_enough_positives(scores.size, target, confidence)
    return float(np.sort(scores)[allowed]), allowed


def highest_finite_score(positive_scores: NDArray[np.float64]) -> float:
    """The highest finite score.

    It replaces a threshold of +inf. A lower threshold refers more cases, so the promise still holds.

    Raises:
        CalibrationError: there is none.
    """
    finite = positive_scores[np.isfinite(positive_scores)]
    if not finite.size:
        raise CalibrationError(
            f"each of the {positive_scores.size} positive cases goes up without its score, so no threshold "
            "exists: no photograph could be scored, or a red flag that counts refers it; check the quality "
            "limits in calibrate.quality against the photographs, or do not count red flags."
        )
    return float(finite.max())


def certified_threshold(
    positive_scores: NDArray[np.float64], target: float, confidence: float
) -> tuple[float, int, int]:
    """The certified threshold of one group alone: refer if ``score >= threshold``.

    Args:
        positive_scores: as ``order_statistic_threshold`` takes them.
        target: sensitivity to certify, in (0, 1).
        confidence: one-sided, in (0, 1).

    Returns:
        The threshold (finite), the misses allowed, and the misses seen: scores below the threshold.

    Raises:
        CalibrationError: as ``order_statistic_threshold``, or no finite score at all.
    """
    ranked, allowed = order_statistic_threshold(positive_scores, target, confidence)
    threshold = min(ranked, highest_finite_score(positive_scores))
    return threshold, allowed, int(np.count_nonzero(positive_scores < threshold))


def _check_arguments(count: int, target: float, confidence: float) -> None:
    if count < 0:
        raise CalibrationError(f"expected a count of cases, found {count}.")
    if not (0 < target < 1 and 0 < confidence < 1):
        raise CalibrationError(
            f"expected target sensitivity and confidence between 0 and 1, found {target} and {confidence}."
        )


def _too_few_message(found: int, target: float, confidence: float, unit: str, split: str) -> str:
    subject, verb = (unit, "needs") if found == 1 else (f"{unit}s", "need")
    return (
        f"{found} {subject} in split '{split}' {verb} an in-person visit; certifying sensitivity {target:g} "
        f"at confidence {confidence:g} takes at least {minimum_positives(target, confidence)}. "
        "Enlarge the split or lower calibrate.target_sensitivity."
    )
