"""What the groups cost is told apart from what the red flags do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest

import tiny_bundle as tiny
from histories import flag
from lesion_triage.bundle.document import sha256_of
from lesion_triage.bundle.red_flags import RedFlags
from lesion_triage.bundle.schema import Grouping
from lesion_triage.bundle.store import seal
from lesion_triage.calibrate.decision_analysis import predictive_values_by_bayes
from lesion_triage.config import Evaluate
from lesion_triage.evaluate.results import evaluate
from lesion_triage.predictions import Predictions
from made_predictions import row


def results(folder, alone, **policy):
    """20 positive cases of logit 2; of the others 20 of logit -0.5 bleed, 20 have that logit, 20 have -2."""
    made = tiny.seal_arguments(threshold=0.3, **policy)
    everyone = made["certificate"].groups[0].model_copy(update={"threshold": alone})
    certificate = made["certificate"].model_copy(update={"groups": (everyone,)})
    bundle = seal(folder, **{**made, "certificate": certificate})
    groups = (
        (2.0, True, {}),
        (-0.5, False, {"history": '{"bleeding":true}'}),
        (-0.5, False, {}),
        (-2.0, False, {}),
    )
    rows = [
        row(
            f"{place}-{number}",
            f"{place}-{number}",
            logit,
            positive,
            sex="male" if number % 2 else "",
            **columns,
        )
        for place, (logit, positive, columns) in enumerate(groups)
        for number in range(20)
    ]
    table = Predictions("external", "e" * 64, "f" * 64, sha256_of(tiny.GRAPH), tuple(rows))
    return evaluate(table, bundle, Evaluate(bootstrap_draws=100))


def test_price_of_the_groups_is_counted_with_the_same_red_flags(tmp_path):
    bleeding = RedFlags(flags=(flag({"field": "bleeding", "is": True}, "bleeding"),))
    found = results(tmp_path / "bundle", 0.5, red_flags=bleeding)
    assert found.slices[0].metrics["specificity"].value == pytest.approx(20 / 60)
    assert found.everyone_alone == {
        "threshold": 0.5,
        "sensitivity": 1.0,
        "specificity": pytest.approx(40 / 60),
        "referral_rate": pytest.approx(40 / 80),
    }


def test_price_of_groups_that_are_routed_up_is_told_at_the_same_threshold_too(tmp_path):
    only_men = (Grouping(by="sex", thresholds={"male": 0.3}),)
    assert results(tmp_path / "plain", 0.3).everyone_alone == {}
    found = results(tmp_path / "routed", 0.3, groupings=only_men)
    assert found.slices[0].metrics["specificity"].value == pytest.approx(10 / 60)
    assert found.everyone_alone["specificity"] == pytest.approx(20 / 60)


def test_a_bin_of_the_reliability_diagram_counts_a_patient_once(tmp_path):
    """Forty patients, each with five cases that are alike: in every bin as much as forty cases tell."""

    def bins(folder, copies):
        rows = [
            row(
                f"{person}-{place}",
                f"{person}-{place}",
                (-1.0, 1.0)[person % 2],
                person % 4 == 1,
                unit_id=f"{person}",
            )
            for person in range(40)
            for place in range(copies)
        ]
        table = Predictions("external", "e" * 64, "f" * 64, sha256_of(tiny.GRAPH), tuple(rows))
        found = evaluate(table, tiny.make(folder), Evaluate(bootstrap_draws=100))
        return [(bin_.observed.low, bin_.observed.high) for bin_ in found.reliability]

    once, five = bins(tmp_path / "once", 1), bins(tmp_path / "five", 5)
    assert len(once) == 2
    assert five == [pytest.approx(interval) for interval in once]


def test_predictive_values_are_joined_with_what_drawing_patients_says_of_both_shares(tmp_path):
    """One patient has 40 of 120 positive cases, all referred; of the 80 other patients 8 are referred."""
    rows = [
        *(row(f"a-{n}", f"a-{n}", 2.0, True, unit_id="a") for n in range(40)),
        *(row(f"b-{n}", f"b-{n}", 2.0 if n < 8 else -2.0, True) for n in range(80)),
        *(row(f"c-{n}", f"c-{n}", 2.0 if n < 50 else -2.0, False) for n in range(100)),
    ]
    table = Predictions("external", "e" * 64, "f" * 64, sha256_of(tiny.GRAPH), tuple(rows))
    found = evaluate(table, tiny.make(tmp_path / "bundle"), Evaluate(bootstrap_draws=4000))
    # Among the positive cases of a draw, patient a comes k times and r of the others are referred. The number
    # of these others varies too, as negative cases are drawn with them; its effect is below the tolerance.
    k, r = (part.ravel() for part in np.meshgrid(np.arange(12), np.arange(82)))
    chance = binom.pmf(k, 81, 1 / 81) * binom.pmf(r, 81 - k, 0.1)
    share = (40 * k + r) / (39 * k + 81)
    order = np.argsort(share)
    low = share[order][np.searchsorted(np.cumsum(chance[order]), 0.0125)]
    spared = binomtest(50, 100).proportion_ci(0.975, "exact").low
    for values in found.predictive_values:
        ppv, npv = predictive_values_by_bayes(low, spared, values.prevalence)
        assert values.ppv.low == pytest.approx(float(ppv), rel=0.2)
        assert 1 - values.npv.low == pytest.approx(1 - float(npv), rel=0.02)
