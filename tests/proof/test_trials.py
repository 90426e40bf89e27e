"""Promises are kept, negative controls are not, and a rule that is wrong by one miss is found out."""

from __future__ import annotations

import numpy as np
import pytest

from lesion_triage.bundle.certificate import ALL_UNITS
from lesion_triage.calibrate.certificate import certified_threshold, sensitivity_verdict
from lesion_triage.calibrate.sequential import log_evidence_below, lower_bound
from lesion_triage.proof import clusters, in_use, joint, pool_draws
from lesion_triage.proof.pool_draws import draw, photographs_as_cases, pool_trials
from lesion_triage.proof.trial import Trial, plug_in_threshold

DRAWS = 600


def one_miss_more(scores, target, confidence):
    """The wrong rule: the score of rank k + 2, under the name of the right one."""
    _, allowed, _ = certified_threshold(scores, target, confidence)
    threshold = float(np.sort(scores)[allowed + 1])
    return threshold, allowed, int((scores < threshold).sum())


def named(trials, what):
    return [one for one in trials if one.what.startswith(what)]


@pytest.fixture(scope="module")
def in_the_pool(pool):
    return list(pool_trials(pool, DRAWS, seed=1))


@pytest.fixture(scope="module")
def in_clusters():
    return list(clusters.cluster_trials(DRAWS, seed=1))


@pytest.fixture(scope="module")
def jointly(pool):
    return list(joint.joint_trials(pool, 200, seed=1))


def test_the_certificate_keeps_its_promise_at_every_size_and_target(in_the_pool):
    rows = [one for one in in_the_pool if one.what == "certificate"]
    assert [(one.positives, one.target) for one in rows] == [
        (n, target) for n in pool_draws.SIZES for target in pool_draws.TARGETS
    ]
    assert all(one.passed for one in rows)
    assert all(one.exact <= 0.05 for one in rows)


def test_every_simulated_share_agrees_with_its_exact_probability(in_the_pool, in_clusters):
    rows = [one for one in (*in_the_pool, *in_clusters) if one.exact is not None]
    assert len(rows) == 48
    assert all(one.agrees for one in rows)


def test_an_exact_probability_is_the_limit_of_many_draws(pool):
    size, target = 59, 0.95
    lowest = pool.scores[draw(pool.scores.size, size, 200_000, (5,))].min(axis=1)
    violations = (np.searchsorted(np.sort(pool.scores), lowest) / pool.scores.size > 1 - target + 1e-9).mean()
    (row,) = (
        one
        for one in pool_trials(pool, 100, seed=1)
        if (one.what, one.positives, one.target) == ("certificate", size, target)
    )
    assert violations == pytest.approx(row.exact, abs=4 * np.sqrt(row.exact / 200_000))


@pytest.mark.parametrize(
    "what", ["usual practice", "certificate for all, read for mel", "issued on rosendahl"]
)
def test_a_negative_control_fails_at_every_size(in_the_pool, what):
    rows = named(in_the_pool, what)
    assert len(rows) == 8
    assert all(one.expected == "breaks" and one.share > one.limit and one.passed for one in rows)


def test_photographs_taken_for_cases_break_the_promise_on_real_lesions(pool):
    row = photographs_as_cases(pool, draw(pool.scores.size, 59, 4000, (1,)), certified_threshold, 0.95)
    assert row.passed
    assert row.share > row.limit > 0.05


def test_lesions_taken_for_patients_break_the_promise_and_patients_keep_it(in_clusters):
    rows = {
        expected: [one for one in in_clusters if one.expected == expected] for expected in ("breaks", "keeps")
    }
    assert [len(of_kind) for of_kind in rows.values()] == [8, 8]
    assert all(one.passed for one in in_clusters)


def test_a_rule_that_misses_one_more_is_caught(pool):
    rows = [one for one in pool_trials(pool, DRAWS, 1, one_miss_more) if one.what == "certificate"]
    smallest = [one for one in rows if one.positives in (59, 93)]
    assert not any(one.passed for one in smallest)
    assert all(one.share > one.limit for one in smallest if one.target == 0.95)


def test_a_rule_that_misses_one_more_is_caught_among_patients():
    rows = named(clusters.cluster_trials(DRAWS, 1, one_miss_more), "certificate by patient")
    assert any(one.share > one.limit for one in rows)
    assert not all(one.passed for one in rows)


def test_all_certified_groups_keep_the_promise_together(jointly):
    assert all(one.passed for one in jointly if one.expected == "keeps")
    assert all(one.passed for one in jointly if one.expected == "breaks")
    assert {one.expected for one in jointly} == {"keeps", "breaks"}


def test_a_joint_certificate_costs_specificity_and_more_cases_give_it_back(jointly):
    def specificity(what: str, size: int) -> float:
        return next(
            one.specificity for one in named(jointly, what) if (one.positives, one.target) == (size, 0.95)
        )

    assert specificity("one threshold", 300) < specificity("certificate for all", 300)
    assert specificity("one threshold", 140) < specificity("one threshold", 600)


def test_a_threshold_per_group_serves_only_certified_groups(pool):
    drawn = draw(pool.scores.size, 140, 50, (3,))
    found = joint.certify_draws(pool, drawn, (joint.SEX,), "group_thresholds", 0.95)
    members = joint.group_masks(pool.cases, (joint.SEX,))
    for key, mask in members.items():
        sizes = mask[drawn].sum(axis=1)
        assert np.isnan(found.served[key][sizes < 59]).all(), "59 is the fewest that certify 0.95 at 95 %"
    assert np.isnan(found.served[ALL_UNITS, ALL_UNITS]).all()


def test_looking_after_every_case_misleads_no_more_often_than_promised_and_usual_practice_does(pool):
    trials = list(in_use.in_use_trials(pool, DRAWS, seed=1))
    assert len(trials) == 32
    assert all(one.passed for one in trials)
    assert all(
        one.share > 0 for one in named(trials, "called failing by the evidence") if one.positives == 300
    )


def test_a_miss_that_nobody_looked_for_changes_no_verdict():
    rng = np.random.default_rng(1)
    missed, followed_up = rng.random((40, 120)) < 0.2, rng.random((40, 120)) < 0.5
    alarmed = in_use.ever_alarmed(missed, followed_up, 0.95)
    assert 0 < alarmed.sum() < 40
    for clinic, said in enumerate(alarmed):
        counted = ~missed[clinic] | followed_up[clinic]
        evidence = log_evidence_below(0.95, missed[clinic][counted], np.full(counted.sum(), in_use.SHARE))
        assert said == (evidence.max() >= np.log(20))


def test_verdicts_by_counts_are_those_of_the_tests_they_stand_for():
    rng = np.random.default_rng(2)
    missed, followed_up = rng.random((25, 150)) < 0.04, rng.random((25, 150)) < 0.5
    failed = in_use.ever_failed(missed, 0.95)
    held = in_use.ever_said_to_hold(missed, followed_up, 0.9)
    assert 0 < failed.sum() < 25
    assert 0 < held.sum() < 25
    for clinic in range(25):
        looks = range(1, 151)
        verdicts = [sensitivity_verdict(n, int(missed[clinic, :n].sum()), 0.95, 0.95) for n in looks]
        assert failed[clinic] == ("fails" in verdicts)
        counted = ~missed[clinic] | followed_up[clinic]
        seen = missed[clinic][counted]
        bounds = [lower_bound(0.95, seen[:n], np.full(n, in_use.SHARE)) for n in range(1, seen.size + 1)]
        assert held[clinic] == (max(bounds) >= 0.9)


@pytest.mark.parametrize(
    ("expected", "violations", "exact", "passed"),
    [
        ("keeps", 50, None, True),
        ("keeps", 73, None, True),
        ("keeps", 74, None, False),
        ("keeps", 50, 0.06, False),
        ("keeps", 10, 0.04, False),
        ("breaks", 74, None, True),
        ("breaks", 73, None, False),
        ("breaks", 400, 0.2, False),
        ("shown", 900, None, True),
        ("shown", 900, 0.5, False),
    ],
)
def test_a_row_passes_only_if_it_is_what_it_must_be(expected, violations, exact, passed):
    row = Trial("a rule", expected, 59, 0.95, 0.95, draws=1000, violations=violations, exact=exact)
    assert row.passed is passed


def test_plug_in_threshold_is_the_highest_threshold_that_reaches_the_target():
    scores = np.arange(100) / 100
    threshold, misses, seen = plug_in_threshold(scores, 0.95, 0.95)
    assert (threshold, misses, seen) == (0.05, 5, 5)
    assert (scores >= threshold).mean() == 0.95
