"""The network: any timm backbone between raw pixels and a logit. Normalisation lives here alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from timm.models import group_parameters
from torch import Tensor, nn

from lesion_triage.errors import TrainingError


class Heads(NamedTuple):
    """What training sees: logits of shape [N] and [N, diagnoses]."""

    logit: Tensor
    diagnosis: Tensor


class TriageNetwork(nn.Module):
    """uint8 RGB pixels [N, size, size, 3] -> (logit [N], embedding [N, width]).

    A second head learns the diagnosis beside the first. It shapes the embedding during training,
    and ``forward`` does not have it, so no exported graph can utter one.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, diagnoses: int) -> None:
        super().__init__()
        facts: dict[str, Any] = backbone.pretrained_cfg  # type: ignore[assignment]
        self.backbone = backbone
        width: int = backbone.head_hidden_size  # type: ignore[assignment]
        self.width = width
        self.needs_in_person = nn.Linear(width, 1)
        self.diagnosis = nn.Linear(width, diagnoses)
        # As levels of 0..255, so that the first operation is one subtraction and one product.
        self.register_buffer("mean", 255 * torch.tensor(facts["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(facts["std"]).view(1, 3, 1, 1))

    def embed(self, pixels: Tensor) -> Tensor:
        """Pixels [N, size, size, 3] uint8 -> embedding [N, width]."""
        levels = pixels.permute(0, 3, 1, 2).to(self.mean.dtype)
        features: Tensor = self.backbone((levels - self.mean) / self.std)
        return features

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The exported path."""
        embedding = self.embed(pixels)
        return self.needs_in_person(embedding)[:, 0], embedding

    def heads(self, embedding: Tensor) -> Heads:
        """Embedding [N, width] -> what training sees."""
        logit = self.needs_in_person(embedding)[:, 0]
        return Heads(logit.clone(), self.diagnosis(embedding))  # FSDP2 warns of views


class Learner(nn.Module):
    """The network as training sees it: pixels [N, size, size, 3], or embeddings [N, width], -> both heads."""

    def __init__(self, network: TriageNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, given: Tensor) -> Heads:
        """The training path."""
        return self.network.heads(given if given.ndim == 2 else self.network.embed(given))


def freeze_backbone(network: TriageNetwork) -> list[nn.Module]:
    """Fix the whole backbone; only the heads learn. Returns what to keep in eval mode."""
    network.backbone.requires_grad_(False)
    return [network.backbone]


def freeze_stages(network: TriageNetwork, stages: int) -> list[nn.Module]:
    """Fix the stem and the first ``stages`` stages at their pretrained weights and batch statistics.

    The early layers are the most general and, at full resolution, the dearest: on a CPU two frozen
    stages of an EfficientNet double the speed.

    Returns:
        The modules that are frozen through and through; keep them in eval mode.

    Raises:
        TrainingError: the backbone has no stage structure that timm can name.
    """
    matcher = getattr(network.backbone, "group_matcher", None)
    if matcher is None:
        raise TrainingError("this backbone names no stages; set train.frozen_stages to 0.")
    groups: dict[int, list[str]] = group_parameters(network.backbone, matcher(coarse=True))
    frozen = {name for group, names in groups.items() if group <= stages for name in names}
    if not set(dict(network.backbone.named_parameters())) - frozen:
        raise TrainingError(f"train.frozen_stages is {stages}, which leaves nothing to train.")
    for name, parameter in network.backbone.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    return [
        module
        for module in network.backbone.modules()
        if (own := list(module.parameters())) and not any(p.requires_grad for p in own)
    ]
