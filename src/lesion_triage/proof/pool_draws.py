"""Calibration sets drawn from a known population: the certificate and four ways to get it wrong.

Imports numpy, the rule under test and this package.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lesion_triage.calibrate.cases import Case
from lesion_triage.calibrate.certificate import certified_threshold
from lesion_triage.errors import PredictionsError
from lesion_triage.proof.exact_distributions import Floats, granted_misses, violation_probability
from lesion_triage.proof.pool import Pool
from lesion_triage.proof.trial import EvaluationPopulation, Rule, Trial, certify_each, plug_in_threshold

SIZES = (59, 93, 140, 300)
"""Positive cases in a calibration set: the fewest for 0.95 with no miss and with one; as many as in the
recorded table's calibration split; about twice that."""
TARGETS = (0.95, 0.90)
CONFIDENCE = 0.95

_SOURCES = ("rosendahl", "vidir_modern")
_HARDEST = "mel"
_STREAM = 1


def draw(population: int, size: int, draws: int, seed: tuple[int, ...]) -> NDArray[np.intp]:
    """Members of a population, drawn with replacement, shape (draws, size)."""
    return np.random.default_rng(seed).integers(0, population, size=(draws, size))


def pool_trials(pool: Pool, draws: int, seed: int, rule: Rule = certified_threshold) -> Iterator[Trial]:
    """All rows of the pool test.

    Args:
        pool: the population.
        draws: number of calibration sets of each size.
        seed: the same seed gives the same draws. All rows of one size and population share their draws.
        rule: under test.
    """
    everyone = EvaluationPopulation(pool.scores, pool.negatives)
    hardest = EvaluationPopulation(*_some(pool, "diagnosis", _HARDEST))
    for size in SIZES:
        drawn = draw(pool.scores.size, size, draws, (seed, _STREAM, size))
        scores = pool.scores[drawn]
        for target in TARGETS:
            misses = granted_misses(size, target, CONFIDENCE)
            thresholds, allowed = certify_each(scores, rule, target, CONFIDENCE)
            usual, usual_misses = certify_each(scores, plug_in_threshold, target, CONFIDENCE)
            yield everyone.trial(
                "certificate",
                "keeps",
                size,
                target,
                CONFIDENCE,
                thresholds,
                allowed,
                violation_probability(pool.scores, pool.scores, size, misses, target),
            )
            yield everyone.trial(
                "usual practice: the target on the calibration cases",
                "breaks",
                size,
                target,
                CONFIDENCE,
                usual,
                usual_misses,
                violation_probability(pool.scores, pool.scores, size, usual_misses, target),
            )
            yield photographs_as_cases(pool, drawn, rule, target)
            yield hardest.trial(
                f"certificate for all, read for {_HARDEST} alone",
                "breaks",
                size,
                target,
                CONFIDENCE,
                thresholds,
                allowed,
                violation_probability(pool.scores, hardest.positives, size, misses, target),
            )
            yield from _carried(pool, size, draws, seed, rule, target)


def photographs_as_cases(pool: Pool, drawn: NDArray[np.intp], rule: Rule, target: float) -> Trial:
    """Negative control: draw cases, but certify their photographs as if these were independent."""
    table = pool.photographs()
    photographs = table[drawn].reshape(drawn.shape[0], -1)
    thresholds = [rule(row[~np.isnan(row)], target, CONFIDENCE)[0] for row in photographs]
    return EvaluationPopulation(table[~np.isnan(table)], np.empty(0)).trial(
        "photographs taken for independent cases",
        "breaks",
        drawn.shape[1],
        target,
        CONFIDENCE,
        np.array(thresholds),
    )


def _carried(pool: Pool, size: int, draws: int, seed: int, rule: Rule, target: float) -> Iterator[Trial]:
    """A certificate issued on the cases of one source and used on another's, and the reverse."""
    misses = granted_misses(size, target, CONFIDENCE)
    sources = [_some(pool, "source", source) for source in _SOURCES]
    for here, there in ((0, 1), (1, 0)):
        issued_on, (positives, negatives) = sources[here][0], sources[there]
        drawn = draw(issued_on.size, size, draws, (seed, _STREAM, size, here))
        thresholds, allowed = certify_each(issued_on[drawn], rule, target, CONFIDENCE)
        yield EvaluationPopulation(positives, negatives).trial(
            f"issued on {_SOURCES[here]}, used on {_SOURCES[there]}",
            # The reverse errs upwards: the promise holds, at a price in specificity.
            "breaks" if here == 0 else "shown",
            size,
            target,
            CONFIDENCE,
            thresholds,
            allowed,
            violation_probability(issued_on, positives, size, misses, target),
        )


def _some(pool: Pool, field: str, wanted: str) -> tuple[Floats, Floats]:
    """Scores of the positive and the other cases whose first photograph says ``wanted``."""

    def said(case: Case) -> bool:
        return bool(getattr(case.rows[0], field) == wanted)

    positive, negative = pool.where(said)
    if not positive.size:
        raise PredictionsError(
            f"expected positive cases of {field} '{wanted}' in the table, found none; the proof needs the "
            "recorded table of HAM10000."
        )
    return positive, negative
