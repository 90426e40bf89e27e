"""Whether this machine can train a network on its pictures: checked in seconds, before hours of training.

Imports torch and this package.
"""

from __future__ import annotations

import torch

from lesion_triage.config import Config
from lesion_triage.errors import TrainingError
from lesion_triage.train.data_loading import picture_sides
from lesion_triage.train.distributed import require_hardware
from lesion_triage.train.network import TriageNetwork, freeze_stages
from lesion_triage.train.weights import create_backbone, require_pretrained


def check_network(config: Config) -> None:
    """Build the network with random weights, and pass it two empty pictures of each side.

    The exported path is tried as well: a network that cannot be scored afterwards need not be trained.

    Args:
        config: of the training run.

    Raises:
        TrainingError: hardware that this machine does not have; a backbone that does not exist, lacks
            pretrained weights although they are asked for or does not take pictures of one of the sides; or
            too many frozen stages.
    """
    m, c = config.model, config.train
    require_hardware(c)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        body = create_backbone(m.backbone, "none", config.pixels.size_px, m.drop_rate, m.drop_path_rate)
        require_pretrained(m.backbone, m.weights)
        for side in picture_sides(config):
            whole = side == config.pixels.size_px
            try:
                network = TriageNetwork(body, 2).eval()
                pixels = torch.zeros((2, side, side, 3), dtype=torch.uint8)
                network.heads(network.embed(pixels))
                if whole:
                    network(pixels)
            except Exception as error:  # architectures may refuse by any exception
                advice = "choose another pixels.size_px" if whole else "set train.small_first to 0"
                own: int = body.pretrained_cfg["input_size"][-1]  # type: ignore[index, assignment]
                if whole and own != side:
                    advice = f"{advice}, such as timm's own {own},"
                said = ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split())[:200])))
                raise TrainingError(
                    f"backbone '{m.backbone}', built for {config.pixels.size_px} px, takes no pictures of "
                    f"{side} px ({said}); {advice} or choose another model.backbone."
                ) from None
        if c.frozen_stages and not c.probe:
            freeze_stages(network, c.frozen_stages)
