"""Exact binomial tails, from ten cases to ten million. Imports numpy and math.

With few misses, all terms are summed. With many, the last term is computed directly (Loader 2000, "Fast and
accurate computation of binomial probabilities", as in R's ``dbinom``), and only the terms within some ten
standard deviations of it are added.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

import numpy as np

_RESCALE_ABOVE = 1e200
_LOOP_UP_TO = 1000
"""Misses beyond which only the terms near the end of the tail are summed."""

_STIRLING = ((1, 1 / 12), (3, -1 / 360), (5, 1 / 1260), (7, -1 / 1680), (9, 1 / 1188))
"""Terms of Stirling's series: power of the count in the denominator, and the coefficient."""


def log_cdfs(positives: int, sensitivity: float) -> Iterator[float]:
    """``log P(Bin(positives, 1 - sensitivity) <= i)`` for i = 0, 1, ... positives.

    Probabilities are summed relative to that of no miss, whose logarithm has full precision. Each follows
    from the one before by the ratio of binomial terms, so nothing cancels and nothing overflows. The absolute
    error is a few rounding errors of the first logarithm: 1e-13 for 2,000 cases at 0.6 or above.
    """
    odds = (1.0 - sensitivity) / sensitivity
    scale = positives * math.log(sensitivity)
    term = total = 1.0
    yield scale
    for i in range(1, positives + 1):
        term *= (positives - i + 1) / i * odds
        total += term
        if total > _RESCALE_ABOVE:
            scale += math.log(total)
            term /= total
            total = 1.0
        yield scale + math.log(total)


def log_cdf(positives: int, misses: int, sensitivity: float) -> float:
    """``log P(Bin(positives, 1 - sensitivity) <= misses)``."""
    if misses <= _LOOP_UP_TO:
        return next(islice(log_cdfs(positives, sensitivity), misses, None))
    if misses >= positives:
        return 0.0
    missed = 1.0 - sensitivity
    expected = positives * missed
    window = 100 + math.ceil(10 * math.sqrt(expected * sensitivity))
    # Away from the mean the terms fall, each by a larger factor than the one before.
    if misses < expected:
        ends = np.arange(misses, max(misses - window, 0), -1, dtype=np.float64)
        falls = np.cumprod(ends / (positives - ends + 1) * (sensitivity / missed))
        return _log_term(positives, misses, sensitivity) + math.log1p(float(falls.sum()))
    first = misses + 1
    ends = np.arange(first, min(first + window, positives), dtype=np.float64)
    falls = np.cumprod((positives - ends) / (ends + 1) * (missed / sensitivity))
    above = math.exp(_log_term(positives, first, sensitivity)) * (1.0 + float(falls.sum()))
    return math.log1p(-above)


def _log_term(positives: int, misses: int, sensitivity: float) -> float:
    """``log P(Bin(positives, 1 - sensitivity) = misses)`` for at least one miss, by Loader's formula."""
    if misses == positives:
        return positives * math.log1p(-sensitivity)
    found = positives - misses
    return (
        _stirling_error(positives)
        - _stirling_error(misses)
        - _stirling_error(found)
        - _deviance(misses, positives * (1.0 - sensitivity))
        - _deviance(found, positives * sensitivity)
        + 0.5 * math.log(positives / (2 * math.pi * misses * found))
    )


def _stirling_error(count: int) -> float:
    """``log(count!)`` minus Stirling's approximation of it, for a count of at least 1."""
    if count <= 15:
        return math.lgamma(count + 1) - (count + 0.5) * math.log(count) + count - 0.5 * math.log(2 * math.pi)
    return math.fsum(part / float(count) ** power for power, part in _STIRLING)


def _deviance(seen: int, expected: float) -> float:
    """``seen log(seen / expected) + expected - seen``, without cancellation where the two are close."""
    gap = seen - expected
    ratio = gap / (seen + expected)
    if abs(ratio) >= 0.1:
        return seen * math.log(seen / expected) - gap
    # log(seen / expected) = 2 artanh(ratio). Its first term less gap is gap * ratio; the rest is smaller.
    total, power, order = gap * ratio, 2 * seen * ratio, 1
    while True:
        power *= ratio * ratio
        order += 2
        if (grown := total + power / order) == total:
            return total
        total = grown
