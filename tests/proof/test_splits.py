"""Misses on real splits follow their law; misses of a wrong rule do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from lesion_triage.calibrate.certificate import certified_threshold
from lesion_triage.errors import PredictionsError
from lesion_triage.proof.findings import prove
from lesion_triage.proof.splits import law_of_misses, real_splits


def one_miss_more(scores, target, confidence):
    _, allowed, seen = certified_threshold(scores, target, confidence)
    return float(np.sort(scores)[allowed + 1]), allowed, seen


def test_misses_on_the_other_half_follow_the_law(pool):
    found = list(real_splits(pool, 1500, seed=1))
    assert [one.target for one in found] == [0.95, 0.90]
    for one in found:
        assert one.passed
        assert sum(one.seen) == one.splits == 1500
        assert one.total_variation < 3 * one.total_variation_by_chance
        assert sum(one.law) == pytest.approx(1, abs=1e-4)


def test_misses_of_a_rule_that_allows_one_more_do_not(pool):
    assert not any(one.passed for one in real_splits(pool, 1500, 1, one_miss_more))


def test_a_table_that_is_too_small_is_refused_before_any_draw(pool, capsys):
    """Half of 200 positive cases are hardly ever fewer than 59, but they may be."""
    small = replace(pool, cases=pool.cases[:200], scores=pool.scores[:200])
    with pytest.raises(PredictionsError, match=r"takes 59; of 200 only \d+ may be in that half"):
        prove(small, 100, seed=0, with_peer=False)
    assert "calibration sets" not in capsys.readouterr().out


def test_the_law_is_a_law_and_its_mean_is_that_of_the_order_statistic():
    """Each case to come falls below the score of rank k + 1 among n with probability (k + 1) / (n + 1)."""
    assert law_of_misses(280, 560, 0.90).sum() == pytest.approx(1, abs=1e-9)
    # Where all cases are positive each half has 280 of them, for sure.
    certain = law_of_misses(560, 560, 0.90)
    allowed = int((binom.cdf(np.arange(280), 280, 0.1) <= 0.05).sum()) - 1
    assert certain @ np.arange(561) == pytest.approx(280 * (allowed + 1) / 281, rel=1e-9)
