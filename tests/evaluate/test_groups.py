"""Subgroups are told apart as the certificate does, and what it does not cover is not dressed up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import tiny_bundle as tiny
from lesion_triage.bundle.certificate import GroupBy, GroupRow
from lesion_triage.calibrate.cases import gather_cases, positive_mask, unit_indices
from lesion_triage.config import Evaluate
from lesion_triage.evaluate.groups import measure_groups
from lesion_triage.evaluate.slices import Outcomes
from made_predictions import predictions, row

DRAWS = Evaluate(bootstrap_draws=100)


def certificate(*rows, asked=()):
    plain = tiny.certificate_for(tiny.policy())
    return plain.model_copy(update={"groups": (plain.groups[0], *rows), "asked": asked})


def group_row(by, group, members=None, **changes):
    known = {
        "by": by, "group": group, "members": members or (group,), "status": "certified", "positives": 80,
        "positives_abstained": 0, "misses_seen": 0, "misses_allowed": 1, "threshold": 0.4,
        "sensitivity_lower_bound": 0.95, "confidence": 0.95, "minimum_positives": 59,
    }  # fmt: skip
    return GroupRow(**(known | changes))


def small(by, group, positives):
    return group_row(
        by, group, status="not_certifiable", positives=positives, misses_allowed=None, threshold=None,
        sensitivity_lower_bound=None,
    )  # fmt: skip


def measured(columns, document, threshold=0.5, abstained=()):
    """Cases with the given columns, a third of them positive; scores of some skill, if not abstained on."""
    random = np.random.default_rng(0)
    rows = [row(f"i{n}", f"c{n}", 0.0, n % 3 == 0, **one) for n, one in enumerate(columns)]
    cases = gather_cases(replace(predictions("test", 3, 1), rows=tuple(rows)))
    positive = positive_mask(cases)
    scores = np.clip(random.normal(0.4, 0.2, len(rows)) + 0.3 * positive, 0, 1)
    scores[list(abstained)] = np.inf
    outcomes = Outcomes(scores, positive, scores >= threshold, unit_indices(cases))
    return measure_groups(cases, outcomes, document, DRAWS), outcomes


def by_name(found):
    return {(one.by, one.group): one for one in found}


def test_row_of_the_certificate_keeps_its_status_and_its_numbers_are_those_of_its_members():
    columns = [{"sex": ("female", "male")[n % 2]} for n in range(120)]
    document = certificate(group_row("sex", "female"), small("sex", "male", 20), asked=(GroupBy(by="sex"),))
    found, outcomes = measured(columns, document)
    rows = by_name(found)
    female, members = rows["sex", "female"], np.arange(120) % 2 == 0
    truth, scores = outcomes.positive[members], outcomes.scores[members]
    assert (female.status, female.certificate_positives) == ("certified", 80)
    assert female.sensitivity.value == pytest.approx((scores[truth] >= 0.5).mean())
    assert female.specificity.value == pytest.approx((scores[~truth] < 0.5).mean())
    assert female.auroc.value == pytest.approx(roc_auc_score(truth, scores))
    male = rows["sex", "male"]
    assert (male.status, male.certificate_positives, male.minimum_positives) == ("not_certifiable", 20, 59)


def test_group_that_the_certificate_never_saw_is_not_certifiable():
    columns = [{"sex": ("female", "male", "")[n % 3 if n % 2 else 0]} for n in range(150)]
    found, _ = measured(columns, certificate(group_row("sex", "female"), asked=(GroupBy(by="sex"),)))
    rows = by_name(found)
    assert rows["sex", "male"].status == rows["sex", "unknown"].status == "not_certifiable"
    assert rows["sex", "unknown"].certificate_positives == 0
    assert [one.group for one in found if one.by == "sex"][-1] == "unknown"


def test_merged_group_holds_the_cases_of_all_its_members():
    columns = [{"anatom_site_general": ("hand", "foot", "back")[n % 3 if n % 2 else 2]} for n in range(180)]
    merged = group_row("anatom_site_general", "limb", ("foot", "hand"))
    document = certificate(
        merged, group_row("anatom_site_general", "back"), asked=(GroupBy(by="anatom_site_general"),)
    )
    rows = by_name(measured(columns, document)[0])
    hands = sum(one["anatom_site_general"] != "back" for one in columns)
    assert rows["anatom_site_general", "limb"].cases == hands
    assert ("anatom_site_general", "hand") not in rows


def test_unseen_group_is_not_hidden_behind_the_merged_group_that_bears_its_name():
    """V had no positive calibration unit, and VI joined it: the merged row stood twice, and V nowhere."""
    columns = [{"fitzpatrick_skin_type": "V" if n % 4 == 0 else "VI"} for n in range(160)]
    skin = GroupBy(by="fitzpatrick_skin_type", small="merge", parents={"VI": "V"})
    document = certificate(group_row(skin.by, "V", ("VI",)), asked=(skin,))
    found = [one for one in measured(columns, document)[0] if one.by == skin.by]
    assert sorted((one.group, one.status, one.cases) for one in found) == [
        ("V", "certified", 120),
        ("V", "not_certifiable", 40),
    ]


def test_class_without_ten_cases_has_no_number():
    columns = [{"sex": "female" if n < 15 else "male"} for n in range(120)]
    rows = by_name(measured(columns, certificate())[0])
    few = rows["sex", "female"]
    assert (few.cases, few.positives, few.sensitivity, few.auroc) == (15, 5, None, None)
    assert few.specificity.trials == 10
    assert few.status == "not_asked"


def test_share_of_nobody_still_has_a_width():
    columns = [{"sex": ("female", "male")[n % 2]} for n in range(120)]
    rows = by_name(measured(columns, certificate(), threshold=0.0)[0])
    specificity = rows["sex", "male"].specificity
    assert (specificity.value, specificity.low) == (0, 0)
    assert specificity.high == pytest.approx(1 - 0.025 ** (1 / specificity.trials))


def test_bands_of_age_come_by_age_and_a_dimension_of_one_level_is_left_out():
    columns = [{"age_approx": float(20 + n % 60)} for n in range(240)]
    found, _ = measured(columns, certificate())
    bands = [one.group for one in found if one.by == "age_band"]
    assert bands == ["under 30", "30 to 49", "50 to 69", "70 and over"]
    assert not [one for one in found if one.by in ("sex", "source", "fitzpatrick_skin_type")]


def test_the_auroc_takes_ten_cases_of_a_class_with_a_score():
    columns = [{"sex": ("female", "male")[n % 2]} for n in range(120)]
    women = [n for n in range(120) if n % 6 == 0]  # the positive ones
    found, outcomes = measured(columns, certificate(), abstained=women[:11])
    rows, men = by_name(found), np.arange(120) % 2 == 1
    assert (rows["sex", "female"].positives, rows["sex", "female"].auroc) == (20, None)
    expected = roc_auc_score(outcomes.positive[men], outcomes.scores[men])
    assert rows["sex", "male"].auroc.value == pytest.approx(expected)
    assert rows["sex", "female"].sensitivity.trials == 20
