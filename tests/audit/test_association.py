from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import fisher_exact, hypergeom

from lesion_triage.audit.association import associations, holm_adjust
from lesion_triage.audit.findings import Verdict
from lesion_triage.config import Audit


def _rows(yes_positive, positives, yes_negative, negatives):
    label = np.repeat([True, False], [positives, negatives])
    present = np.concatenate([np.arange(positives) < yes_positive, np.arange(negatives) < yes_negative])
    return present, label


def test_the_p_value_is_fishers_by_the_hypergeometric_law():
    present, label = _rows(8, 10, 3, 15)
    (found,) = associations({"x": present}, label)
    law = hypergeom(25, 10, 11).pmf(np.arange(12))
    assert found.p_value == pytest.approx(law[law <= law[8] * (1 + 1e-9)].sum())


def test_the_odds_ratio_and_its_interval_follow_the_formula_of_haldane_and_anscombe():
    present, label = _rows(8, 10, 3, 15)
    (found,) = associations({"x": present}, label)
    expected = 8.5 * 12.5 / 2.5 / 3.5
    half = 1.959964 * math.sqrt(1 / 8.5 + 1 / 12.5 + 1 / 2.5 + 1 / 3.5)
    value, low, high = found.odds_ratio()
    assert value == pytest.approx(expected)
    assert low == pytest.approx(expected * math.exp(-half), rel=1e-5)
    assert high == pytest.approx(expected * math.exp(half), rel=1e-5)


def test_holm_agrees_with_its_definition():
    # Holm (1979): the smallest times m, the next times m - 1, never falling, at most 1.
    assert holm_adjust(np.array([0.04, 0.01, 0.03])).tolist() == pytest.approx([0.06, 0.03, 0.06])
    assert holm_adjust(np.array([0.6, 0.7])).tolist() == pytest.approx([1.0, 1.0])


def test_columns_with_the_same_gaps_are_one_test_and_all_are_named():
    present, label = _rows(0, 100, 60, 100)
    other = np.random.default_rng(0).random(200) < 0.5
    found = associations({"a": present, "b": present.copy(), "c": other}, label)
    assert found[0].names == ("a", "b")
    assert found[0].p_value == pytest.approx(2 * fisher_exact([[0, 100], [60, 40]]).pvalue)


def test_what_is_always_or_never_there_is_no_test():
    label = np.arange(20) < 5
    assert associations({"always": np.ones(20, bool), "never": np.zeros(20, bool)}, label) == []


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ((0, 170, 163, 256), Verdict.FAIL),  # the gaps of PAD-UFES-20, in one direction
        ((163, 256, 0, 170), Verdict.FAIL),
        ((80, 200, 30, 200), Verdict.WARN),
        ((31, 200, 30, 200), Verdict.PASS),
        ((12_000, 100_000, 10_000, 100_000), Verdict.PASS),  # sure, and too small to matter
        ((200, 20_000, 1, 20_000), Verdict.WARN),  # strong, and too rare to carry a model
    ],
)
def test_a_verdict_takes_significance_and_size(counts, verdict):
    present, label = _rows(*counts)
    (found,) = associations({"x": present}, label)
    assert found.verdict(Audit()) is verdict


def test_a_family_of_null_tests_warns_no_more_often_than_promised():
    random, config, warned, families = (
        np.random.default_rng(3),
        Audit(false_alarm=0.05, warn_odds_ratio=1.0),
        0,
        300,
    )
    for _ in range(families):
        label = random.random(120) < 0.4
        properties = {str(n): random.random(120) < share for n, share in enumerate((0.05, 0.1, 0.3, 0.5))}
        warned += any(one.verdict(config) is not Verdict.PASS for one in associations(properties, label))
    # 0.05 plus three standard errors of 300 families
    assert warned / families <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / families)
