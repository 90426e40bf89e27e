"""Weights on disk: the finished checkpoint (safetensors), and the state of a run in progress."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lesion_triage.bundle.store import write_atomically
from lesion_triage.config import Config
from lesion_triage.errors import TrainingError
from lesion_triage.train.network import TriageNetwork
from lesion_triage.train.weights import backbone

CHECKPOINT = "checkpoint.safetensors"
STATE = "training_state.pt"


def save_checkpoint(folder: Path, network: TriageNetwork, config: Config, diagnoses: list[str]) -> Path:
    """Write the weights to evaluate and export, with what it takes to build the network around them."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    facts = {
        "backbone": config.model.backbone,
        "size_px": str(config.pixels.size_px),
        "diagnoses": json.dumps(diagnoses),
    }
    path = folder / CHECKPOINT
    write_atomically(path, save(tensors, metadata=facts))
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


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the state of a run in progress: whole, or not at all."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_atomically(folder / STATE, buffer.getvalue())


def load_state(folder: Path, key: str) -> dict[str, Any] | None:
    """The state of an interrupted run, or None if there is none made from the same inputs.

    ``weights_only`` keeps the file from running code.
    """
    path = folder / STATE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
    except Exception as error:
        raise TrainingError(f"{path}: cannot be resumed from ({error}); delete it to start over.") from None
    return state if state.get("key") == key else None
