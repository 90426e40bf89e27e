"""A certificate in use: tests of its sensitivity that may be looked at after every outcome.

Imports numpy, math and the exception tree. ``clinic.watch`` says which cases are counted.

Which outcomes are known
    A referred case is seen, so its outcome becomes known. Of the cases below the threshold only those drawn
    at arrival, with probability ``share``, are followed up. So a positive case that the policy misses with
    probability p is counted with probability ``1 - p`` if referred, ``p share`` if missed. Among the counted
    ones the odds of a miss are ``share p / (1 - p)``: drawing multiplies the odds and does nothing else.

Theorem
    Let the i-th counted case be missed with conditional odds of at most ``share_i o``, given those before it,
    where o are the odds of a miss at the target. Let ``m_1 > 1, m_2 > 1, ...`` be multiples of these odds.
    The likelihood ratio of one case, at m times the odds against the odds themselves, is

        ``r_i(m) = m (1 + share_i o) / (1 + m share_i o)`` if missed, and the same without the first m if not.

    It grows with a miss, so its conditional mean is greatest at the odds themselves, where it is 1. Products
    of it from any start k are supermartingales that begin at 1; so is their mean over m and over starts, with
    a start that is still to come counting 1. By Ville's inequality such a mean exceeds ``1 / (1 - c)`` at any
    time with probability at most ``1 - c``. Nobody has to say in advance when they will look, or stop.

    The order is that of arrival. Outcomes may come late if the looks wait for them: a look at a part whose
    referred cases are less often known than the missed ones is no look at this process.

    With multiples below 1 and odds of at least ``share_i o`` the same holds, and it can be inverted: the
    largest odds that are not refuted bound those of a miss from above (a confidence sequence).

The mean over multiples is the method of mixtures (Robbins 1970, Annals of Mathematical Statistics 41:1397);
that over starts lets a fall be noticed that comes after a long good time (Shin, Ramdas & Rinaldo 2024,
"E-detectors", New England Journal of Statistics in Data Science 2:229). A survey: Ramdas, Gruenwald, Vovk &
Shafer 2023, Statistical Science 38:576.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lesion_triage.errors import CalibrationError

_LOG_MULTIPLES = (np.arange(60) + 0.5) / 20
"""Logarithms of the multiples of the odds that are averaged over, evenly from 1 to 20 times. A finite mean is
as exact as an integral; these cover a sensitivity of 0.95 that fell to anything from 0.949 to 0.49."""
_HALVINGS = 60


def log_evidence_below(
    target: float, missed: NDArray[np.bool_], share: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Evidence that the sensitivity is, or has become, lower than the target.

    Args:
        target: sensitivity, in (0, 1).
        missed: whether each counted positive case was below the threshold, in a fixed order; shape (n,).
        share: probability with which each would have been followed up had it been below; shape (n,), in
            [0, 1].

    Returns:
        After each case the natural logarithm of the evidence, shape (n,). While the sensitivity is at least
        the target, it ever reaches ``-log(1 - confidence)`` with probability at most ``1 - confidence``.

    Raises:
        CalibrationError: target or a share is out of range, or a case without follow-up is counted as missed.
    """
    evidence = EvidenceBelow(target, 1)
    _check_cases(missed, share)
    said = [evidence.add(missed[i : i + 1], share[i : i + 1]) for i in range(missed.size)]
    return np.concatenate([np.zeros(0), *said])


class EvidenceBelow:
    """The evidence of ``log_evidence_below`` for several clinics at once, case by case."""

    def __init__(self, target: float, clinics: int) -> None:
        self._odds = _odds_of_a_miss(target)
        self._sums = np.full((clinics, _LOG_MULTIPLES.size), -math.inf)  # by multiple: over starts so far
        self._cases = 0

    def add(self, missed: NDArray[np.bool_], share: NDArray[np.float64]) -> NDArray[np.float64]:
        """Count one more case of each clinic.

        Args:
            missed: whether it was below the threshold; shape (clinics,).
            share: with which it would have been followed up; shape (clinics,).

        Returns:
            Natural logarithm of the evidence after it; shape (clinics,).
        """
        self._cases += 1
        # The start before the case has weight 1/sqrt(i) - 1/sqrt(i+1); those to come have the rest.
        to_come = 1 / math.sqrt(self._cases + 1)
        log_starting = math.log(1 / math.sqrt(self._cases) - to_come)
        referred = _log_ratio_if_referred(_LOG_MULTIPLES, self._odds * share[:, np.newaxis])
        log_ratio = referred + np.where(missed[:, np.newaxis], _LOG_MULTIPLES, 0.0)
        self._sums = np.logaddexp(self._sums, log_starting) + log_ratio
        started = np.logaddexp.reduce(self._sums, axis=1) - math.log(_LOG_MULTIPLES.size)
        return np.asarray(np.logaddexp(math.log(to_come), started))


def lower_bound(confidence: float, missed: NDArray[np.bool_], share: NDArray[np.float64]) -> float:
    """Lower confidence bound of a constant sensitivity that holds whenever one looks.

    Args:
        confidence: one-sided, in (0, 1).
        missed: as for ``log_evidence_below``.
        share: as there.

    Returns:
        Sensitivity in [0, 1); 0 if nothing can be said.

    Raises:
        CalibrationError: as there.
    """
    _check_share("confidence", confidence)
    _check_cases(missed, share)
    wanted = -math.log1p(-confidence)
    shares, counts = np.unique(share, return_counts=True)
    misses = int(np.count_nonzero(missed))

    def refuted(log_odds: float) -> bool:
        ratios = _log_ratio_if_referred(-_LOG_MULTIPLES, math.exp(log_odds) * shares[:, np.newaxis])
        by_multiple = -misses * _LOG_MULTIPLES + counts @ ratios
        return bool(np.logaddexp.reduce(by_multiple) - math.log(_LOG_MULTIPLES.size) >= wanted)

    # The evidence grows with the odds that it is against, so halving finds where it becomes enough.
    low, high = -30.0, 30.0
    if missed.size == 0 or not refuted(high):
        return 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if refuted(middle) else (middle, high)
    return 1 / (1 + math.exp(high))


def estimate(missed: NDArray[np.bool_], share: NDArray[np.float64]) -> float | None:
    """Share of the positive cases that are referred, each counted miss standing for ``1 / share`` of them.

    Args:
        missed: as for ``log_evidence_below``.
        share: as there.

    Returns:
        In [0, 1]; None without any case of which a miss could have been counted.
    """
    _check_cases(missed, share)
    referred = np.count_nonzero(~missed & (share > 0))
    misses = float(np.sum(1 / share[missed]))
    return referred / (referred + misses) if referred + misses else None


def _log_ratio_if_referred(
    log_multiples: NDArray[np.float64], odds: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Log likelihood ratio of a referred case: multiples of these odds of a miss against the odds.

    That of a missed case is greater by the logarithm of the multiple.
    """
    return np.asarray(np.log1p(odds) - np.log1p(np.exp(log_multiples) * odds))


def _odds_of_a_miss(target: float) -> float:
    _check_share("target", target)
    return (1 - target) / target


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise CalibrationError(f"{name} {value}: expected a number between 0 and 1.")


def _check_cases(missed: NDArray[np.bool_], share: NDArray[np.float64]) -> None:
    if missed.shape != share.shape or missed.ndim != 1:
        raise CalibrationError(f"{missed.shape} cases and {share.shape} shares: expected as many, in a row.")
    if not np.all((share >= 0) & (share <= 1)):
        raise CalibrationError("a share of follow-up is not in [0, 1].")
    if np.any(missed & (share == 0)):
        raise CalibrationError("a missed case is counted although none could have been followed up.")
