"""Binomial tails against scipy, and against sums of fifty digits where scipy's own digits end."""

from __future__ import annotations

import decimal
import math
from decimal import Decimal
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from lesion_triage.calibrate.binomial import log_cdf, log_cdfs


def summed(positives: int, misses: int, sensitivity: float) -> float:
    """``log_cdf`` term by term, each with fifty digits."""
    with decimal.localcontext(decimal.Context(prec=50, Emin=-(10**9), Emax=10**9)):
        found, missed = Decimal(sensitivity), Decimal(1.0 - sensitivity)
        term = total = found**positives
        for number in range(1, misses + 1):
            term *= (positives - number + 1) * missed / (number * found)
            total += term
        return float((total / (found + missed) ** positives).ln())


@given(positives=st.integers(1, 1500), share=st.floats(0, 1), sensitivity=st.floats(0.6, 0.999))
@example(positives=1467, share=1.0, sensitivity=0.65234375)  # roundings of a thousand sums once showed here
@settings(max_examples=200)
def test_tail_agrees_with_scipy_to_twelve_digits(positives, share, sensitivity):
    misses = int(share * positives)
    expected = binom.cdf(misses, positives, 1 - sensitivity)
    assume(expected > 1e-300)
    assert math.exp(log_cdf(positives, misses, sensitivity)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("deviation", [-30, -6, -2, -0.3, 0, 0.3, 2, 6])
@pytest.mark.parametrize(
    ("positives", "sensitivity"),
    [(1_200, 0.05), (3_000, 0.5), (20_000, 0.9), (30_000, 0.95), (200_000, 0.99), (2_000_000, 0.999)],
)
def test_tail_of_many_misses_is_right_to_eleven_digits(positives, sensitivity, deviation):
    """From far below what is expected to above it, in standard deviations."""
    spread = math.sqrt(positives * sensitivity * (1 - sensitivity))
    misses = round(positives * (1 - sensitivity) + deviation * spread)
    misses = min(max(misses, 1001), positives - 1)
    expected = summed(positives, misses, sensitivity)
    assert log_cdf(positives, misses, sensitivity) == pytest.approx(expected, rel=1e-11, abs=1e-12)


@given(
    positives=st.integers(1100, 5000),
    share=st.floats(0.2, 1),
    sensitivity=st.floats(0.001, 0.999),
)
@settings(max_examples=60)
def test_what_is_left_out_of_many_terms_does_not_show(positives, share, sensitivity):
    misses = max(int(share * positives), 1001)
    whole = next(islice(log_cdfs(positives, sensitivity), misses, None))
    assert log_cdf(positives, misses, sensitivity) == pytest.approx(whole, rel=1e-11, abs=1e-10)


def test_one_more_miss_is_never_less_likely_where_the_ways_to_sum_meet():
    tails = [log_cdf(20_000, misses, 0.95) for misses in range(995, 1010)]
    assert tails == sorted(tails)
    steps = [later - earlier for earlier, later in pairwise(tails)]
    assert steps == sorted(steps, reverse=True)  # a binomial tail is log-concave


@pytest.mark.parametrize("positives", [2_560, 25_600, 10**7])
def test_counts_of_numpy_are_counts(positives):
    """Their powers end at 2**63, and the ninth of a multiple of 256 is then 0."""
    misses = round(positives / 2 - math.sqrt(positives))
    expected = log_cdf(positives, misses, 0.5)
    assert log_cdf(np.int64(positives), np.int64(misses), 0.5) == expected
    assert expected == pytest.approx(binom.logcdf(misses, positives, 0.5), rel=1e-9)


def test_tail_neither_overflows_nor_underflows():
    assert log_cdf(20_000, 0, 0.001) == pytest.approx(20_000 * math.log(0.001), rel=1e-15)
    assert log_cdf(20_000, 20_000, 0.001) == 0.0
    assert log_cdf(20_000, 19_999, 0.999) == 0.0
    ways = math.lgamma(10**7 + 1) - math.lgamma(1002) - math.lgamma(10**7 - 1000)
    one_term = ways + 1001 * math.log(0.999) + (10**7 - 1001) * math.log(0.001)  # those below are a 10,000th
    assert log_cdf(10**7, 1001, 0.001) == pytest.approx(one_term, rel=1e-9)
