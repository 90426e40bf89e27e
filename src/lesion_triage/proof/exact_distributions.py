"""The exact distributions that the simulations must follow, implemented a second time. Imports numpy, math.

Nothing here calls ``calibrate``, so that the rule under test is not checked against itself. The binomial
terms come from ``lgamma``; ``calibrate.binomial`` sums them by recurrence.
"""

from __future__ import annotations

import math
from itertools import count, takewhile

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CHANCE = 0.999
"""Level of the exact binomial limit above which a share of violations counts as a broken promise."""
_DISAGREEMENT = 1e-4  # two-sided level of the test of a simulated share against its exact probability


def binomial_tail(successes: int, trials: int, chance: float) -> float:
    """``P(Bin(trials, chance) <= successes)``."""
    if successes < 0 or chance >= 1:
        return float(successes >= trials)
    if successes >= trials or chance <= 0:
        return 1.0
    return min(math.fsum(_binomial(i, trials, chance) for i in range(successes + 1)), 1.0)


def granted_misses(positives: int, target: float, confidence: float) -> int:
    """Misses that the exact binomial allows among ``positives``; -1 if there is no certificate."""
    tails = (binomial_tail(k, positives, 1 - target) for k in count())
    return sum(1 for _ in takewhile(lambda tail: tail <= 1 - confidence, tails)) - 1


def most_by_chance(trials: int, chance: float) -> int:
    """The smallest count that ``Bin(trials, chance)`` exceeds with a probability of at most 0.1 %."""
    low, high = 0, trials
    while low < high:
        middle = (low + high) // 2
        if binomial_tail(middle, trials, chance) >= CHANCE:
            high = middle
        else:
            low = middle + 1
    return low


def agrees(successes: int, trials: int, chance: float) -> bool:
    """Whether a simulated count is compatible with its exact probability, at a level of 1 in 10,000."""
    at_most = binomial_tail(successes, trials, chance)
    at_least = binomial_tail(trials - successes, trials, 1 - chance)
    return min(at_most, at_least) > _DISAGREEMENT / 2


def sensitivity(population: Floats, threshold: float | Floats) -> Floats:
    """Share of a population of positive cases that scores at or above each threshold."""
    below = np.searchsorted(np.sort(population), threshold, side="left")
    return np.asarray((population.size - below) / population.size)


def specificity(negatives: Floats, threshold: float | Floats) -> Floats:
    """Share of a population of negative cases that scores below each threshold."""
    return np.asarray(np.searchsorted(np.sort(negatives), threshold, side="left") / negatives.size)


def critical(population: Floats, target: float) -> float:
    """The highest threshold at which a population of positive cases still reaches the target."""
    values = np.unique(population)
    return float(values[sensitivity(population, values) >= target].max())


def violation_probability(
    drawn_from: Floats, judged_on: Floats, size: int, misses: int, target: float
) -> float:
    """Probability that the score of rank ``misses + 1`` among ``size`` draws is too high a threshold.

    It is too high if at most ``misses`` of the draws score at or below the critical value of the population
    that the threshold is judged on. Both populations are finite and known, so this is exact.

    Args:
        drawn_from: scores from which the calibration cases are drawn with replacement.
        judged_on: scores of the positive cases to which the promise is applied.
        size: how many are drawn.
        misses: allowed.
        target: sensitivity promised.
    """
    at_or_below = float(np.mean(drawn_from <= critical(judged_on, target)))
    return binomial_tail(misses, size, at_or_below)


def future_misses_distribution(positives: int, to_come: int, misses: int) -> Floats:
    """Distribution of the misses among ``to_come`` further positive cases, shape (to_come + 1,).

    The threshold is the score of rank ``misses + 1`` among ``positives``, and no scores are tied. All orders
    of the ``positives + to_come`` scores are equally likely. So the misses are negative hypergeometric, that
    is BetaBin(to_come; misses + 1, positives - misses), whatever the distribution of the scores.
    """
    ways = [
        _log_choose(misses + x, x) + _log_choose(positives - misses - 1 + to_come - x, to_come - x)
        for x in range(to_come + 1)
    ]
    return np.exp(np.array(ways) - _log_choose(positives + to_come, to_come))


def hypergeometric_distribution(marked: int, cases: int, drawn: int) -> Floats:
    """Distribution of the marked cases among ``drawn`` taken without replacement, shape (marked + 1,)."""
    law = np.zeros(marked + 1)
    for x in range(max(0, drawn - (cases - marked)), min(marked, drawn) + 1):
        ways = _log_choose(marked, x) + _log_choose(cases - marked, drawn - x)
        law[x] = math.exp(ways - _log_choose(cases, drawn))
    return law


def _binomial(successes: int, trials: int, chance: float) -> float:
    return math.exp(
        _log_choose(trials, successes)
        + successes * math.log(chance)
        + (trials - successes) * math.log1p(-chance)
    )


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
