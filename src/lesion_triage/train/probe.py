"""Training only the heads, on embeddings that are computed once. Imports torch and the network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lesion_triage.console import ProgressCallback
from lesion_triage.data.dataset import Example
from lesion_triage.train.data_loading import EmbeddingDataset, Pictures, embeddings
from lesion_triage.train.network import TriageNetwork


class LinearProbe:
    """Embeddings of both splits, scaled to mean 0 and standard deviation 1 over the training split.

    The heads learn on that scale, on which one learning rate suits every backbone; ``unscale`` converts them
    back to the network's own scale.
    """

    def __init__(
        self,
        network: TriageNetwork,
        training: Pictures,
        validation: Pictures,
        diagnoses: Sequence[int],
        tick: ProgressCallback,
    ) -> None:
        network.eval()
        own, other = len(training.records), len(validation.records)
        found = embeddings(network, training, lambda done, _: tick(done, own + other))
        self._mean = found.mean(0)
        spread = found.std(0, correction=0)
        self._std = torch.where(spread > 1e-6, spread, torch.ones_like(spread))  # constant features stay
        self.dataset: Dataset[Example] = EmbeddingDataset(
            self._scaled(found), training.needs_in_person(), diagnoses
        )
        rest = embeddings(network, validation, lambda done, _: tick(own + done, own + other))
        self._validation = self._scaled(rest).to(network.mean.device)
        self._network = network

    def _scaled(self, found: Tensor) -> Tensor:
        return (found - self._mean) / self._std

    def logits(self, start: int, stop: int) -> Tensor:
        """Logits of a block of validation pictures."""
        return self._network.heads(self._validation[start:stop]).logit

    @torch.no_grad()
    def unscale(self) -> None:
        """Convert the heads for scaled embeddings into equivalent heads for raw embeddings."""
        for head in (self._network.needs_in_person, self._network.diagnosis):
            head.weight.div_(self._std.to(head.weight.device))
            head.bias.sub_(head.weight @ self._mean.to(head.weight.device))
