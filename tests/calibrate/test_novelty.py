"""Distance and limit of the novelty gate, against formulas and an implementation of scipy's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import mahalanobis
from sklearn.preprocessing import normalize

from lesion_triage.bundle.certificate import Certificate
from lesion_triage.bundle.policy import decide
from lesion_triage.bundle.schema import Disposition
from lesion_triage.calibrate.novelty import SHRINKAGE, fit_novelty_model, novelty_limit
from lesion_triage.config import Calibrate
from lesion_triage.errors import CalibrationError
from lesion_triage.predictions import Predictions
from made_predictions import certified, predictions, row


def levels(photographs: int = 400, channels: int = 5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(channels, channels))
    return (rng.normal(size=(photographs, channels)) @ mixing + 3).astype(np.float32)


def test_novelty_is_the_squared_mahalanobis_distance_over_the_number_of_channels() -> None:
    training, others = levels(), levels(20, seed=1)
    directions = normalize(training.astype(np.float64))
    mean, spread = directions.mean(axis=0), directions.std(axis=0)
    shrunk = (1 - SHRINKAGE) * np.corrcoef(directions.T) + SHRINKAGE * np.eye(5)
    inverse = np.linalg.inv(shrunk * np.outer(spread, spread))
    expected = [mahalanobis(other, mean, inverse) ** 2 / 5 for other in normalize(others.astype(np.float64))]
    assert fit_novelty_model(training).novelty(others) == pytest.approx(expected, rel=1e-6)


def test_training_photographs_have_a_novelty_of_about_one_on_average() -> None:
    training = levels()
    assert fit_novelty_model(training).novelty(training).mean() == pytest.approx(1.0, abs=0.05)


def test_the_length_of_all_channels_together_does_not_matter() -> None:
    novelty_model, others = fit_novelty_model(levels()), levels(20, seed=1)
    assert novelty_model.novelty(others * np.float32(4)) == pytest.approx(
        novelty_model.novelty(others), rel=1e-9
    )


def test_fewer_photographs_than_channels_and_a_channel_that_never_moves_still_give_numbers() -> None:
    training = levels(photographs=10, channels=40)
    training[:, 7] = 0.0
    novelty = fit_novelty_model(training).novelty(levels(5, channels=40, seed=1))
    assert np.isfinite(novelty).all()


def test_noise_in_a_channel_that_never_moved_is_no_novelty() -> None:
    training = levels()
    training[:, 2] = 0.25
    moved = training.copy()
    moved[:, 2] += 1e-6
    novelty_model = fit_novelty_model(training)
    assert novelty_model.novelty(moved) == pytest.approx(novelty_model.novelty(training), abs=1e-3)


@pytest.mark.parametrize(
    "training",
    [np.ones((30, 4), np.float32), levels(1), np.full((30, 4), np.nan, np.float32)],
    ids=["alike", "one photograph", "no numbers"],
)
def test_what_cannot_be_fitted_is_refused(training: np.ndarray) -> None:
    with pytest.raises(CalibrationError, match="novelty gate"):
        fit_novelty_model(training)


def with_novelties(values, split="validation"):
    rows = [replace(row(str(n), str(n), 0.0, False), novelty=float(v)) for n, v in enumerate(values)]
    return Predictions(split, "a" * 64, "b" * 64, "c" * 64, tuple(rows))


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=300),
    st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.25, 0.49]),
)
def test_the_limit_sends_up_at_most_the_share_and_is_the_lowest_that_does(values, share) -> None:
    limit = novelty_limit(with_novelties(values), share)
    assert limit is not None
    found = np.array(values, dtype=np.float64)
    assert np.count_nonzero(found >= limit) <= share * found.size + 1e-6
    lower = found[found < limit]
    if lower.size:
        assert np.count_nonzero(found >= lower.max()) > share * found.size


def test_share_nought_switches_the_gate_off() -> None:
    assert novelty_limit(with_novelties(range(50)), 0.0) is None
    policy, _ = certified(config=Calibrate(novelty_share=0.0))
    assert policy.novelty_limit is None


def test_refused_photographs_have_no_say_in_the_limit() -> None:
    table = with_novelties(range(1, 101))
    dark = replace(table.rows[99], logit=None, novelty=None, quality_codes="image_too_dark")
    assert novelty_limit(replace(table, rows=(*table.rows[:99], dark)), 0.02) == 99.0


def test_photographs_without_a_novelty_are_refused_unless_the_gate_is_off() -> None:
    table = with_novelties(range(1, 101))
    rows = (replace(table.rows[0], novelty=None), *table.rows[1:])
    with pytest.raises(CalibrationError, match="predict again"):
        novelty_limit(replace(table, rows=rows), 0.01)


# The certificate covers the gate


def gated() -> tuple:
    """Validation novelties of 1 to n; every tenth positive calibration case is far, and scores low."""
    validation = predictions("validation", ungradable=0.0)
    validation = replace(
        validation,
        rows=tuple(replace(each, novelty=float(n)) for n, each in enumerate(validation.rows, start=1)),
    )
    calibration = predictions("calibration", ungradable=0.0)
    rows = []
    for each in calibration.rows:
        case = int(each.case_id.split("-")[1])
        far = case < 100 and case % 10 == 0
        rows.append(replace(each, novelty=1e6 if far else 0.5, logit=-9.0 if far else each.logit))
    return validation, replace(calibration, rows=tuple(rows))


def issued() -> tuple:
    validation, calibration = gated()
    policy, certificate = certified(validation=validation, calibration=calibration)
    return policy, certificate, calibration


def test_the_limit_comes_from_validation_alone() -> None:
    validation, _ = gated()
    policy, _, _ = issued()
    assert policy.novelty_limit == novelty_limit(validation, Calibrate().novelty_share)
    allowed = int(0.01 * len(validation.rows))
    assert policy.novelty_limit == len(validation.rows) - allowed + 1


def test_positives_that_the_gate_sends_up_count_as_abstained_and_not_as_missed() -> None:
    policy, certificate, calibration = issued()
    assert isinstance(certificate, Certificate)
    assert certificate.positives_abstained == 10
    off, without = certified(
        validation=gated()[0], calibration=calibration, config=Calibrate(novelty_share=0)
    )
    assert without.positives_abstained == 0
    assert off.threshold < policy.threshold  # ten positives at logit -9 must be reached by the score alone


def test_the_certificates_misses_are_those_of_the_table_behind_the_gate() -> None:
    policy, certificate, calibration = issued()
    missed = 0
    for rows in calibration.behind_gate(policy.novelty_limit).by_case().values():
        below = decide(policy, [row.logit for row in rows]).disposition is Disposition.below_threshold
        missed += bool(rows[0].needs_in_person) and below
    assert missed == certificate.misses_seen
