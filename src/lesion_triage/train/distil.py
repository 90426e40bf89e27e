"""The distillation loss: the members' predictions for the student's pictures, beside the labels.

Imports torch, Fabric and this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional

from lesion_triage.config import Config
from lesion_triage.train import checkpoint
from lesion_triage.train.network import Heads, TrainingNetwork, TriageNetwork


class SoftTargets(NamedTuple):
    """Mean probabilities over the members: shape [N], and [N, diagnoses] or None if no member learnt them."""

    needs_in_person: Tensor
    diagnosis: Tensor | None


class Teacher:
    """Finished networks that score every picture as the student sees it: cropped, coloured and mixed.

    Seeing the same picture is what makes distillation work: Beyer et al. 2022,
    doi:10.1109/CVPR52688.2022.01065. The teacher's output depends on the picture alone, so it has no state,
    and every training process uses its own copy.
    """

    def __init__(self, fabric: Fabric, config: Config, members: Sequence[Path]) -> None:
        """Load the members.

        Args:
            fabric: whose device and precision they use.
            config: of the student; a member's differs in the seed or the backbone.
            members: run folders, each with a checkpoint.

        Raises:
            TrainingError: no checkpoint, or not one of ours.
        """
        self.share = config.ensemble.teacher_share
        self._weight = config.train.auxiliary_diagnosis_weight
        self._fabric = fabric
        layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
        self._members = []
        for folder in members:
            network = checkpoint.load_checkpoint(folder)
            assert isinstance(network, TriageNetwork), "a member is one network"
            network.to(fabric.device).to(memory_format=layout)
            self._members.append(TrainingNetwork(network).eval())

    @torch.no_grad()
    def soft_targets(self, given: Tensor) -> SoftTargets:
        """The members' predictions for pictures [N, side, side, 3], in grey levels."""
        with self._fabric.autocast():
            heads = [member(given) for member in self._members]
        needs = torch.stack([each.logit.float().sigmoid() for each in heads]).mean(0)
        if not self._weight:
            return SoftTargets(needs, None)
        return SoftTargets(needs, torch.stack([each.diagnosis.float().softmax(1) for each in heads]).mean(0))

    def distillation_loss(self, labels: Tensor, heads: Heads, given: Tensor) -> Tensor:
        """Loss of each picture, shape [N]: of the labels, and the cross-entropy to the members' predictions.

        The second is not weighted by class or difficulty: such weighting in the members' training already
        shows in their predictions.

        Args:
            labels: the loss against the labels, shape [N].
            heads: the student's logits.
            given: the pictures that the student was given.
        """
        taught = cross_entropy(heads, self.soft_targets(given), self._weight)
        return (1 - self.share) * labels + self.share * taught


def cross_entropy(heads: Heads, soft_targets: SoftTargets, diagnosis_weight: float) -> Tensor:
    """Cross-entropy of each picture to soft targets, shape [N]; lowest if the student agrees.

    Hinton et al. 2015, arXiv:1503.02531, at temperature 1: the members were trained with smoothed labels.
    """
    loss = functional.binary_cross_entropy_with_logits(
        heads.logit, soft_targets.needs_in_person, reduction="none"
    )
    if soft_targets.diagnosis is not None:
        loss = loss + diagnosis_weight * functional.cross_entropy(
            heads.diagnosis, soft_targets.diagnosis, reduction="none"
        )
    return loss
