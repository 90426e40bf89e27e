"""A slice holds the cases its name says, and gives no number that it cannot support."""

from __future__ import annotations

import re
from hashlib import sha256

import numpy as np
import pytest

from lesion_triage.calibrate.cases import Case
from lesion_triage.calibrate.metrics import SCORE_METRICS, proportion
from lesion_triage.config import Evaluate
from lesion_triage.evaluate.slices import MINIMUM_PER_CLASS, Outcomes, Slice, measure_slice, slices_of
from made_predictions import row


def case(number, *photographs):
    """``photographs``: (source, confirm type, needs in person) of each."""
    return Case(
        f"case-{number}",
        tuple(
            row(
                f"{number}-{i}", f"case-{number}", 0.0, truth, diagnosis_confirm_type=confirmed, source=source
            )
            for i, (source, confirmed, truth) in enumerate(photographs)
        ),
    )


def members(cases):
    return {part.name: part.members.tolist() for part in slices_of(cases)}


def test_histology_slice_needs_the_photographs_that_decide_the_case():
    cases = (
        case(0, ("a", "histopathology", True), ("a", "", False)),
        case(1, ("a", "histopathology", False), ("a", "", True)),
        case(2, ("a", "histopathology", False), ("a", "histopathology", False)),
        case(3, ("a", "histopathology", False), ("a", "follow_up", False)),
    )
    assert members(cases)["histology_confirmed"] == [True, False, True, False]


def test_molemax_is_left_out_where_it_is_present():
    cases = (
        case(0, ("vidir_molemax", "", False)),
        case(1, ("rosendahl", "", True)),
        case(2, ("rosendahl", "", True), ("vidir_molemax", "", True)),
    )
    found = members(cases)
    assert found["without_vidir_molemax"] == [False, True, False]
    assert found["source_rosendahl"] == [False, True, False]
    assert found["source_vidir_molemax"] == [True, False, False]
    assert "without_vidir_molemax" not in members(cases[1:2])


def test_a_single_source_is_no_slice():
    assert set(members((case(0, ("a", "", True)), case(1, ("a", "", False))))) == {
        "all",
        "histology_confirmed",
    }


def outcomes(scores, positive, referred=None, units=None):
    return Outcomes(
        scores,
        positive,
        scores >= 0.5 if referred is None else referred,
        np.arange(scores.size) if units is None else units,
    )


def test_patients_are_resampled_whole():
    rng = np.random.default_rng(0)
    scores, positive = rng.random(150), rng.random(150) < 0.4
    whole = Slice("all", "All cases", np.ones(150, dtype=bool))
    config = Evaluate(bootstrap_draws=1000)
    once = measure_slice(whole, outcomes(scores, positive), config)
    four = Slice("all", "All cases", np.ones(600, dtype=bool))
    fourfold = outcomes(np.repeat(scores, 4), np.repeat(positive, 4), units=np.repeat(np.arange(150), 4))
    again = measure_slice(four, fourfold, config)
    for name in ("auroc", "specificity"):
        widths = [part.metrics[name].high - part.metrics[name].low for part in (once, again)]
        assert widths[1] == pytest.approx(widths[0], rel=0.15)
    exact, clustered = once.specificity_exact, again.specificity_exact
    assert clustered.high - clustered.low == pytest.approx(exact.high - exact.low, rel=0.3)


def test_every_source_has_a_slice_of_its_own_name():
    names = ["北京", "上海", "Clinic A", "clinic-a", "clinic_a", "Zürich", "", "unknown"]
    cases = tuple(case(number, (name, "", True)) for number, name in enumerate(names))
    slices = {part.title: part.name for part in slices_of(cases) if part.name.startswith("source_")}
    assert len({part.name for part in slices_of(cases)}) == len(names) + 2
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in slices.values())
    # A name that needs no help keeps it, whoever else is there.
    assert (slices["Source clinic_a only"], slices["Source Zürich only"]) == (
        "source_clinic_a",
        "source_z_rich",
    )


def test_a_source_is_called_the_same_in_another_table():
    def name_of(source, *others):
        cases = tuple(case(number, (name, "", True)) for number, name in enumerate((source, *others)))
        return next(part.name for part in slices_of(cases) if part.title == f"Source {source} only")

    assert (
        name_of("北京", "上海")
        == name_of("北京", "广州", "a")
        == f"source_{sha256('北京'.encode()).hexdigest()[:8]}"
    )
    assert name_of("Clinic A", "clinic-a") == name_of("Clinic A", "clinic-a", "b")


def test_two_cases_of_one_patient_widen_the_interval_of_their_own_class_alone():
    """30 of 30 positives, each of a patient of its own; two of the 60 negatives share one."""
    positive = np.arange(90) < 30
    referred = positive | (np.arange(90) >= 70)
    scores = np.where(referred, 0.9, 0.1) + np.linspace(0, 0.05, 90)
    whole = Slice("all", "All cases", np.ones(90, dtype=bool))
    patients = np.minimum(np.arange(90), 88)
    found = measure_slice(
        whole, outcomes(scores, positive, referred, patients), Evaluate(bootstrap_draws=200)
    )
    assert found.sensitivity_exact == proportion(30, 30)
    assert found.specificity_exact != proportion(40, 60)
    assert found.referral_rate_exact != proportion(50, 90)
    for name in ("sensitivity", "npv"):
        estimate = found.metrics[name]
        assert estimate.low < estimate.value == estimate.high == 1.0


def test_a_share_of_all_cases_is_as_exact_as_that_of_a_class():
    """1 of 60 referred: the bootstrap said 0.000 to 0.050, as if more than one in twenty were ruled out."""
    positive = np.arange(60) < 20
    referred = np.arange(60) == 0
    whole = Slice("all", "All cases", np.ones(60, dtype=bool))
    scores = np.where(referred, 0.9, 0.1)
    found = measure_slice(whole, outcomes(scores, positive, referred), Evaluate(bootstrap_draws=2000))
    assert found.referral_rate_exact == found.interval("referral_rate") == proportion(1, 60)
    assert found.referral_rate_exact.high > 0.085
    assert found.interval("sensitivity") == proportion(1, 20)
    assert found.ppv_exact == found.interval("ppv") == proportion(1, 1)
    assert found.npv_exact == found.interval("npv") == proportion(40, 59)


def test_a_predictive_value_near_one_is_not_known_better_than_its_cases_tell():
    """One missed of 30: drawn cases alone covered a true NPV of 0.93 in four of five samples."""
    positive = np.arange(60) < 20
    referred = (np.arange(60) > 0) & (np.arange(60) < 30)
    whole = Slice("all", "All cases", np.ones(60, dtype=bool))
    found = measure_slice(whole, outcomes(referred * 0.9, positive, referred), Evaluate(bootstrap_draws=500))
    assert found.npv_exact == proportion(30, 31)
    assert found.npv_exact.low < 0.84 < found.metrics["npv"].low
    nobody = measure_slice(whole, outcomes(referred * 0.9, positive, ~positive & positive), Evaluate())
    assert nobody.ppv_exact is None
    assert nobody.npv_exact == proportion(40, 60)


def test_decisions_are_those_of_the_policy_where_groups_have_thresholds_of_their_own():
    rng = np.random.default_rng(0)
    scores, positive = rng.random(150), rng.random(150) < 0.4
    referred = (scores >= 0.5) | (np.arange(150) < 30)
    whole = Slice("all", "All cases", np.ones(150, dtype=bool))
    result = measure_slice(whole, outcomes(scores, positive, referred), Evaluate(bootstrap_draws=100))
    assert result.metrics["sensitivity"].value == pytest.approx(referred[positive].mean())
    assert result.sensitivity_exact.successes == referred[positive].sum()


def test_slice_with_too_few_cases_says_so_instead_of_a_number():
    size = 100
    positive = np.arange(size) < MINIMUM_PER_CLASS - 1
    part = Slice("all", "All cases", np.ones(size, dtype=bool))
    result = measure_slice(part, outcomes(np.linspace(0, 1, size), positive), Evaluate(bootstrap_draws=100))
    assert result.metrics == {}
    assert result.sensitivity_exact is None
    assert result.note == (
        "too few cases for numbers: 9 positive and 91 negative, expected at least 10 of each"
    )
    assert (result.cases, result.positives) == (100, 9)


def test_empty_slice_says_so():
    part = Slice("none", "None", np.zeros(5, dtype=bool))
    result = measure_slice(part, outcomes(np.zeros(5), np.ones(5, dtype=bool)), Evaluate(bootstrap_draws=100))
    assert result.note.startswith("too few cases for numbers: 0 positive and 0 negative")


def test_slice_measures_its_members_alone():
    rng = np.random.default_rng(0)
    scores, positive = rng.random(200), rng.random(200) < 0.4
    scores[3] = np.inf
    chosen = np.arange(200) < 100
    config = Evaluate(bootstrap_draws=100)
    whole = np.ones(100, dtype=bool)
    part = measure_slice(Slice("some", "Some", chosen), outcomes(scores, positive), config)
    alone = measure_slice(Slice("some", "Some", whole), outcomes(scores[:100], positive[:100]), config)
    assert part == alone
    assert part.abstained == 1
    assert part.sensitivity_exact.value == np.mean(scores[:100][positive[:100]] >= 0.5)


@pytest.mark.parametrize(("positives", "negatives"), [(9, 40), (40, 9), (4, 0)])
def test_scores_of_fewer_than_ten_cases_of_a_class_are_not_measured_whatever_was_sent_up(
    positives, negatives
):
    """A gate that sends nearly everyone up left four scored cases, all positive: their AUPRC was 1.000."""
    positive = np.arange(200) < 100
    scores = np.full(200, np.inf)
    scores[:positives] = np.linspace(0.5, 0.9, positives)
    scores[100 : 100 + negatives] = np.linspace(0.1, 0.6, negatives)
    whole = Slice("all", "All cases", np.ones(200, dtype=bool))
    found = measure_slice(whole, outcomes(scores, positive), Evaluate(bootstrap_draws=100)).metrics
    assert {name for name, estimate in found.items() if estimate is None} >= set(SCORE_METRICS)
    assert found["sensitivity"].value == 1
