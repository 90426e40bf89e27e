"""The network: any timm backbone between raw pixels and a logit. The only place of normalisation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from timm.models import group_parameters
from torch import Tensor, nn
from torch.nn import functional

from lesion_triage.errors import TrainingError
from lesion_triage.train import depthwise

_UNKNOWN_NAME = "?"
"""A name that no backbone has among its stages."""


class Heads(NamedTuple):
    """Output for training: logits of shape [N] and [N, diagnoses]."""

    logit: Tensor
    diagnosis: Tensor


class NetworkOutput(NamedTuple):
    """Output for the exported graph: logit [N], embedding [N, width], levels [N, channels]."""

    logit: Tensor
    embedding: Tensor
    levels: Tensor
    """Channel means of the backbone's middle levels, for the novelty gate's distance."""


class TriageNetwork(nn.Module):
    """uint8 RGB pixels [N, size, size, 3] -> logit [N], embedding [N, width], levels [N, channels].

    A second head learns the diagnosis beside the first. It shapes the embedding during training, and is not
    part of ``forward``, so no exported graph can output one.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, diagnoses: int) -> None:
        super().__init__()
        facts: dict[str, Any] = backbone.pretrained_cfg  # type: ignore[assignment]
        self.backbone = backbone
        self.middle = middle_levels(backbone)
        width: int = backbone.head_hidden_size  # type: ignore[assignment]
        self.width = width
        self.needs_in_person = nn.Linear(width, 1)
        self.diagnosis = nn.Linear(width, diagnoses)
        # In levels of 0..255, so that the first operation is one subtraction and one product.
        self.register_buffer("mean", 255 * torch.tensor(facts["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(facts["std"]).view(1, 3, 1, 1))

    @property
    def exported_parameters(self) -> int:
        """Number of parameters in the exported graph: without the second head."""
        return sum(parameter.numel() for parameter in self.backbone.parameters()) + self.width + 1

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels [N, size, size, 3] uint8 -> input of the backbone, [N, 3, size, size]."""
        grey_levels = pixels.permute(0, 3, 1, 2).to(self.mean.dtype)
        return (grey_levels - self.mean) / self.std

    def embed(self, pixels: Tensor) -> Tensor:
        """Pixels [N, size, size, 3] uint8 -> embedding [N, width]."""
        features: Tensor = self.backbone(self.normalise(pixels))
        return features

    def forward(self, pixels: Tensor) -> NetworkOutput:
        """The exported path."""
        backbone: Any = self.backbone
        if not self.middle:
            embedding = self.embed(pixels)
            return NetworkOutput(self.needs_in_person(embedding)[:, 0], embedding, embedding)
        features, maps = backbone.forward_intermediates(  # some stop at the last level asked for, unless told
            self.normalise(pixels), indices=list(self.middle), output_fmt="NCHW", stop_early=False
        )
        embedding = backbone.forward_head(features)
        levels = torch.cat([functional.adaptive_avg_pool2d(each, 1).flatten(1) for each in maps], dim=1)
        return NetworkOutput(self.needs_in_person(embedding)[:, 0], embedding, levels)

    def heads(self, embedding: Tensor) -> Heads:
        """Embedding [N, width] -> output for training."""
        logit = self.needs_in_person(embedding)[:, 0]
        return Heads(logit.clone(), self.diagnosis(embedding))  # FSDP2 warns of views


class TrainingNetwork(nn.Module):
    """The network as training sees it: pixels [N, size, size, 3], or embeddings [N, width], -> both heads."""

    def __init__(self, network: TriageNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, given: Tensor) -> Heads:
        """The training path."""
        with depthwise.gradients_in_32_bits(given.device):
            return self.network.heads(given if given.ndim == 2 else self.network.embed(given))


def freeze_backbone(network: TriageNetwork) -> list[nn.Module]:
    """Freeze the whole backbone; only the heads learn. Returns what to keep in eval mode."""
    network.backbone.requires_grad_(False)
    return [network.backbone]


def middle_levels(backbone: nn.Module) -> tuple[int, ...]:
    """Indices of timm's feature levels that the novelty gate uses; empty if the backbone has no levels.

    All but the deepest: training shapes that one for its labels, and unfamiliar pictures become
    indistinguishable there. Several branches may end in the deepest module. For a transformer, whose levels
    all have the same resolution: the one in the middle.
    """
    facts: Any = getattr(backbone, "feature_info", None)
    if not facts or not hasattr(backbone, "forward_intermediates"):
        return ()
    if len({level["reduction"] for level in facts}) == 1:
        return (len(facts) // 2,)
    deepest = facts[-1]["module"]
    return tuple(number for number, level in enumerate(facts) if level["module"] != deepest)


def freeze_stages(network: TriageNetwork, stages: int) -> list[nn.Module]:
    """Freeze the stem and the first ``stages`` stages, as timm counts them: weights and statistics.

    The early layers are the most general and, at full resolution, the most expensive: on a CPU two frozen
    stages of an EfficientNet double the speed. Anything outside timm's stages that comes before one of them,
    such as a position bias shared by all blocks, acts in them and is frozen with them.

    Returns:
        The modules that are frozen entirely; keep them in eval mode.

    Raises:
        TrainingError: the backbone has no stage structure that timm can name.
    """
    matcher = getattr(network.backbone, "group_matcher", None)
    if matcher is None:
        raise TrainingError("this backbone names no stages; set train.frozen_stages to 0.")
    parameters = dict(network.backbone.named_parameters())
    named: Any = SimpleNamespace(named_parameters=lambda: dict.fromkeys((*parameters, _UNKNOWN_NAME)).items())
    try:
        stage: dict[str, int] = group_parameters(named, matcher(coarse=True), reverse=True)
    except Exception:  # architectures may refuse by any exception
        raise TrainingError(
            "timm names the stages of this backbone only layer by layer; set train.frozen_stages to 0."
        ) from None
    last = max(place for place, name in enumerate(parameters) if stage[name] <= stages)
    frozen = [
        parameter
        for place, (name, parameter) in enumerate(parameters.items())
        if stage[name] <= stages or (place < last and stage[name] == stage[_UNKNOWN_NAME])
    ]
    if len(frozen) == len(parameters):
        raise TrainingError(f"train.frozen_stages is {stages}, which leaves nothing to train.")
    for parameter in frozen:
        parameter.requires_grad_(False)
    return [
        module
        for module in network.backbone.modules()
        if (own := list(module.parameters())) and not any(p.requires_grad for p in own)
    ]
