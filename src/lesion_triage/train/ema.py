"""Exponential moving average of a network's weights: what is evaluated and exported. Imports torch only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class ExponentialMovingAverage:
    """Exponential moving average of a network's weights and statistics.

    Short at first, so that the random head is soon forgotten: decay min(``decay``, (1 + t) / (10 + t)).
    Kept beside the network, tensor by tensor, so it is sharded as the network is.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.tensors = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self._network = network
        self._decay = decay
        pairs = [
            (_local_shard(self.tensors[name]), _local_shard(value))
            for name, value in network.state_dict().items()
        ]
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take one step towards the network.

        Args:
            step: of the optimiser, from 0.
        """
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        means, values = zip(*self._floats, strict=True)
        torch._foreach_lerp_(means, values, share)
        for mean, value in self._counts:
            mean.copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the network has the averaged weights, in eval mode; afterwards its own again."""
        own = {name: value.detach().clone() for name, value in self._network.state_dict().items()}
        training = {module: module.training for module in self._network.modules()}
        self._load(self.tensors)
        self._network.eval()
        try:
            yield
        finally:
            self._load(own)
            for module, was in training.items():
                module.training = was

    @torch.no_grad()
    def _load(self, tensors: dict[str, Tensor]) -> None:
        for name, value in self._network.state_dict().items():
            value.copy_(tensors[name])


def _local_shard(tensor: Tensor) -> Tensor:
    """This process's shard of a tensor, sharing its memory."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
