"""The baseline without pictures is scikit-learn's regression on the training split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import OneHotEncoder

from lesion_triage.calibrate.cases import gather_cases, positive_mask, unit_indices
from lesion_triage.config import Evaluate
from lesion_triage.data.records import Record
from lesion_triage.evaluate.metadata_baseline import measure_metadata
from lesion_triage.evaluate.slices import Outcomes
from made_predictions import predictions, row

DRAWS = Evaluate(bootstrap_draws=200)
SITES = ("back", "hand", "face")


def table(seed, size):
    """Sex, site, source and label; the source tells a lot, sex and site a little."""
    random = np.random.default_rng(seed)
    positive = random.random(size) < 0.35
    sex = np.where(random.random(size) < 0.5 + 0.15 * positive, "male", "female")
    site = np.array(SITES)[(random.random(size) * (2 + positive)).astype(int)]
    source = np.where(random.random(size) < 0.5 + 0.4 * positive, "clinic", "screening")
    return positive, np.stack([sex, site, source], axis=1)


def records(positive, columns):
    return [
        Record(
            image_id=f"t{n}", path="x", lesion_id=f"t{n}", needs_in_person=bool(positive[n]), sex=sex,
            anatom_site_general=site, source=source, sha256="a" * 64, width_px=9, height_px=9,
        )
        for n, (sex, site, source) in enumerate(columns.tolist())
    ]  # fmt: skip


def measured(training, positive, columns, scores):
    rows = tuple(
        row(f"i{n}", f"c{n}", 0.0, bool(positive[n]), sex=sex, anatom_site_general=site, source=source)
        for n, (sex, site, source) in enumerate(columns.tolist())
    )
    cases = gather_cases(replace(predictions("test", 3, 1), rows=rows))
    outcomes = Outcomes(scores, positive_mask(cases), scores >= 0.5, unit_indices(cases))
    return measure_metadata(training, cases, outcomes, DRAWS)


def test_baseline_is_a_regression_on_one_row_for_each_training_lesion():
    learnt, told = table(0, 400)
    positive, columns = table(1, 300)
    scores = np.random.default_rng(2).random(300) * 0.5 + 0.5 * positive
    found = measured(records(learnt, told), positive, columns, scores)
    for one, width in zip(found, (2, 3), strict=True):
        encoder = OneHotEncoder().fit(told[:, :width])
        model = LogisticRegression(max_iter=1000).fit(encoder.transform(told[:, :width]), learnt)
        expected = roc_auc_score(positive, model.predict_proba(encoder.transform(columns[:, :width]))[:, 1])
        assert one.auroc.value == pytest.approx(expected, abs=2e-3)
        assert one.model_auroc.value == pytest.approx(roc_auc_score(positive, scores))
        assert one.difference.value == pytest.approx(one.model_auroc.value - one.auroc.value)
        assert one.difference.low <= one.difference.value <= one.difference.high
    assert found[1].auroc.value > found[0].auroc.value + 0.05
    assert (found[0].training_cases, found[0].training_positives) == (400, learnt.sum())


def test_word_that_training_never_had_is_no_error():
    learnt, told = table(0, 200)
    positive, columns = table(1, 100)
    columns = columns.astype("<U20")
    columns[:5, 1] = "somewhere else"
    encoder = OneHotEncoder(handle_unknown="ignore").fit(told[:, :2])
    model = LogisticRegression(max_iter=1000).fit(encoder.transform(told[:, :2]), learnt)
    expected = roc_auc_score(positive, model.predict_proba(encoder.transform(columns[:, :2]))[:, 1])
    found = measured(records(learnt, told), positive, columns, np.full(100, 0.5))[0]
    assert found.auroc.value == pytest.approx(expected, abs=2e-3)


def test_cases_without_a_score_are_left_out_of_both():
    learnt, told = table(0, 200)
    positive, columns = table(1, 100)
    scores = np.where(np.arange(100) < 30, np.inf, 0.5)
    assert measured(records(learnt, told), positive, columns, scores)[0].cases == 70


def test_too_few_cases_give_no_baseline():
    learnt, told = table(0, 20)
    positive, columns = table(1, 100)
    assert measured(records(learnt, told), positive, columns, np.full(100, 0.5)) == ()
