"""MAPIE on the same scores: the same theorem, so the same threshold where no rounding is in the way."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from lesion_triage.proof import mapie_comparison

pytest.importorskip("mapie", reason="the comparison with MAPIE was not tested")


@pytest.mark.parametrize("positives", [59, 93, 140, 181, 300])
@pytest.mark.parametrize("target", [0.95, 0.90])
def test_ours_allows_at_least_as_many_misses(positives, target):
    allowed = mapie_comparison.misses_allowed_by_each(positives, target)
    exact = int((binom.cdf(np.arange(positives), positives, 1 - target) <= 0.05).sum()) - 1
    assert allowed.ours == exact
    assert allowed.passed
    assert exact - 1 <= allowed.best <= exact, "its bound is the same, but for rounding"


def test_its_threshold_is_an_order_statistic_also_with_ties():
    scores = np.random.default_rng(3).integers(1, 40, size=140) / 40
    allowed = mapie_comparison.misses_allowed_by_each(140, 0.90)
    for setting, misses in (("recall", allowed.recall), ("miss rate", allowed.miss_rate)):
        assert mapie_comparison.mapie_threshold(scores, 0.90, setting) == np.sort(scores)[misses]


def test_accepting_no_threshold_counts_as_referring_everyone():
    scores = np.linspace(0.01, 0.99, 59)
    assert mapie_comparison.mapie_threshold(scores, 0.95, "as it comes") == -np.inf


def test_on_the_same_draws_neither_breaks_the_promise(pool):
    compared = mapie_comparison.compare(pool, 30, seed=1)
    assert compared.passed
    for run in compared.duels:
        allowed = mapie_comparison.misses_allowed_by_each(run.positives, run.target)
        assert (run.same_threshold == run.draws) is (allowed.best == allowed.ours)


def test_a_peer_that_allows_more_would_be_noticed():
    assert not mapie_comparison.AllowedMisses(300, 0.95, ours=8, recall=9, miss_rate=8).passed
