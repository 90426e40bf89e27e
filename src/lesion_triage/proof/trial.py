"""One row of the proof: a rule, how often its promise broke, and whether that is as expected.

Imports numpy, ``exact_distributions`` and the rule under test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, Protocol

import numpy as np

from lesion_triage.proof.exact_distributions import (
    Floats,
    agrees,
    critical,
    most_by_chance,
    sensitivity,
    specificity,
)

Expected = Literal["keeps", "breaks", "shown"]
"""keeps: a promise that must be kept. breaks: a negative control. shown: a row without a verdict on it."""


class Rule(Protocol):
    """Chooses a threshold from positive scores, as ``calibrate.certificate.certified_threshold`` does."""

    def __call__(
        self, positive_scores: Floats, target: float, confidence: float, /
    ) -> tuple[float, int, int]:
        """Threshold, misses allowed, misses seen."""
        ...


@dataclass(frozen=True)
class Trial:
    """Repeated draws of a calibration set from a population whose true rates are known."""

    what: str
    expected: Expected
    positives: int
    """Units in each draw."""
    target: float
    confidence: float
    draws: int
    violations: int
    """Draws after which the sensitivity in the population is below the target."""
    misses_allowed: int | None = None
    """None if it depends on the draw."""
    exact: float | None = None
    """Exact probability of a violation; None if it has no closed form."""
    specificity: float | None = None
    """In the population, mean over the draws; None without negative cases."""
    oracle: float | None = None
    """Specificity at the highest threshold that keeps the target in the population, unknown in practice."""

    @property
    def share(self) -> float:
        """Share of the draws that violate the promise."""
        return self.violations / self.draws

    @property
    def delta(self) -> float:
        """How often the promise may break."""
        return 1 - self.confidence

    @property
    def limit(self) -> float:
        """The largest share that a promise kept with probability 1 - delta shows by chance, at 99.9 %."""
        return _limit(self.draws, self.delta) / self.draws

    @cached_property
    def agrees(self) -> bool:
        """Whether simulation and exact probability agree; True if there is no exact probability."""
        return self.exact is None or agrees(self.violations, self.draws, self.exact)

    @property
    def passed(self) -> bool:
        """Whether a promise is kept, or broken by a negative control, and ``exact`` agrees with that."""
        if self.expected == "shown":
            return self.agrees
        if self.expected == "breaks":
            return self.agrees and self.share > self.limit
        lawful = self.exact is None or self.exact <= self.delta
        return self.agrees and lawful and self.share <= self.limit


@lru_cache(maxsize=256)
def _limit(draws: int, delta: float) -> int:
    return most_by_chance(draws, delta)


@dataclass(frozen=True, eq=False)
class EvaluationPopulation:
    """The population on which a promise is judged."""

    positives: Floats
    negatives: Floats

    def critical(self, target: float) -> float:
        """The highest threshold that keeps the target."""
        return critical(self.positives, target)

    def trial(
        self,
        what: str,
        expected: Expected,
        size: int,
        target: float,
        confidence: float,
        thresholds: Floats,
        misses_allowed: int | None = None,
        exact: float | None = None,
    ) -> Trial:
        """Judge the thresholds of all draws, shape (draws,)."""
        below = sensitivity(self.positives, thresholds) < target
        return Trial(
            what=what,
            expected=expected,
            positives=size,
            target=target,
            confidence=confidence,
            draws=thresholds.size,
            violations=int(np.count_nonzero(below)),
            misses_allowed=misses_allowed,
            exact=exact,
            specificity=self.mean_specificity(thresholds),
            oracle=self.mean_specificity(np.array([self.critical(target)])),
        )

    def mean_specificity(self, thresholds: Floats) -> float | None:
        """Mean over the draws; None without negative cases."""
        return float(specificity(self.negatives, thresholds).mean()) if self.negatives.size else None


def certify_each(drawn: Floats, rule: Rule, target: float, confidence: float) -> tuple[Floats, int]:
    """The rule's threshold for every draw, shape (draws,), and the misses that it allows.

    Args:
        drawn: scores, shape (draws, positives).
        rule: called once for each draw, as a clinic would call it.
        target: sensitivity.
        confidence: one-sided.
    """
    chosen = [rule(scores, target, confidence) for scores in drawn]
    allowed = {misses for _, misses, _ in chosen}
    assert len(allowed) == 1, f"the misses allowed depend on the scores: {sorted(allowed)}"
    return np.array([threshold for threshold, _, _ in chosen]), allowed.pop()


def plug_in_threshold(positive_scores: Floats, target: float, confidence: float, /) -> tuple[float, int, int]:
    """The highest threshold that reaches the target on the calibration cases themselves; no confidence."""
    ordered = np.sort(positive_scores)
    misses = positive_scores.size - math.ceil(round(positive_scores.size * target, 9))
    threshold = float(ordered[misses])
    return threshold, misses, int(np.count_nonzero(ordered < threshold))
