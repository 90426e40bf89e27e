"""Evidence that may be looked at after every outcome: by enumeration, by another formula, by simulation."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from lesion_triage.calibrate.sequential import (
    _LOG_MULTIPLES,
    EvidenceBelow,
    estimate,
    log_evidence_below,
    lower_bound,
)
from lesion_triage.errors import CalibrationError

ALARM = math.log(20)
SHARES = st.sampled_from([0.05, 0.1, 0.5, 1.0])


@st.composite
def histories(draw, most=60):
    size = draw(st.integers(1, most))
    missed = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    share = draw(st.lists(SHARES, min_size=size, max_size=size))
    return np.array(missed), np.array(share)


def follow_up(rng, sensitivity, share, positives):
    """Positive cases as a clinic comes to know them: all referred ones, and the drawn ones of the missed."""
    missed = rng.random(positives) >= sensitivity
    known = ~missed | (rng.random(positives) < share)
    return missed[known], np.full(np.count_nonzero(known), share)


def spread(outcomes, share):
    return np.array(outcomes, dtype=bool), np.full(len(outcomes), share)


@pytest.mark.parametrize("share", [1.0, 0.2])
@pytest.mark.parametrize("target", [0.9, 0.95])
def test_mean_evidence_is_one_where_the_sensitivity_is_the_target(target, share):
    """Over all histories of ten counted cases, each with its probability: exactly, not by simulation."""
    miss = share * (1 - target) / (share * (1 - target) + target)
    total = 0.0
    for outcomes in product([False, True], repeat=10):
        probability = math.prod(miss if one else 1 - miss for one in outcomes)
        total += probability * math.exp(log_evidence_below(target, *spread(outcomes, share))[-1])
    assert total == pytest.approx(1, abs=1e-12)


@given(histories(most=25))
def test_evidence_is_the_mean_over_starts_and_multiples(history):
    missed, share = history
    odds, multiples = 0.05 / 0.95, np.exp(_LOG_MULTIPLES)
    evidence = 1 / math.sqrt(len(missed) + 1)  # of the starts that are still to come
    for start in range(len(missed)):
        weight = 1 / math.sqrt(start + 1) - 1 / math.sqrt(start + 2)
        ratios = [
            (m if is_missed else 1) * (1 + s * odds) / (1 + m * s * odds)
            for m in multiples
            for is_missed, s in zip(missed[start:], share[start:], strict=True)
        ]
        products = np.array(ratios).reshape(len(multiples), -1).prod(axis=1)
        evidence += weight * products.mean()
    assert math.exp(log_evidence_below(0.95, missed, share)[-1]) == pytest.approx(evidence, rel=1e-9)


@pytest.mark.parametrize("share", [1.0, 0.2])
def test_alarm_is_false_no_more_often_than_promised_however_often_one_looks(share):
    """Looks after every one of 400 counted cases at exactly the target; 2,000 clinics."""
    rng = np.random.default_rng(1)
    missed = np.array([follow_up(rng, 0.95, share, 500)[0][:400] for _ in range(2000)])
    evidence, alarmed = EvidenceBelow(0.95, 2000), np.zeros(2000, dtype=bool)
    for case in missed.T:
        alarmed |= evidence.add(case, np.full(2000, share)) >= ALARM
    assert 0 < np.count_nonzero(alarmed) <= binom.ppf(0.999, 2000, 0.05)


def test_exact_binomial_test_at_every_look_gives_many_more_false_alarms():
    """What the evidence is for: the test that is exact for one look, made after each of 400 such cases."""
    rng = np.random.default_rng(1)
    missed = np.array([follow_up(rng, 0.95, 1.0, 400)[0] for _ in range(500)])
    p_values = binom.sf(missed.cumsum(axis=1) - 1, np.arange(1, 401), 0.05)
    assert np.count_nonzero((p_values <= 0.05).any(axis=1)) > 3 * binom.ppf(0.999, 500, 0.05)


def test_fall_is_noticed_although_it_comes_after_a_long_good_time():
    rng = np.random.default_rng(2)
    delays = []
    for _ in range(100):
        before, _ = follow_up(rng, 0.98, 1.0, 400)
        after, _ = follow_up(rng, 0.75, 1.0, 200)
        evidence = log_evidence_below(0.95, np.append(before, after), np.ones(before.size + after.size))
        alarmed = np.flatnonzero(evidence >= ALARM)
        delays.append(alarmed[0] - before.size if alarmed.size else math.inf)
    assert np.median(delays) < 60
    assert max(delays) < math.inf


@given(histories(), st.integers(0, 59))
def test_a_miss_more_never_lowers_the_evidence_nor_raises_the_bound(history, which):
    missed, share = history
    more = missed.copy()
    more[which % missed.size] = True
    assert log_evidence_below(0.95, more, share)[-1] >= log_evidence_below(0.95, missed, share)[-1] - 1e-9
    assert lower_bound(0.95, more, share) <= lower_bound(0.95, missed, share) + 1e-9


@given(st.integers(1, 100), st.integers(0, 100))
def test_cases_of_a_time_without_follow_up_say_nothing(known, unknown):
    missed, share = spread([False] * known, 1.0)
    silent = np.append(share, np.zeros(unknown))
    longer = np.append(missed, np.zeros(unknown, dtype=bool))
    assert lower_bound(0.95, longer, silent) == pytest.approx(lower_bound(0.95, missed, share))
    assert estimate(longer, silent) == estimate(missed, share)
    assert lower_bound(0.95, longer, np.zeros(longer.size)) == 0


@pytest.mark.parametrize("share", [1.0, 0.2])
def test_bound_is_above_the_truth_no_more_often_than_promised_however_often_one_looks(share):
    """Ten looks each, chosen by nobody's wish; 300 clinics."""
    rng = np.random.default_rng(3)
    too_high = 0
    for _ in range(300):
        missed, shares = follow_up(rng, 0.9, share, 500)
        looks = range(missed.size // 10, missed.size, missed.size // 10)
        too_high += any(lower_bound(0.95, missed[:look], shares[:look]) > 0.9 for look in looks)
    assert too_high <= binom.ppf(0.999, 300, 0.05)


def test_bound_is_where_the_evidence_against_the_odds_becomes_enough():
    missed, share = spread([True] + [False] * 149, 1.0)
    bound = lower_bound(0.95, missed, share)
    odds, multiples = (1 - bound) / bound, np.exp(-_LOG_MULTIPLES)
    ratios = multiples * ((1 + odds) / (1 + multiples * odds)) ** 150
    assert ratios.mean() == pytest.approx(20, rel=1e-9)
    assert 0.93 < bound < 149 / 150


def test_bound_of_many_shares_is_where_the_product_over_the_cases_becomes_enough():
    """A share for each case, as where they depend on something known at arrival."""
    rng = np.random.default_rng(6)
    missed, share = rng.random(400) < 0.02, rng.uniform(0.1, 1, 400)
    bound = lower_bound(0.95, missed, share)
    multiples = np.exp(-_LOG_MULTIPLES)
    odds = share[:, np.newaxis] * (1 - bound) / bound
    ratios = np.where(missed[:, np.newaxis], multiples, 1) * (1 + odds) / (1 + multiples * odds)
    assert ratios.prod(axis=0).mean() == pytest.approx(20, rel=1e-9)
    assert 0.9 < bound < 0.98


def test_any_time_costs_something_against_one_look_and_not_everything():
    """At 150 cases without a miss one look would give 0.98."""
    one_look = 0.05 ** (1 / 150)
    at_any_time = lower_bound(0.95, *spread([False] * 150, 1.0))
    assert 0.96 < at_any_time < one_look


@given(SHARES, st.integers(1, 40), st.integers(1, 40))
def test_estimate_counts_a_drawn_miss_for_those_that_were_not_drawn(share, referred, misses):
    missed, shares = spread([False] * referred + [True] * misses, share)
    assert estimate(missed, shares) == pytest.approx(referred / (referred + misses / share))


def test_estimate_is_right_on_average():
    rng = np.random.default_rng(4)
    estimates = [estimate(*follow_up(rng, 0.85, 0.25, 4000)) for _ in range(200)]
    assert np.mean(estimates) == pytest.approx(0.85, abs=0.003)


def test_long_histories_neither_overflow_nor_vanish():
    bad, good = spread([True] * 5000, 1.0), spread([False] * 20000, 1.0)
    assert np.isfinite(log_evidence_below(0.95, *bad)).all()
    assert np.isfinite(log_evidence_below(0.95, *good)).all()
    assert lower_bound(0.95, *bad) < 1e-6
    assert lower_bound(0.95, *good) > 0.999


def test_nothing_is_said_of_no_cases():
    none = (np.zeros(0, dtype=bool), np.zeros(0))
    assert log_evidence_below(0.95, *none).size == 0
    assert lower_bound(0.95, *none) == 0
    assert estimate(*none) is None


@pytest.mark.parametrize(
    ("missed", "share"),
    [([True], [0.0]), ([False], [1.5]), ([False], [-0.1]), ([False], [math.nan]), ([False, True], [1.0])],
)
def test_cases_that_cannot_be_are_refused(missed, share):
    for ask in (
        lambda *cases: log_evidence_below(0.95, *cases),
        lambda *cases: lower_bound(0.95, *cases),
        estimate,
    ):
        with pytest.raises(CalibrationError):
            ask(np.array(missed), np.array(share))


@pytest.mark.parametrize("share", [0.0, 1.0, math.nan])
def test_target_and_confidence_are_between_0_and_1(share):
    with pytest.raises(CalibrationError):
        log_evidence_below(share, *spread([True], 1.0))
    with pytest.raises(CalibrationError):
        lower_bound(share, *spread([True], 1.0))
