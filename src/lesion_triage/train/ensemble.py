"""Several finished networks as one: what is exported of an ensemble that is averaged. Imports the network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lesion_triage.train.network import Served, TriageNetwork


class Ensemble(nn.Module):
    """uint8 RGB pixels [N, size, size, 3] -> the members' mean logit, and the first member's other outputs.

    Logits are averaged, as over views: the calibrator reads one, and a mean of probabilities near 0 or 1
    would have to be turned back into one from the few digits that are left.

    The levels are one member's: that is the distance which the novelty gate was chosen for, and its matrix
    stays as small (docs/unfamiliar-pictures.md). The embedding is the same member's.
    """

    def __init__(self, members: Sequence[TriageNetwork]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.width = members[0].width
        self.served_parameters = sum(member.served_parameters for member in members)

    def forward(self, pixels: Tensor) -> Served:
        """The exported path."""
        served = [member(pixels) for member in self.members]
        logit = torch.stack([each.logit for each in served]).mean(0)
        return Served(logit, served[0].embedding, served[0].levels)
