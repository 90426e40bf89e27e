"""The state of a training run in progress: written atomically, verified when read. Imports torch.

``train_state/<epochs>-<batches>.safetensors`` has the tensors, the ``.json`` beside it the rest and the hash
of the tensors. The latter is written last, so if it exists, the state is complete. Neither can run code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lesion_triage.bundle.document import canonical_json, sha256_of
from lesion_triage.bundle.files import write_atomically
from lesion_triage.errors import RetryableTrainingError, TrainingStateError

FOLDER = "train_state"
FORMAT = 1
KEPT_STATES = 2  # the one before the last, in case the last is damaged


@dataclass(frozen=True)
class Progress:
    """Position of a training run, between two steps of the optimiser.

    Random generators have no saved state: what is drawn depends on the seed and the position.
    """

    epoch: int = 0
    """Completed epochs."""
    batch: int = 0
    """Completed batches of the current epoch."""
    loss_sum: float = 0.0
    """Sum of their losses."""
    seconds: float = 0.0
    """Time spent on them."""
    curve: Sequence[Mapping[str, float]] = ()
    """Lines of the learning curve so far."""
    scaler: Mapping[str, float] | None = None
    """State of the loss scaler, for 16-bit precision."""

    def __str__(self) -> str:
        if self.batch:
            return f"in epoch {self.epoch + 1}, after {self.batch} of its batches"
        return f"after epoch {self.epoch}"


def write(folder: Path, key: str, progress: Progress, tensors: Mapping[str, Tensor]) -> None:
    """Write a new state, then remove all but the last two.

    Args:
        folder: the run folder.
        key: hash of everything that decides the training run.
        progress: its position.
        tensors: network, average and moments of the optimiser, on any device.

    Raises:
        RetryableTrainingError: the disk is full or refuses; earlier states are unchanged.
    """
    home = folder / FOLDER
    content = to_safetensors(tensors)
    facts = {"format": FORMAT, "key": key, "progress": asdict(progress), "tensors_sha256": sha256_of(content)}
    sealed = {"facts": facts, "facts_sha256": sha256_of(canonical_json(facts).encode())}
    name = _name(progress)
    try:
        home.mkdir(exist_ok=True)
        write_atomically(home / f"{name}.safetensors", content)
        write_atomically(home / f"{name}.json", canonical_json(sealed).encode())
    except OSError as error:
        (home / f"{name}.safetensors").unlink(missing_ok=True)
        kept = _newest_first(folder)
        rest = f"the one before it ({kept[0].name}) is complete" if kept else "there is none before it"
        raise RetryableTrainingError(
            f"{home}: a training state of {len(content) / 1e6:.0f} MB cannot be written ({error}); {rest}. "
            "Make room and run the same command again."
        ) from None
    for old in _newest_first(folder)[KEPT_STATES:]:
        old.unlink(missing_ok=True)
        old.with_suffix(".safetensors").unlink(missing_ok=True)
    _remove_partial_files(home)


def to_safetensors(tensors: Mapping[str, Tensor], facts: dict[str, str] | None = None) -> bytes:
    """Serialise as safetensors, which refuses shared memory: tied weights are written under each name.

    Args:
        tensors: by name, on any device.
        facts: for the file's header.
    """
    found: dict[str, Tensor] = {}
    memory: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        found[name] = plain.clone() if place in memory else plain
        memory.add(place)
    return save(found, metadata=facts)


def read(folder: Path, key: str) -> tuple[Progress, dict[str, Tensor], list[str]] | None:
    """The newest intact state made from the same inputs; None if there is none.

    Returns:
        The position of the training run, its tensors on the CPU, and one sentence for each newer state that
        is damaged and was skipped.

    Raises:
        TrainingStateError: a state is damaged, and no intact one was made from the same inputs.
    """
    damaged: list[str] = []
    for path in _newest_first(folder):
        try:
            sealed = json.loads(path.read_bytes())
            facts = sealed["facts"]
            if sha256_of(canonical_json(facts).encode()) != sealed["facts_sha256"]:
                raise ValueError("its hash does not fit")
            if facts["key"] != key or facts["format"] != FORMAT:
                continue
            content = path.with_suffix(".safetensors").read_bytes()
            if sha256_of(content) != facts["tensors_sha256"]:
                raise ValueError("the hash of its tensors does not fit")
            return Progress(**facts["progress"]), load(content), damaged
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            damaged.append(f"{path}: damaged ({error}); the state before it is used.")
    if damaged:  # it may belong to this run, even if intact states of another run are beside it
        raise TrainingStateError(
            f"{folder / FOLDER}: no state of this training run in it is complete ({damaged[0]}); --fresh "
            "starts over."
        )
    return None


def remove_newer(folder: Path, than: Progress | None) -> None:
    """Remove all states newer than ``than`` (None: all): they are damaged, or of other inputs."""
    for path in (folder / FOLDER).glob("*"):
        if than is None or path.name.partition(".")[0] > _name(than):
            path.unlink(missing_ok=True)
    _remove_partial_files(folder / FOLDER)


def exists(folder: Path, key: str) -> bool:
    """Whether the folder has a state of the training run with this key; its tensors are not checked."""
    for path in _newest_first(folder):
        try:
            if json.loads(path.read_bytes())["facts"]["key"] == key:
                return True
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return False


def _remove_partial_files(home: Path) -> None:
    """Remove incomplete files of a process killed while writing; only one process at a time writes."""
    for torn in home.glob(".*.tmp"):
        torn.unlink(missing_ok=True)


def _name(progress: Progress) -> str:
    return f"{progress.epoch:06d}-{progress.batch:08d}"


def _newest_first(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).glob("[0-9]*.json"), reverse=True)
