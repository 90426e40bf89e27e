"""Real splits of real cases: do misses on the test half follow the distribution that the theorem implies?

Imports numpy, the rule under test and this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion_triage.calibrate.certificate import certified_threshold, minimum_positives
from lesion_triage.errors import PredictionsError
from lesion_triage.proof.exact_distributions import (
    Floats,
    future_misses_distribution,
    granted_misses,
    hypergeometric_distribution,
)
from lesion_triage.proof.pool import Pool
from lesion_triage.proof.pool_draws import CONFIDENCE, TARGETS
from lesion_triage.proof.trial import Rule

_STREAM = 4
_EXPECTED_IN_A_CELL = 5.0
_LEAST_P = 1e-3


@dataclass(frozen=True)
class Splits:
    """Misses on the test halves of repeated splits, beside their exact distribution."""

    target: float
    cases: int
    positives: int
    splits: int
    seen: tuple[int, ...]
    """Numbers of splits with 0, 1, 2, ... misses."""
    law: tuple[float, ...]
    """Exact probabilities of as many misses; as long as ``seen``, the rest being negligible."""
    chi_square: float
    p_value: float
    """By simulation: the share of samples from the exact distribution that deviate at least as much."""
    total_variation: float
    """Half the summed absolute difference between the shares and ``law``."""
    total_variation_by_chance: float
    """Its mean over samples from the exact distribution."""

    @property
    def passed(self) -> bool:
        """Whether the misses are compatible with the exact distribution."""
        return self.p_value > _LEAST_P


def real_splits(pool: Pool, splits: int, seed: int, rule: Rule = certified_threshold) -> Iterator[Splits]:
    """Split all cases into halves repeatedly: one certifies, and misses are counted on the other.

    Raises:
        PredictionsError: as ``law_of_misses``, before any split is drawn.
    """
    positives, negatives = pool.scores.size, pool.negatives.size
    cases = positives + negatives
    laws = {target: law_of_misses(positives, cases, target) for target in TARGETS}
    scores = np.concatenate([pool.scores, pool.negatives])
    generator = np.random.default_rng((seed, _STREAM))
    orders = [generator.permutation(cases) for _ in range(splits)]
    for target, law in laws.items():
        misses = np.array([_misses_on_the_other_half(scores, positives, one, rule, target) for one in orders])
        yield _compare(misses, law, np.random.default_rng((seed, _STREAM, 1)), target, cases, positives)


def law_of_misses(positives: int, cases: int, target: float) -> Floats:
    """Exact distribution of the misses in the second half of ``cases``, shape (positives + 1,).

    The number of positive cases in the first half is hypergeometric. Given it, the misses are beta-binomial.

    Raises:
        PredictionsError: so few positive cases that a half of them may be too few for a certificate.
    """
    law = np.zeros(positives + 1)
    for certifying, chance in enumerate(hypergeometric_distribution(positives, cases, cases // 2)):
        if chance < 1e-12:
            continue
        allowed = granted_misses(certifying, target, CONFIDENCE)
        if allowed < 0:
            raise PredictionsError(
                f"expected enough positive cases for half of the table to certify sensitivity {target:g}, "
                f"which takes {minimum_positives(target, CONFIDENCE)}; of {positives} only {certifying} may "
                "be in that half. Record a run with more held-out cases."
            )
        given = future_misses_distribution(certifying, positives - certifying, allowed)
        law[: given.size] += chance * given
    return law


def _misses_on_the_other_half(
    scores: Floats, positives: int, order: NDArray[np.intp], rule: Rule, target: float
) -> int:
    certifying, testing = order[: order.size // 2], order[order.size // 2 :]
    threshold, _, _ = rule(scores[certifying[certifying < positives]], target, CONFIDENCE)
    return int(np.count_nonzero(scores[testing[testing < positives]] < threshold))


def _compare(
    misses: NDArray[np.intp],
    law: Floats,
    generator: np.random.Generator,
    target: float,
    cases: int,
    positives: int,
) -> Splits:
    seen = np.bincount(misses, minlength=law.size).astype(np.float64)
    by_chance = generator.multinomial(misses.size, law / law.sum(), size=10_000).astype(np.float64)
    cells = _cells(law * misses.size)
    own, others = (_chi_square(counts, law * misses.size, cells) for counts in (seen[None], by_chance))
    distance, distances = (np.abs(c / misses.size - law).sum(axis=1) / 2 for c in (seen[None], by_chance))
    shown = int(max(misses.max(), np.flatnonzero(law > 1e-6).max())) + 1
    return Splits(
        target=target,
        cases=cases,
        positives=positives,
        splits=misses.size,
        seen=tuple(int(count) for count in seen[:shown]),
        law=tuple(float(chance) for chance in law[:shown]),
        chi_square=float(own[0]),
        p_value=float((1 + np.count_nonzero(others >= own[0])) / (1 + others.size)),
        total_variation=float(distance[0]),
        total_variation_by_chance=float(distances.mean()),
    )


def _cells(expected: Floats) -> NDArray[np.intp]:
    """Where each cell begins: neighbouring counts are pooled until every cell expects enough splits."""
    starts, held = [0], 0.0
    for position, value in enumerate(expected):
        if held >= _EXPECTED_IN_A_CELL and expected[position:].sum() >= _EXPECTED_IN_A_CELL:
            starts.append(position)
            held = 0.0
        held += float(value)
    return np.array(starts)


def _chi_square(counts: Floats, expected: Floats, cells: NDArray[np.intp]) -> Floats:
    pooled, law = np.add.reduceat(counts, cells, axis=1), np.add.reduceat(expected, cells)
    return np.asarray(((pooled - law) ** 2 / law).sum(axis=1))
