"""A share has the interval that its units allow: exact where they are cases, and never without width."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from lesion_triage.calibrate.bootstrap import Estimate
from lesion_triage.calibrate.clustered_proportions import clustered_proportion
from lesion_triage.calibrate.metrics import proportion


def test_cases_of_units_of_their_own_have_the_exact_interval_whatever_was_drawn():
    right = np.arange(30) < 28
    drawn = Estimate(28 / 30, 0.0, 1.0, 100)
    assert clustered_proportion(right, np.arange(30), drawn) == proportion(28, 30)


@pytest.mark.parametrize("all_right", [True, False])
def test_a_share_that_all_cases_agree_on_counts_each_unit_once(all_right):
    found = clustered_proportion(
        np.full(60, all_right), np.repeat(np.arange(20), 3), Estimate(all_right, 0.5, 0.5, 100)
    )
    once = proportion(20 * all_right, 20)
    assert (found.successes, found.trials, found.value) == (60 * all_right, 60, float(all_right))
    assert (found.low, found.high) == (min(once.low, 0.5), max(once.high, 0.5))


def test_cases_that_are_copies_of_one_are_no_more_evidence_than_it():
    right = np.arange(40) < 30
    found = clustered_proportion(np.repeat(right, 5), np.repeat(np.arange(40), 5))
    once = proportion(30, 40)
    assert (found.low, found.high) == pytest.approx((once.low, once.high))


@pytest.mark.parametrize("share", [0.97, 0.9, 0.5])
@pytest.mark.parametrize("alike", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("units", [15, 60])
def test_intervals_of_clustered_cases_cover_as_often_as_they_say(share, alike, units):
    """Without the bootstrap, which only widens; ``alike`` is the correlation of a unit's cases."""
    random = np.random.default_rng([units, int(100 * share), int(10 * alike)])
    held = 0
    for _ in range(300):
        owners = np.repeat(np.arange(units), random.integers(1, 6, size=units))
        own = np.full(units, share)
        if alike == 1.0:
            own = (random.random(units) < share).astype(float)
        elif alike:
            strength = (1 - alike) / alike
            own = random.beta(share * strength, (1 - share) * strength, size=units)
        found = clustered_proportion(random.random(owners.size) < own[owners], owners)
        held += found.low <= share <= found.high
    assert held >= 0.93 * 300


@pytest.mark.parametrize(
    ("single", "large", "size", "covered"),
    [(60, 12, 5, 0.949), (50, 30, 3, 0.949), (100, 10, 8, 0.949), (200, 4, 10, 0.949), (80, 1, 40, 0.92)],
)
def test_units_of_unequal_size_whose_cases_are_copies_are_covered_as_the_docstring_says(
    single, large, size, covered
):
    """All outcomes of units with one case and units with several, weighed by their law: no simulation."""
    cases = single + large * size
    units = np.concatenate([np.arange(single), np.repeat(single + np.arange(large), size)])
    found = [clustered_proportion(np.arange(cases) < right, units) for right in range(cases + 1)]
    low, high = np.array([(one.low, one.high) for one in found]).T
    one, other = np.divmod(np.arange((single + 1) * (large + 1)), large + 1)
    right = one + size * other
    for share in (
        0.003,
        0.01,
        0.02,
        0.05,
        0.075,
        0.1,
        0.2,
        0.35,
        0.5,
        0.65,
        0.8,
        0.9,
        0.95,
        0.98,
        0.99,
        0.997,
    ):
        chance = binom.pmf(one, single, share) * binom.pmf(other, large, share)
        assert chance[(low[right] <= share) & (share <= high[right])].sum() >= covered


@pytest.mark.parametrize("share", [0.9, 0.95])
@pytest.mark.parametrize("alike", [0.1, 0.2, 0.4])
@pytest.mark.parametrize("units", [6, 8, 12, 20])
def test_the_lower_bound_of_ten_cases_a_unit_is_above_the_truth_as_rarely_as_it_says(share, alike, units):
    random = np.random.default_rng([units, int(100 * share), int(10 * alike)])
    strength = (1 - alike) / alike
    owners, above = np.repeat(np.arange(units), 10), 0
    for _ in range(200):
        own = random.beta(share * strength, (1 - share) * strength, size=units)
        above += clustered_proportion(random.random(owners.size) < own[owners], owners).low > share
    assert above <= 0.025 * 200


@pytest.mark.parametrize("sizes", [(8, 8, 8, 8), (10, 10, 10), (1, 2, 9, 4, 4), (1,) * 28 + (2,)])
def test_a_miss_more_in_any_unit_raises_no_bound(sizes):
    """From no miss to nothing but misses, in ten orders."""
    random, units = np.random.default_rng(3), np.repeat(np.arange(len(sizes)), sizes)
    for _ in range(10):
        right, before = np.full(units.size, True), (1.0, 1.0)
        for case in (None, *random.permutation(units.size)):
            if case is not None:
                right[case] = False
            found = clustered_proportion(right, units)
            assert found.low <= before[0]
            assert found.high <= before[1]
            before = (found.low, found.high)
