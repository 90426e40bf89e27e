"""A threshold in use: how often looking at outcomes leads to a wrong verdict, on the held-out cases.

Imports numpy, the tests under test and this package. Clinics see positive cases one after another, drawn from
the pool, and look after each. Their threshold is the worst of its kind: the highest that keeps the target in
the pool, which must not be called failing, or the one just above it, which must not be said to hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from lesion_triage.calibrate.certificate import sensitivity_verdict
from lesion_triage.calibrate.sequential import EvidenceBelow, lower_bound
from lesion_triage.proof.exact_distributions import critical
from lesion_triage.proof.pool import Pool
from lesion_triage.proof.pool_draws import CONFIDENCE, SIZES, TARGETS, draw
from lesion_triage.proof.trial import Expected, Trial

SHARE = 0.5
"""Of the missed cases that are drawn for follow-up."""

Booleans = NDArray[np.bool_]
Counts = NDArray[np.intp]

_STREAM = 5


def in_use_trials(pool: Pool, draws: int, seed: int) -> Iterator[Trial]:
    """Verdicts by evidence and bound, which may be looked at any time, and by what people do instead.

    Args:
        pool: the population.
        draws: clinics of each size.
        seed: the same seed gives the same clinics.
    """
    for size in SIZES:
        scores = pool.scores[draw(pool.scores.size, size, draws, (seed, _STREAM, size))]
        followed_up = np.random.default_rng((seed, _STREAM, size, 1)).random(scores.shape) < SHARE
        for target in TARGETS:
            highest = critical(pool.scores, target)
            kept, broken = scores < highest, scores <= highest
            wrong: tuple[tuple[str, Expected, Booleans], ...] = (
                ("called failing by the evidence", "keeps", ever_alarmed(kept, followed_up, target)),
                ("called failing by a binomial test after each case", "breaks", ever_failed(kept, target)),
                ("said to hold by the bound", "keeps", ever_said_to_hold(broken, followed_up, target)),
                (
                    "said to hold by the outcomes of referred cases",
                    "breaks",
                    said_to_hold_if_all_are_referred(broken, target),
                ),
            )
            for what, expected, clinics in wrong:
                violations = int(np.count_nonzero(clinics))
                yield Trial(what, expected, size, target, CONFIDENCE, draws, violations)


def ever_alarmed(missed: Booleans, followed_up: Booleans, target: float) -> Booleans:
    """Whether the evidence against the target ever becomes enough; shape (clinics,).

    Args:
        missed: whether each positive case is below the threshold; shape (clinics, cases), as they arrive.
        followed_up: whether it is found if so.
        target: sensitivity.
    """
    counted = ~missed | followed_up
    # Counted cases first, in their order. The others have a share of 0 and leave the evidence as it is.
    order = np.argsort(~counted, axis=1, kind="stable")
    counted, missed = (np.take_along_axis(table, order, axis=1) for table in (counted, missed & followed_up))
    evidence, alarmed = EvidenceBelow(target, len(missed)), np.zeros(len(missed), dtype=np.bool_)
    for case in range(missed.shape[1]):
        said = evidence.add(missed[:, case], np.where(counted[:, case], SHARE, 0.0))
        alarmed |= said >= -math.log1p(-CONFIDENCE)
    return alarmed


def ever_failed(missed: Booleans, target: float) -> Booleans:
    """Whether the exact test for one look, made after each case, ever fails; every miss is known."""

    def fails(cases: int, misses: int) -> bool:
        return sensitivity_verdict(cases, misses, target, CONFIDENCE) == "fails"

    fewest = _first_counts(missed.shape[1], lambda cases, misses: not fails(cases, misses))
    return np.asarray((missed.cumsum(axis=1) >= fewest[1:]).any(axis=1))


def ever_said_to_hold(missed: Booleans, followed_up: Booleans, target: float) -> Booleans:
    """Whether the lower bound ever reaches the target; arguments as ``ever_alarmed``."""

    def holds(cases: int, misses: int) -> bool:
        is_missed = np.arange(cases) < misses
        return lower_bound(CONFIDENCE, is_missed, np.full(cases, SHARE)) >= target

    too_many = _first_counts(missed.shape[1], holds)
    counted = (~missed | followed_up).cumsum(axis=1)
    found = (missed & followed_up).cumsum(axis=1)
    return np.asarray((found < too_many[counted]).any(axis=1))


def said_to_hold_if_all_are_referred(missed: Booleans, target: float) -> Booleans:
    """Whether as many cases with an outcome are said to uphold it, if only referred ones come to have one.

    There is no miss among them, whatever the threshold, so all clinics say the same.
    """
    clinics, cases = missed.shape
    return np.full(clinics, sensitivity_verdict(cases, 0, target, CONFIDENCE) == "holds")


def _first_counts(most_cases: int, is_few: Callable[[int, int], bool]) -> Counts:
    """For 0 to ``most_cases`` cases the fewest misses that are not few; never fewer for more cases."""
    counts = [0]
    for cases in range(1, most_cases + 1):
        misses = counts[-1]
        while misses <= cases and is_few(cases, misses):
            misses += 1
        counts.append(misses)
    return np.array(counts)
