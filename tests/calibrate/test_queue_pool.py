"""The cases as the queue sees them: the policy's own bands, the wished prevalence, scores that are drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

import tiny_bundle as tiny
from lesion_triage.bundle.policy import decide
from lesion_triage.calibrate.queue_pool import ORDERS, Pool, binormal_scores
from lesion_triage.errors import CalibrationError

SCORES = st.one_of(st.just(math.inf), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.floats(0, 1))


def pool_of(scores, positive, threshold=0.5, band_limits=(0.75, 0.5, 0.25), **others):
    return Pool(np.array(scores, float), np.array(positive, bool), threshold, band_limits, **others)


def logit(score):
    return math.log(score) - math.log1p(-score)


@given(
    logits=st.lists(st.none() | st.floats(-30, 30), min_size=2, max_size=20),
    ungradable_band=st.sampled_from([1, 2, 3, 4]),
)
def test_bands_and_flags_are_those_of_the_policy(logits, ungradable_band):
    policy = tiny.policy(threshold=0.4, band_limits=(0.8, 0.5, 0.2), ungradable_band=ungradable_band)
    decisions = [decide(policy, [logit]) for logit in logits]
    pool = pool_of(
        [math.inf if decision.score is None else decision.score for decision in decisions],
        [number == 0 for number in range(len(logits))],
        policy.threshold,
        policy.band_limits,
        ungradable_band=ungradable_band,
    )
    assert pool.bands().tolist() == [decision.priority_band for decision in decisions]
    assert pool.referred.tolist() == [decision.disposition != "below_threshold" for decision in decisions]


@given(scores=st.lists(SCORES, min_size=2, max_size=20))
def test_no_order_lets_a_lower_score_go_before_a_higher_one_or_splits_a_tie(scores):
    pool = pool_of(scores, [number == 0 for number in range(len(scores))])
    for order in ORDERS:
        urgency = pool.urgency(order)
        for one, first in zip(scores, urgency, strict=True):
            for other, second in zip(scores, urgency, strict=True):
                assert first <= second if one >= other else first >= second
                assert first == second if one == other else True


def test_an_abstention_is_flagged_and_stands_first_wherever_there_is_an_order():
    pool = pool_of([0.99, math.inf, 0.1], [True, False, False])
    assert pool.referred.tolist() == [True, True, False]
    assert [int(pool.urgency(order)[1]) for order in ORDERS] == [0, 0, 0, 0]
    assert pool.urgency("score_order").tolist() == [1, 0, 2]


def test_every_case_belongs_to_all_and_to_one_class_and_missed_are_the_positives_below():
    pool = pool_of([0.9, 0.1, math.inf, 0.9, 0.1], [True, True, True, False, False])
    members = {group: mask.tolist() for group, mask in pool.group_masks().items()}
    assert members == {
        "all": [True] * 5,
        "positives": [True, True, True, False, False],
        "referred_positives": [True, False, True, False, False],
        "missed_positives": [False, True, False, False, False],
        "negatives": [False, False, False, True, True],
    }


@given(positive=st.lists(st.booleans(), min_size=2, max_size=30), prevalence=st.floats(0.001, 0.999))
def test_shares_give_the_wished_prevalence_and_treat_equals_equally(positive, prevalence):
    positive[:2] = [True, False]
    pool = pool_of([0.5] * len(positive), positive)
    shares = pool.arrival_probabilities(prevalence)
    assert shares.sum() == pytest.approx(1)
    assert shares[pool.positive].sum() == pytest.approx(prevalence)
    assert np.unique(shares[pool.positive]).size == np.unique(shares[~pool.positive]).size == 1
    assert pool.arrival_probabilities() == pytest.approx(np.full(len(positive), 1 / len(positive)))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"scores": [0.2, math.nan]}, "a score is NaN or outside"),
        ({"scores": [0.2, -0.1]}, "a score is NaN or outside"),
        ({"scores": [0.2, -math.inf]}, "a score is NaN or outside"),
        ({"scores": [0.2]}, "as many scores as outcomes"),
        ({"positive": [False, False]}, "found 0 that need an in-person visit and 2 that do not"),
        ({"positive": [True, True]}, "found 2 that need an in-person visit and 0 that do not"),
        ({"threshold": math.nan}, "the band limits are"),
        ({"threshold": 0.2}, "the last limit at most the threshold"),
        ({"band_limits": (0.3, 0.5, 0.2)}, "numbers in [0, 1] that descend"),
        ({"band_limits": (0.9, math.nan, 0.2)}, "numbers in [0, 1] that descend"),
        ({"ungradable_band": 5}, "expected 1, 2, 3 or 4"),
    ],
)
def test_a_pool_that_cannot_be_used_is_refused_in_one_sentence(changes, sentence):
    with pytest.raises(CalibrationError) as caught:
        pool_of(**{"scores": [0.9, 0.1], "positive": [True, False], **changes})
    assert sentence in str(caught.value)


@pytest.mark.parametrize("prevalence", [0.0, 1.0, -0.1, math.nan])
def test_a_prevalence_that_is_no_share_is_refused(prevalence):
    with pytest.raises(CalibrationError, match="the prevalence is"):
        pool_of([0.9, 0.1], [True, False]).arrival_probabilities(prevalence)


@pytest.mark.parametrize("auroc", [0.7, 0.955])
def test_drawn_scores_have_the_auroc_and_are_calibrated(auroc):
    scores, positive = binormal_scores(auroc, 0.07)
    assert positive.mean() == pytest.approx(0.07)
    # Midpoint quantiles of 1,400 positives: the AUROC is off by the order of one over their number.
    assert roc_auc_score(positive, scores) == pytest.approx(auroc, abs=1 / 1400)
    # Of the cases that score s a share s is positive: by Bayes, from normal densities, not from our formula.
    apart = math.sqrt(2) * norm.ppf(auroc)
    places = np.array([logit(score) - logit(0.07) for score in scores]) / apart
    odds = 0.07 * norm.pdf(places, apart / 2) / (0.93 * norm.pdf(places, -apart / 2))
    assert scores == pytest.approx(odds / (1 + odds))
    assert scores.mean() == pytest.approx(0.07, rel=0.01)


@pytest.mark.parametrize(("auroc", "prevalence"), [(0.5, 0.1), (1.0, 0.1), (math.nan, 0.1), (0.9, 0.0)])
def test_scores_that_cannot_be_drawn_are_refused(auroc, prevalence):
    with pytest.raises(CalibrationError, match="expected an AUROC"):
        binormal_scores(auroc, prevalence)
