"""The published numbers, and a proof that notices if they are not ours."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scipy.stats import binom

from lesion_triage.proof import exactness


@pytest.fixture(scope="module")
def steps():
    return list(exactness.steps())


def test_every_step_is_published_valid_and_not_wasteful(steps):
    assert [one.positives for one in steps] == list(exactness.PUBLISHED)
    assert all(one.passed for one in steps)
    for one in steps:
        assert one.failure == pytest.approx(binom.cdf(one.misses_allowed, one.positives, 0.05), rel=1e-9)


def test_one_miss_more_or_fewer_than_published_is_noticed(steps):
    assert not replace(steps[3], misses_allowed=5).passed
    assert not replace(steps[3], misses_allowed=3).passed


def test_all_independent_implementations_agree():
    compared = list(exactness.comparisons())
    assert all(one.passed for one in compared)
    assert sum(one.numbers for one in compared if "scipy" in one.what) > 2000


def test_a_difference_is_noticed():
    assert not exactness.Comparison("bounds", 10, 1e-6).passed
