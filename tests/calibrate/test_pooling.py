"""The counts of several sites give one threshold, by an exact law; what cannot be added up is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from lesion_triage.calibrate import pooling
from lesion_triage.calibrate.certificate import allowed_misses, certified_threshold, sensitivity_lower_bound
from lesion_triage.calibrate.pooling import THRESHOLD_GRID, Tally
from lesion_triage.errors import CalibrationError


def counts(site: str, scores: np.ndarray, **changes: object) -> Tally:
    fields = {
        "site": site,
        "counted_at": "2025-01-01T00:00:00Z",
        "unit": "lesion",
        "model_sha256": "a" * 64,
        "scoring_sha256": "b" * 64,
        "cases_sha256": f"{sum(map(ord, site)):064x}",
        "positives": len(scores),
        "positives_abstained": int(np.isinf(scores).sum()),
        "misses": pooling.count_misses(np.asarray(scores, dtype=float)),
    }
    return Tally(**{**fields, **changes})


@given(
    st.lists(st.lists(st.floats(0, 1) | st.just(np.inf), min_size=59, max_size=120), min_size=2, max_size=4),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_pooled_threshold_is_the_highest_of_the_grid_below_the_exact_one(sites, each_site):
    tallies = [counts(f"s{number}", np.array(scores)) for number, scores in enumerate(sites)]
    together = np.concatenate([np.array(scores) for scores in sites])
    allowed = allowed_misses(together.size, 0.95, 0.95)
    try:
        threshold, rows = pooling.pool(tallies, 0.95, 0.95, each_site=each_site)
    except CalibrationError:
        groups = [together, *map(np.array, sites)] if each_site else [together]
        assert any((g < THRESHOLD_GRID[0]).sum() > allowed_misses(g.size, 0.95, 0.95) for g in groups)
        return
    assert (together < threshold).sum() == rows[0].misses_seen <= allowed
    if not each_site:
        higher = [score for score in THRESHOLD_GRID if score > threshold]
        assert not higher or (together < higher[0]).sum() > allowed
    for row, scores in zip(rows[1:], sites, strict=True):
        assert row.misses_seen == (np.array(scores) < threshold).sum()
        assert (row.status == "certified") == each_site
        if each_site:
            assert row.misses_seen <= row.misses_allowed == allowed_misses(len(scores), 0.95, 0.95)


@pytest.mark.parametrize(("target", "each", "needed"), [(0.95, 7, 20), (0.9, 4, 10)])
def test_too_few_for_the_comparison_of_unlike_sites_is_named_as_what_it_is(target, each, needed):
    """At a confidence of 0.5 fourteen or eight positives are enough for one site, and no score is low."""
    sites = [counts(site, np.full(each, 0.9)) for site in ("north", "south")]
    with pytest.raises(CalibrationError, match=f"{2 * each} positive lesions .* takes at least {needed},"):
        pooling.pool(sites, target, 0.5, each_site=False)
    enough = [counts(site, np.full(needed // 2, 0.9)) for site in ("north", "south")]
    threshold, rows = pooling.pool(enough, target, 0.5, each_site=False)
    assert (threshold > 0.89, rows[0].misses_seen) == (True, 0)


@pytest.mark.parametrize(("target", "each"), [(0.95, 17), (0.9, 9), (0.8, 7), (0.95, 37)])
def test_a_certificate_states_no_more_misses_than_the_comparison_of_unlike_sites_grants(target, each):
    """At a confidence of 0.5 a binomial alone would allow one more, and the bound would be of that law."""
    sites = [counts(site, np.linspace(0.1, 0.9, each)) for site in ("north", "south")]
    _, (everyone, *_) = pooling.pool(sites, target, 0.5, each_site=False)
    comparable = round(2 * each * (1 - target), 9) - 1
    assert allowed_misses(2 * each, target, 0.5) > comparable
    assert everyone.misses_seen <= everyone.misses_allowed == int(comparable)
    bound = everyone.sensitivity_lower_bound
    assert target <= bound <= sensitivity_lower_bound(2 * each, everyone.misses_allowed, 0.5)
    assert everyone.misses_allowed <= 2 * each * (1 - bound) - 1 + 1e-9
    assert everyone.minimum_positives == round(1 / (1 - target))


def test_grid_costs_less_than_two_hundredths_of_log_odds():
    rng = np.random.default_rng(0)
    scores = 1 / (1 + np.exp(-rng.normal(0, 2, 400)))
    exact, _, _ = certified_threshold(scores, 0.95, 0.95)
    pooled, _ = pooling.pool(
        [counts("a", scores[:200]), counts("b", scores[200:])], 0.95, 0.95, each_site=False
    )
    assert 0 <= np.log(exact / (1 - exact)) - np.log(pooled / (1 - pooled)) < 0.0201


def test_mean_of_unlike_sites_is_missed_no_oftener_than_promised():
    """Two sites, one much harder: the exact law of the pooled count is a convolution of two binomials."""
    sizes, target = (40, 110), 0.9
    hard = 0.25  # share that the hard site loses; the easy one makes up the rest of the mean
    easy = ((1 - target) * sum(sizes) - hard * sizes[0]) / sizes[1]
    allowed = allowed_misses(sum(sizes), target, 0.95)
    law = np.convolve(
        binom.pmf(np.arange(sizes[0] + 1), sizes[0], hard), binom.pmf(np.arange(sizes[1] + 1), sizes[1], easy)
    )
    assert 0 < law[: allowed + 1].sum() <= binom.cdf(allowed, sum(sizes), 1 - target) <= 0.05


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (counts("a", np.full(80, 0.5), cases_sha256="f" * 64), "'a' were given twice"),
        (
            counts("b", np.full(80, 0.5), cases_sha256=counts("a", np.full(80, 0.5)).cases_sha256),
            "'a' and 'b' counted the same cases",
        ),
        (counts("b\n# c", np.full(80, 0.5)), "not one line of printable characters"),
        (counts("b", np.full(80, 0.5), model_sha256="c" * 64), "model_sha256"),
        (counts("b", np.full(80, 0.5), scoring_sha256="c" * 64), "scoring_sha256"),
        (counts("b", np.full(80, 0.5), unit="patient"), "unit"),
        (counts("b", np.full(80, 0.5), misses=(0,) * 7), "are invalid"),
        (counts("b", np.full(80, 0.5), misses=(5,) * 600 + (4,) * 601), "are invalid"),
        (counts("b", np.full(80, 0.5), positives=79), "are invalid"),
    ],
)
def test_counts_that_cannot_be_added_up_are_refused(second, message):
    with pytest.raises(CalibrationError, match=message):
        pooling.check_tallies([counts("a", np.full(80, 0.5)), second])


def test_too_few_positives_in_all_are_refused():
    said = (
        r"^58 positive lesions of all sites together; .* takes at least 59\. Wait for more, let another site"
    )
    with pytest.raises(CalibrationError, match=said):
        pooling.pool(
            [counts("a", np.full(30, 0.5)), counts("b", np.full(28, 0.5))], 0.95, 0.95, each_site=True
        )
