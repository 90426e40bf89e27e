"""What is certified is what the policy decides; what cannot be certified is refused in one sentence."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_triage.bundle.policy import decide
from lesion_triage.bundle.schema import Disposition
from lesion_triage.config import Calibrate
from lesion_triage.errors import CalibrationError, LesionTriageError, PredictionsError, ScoringError
from made_predictions import MANIFEST, MODEL, SPLITS, TABLE, certified, predictions


def with_row(table, **changes):
    return replace(table, rows=(replace(table.rows[0], **changes), *table.rows[1:]))


@given(
    seed=st.integers(0, 500),
    aggregation=st.sampled_from(["max", "mean"]),
    ungradable=st.sampled_from([0.0, 0.1, 0.6]),
    levels=st.sampled_from([None, 1, 4]),
)
@settings(max_examples=25, deadline=None)
def test_policy_misses_exactly_what_the_certificate_says(seed, aggregation, ungradable, levels):
    table = predictions("calibration", 300, 140, seed=seed, ungradable=ungradable, levels=levels)
    policy, certificate = certified(calibration=table, config=Calibrate(aggregation=aggregation))
    positives = [rows for rows in table.by_case().values() if rows[0].needs_in_person]
    decisions = [decide(policy, [row.logit for row in rows]).disposition for rows in positives]
    assert decisions.count(Disposition.below_threshold) == certificate.misses_seen
    assert decisions.count(Disposition.ungradable) == certificate.positives_abstained
    assert certificate.misses_seen <= certificate.misses_allowed == 2
    assert certificate.positives == 140
    assert certificate.threshold == policy.threshold


def test_certificate_names_everything_it_stands_on():
    policy, certificate = certified()
    assert certificate.manifest_sha256 == MANIFEST
    assert certificate.splits_sha256 == SPLITS
    assert certificate.model_sha256 == MODEL
    assert certificate.predictions_sha256 == TABLE
    assert certificate.policy_sha256 == policy.sha256()
    assert certificate.aggregation == policy.aggregation
    assert certificate.sensitivity_lower_bound >= certificate.target_sensitivity
    assert any("lesion" in sentence for sentence in certificate.assumptions)


def test_unit_is_said_in_the_assumptions():
    assert certified(unit="patient")[1].unit == "patient"
    assert any("The unit is the patient" in said for said in certified(unit="patient")[1].assumptions)


def test_lesions_without_a_patient_are_said_beside_the_unit():
    said = certified(unit="patient", unnamed_lesions=1)[1].assumptions
    place = next(number for number, one in enumerate(said) if "The unit is the patient" in one)
    assert said[place + 1].startswith("1 lesion names no patient and counts as a patient")


def test_calibrator_sees_validation_cases_alone():
    first, _ = certified()
    second, _ = certified(calibration=predictions("calibration", seed=9))
    assert first.calibrator == second.calibrator
    assert first.threshold != second.threshold


@pytest.mark.parametrize(("refused", "words"), [(True, "need an in-person visit"), (False, "need none")])
def test_a_gate_that_refuses_a_whole_class_is_named_and_not_the_size_of_the_split(refused, words):
    table = predictions("validation", 40, 10, ungradable=0.0)
    rows = [
        replace(row, logit=None, novelty=None, quality_codes="image_too_dark image_too_small")
        if row.needs_in_person is refused
        else row
        for row in table.rows
    ]
    dark = sum(row.logit is None for row in rows)
    said = (
        rf"no photograph .* of the {10 if refused else 30} cases .* that {words} \(.*image_too_dark {dark}, "
    )
    with pytest.raises(CalibrationError, match=said) as caught:
        certified(validation=replace(table, rows=tuple(rows)))
    assert "look at these photographs" in str(caught.value)
    assert "enlarge" not in str(caught.value)


def test_threshold_and_bands_see_calibration_cases_alone():
    table = predictions("validation", seed=9)
    assert certified(validation=table)[0].calibrator != certified()[0].calibrator
    referred = [
        {
            case
            for case, rows in predictions("calibration").by_case().items()
            if decide(policy, [row.logit for row in rows]).disposition is Disposition.needs_in_person
        }
        for policy in (certified()[0], certified(validation=table)[0])
    ]
    assert referred[0] == referred[1]


def test_case_is_positive_if_any_photograph_is():
    table = predictions("calibration", positives=59, ungradable=0.0)
    first = table.rows[0].case_id
    rows = list(table.rows)
    rows.append(replace(rows[0], image_id="extra", needs_in_person=False))
    assert certified(calibration=replace(table, rows=tuple(rows)))[1].positives == 59
    assert sum(row.case_id == first for row in rows) > 1


def test_bands_hold_their_shares_of_the_scored_cases():
    table = predictions("calibration", 1000, 300, ungradable=0.0)
    policy, _ = certified(calibration=table)
    bands = [decide(policy, [row.logit for row in rows]).priority_band for rows in table.by_case().values()]
    assert bands.count(1) == 100
    assert bands.count(2) == 250


def test_no_referred_case_waits_in_the_last_band():
    table = predictions("calibration", 1000, 300)
    policy, _ = certified(calibration=table)
    for rows in table.by_case().values():
        decision = decide(policy, [row.logit for row in rows])
        assert decision.disposition is Disposition.below_threshold or decision.priority_band < 4


def test_too_few_positives_are_refused_with_the_number_it_takes():
    with pytest.raises(CalibrationError) as caught:
        certified(calibration=predictions("calibration", positives=41))
    assert str(caught.value) == (
        "41 lesions in split 'calibration' need an in-person visit; certifying sensitivity 0.95 at "
        "confidence 0.95 takes at least 59. Enlarge the split or lower calibrate.target_sensitivity."
    )


def test_one_positive_is_spoken_of_in_the_singular():
    with pytest.raises(CalibrationError, match=r"^1 patient in split 'calibration' needs an in-person visit"):
        certified(calibration=predictions("calibration", positives=1), unit="patient")


def test_case_in_both_splits_is_refused():
    table = with_row(predictions("calibration"), case_id="validation-3", unit_id="validation-3")
    with pytest.raises(CalibrationError, match="1 cases are in both"):
        certified(calibration=table)


def test_patient_in_both_splits_is_refused():
    table = predictions("calibration")
    rows = [replace(r, unit_id="validation-3") if r.case_id == "calibration-0" else r for r in table.rows]
    with pytest.raises(CalibrationError, match="1 patients or lesions are in both"):
        certified(calibration=replace(table, rows=tuple(rows)))


def test_case_of_two_patients_is_refused():
    table = predictions("calibration", ungradable=0.0)
    rows = [replace(r, unit_id=r.image_id) if r.case_id == "calibration-0" else r for r in table.rows]
    if len({r.unit_id for r in rows if r.case_id == "calibration-0"}) == 1:
        rows.append(replace(rows[0], image_id="extra", unit_id="another"))
    with pytest.raises(PredictionsError, match="its case has another unit_id in an earlier line"):
        certified(calibration=replace(table, rows=tuple(rows)))


@pytest.mark.parametrize("name", ["manifest_sha256", "splits_sha256", "model_sha256"])
def test_tables_of_different_origin_are_refused(name):
    with pytest.raises(CalibrationError, match=name.removesuffix("s_sha256").removesuffix("_sha256")):
        certified(validation=replace(predictions("validation"), **{name: "e" * 64}))


@pytest.mark.parametrize("split", ["test", "train", "validation"])
def test_no_other_split_can_certify(split):
    with pytest.raises(CalibrationError, match="expected the predictions of split 'calibration'"):
        certified(calibration=predictions(split))


@pytest.mark.parametrize("split", ["validation", "calibration"])
def test_unknown_outcome_is_refused(split):
    table = with_row(predictions(split), needs_in_person=None)
    with pytest.raises(PredictionsError, match=f"'{split}', line 2: needs_in_person is unknown"):
        certified(**{split: table})


def test_photograph_that_stands_twice_is_refused():
    table = predictions("calibration")
    with pytest.raises(PredictionsError, match="has the image_id of line 2"):
        certified(calibration=replace(table, rows=(*table.rows, table.rows[0])))


def test_empty_table_is_refused():
    with pytest.raises(PredictionsError, match="at least one row"):
        certified(calibration=replace(predictions("calibration"), rows=()))


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("split", ["validation", "calibration"])
def test_logit_that_is_no_number_is_refused(split, logit):
    with pytest.raises(ScoringError):
        certified(**{split: with_row(predictions(split, ungradable=0.0), logit=logit)})


def test_all_ungradable_is_refused():
    with pytest.raises(CalibrationError, match="could be scored"):
        certified(calibration=predictions("calibration", ungradable=1.1))
    with pytest.raises(LesionTriageError, match="both classes"):
        certified(validation=predictions("validation", ungradable=1.1))
