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
    granted = mapie_comparison.granted(positives, target)
    exact = int((binom.cdf(np.arange(positives), positives, 1 - target) <= 0.05).sum()) - 1
    assert granted.ours == exact
    assert granted.passed
    assert exact - 1 <= granted.best <= exact, "its bound is the same, but for rounding"


def test_its_threshold_is_an_order_statistic_also_with_ties():
    scores = np.random.default_rng(3).integers(1, 40, size=140) / 40
    granted = mapie_comparison.granted(140, 0.90)
    for setting, misses in (("recall", granted.recall), ("miss rate", granted.miss_rate)):
        assert mapie_comparison.mapie_threshold(scores, 0.90, setting) == np.sort(scores)[misses]


def test_accepting_no_threshold_counts_as_referring_everyone():
    scores = np.linspace(0.01, 0.99, 59)
    assert mapie_comparison.mapie_threshold(scores, 0.95, "as it comes") == -np.inf


def test_on_the_same_draws_neither_breaks_the_promise(pool):
    compared = mapie_comparison.compare(pool, 30, seed=1)
    assert compared.passed
    for duel in compared.duels:
        granted = mapie_comparison.granted(duel.positives, duel.target)
        assert (duel.same_threshold == duel.draws) is (granted.best == granted.ours)


def test_a_peer_that_allows_more_would_be_noticed():
    assert not mapie_comparison.Granted(300, 0.95, ours=8, recall=9, miss_rate=8).passed
