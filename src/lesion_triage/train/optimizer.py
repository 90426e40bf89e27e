"""Learning rates: groups of parameters, and the schedule over time. Imports timm."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from timm.optim import (  # type: ignore[attr-defined]
    param_groups_layer_decay,
    param_groups_weight_decay,
)

from lesion_triage.config import Train
from lesion_triage.train.network import TriageNetwork


def parameter_groups(network: TriageNetwork, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Groups for the optimiser, each with ``weight_decay`` and ``lr_scale``.

    Weight decay applies to matrices and kernels; biases and norms are scales, not complexity, and some
    backbones exempt more (positions). With ``layer_decay`` the heads learn at the full rate, the last layer
    of the backbone at ``layer_decay`` times it, the one before at its square (Clark et al. 2020; layers as
    timm counts them), since early layers are the most general. Parameters outside timm's layers count as in
    the last layer, as in the code of BEiT: final norms, and positions shared by all blocks.
    """
    no_decay: set[str] = getattr(network.backbone, "no_weight_decay", set)()
    if layer_decay == 1.0:
        names = {f"backbone.{name}" for name in no_decay}
        groups: list[dict[str, Any]] = param_groups_weight_decay(
            network, weight_decay, no_weight_decay_list=names
        )
        return [{**group, "lr_scale": 1.0} for group in groups]
    body = param_groups_layer_decay(
        network.backbone, weight_decay, no_weight_decay_list=no_decay, layer_decay=layer_decay
    )
    groups = [{**group, "lr_scale": layer_decay * group["lr_scale"]} for group in body]
    for head in (network.needs_in_person, network.diagnosis):
        for group in param_groups_weight_decay(head, weight_decay):
            groups.append({**group, "lr_scale": 1.0})
    return groups


def lr_schedule(c: Train, batches: int) -> Callable[[int], float]:
    """Learning rate of each step (from 0), as a share of the peak.

    Linear from 1 / n to 1 over the n steps of the warm-up, then a cosine (Loshchilov and Hutter 2017), linear
    to zero, or constant.

    Args:
        c: epochs, warm-up and kind.
        batches: steps in an epoch.
    """
    warm_up, steps = round(c.warmup_epochs * batches), c.epochs * batches

    def share(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        done = (step - warm_up) / max(1, steps - warm_up)
        if c.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        return 1 - done if c.schedule == "linear" else 1.0

    return share
