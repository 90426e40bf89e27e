"""The whole policy keeps its promise; what leans on a history, or sends the refused away, does not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lesion_triage.calibrate.certificate import certified_threshold
from lesion_triage.proof import whole_policy
from lesion_triage.proof.exact_distributions import agrees, violation_probability
from lesion_triage.proof.whole_policy import referral_shares, whole_policy_trials, with_random_refusals
from proof.test_trials import one_miss_more

DRAWS = 600


@pytest.fixture(scope="module")
def trials(pool):
    return list(whole_policy_trials(pool, DRAWS, seed=1))


@pytest.fixture(scope="module")
def shares(pool):
    return referral_shares(with_random_refusals(pool.cases, 1))


def test_promises_hold_and_negative_controls_break(trials):
    assert len(trials) == 5 * len(whole_policy.SIZES) * len(whole_policy.TARGETS)
    assert {one.expected for one in trials} == {"keeps", "breaks"}
    assert [one.what for one in trials if not one.passed] == []


def test_the_shares_are_those_of_the_exact_law(shares, trials):
    """The policy is one threshold on scores that are +inf for what goes up anyway, so its law is known."""
    away = np.where(np.isfinite(shares.by_score), shares.by_score, -np.inf)
    laws = {
        "whole policy": (shares.by_score, shares.counted),
        "whole policy, no history is sent": (shares.by_score, shares.by_score),
        "whole policy, red flags counted": (shares.counted, shares.counted),
        "red flags counted, then no history is sent": (shares.counted, shares.by_score),
        "refused cases counted, then sent away; no history": (shares.by_score, away),
    }
    for one in trials:
        chance = violation_probability(*laws[one.what], one.positives, one.misses_allowed, one.target)
        assert agrees(one.violations, one.draws, chance), (one.what, one.positives, one.target)


def test_a_rule_that_is_wrong_by_one_miss_is_found_out(pool):
    found = whole_policy_trials(pool, DRAWS, seed=1, rule=one_miss_more)
    smallest = (one for one in found if (one.positives, one.target) == (59, 0.95))
    promised = [one for one in smallest if one.expected == "keeps" and one.what != "whole policy"]
    assert len(promised) == 2
    assert not any(one.passed for one in promised)


def test_refusals_and_answers_are_in_the_cases_that_are_drawn(pool, shares):
    refused = sum(row.logit is None for case in with_random_refusals(pool.cases, 1) for row in case.rows)
    rows = sum(len(case.rows) for case in pool.cases)
    assert refused / rows == pytest.approx(whole_policy.REFUSED, abs=0.05)
    red_flag_mask = np.isposinf(shares.counted) & ~np.isposinf(shares.by_score)
    assert red_flag_mask.mean() == pytest.approx(whole_policy.BLED, abs=0.08)


def test_what_is_sent_up_is_what_the_policy_decides(pool, shares):
    """By an independent road: scores and flags, not ``decide``."""
    for threshold, up, mute, away in zip(
        shares.thresholds[::40],
        shares.sent_up[::40],
        shares.sent_up_without_history[::40],
        shares.sent_up_if_refused_are_not[::40],
        strict=True,
    ):
        assert up == (shares.counted >= threshold).mean()
        assert mute == (shares.by_score >= threshold).mean()
        scored = np.isfinite(shares.by_score)
        assert away == (scored & (shares.by_score >= threshold)).mean()


def test_a_pool_without_refusals_or_answers_is_the_pool_as_it_was(pool, monkeypatch):
    monkeypatch.setattr(whole_policy, "REFUSED", 0.0)
    monkeypatch.setattr(whole_policy, "BLED", 0.0)
    shares = referral_shares(with_random_refusals(pool.cases, 1))
    assert np.array_equal(shares.by_score, pool.scores)
    assert np.array_equal(shares.counted, pool.scores)
    highest = shares.thresholds[-1]
    assert math.isfinite(highest)
    assert certified_threshold(pool.scores, 0.95, 0.95)[0] in shares.thresholds
