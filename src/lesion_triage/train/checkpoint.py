"""The finished checkpoint, as safetensors: what is evaluated and exported. Imports torch and the network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lesion_triage.bundle.store import write_atomically
from lesion_triage.config import Config
from lesion_triage.errors import TrainingError
from lesion_triage.train.network import TriageNetwork
from lesion_triage.train.weights import backbone

CHECKPOINT = "checkpoint.safetensors"


def save_checkpoint(
    folder: Path, tensors: Mapping[str, Tensor], config: Config, diagnoses: list[str]
) -> Path:
    """Write the weights to evaluate and export, with what it takes to build the network around them.

    Raises:
        TrainingError: the disk is full or refuses.
    """
    facts = {
        "backbone": config.model.backbone,
        "size_px": str(config.pixels.size_px),
        "diagnoses": json.dumps(diagnoses),
    }
    content = save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, metadata=facts
    )
    path = folder / CHECKPOINT
    try:
        write_atomically(path, content)
    except OSError as error:
        raise TrainingError(
            f"{path}: the finished weights, {len(content) / 1e6:.0f} MB, cannot be written ({error}). "
            "Make room and give the same command again: nothing is trained twice."
        ) from None
    return path


def load_checkpoint(folder: Path) -> TriageNetwork:
    """The finished network, in eval mode on the CPU.

    Raises:
        TrainingError: no checkpoint, or not one of ours.
    """
    path = folder / CHECKPOINT
    try:
        with safe_open(path, framework="pt") as stream:
            facts = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - no mapping
        diagnoses = json.loads(facts["diagnoses"])
        body = backbone(facts["backbone"], "none", int(facts["size_px"]))
        network = TriageNetwork(body, len(diagnoses))
        network.load_state_dict(tensors, strict=True)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise TrainingError(f"{path}: not a checkpoint of this project ({error}); train again.") from None
    return network.eval()
