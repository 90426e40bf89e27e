"""Several finished networks as one: what is exported of an ensemble that is averaged. Imports the network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lesion_triage.train.network import Served, TriageNetwork


class Ensemble(nn.Module):
    """uint8 RGB pixels [N, size, size, 3] -> the members' mean logit, and the first member's other outputs.

    Logits are averaged, as over views: the calibrator reads one, and a mean of probabilities near 0 or 1
    would have to be turned back into one from the few digits that are left. None counts as lower than the
    loss asks for (``losses.lowest_logit``), so that no member outvotes the others downwards: the lowest score
    of a positive lesion is what a threshold is certified at. Upwards each counts in full.

    The levels are one member's: that is the distance which the novelty gate was chosen for, and its matrix
    stays as small (docs/unfamiliar-pictures.md). The embedding is the same member's.
    """

    def __init__(self, members: Sequence[TriageNetwork], lowest: float = -math.inf) -> None:
        """Put the members side by side.

        Args:
            members: at least one.
            lowest: what a member's logit of one view counts as at least.
        """
        super().__init__()
        self.lowest = lowest
        self.members = nn.ModuleList(members)
        self.width = members[0].width
        self.served_parameters = sum(member.served_parameters for member in members)

    def forward(self, pixels: Tensor) -> Served:
        """The exported path."""
        served = [member(pixels) for member in self.members]
        logits = torch.stack([each.logit for each in served])
        if math.isfinite(self.lowest):
            logits = logits.clamp(min=self.lowest)
        return Served(logits.mean(0), served[0].embedding, served[0].levels)
