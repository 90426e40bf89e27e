"""Several lesions of one patient: what happens if each counts as independent, on a simulated population.

Imports numpy, the rule under test, ``calibrate.cases`` and this package. HAM10000 names no patients, so this
is the only population of the proof that is simulated and not measured.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lesion_triage.calibrate.cases import lowest_score_by_unit
from lesion_triage.calibrate.certificate import certified_threshold
from lesion_triage.proof.exact_distributions import Floats, granted_misses, violation_probability
from lesion_triage.proof.pool_draws import CONFIDENCE, SIZES, TARGETS, draw
from lesion_triage.proof.trial import EvaluationPopulation, Rule, Trial, certify_each

PATIENTS, LESIONS_EACH, CORRELATION = 4000, 5, 0.7

_STREAM = 2
_NO_NEGATIVES = np.empty(0)


def population(seed: int) -> Floats:
    """Logits of positive lesions, shape (PATIENTS, LESIONS_EACH): normal, correlated within the patient."""
    generator = np.random.default_rng((seed, _STREAM))
    shared = generator.standard_normal((PATIENTS, 1))
    own = generator.standard_normal((PATIENTS, LESIONS_EACH))
    return np.asarray(np.sqrt(CORRELATION) * shared + np.sqrt(1 - CORRELATION) * own)


def cluster_trials(draws: int, seed: int, rule: Rule = certified_threshold) -> Iterator[Trial]:
    """Draw patients; certify the same draws by lesion, which must fail, and by patient."""
    logits = population(seed)
    lowest = np.sort(lowest_score_by_unit(logits.ravel(), np.repeat(np.arange(PATIENTS), LESIONS_EACH)))
    by_lesion = EvaluationPopulation(logits.ravel(), _NO_NEGATIVES)
    by_patient = EvaluationPopulation(lowest, _NO_NEGATIVES)
    for size in SIZES:
        drawn = draw(PATIENTS, size, draws, (seed, _STREAM, size))
        scores = logits[drawn].reshape(draws, -1)
        # A patient drawn twice counts as two units: two patients who happen to be alike.
        units = np.repeat(np.arange(size), LESIONS_EACH)
        folded = np.array([lowest_score_by_unit(row, units) for row in scores])
        for target in TARGETS:
            thresholds, allowed = certify_each(scores, rule, target, CONFIDENCE)
            yield by_lesion.trial(
                "lesions of a patient taken for independent cases",
                "breaks",
                size,
                target,
                CONFIDENCE,
                thresholds,
                allowed,
            )
            misses = granted_misses(size, target, CONFIDENCE)
            thresholds, allowed = certify_each(folded, rule, target, CONFIDENCE)
            yield by_patient.trial(
                "certificate by patient: the lowest of the patient's lesions",
                "keeps",
                size,
                target,
                CONFIDENCE,
                thresholds,
                allowed,
                violation_probability(lowest, lowest, size, misses, target),
            )
