"""Calibration cases go through every gate of the policy, and the certificate says what sent them up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histories import flag
from lesion_triage.bundle.history import History, history_to_text
from lesion_triage.bundle.policy import decide
from lesion_triage.bundle.red_flags import RedFlags
from lesion_triage.bundle.schema import Disposition
from lesion_triage.calibrate.cases import gather_cases
from lesion_triage.config import Calibrate
from lesion_triage.errors import CalibrationError, PredictionsError
from made_predictions import certified, predictions, row

RULES = RedFlags(
    flags=(
        flag({"field": "bleeding", "is": True}, "bleeding"),
        flag({"field": "patient_worried", "is": True}, "patient_worried", up_to_band=2),
    )
)
BLEEDS = history_to_text(History(bleeding=True))


def with_histories(table, every, answers=BLEEDS):
    """The table in which every so many-th case said something."""
    chosen = {case_id for place, case_id in enumerate(table.by_case()) if place % every == 0}
    rows = (replace(one, history=answers if one.case_id in chosen else "") for one in table.rows)
    return replace(table, rows=tuple(rows))


def dispositions(policy, table, *, histories=True):
    return [
        decide(policy, case.logits, *([case.history] if histories else [])).disposition
        for case in gather_cases(table)
        if case.needs_in_person
    ]


@given(seed=st.integers(0, 500), every=st.integers(1, 6), ungradable=st.sampled_from([0.0, 0.3]))
@settings(max_examples=20, deadline=None)
def test_the_promise_needs_no_history_unless_that_was_asked_for(seed, every, ungradable):
    silent = predictions("calibration", 300, 140, seed=seed, ungradable=ungradable)
    told = with_histories(silent, every)
    policy, certificate = certified(calibration=told, config=Calibrate(red_flags=RULES))
    same, without = certified(calibration=silent, config=Calibrate(red_flags=RULES))
    assert policy == same
    assert certificate.red_flags_counted is False
    assert certificate.misses_allowed == without.misses_allowed
    with_history, mute = (
        dispositions(policy, told, histories=said).count(Disposition.below_threshold)
        for said in (True, False)
    )
    assert (
        certificate.misses_seen == with_history <= mute == without.misses_seen <= certificate.misses_allowed
    )


@given(seed=st.integers(0, 500), every=st.integers(2, 6))
@settings(max_examples=20, deadline=None)
def test_counted_red_flags_raise_the_threshold_and_stay_within_what_is_allowed(seed, every):
    told = with_histories(predictions("calibration", 300, 140, seed=seed), every)
    lower, _ = certified(calibration=told, config=Calibrate(red_flags=RULES))
    higher, certificate = certified(calibration=told, config=Calibrate(red_flags=RULES, count_red_flags=True))
    assert certificate.red_flags_counted is True
    assert higher.threshold >= lower.threshold
    assert dispositions(higher, told).count(Disposition.below_threshold) == certificate.misses_seen
    assert certificate.misses_seen <= certificate.misses_allowed
    assert any("same questions are asked" in said for said in certificate.assumptions)


def test_the_certificate_counts_what_sent_each_positive_case_up():
    plain = predictions("calibration", 300, 140, ungradable=0.3)
    scored = [case for case in gather_cases(plain) if case.needs_in_person and case.gradable]
    lowest = {case.case_id for case in sorted(scored, key=lambda case: case.logit("max"))[:10]}
    rows = (replace(one, history=BLEEDS if one.case_id in lowest else "") for one in plain.rows)
    table = replace(plain, rows=tuple(rows))
    policy, certificate = certified(
        calibration=table, config=Calibrate(red_flags=RULES, count_red_flags=True)
    )
    routes = certificate.routes
    assert sum(routes.model_dump().values()) == certificate.positives == 140
    found = dispositions(policy, table)
    assert routes.below_threshold == found.count(Disposition.below_threshold) == certificate.misses_seen
    unscored = [case for case in gather_cases(table) if case.needs_in_person and not case.gradable]
    assert routes.not_scored == len(unscored) > 0
    by_flag_alone = [
        case
        for case in gather_cases(table)
        if case.needs_in_person
        and case.gradable
        and decide(policy, case.logits).disposition is Disposition.below_threshold
        and case.history.bleeding
    ]
    assert routes.red_flag == len(by_flag_alone) > 0
    assert routes.score == 140 - len(unscored) - len(by_flag_alone) - routes.below_threshold


def test_red_flags_that_send_every_positive_case_up_are_named_if_no_threshold_exists():
    """All photographs could be scored, and the message said that none could."""
    told = with_histories(predictions("calibration", 300, 140, ungradable=0.0), 1)
    with pytest.raises(CalibrationError, match="red flag that counts"):
        certified(calibration=told, config=Calibrate(red_flags=RULES, count_red_flags=True))


def test_a_flag_that_only_moves_the_band_is_never_counted_as_a_referral():
    table = predictions("calibration", 300, 140)
    worried = with_histories(table, 1, history_to_text(History(patient_worried=True)))
    counted = Calibrate(red_flags=RULES, count_red_flags=True)
    assert certified(calibration=worried, config=counted)[0].threshold == (
        certified(calibration=table, config=counted)[0].threshold
    )


def test_a_yes_on_one_photograph_outweighs_a_no_on_another():
    said = [history_to_text(History(bleeding=answer, diameter_mm=4)) for answer in (False, True)]
    rows = tuple(
        row(f"p{place}", "one", 0.0, True, sex="female", age_approx=61.0, history=text)
        for place, text in enumerate(said)
    )
    table = replace(predictions("calibration", 1, 1), rows=rows)
    (case,) = gather_cases(table)
    assert case.history == History(sex="female", age_years=61, bleeding=True, diameter_mm=4)


def test_a_history_that_no_platform_could_send_is_refused():
    rows = (row("p", "one", 0.0, True, history='{"bleeding": "off"}'),)
    (case,) = gather_cases(replace(predictions("calibration", 1, 1), rows=rows))
    with pytest.raises(PredictionsError, match="bleeding"):
        assert case.history
