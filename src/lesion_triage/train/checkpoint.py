"""The finished checkpoint, as safetensors: what is evaluated and exported. Imports torch and the network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lesion_triage.bundle.files import write_atomically
from lesion_triage.config import Config
from lesion_triage.errors import RetryableTrainingError, TrainingError
from lesion_triage.train import state_files
from lesion_triage.train.ensemble import Ensemble
from lesion_triage.train.losses import lowest_logit
from lesion_triage.train.network import TriageNetwork
from lesion_triage.train.weights import create_backbone

CHECKPOINT = "checkpoint.safetensors"


def save_checkpoint(
    folder: Path, tensors: Mapping[str, Tensor], config: Config, diagnoses: list[str]
) -> Path:
    """Write the weights to evaluate and export, with everything needed to rebuild the network.

    Raises:
        RetryableTrainingError: the disk is full or refuses.
    """
    return _write(folder, tensors, _metadata(config, diagnoses))


def save_averaged_ensemble(folder: Path, members: Sequence[Path], config: Config) -> Path:
    """Write one checkpoint that holds all members and is read back as their ensemble.

    Args:
        folder: the run folder.
        members: run folders, each with a checkpoint.
        config: of the ensemble.

    Raises:
        TrainingError: no checkpoint, or not one of ours.
        RetryableTrainingError: the disk is full or refuses.
    """
    networks = []
    for member in members:
        network = load_checkpoint(member)
        assert isinstance(network, TriageNetwork), "a member is one network"
        networks.append(network)
    diagnoses = _read(members[0] / CHECKPOINT)[0]["diagnoses"]
    backbones = [_read(member / CHECKPOINT)[0]["backbone"] for member in members]
    facts = {**_metadata(config, json.loads(diagnoses)), "members": str(len(networks))}
    facts["lowest_logit"] = repr(lowest_logit(config.train))
    if len(set(backbones)) > 1:
        facts["backbones"] = json.dumps(backbones)
    return _write(folder, Ensemble(networks).state_dict(), facts)


def load_checkpoint(folder: Path) -> TriageNetwork | Ensemble:
    """The finished network, or the ensemble of them, in eval mode on the CPU.

    Raises:
        TrainingError: no checkpoint, or not one of ours.
    """
    path = folder / CHECKPOINT
    try:
        facts, tensors = _read(path)
        diagnoses = len(json.loads(facts["diagnoses"]))
        alike = [facts["backbone"]] * int(facts.get("members", "1"))
        names: list[str] = json.loads(facts["backbones"]) if "backbones" in facts else alike
        networks = [
            TriageNetwork(create_backbone(name, "none", int(facts["size_px"])), diagnoses) for name in names
        ]
        lowest = float(facts.get("lowest_logit", "-inf"))  # absent from averages made before the floor
        network: TriageNetwork | Ensemble = Ensemble(networks, lowest) if "members" in facts else networks[0]
        network.load_state_dict(tensors, strict=True)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise TrainingError(f"{path}: not a checkpoint of this project ({error}); train again.") from None
    return network.eval()


def _metadata(config: Config, diagnoses: list[str]) -> dict[str, str]:
    return {
        "backbone": config.model.backbone,
        "size_px": str(config.pixels.size_px),
        "diagnoses": json.dumps(diagnoses),
    }


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as stream:
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - no mapping
        return stream.metadata() or {}, tensors


def _write(folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> Path:
    content = _with_sorted_metadata(state_files.to_safetensors(tensors, dict(facts)))
    path = folder / CHECKPOINT
    try:
        write_atomically(path, content)
    except OSError as error:
        raise RetryableTrainingError(
            f"{path}: the finished weights, {len(content) / 1e6:.0f} MB, cannot be written ({error}). Make "
            "room and run the same command again; finished training is not repeated."
        ) from None
    return path


def _with_sorted_metadata(content: bytes) -> bytes:
    """The same file with its header's facts in fixed order: safetensors writes them in random order."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the tensors
    return len(text).to_bytes(8, "little") + text + content[8 + length :]
