from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn import config
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from lesion_triage.data.dataset import Example
from lesion_triage.errors import TrainingError
from lesion_triage.train.losses import class_weights, losses
from lesion_triage.train.network import Heads

LOGITS = torch.tensor([-3.0, -0.5, 0.0, 2.0, 7.0])
NEEDS = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0])
DIAGNOSES = torch.tensor([0, 1, 2, 1, 0])
BATCH = Example(torch.zeros(5, 1, 1, 3), NEEDS, DIAGNOSES)
HEADS = Heads(LOGITS, torch.arange(15.0).sin().view(5, 3))
ONES = torch.ones(2)


def loss_of(weights=ONES, **section) -> np.ndarray:
    wanted = {"auxiliary_diagnosis_weight": 0.0, "label_smoothing": 0.0, **section}
    return losses(HEADS, BATCH, config(**wanted).train, weights).numpy()


def probability() -> np.ndarray:
    return 1 / (1 + np.exp(-LOGITS.numpy().astype(float)))


def test_bce_is_the_negative_log_of_what_the_truth_was_given():
    p = probability()
    expected = -np.log(np.where(NEEDS.numpy() == 1, p, 1 - p))
    np.testing.assert_allclose(loss_of(), expected, rtol=1e-5)


def test_label_smoothing_moves_half_of_its_share_to_the_other_class():
    p = probability()
    target = np.where(NEEDS.numpy() == 1, 0.95, 0.05)
    expected = -(target * np.log(p) + (1 - target) * np.log(1 - p))
    np.testing.assert_allclose(loss_of(label_smoothing=0.1), expected, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 5.0])
def test_focal_is_the_formula_of_the_paper(gamma):
    """Lin et al. 2017, eq. 4: -(1 - p_t)^gamma log p_t."""
    p = probability()
    of_truth = np.where(NEEDS.numpy() == 1, p, 1 - p)
    expected = -((1 - of_truth) ** gamma) * np.log(of_truth)
    np.testing.assert_allclose(loss_of(loss="focal", focal_gamma=gamma), expected, rtol=1e-4)


def test_balanced_weights_are_those_of_scikit_learn():
    needs = [True] * 3 + [False] * 17
    expected = compute_class_weight("balanced", classes=np.array([False, True]), y=np.array(needs))
    weights = class_weights(needs, config(loss="balanced").train)
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(
        loss_of(weights, loss="balanced"), loss_of() * expected[NEEDS.int().numpy()], rtol=1e-5
    )
    assert weights[torch.tensor(needs).long()].mean().item() == pytest.approx(1)


def test_without_balance_every_picture_weighs_one():
    assert class_weights([True] + [False] * 9, config().train).tolist() == [1, 1]


def test_balance_of_one_class_is_refused():
    with pytest.raises(TrainingError, match=r"0 positive of 4 pictures; train\.loss balanced needs both"):
        class_weights([False] * 4, config(loss="balanced").train)


def test_the_second_head_adds_its_cross_entropy_times_its_weight():
    more = loss_of(auxiliary_diagnosis_weight=0.7) - loss_of()
    logs = functional.log_softmax(HEADS.diagnosis.double(), dim=1).numpy()
    np.testing.assert_allclose(more, -0.7 * logs[np.arange(5), DIAGNOSES], rtol=1e-4)
