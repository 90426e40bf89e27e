"""The loss of each picture: plain, with the classes balanced, or focal. Imports torch and the network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from lesion_triage.config import Train
from lesion_triage.data.dataset import Example
from lesion_triage.errors import TrainingError
from lesion_triage.train.network import Heads


def class_weights(needs_in_person: Sequence[bool], c: Train) -> Tensor:
    """Weight of the negative (index 0) and the positive class (index 1), shape (2,).

    With ``loss: balanced`` each class weighs n / (2 n_class), as with scikit-learn's ``balanced``: both
    classes have equal weight in total, and the mean weight of a picture is 1. Otherwise ones.

    Raises:
        TrainingError: balanced, but only one class is present.
    """
    counts = torch.tensor([needs_in_person.count(False), needs_in_person.count(True)])
    if c.loss != "balanced":
        return torch.ones(2)
    if not counts.all():
        raise TrainingError(
            f"split 'train' has {int(counts[1])} positive of {len(needs_in_person)} pictures; "
            "train.loss balanced needs both classes."
        )
    return len(needs_in_person) / (2 * counts)


def lowest_logit(c: Train) -> float:
    """The logit at which the loss of a negative is lowest: -3.7 with smoothing 0.05, -inf without smoothing.

    Below it training pushes a logit up again, so lower values are no further evidence. With the focal loss,
    which gives well-classified examples less weight, it is lower: -6.2 with an exponent of 2.
    """
    if not c.label_smoothing:
        return -math.inf
    lowest = math.log(c.label_smoothing / (2 - c.label_smoothing))
    if c.loss != "focal":
        return lowest
    target = c.label_smoothing / 2

    def rises(logit: float) -> bool:
        """Sign of the derivative of cross-entropy times a power of the distance from the target."""
        chance = 1 / (1 + math.exp(-logit))
        entropy = math.log1p(math.exp(logit)) - target * logit
        away, turn = target + (1 - 2 * target) * chance, (1 - 2 * target) * chance * (1 - chance)
        return (chance - target) * away + c.focal_gamma * entropy * turn > 0

    low, high = lowest - 50.0, lowest
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if rises(middle) else (middle, high)
    return high


def losses(heads: Heads, batch: Example, c: Train, weights: Tensor) -> Tensor:
    """Loss of each picture, shape [N]; the loss of a batch is the mean over all of its pictures.

    Args:
        heads: logits.
        batch: labels.
        c: which loss, label smoothing, weight of the second head.
        weights: of ``class_weights``, on the device.
    """
    target = batch.needs_in_person * (1 - c.label_smoothing) + c.label_smoothing / 2
    if c.loss == "focal":  # Lin et al. 2017; alpha -1: no weighting of the classes
        loss: Tensor = sigmoid_focal_loss(heads.logit, target, alpha=-1, gamma=c.focal_gamma)
    else:
        loss = functional.binary_cross_entropy_with_logits(heads.logit, target, reduction="none")
    loss = loss * torch.where(batch.needs_in_person > 0.5, weights[1], weights[0])
    if c.auxiliary_diagnosis_weight:
        loss = loss + c.auxiliary_diagnosis_weight * functional.cross_entropy(
            heads.diagnosis, batch.diagnosis, label_smoothing=c.label_smoothing, reduction="none"
        )
    return loss
