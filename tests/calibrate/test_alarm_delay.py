"""How soon a fall is noticed: against clinics simulated one by one, and against what theory says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lesion_triage.calibrate.alarm_delay import alarm_delay, good_sensitivity
from lesion_triage.calibrate.sequential import log_evidence_below
from lesion_triage.errors import CalibrationError


def test_delay_counts_all_positive_cases_also_those_that_nobody_came_to_know():
    """Clinics one by one, each positive case drawn or not; another random stream, so within chance."""
    rng, delays = np.random.default_rng(5), []
    for _ in range(200):
        missed = rng.random(2500) >= 0.8
        known = ~missed | (rng.random(2500) < 0.2)
        evidence = log_evidence_below(0.95, missed[known], np.full(np.count_nonzero(known), 0.2))
        at = np.flatnonzero(evidence >= math.log(20))
        delays.append(np.flatnonzero(known)[at[0]] + 1 if at.size else math.inf)
    found = alarm_delay(0.95, 0.95, 0.2, 0.8)
    # Three standard errors of a rank among 200 and among the 300 of the simulation.
    low, high = np.quantile(delays, [0.5 - 0.14, 0.5 + 0.14])
    assert low <= found.median <= high
    assert found.late > 2 * found.median


def test_delay_is_near_the_least_that_any_such_test_can_have():
    """By Wald, evidence of 20 takes at least log(20) over the divergence of the two laws, on average."""
    divergence = 0.2 * math.log(0.2 / 0.05) + 0.8 * math.log(0.8 / 0.95)
    least = math.log(20) / divergence
    assert 0.5 * least < alarm_delay(0.95, 0.95, 1.0, 0.8).median < 2 * least


def test_a_larger_share_and_a_deeper_fall_are_noticed_sooner():
    few, all_of_them = (alarm_delay(0.95, 0.95, share, 0.8) for share in (0.2, 1.0))
    deeper = alarm_delay(0.95, 0.95, 1.0, 0.7)
    assert deeper.median < all_of_them.median < few.median
    assert all_of_them.median < all_of_them.median_after_good <= all_of_them.late_after_good


def test_a_good_time_keeps_the_target_whatever_it_is_so_a_fall_after_it_is_noticed_later():
    assert [good_sensitivity(target) for target in (0.9, 0.95, 0.99)] == pytest.approx([0.96, 0.98, 0.996])
    found = alarm_delay(0.99, 0.95, 1.0, 0.98)
    assert found.median_after_good > 1.2 * found.median


def test_what_takes_longer_than_the_simulation_has_no_number():
    assert alarm_delay(0.95, 0.95, 0.02, 0.94).median is None


@pytest.mark.parametrize(
    ("share", "sensitivity"), [(0.0, 0.8), (1.1, 0.8), (math.nan, 0.8), (0.5, 0.95), (0.5, 0.0)]
)
def test_numbers_out_of_range_are_refused(share, sensitivity):
    with pytest.raises(CalibrationError, match="expected a"):
        alarm_delay(0.95, 0.95, share, sensitivity)
