"""Several finished networks as one: what is exported for an averaged ensemble. Imports the network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lesion_triage.train.network import NetworkOutput, TriageNetwork


class Ensemble(nn.Module):
    """uint8 RGB pixels [N, size, size, 3] -> the members' mean logit, and the first member's other outputs.

    Logits are averaged, as over views: the calibrator reads a logit, and a mean of probabilities near 0 or 1
    would have to be converted back from the few digits that are left.

    No member's logit counts as lower than the loss asks for (``losses.lowest_logit``), so that none can
    outvote the others downwards: what decides the certified threshold is the lowest scores of positive
    lesions. Upwards each counts in full.

    The levels are those of the first member: the novelty gate was chosen for this distance, and its matrix
    stays as small (docs/unfamiliar-pictures.md). The embedding is the same member's.
    """

    def __init__(self, members: Sequence[TriageNetwork], min_logit: float = -math.inf) -> None:
        """Combine the members.

        Args:
            members: at least one.
            min_logit: lower limit on a member's logit for one view.
        """
        super().__init__()
        self.min_logit = min_logit
        self.members = nn.ModuleList(members)
        self.width = members[0].width
        self.exported_parameters = sum(member.exported_parameters for member in members)

    def forward(self, pixels: Tensor) -> NetworkOutput:
        """The exported path."""
        served = [member(pixels) for member in self.members]
        logits = torch.stack([each.logit for each in served])
        if math.isfinite(self.min_logit):
            logits = logits.clamp(min=self.min_logit)
        return NetworkOutput(logits.mean(0), served[0].embedding, served[0].levels)
