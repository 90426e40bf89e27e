"""What a threshold costs is counted as the server decides."""

from __future__ import annotations

import pytest

from lesion_triage.calibrate.referral_burden import measure_referral_burden
from lesion_triage.predictions import Predictions
from made_predictions import MANIFEST, MODEL, SPLITS, row
from tiny_bundle import policy


def table(*cases):
    """``cases``: logits of each one's photographs, and whether it needs a visit."""
    rows = [
        row(f"{number}-{place}", f"{number}", logit, needs)
        for number, (logits, needs) in enumerate(cases)
        for place, logit in enumerate(logits)
    ]
    return Predictions("validation", MANIFEST, SPLITS, MODEL, tuple(rows))


def test_cases_are_counted_once_and_one_that_cannot_be_scored_as_referred():
    found = measure_referral_burden(
        policy(),  # refers from logit 0
        table(([1.0, -1.0], True), ([-1.0], True), ([1.0], False), ([-1.0, -2.0], False), ([None], False)),
    )
    assert (found.cases, found.referred, found.negatives, found.negatives_referred) == (5, 3, 3, 2)
    assert found.specificity == pytest.approx(1 / 3)
    assert found.referral_rate == pytest.approx(3 / 5)
    assert not found.is_useless


def test_a_policy_that_spares_hardly_anyone_is_useless():
    def sparing(count):
        return table(*([([1.0], False)] * (100 - count)), *([([-1.0], False)] * count))

    assert measure_referral_burden(policy(), sparing(4)).is_useless
    assert not measure_referral_burden(policy(), sparing(5)).is_useless


def test_without_a_case_free_of_need_there_is_no_specificity():
    found = measure_referral_burden(policy(), table(([1.0], True)))
    assert found.specificity is None
    assert not found.is_useless
