"""Everything that changes during training, saved and restored together. Imports Fabric and this package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricOptimizer
from timm.layers import convert_sync_batchnorm  # type: ignore[attr-defined]
from torch import Tensor, nn

from lesion_triage.config import Config
from lesion_triage.errors import RetryableTrainingError, TrainingError, TrainingStateError
from lesion_triage.train import state_files
from lesion_triage.train.distil import Teacher
from lesion_triage.train.distributed import copy_full_tensor, gather_on_rank_zero, raise_on_rank_zero
from lesion_triage.train.ema import ExponentialMovingAverage
from lesion_triage.train.network import TrainingNetwork, TriageNetwork, freeze_backbone, freeze_stages
from lesion_triage.train.optimizer import parameter_groups
from lesion_triage.train.state_files import Progress
from lesion_triage.train.strided_pointwise import leave_pixels_out_first
from lesion_triage.train.weights import create_backbone

MIN_LOSS_SCALE = 1e-4  # of 16-bit losses; as fairseq's. From torch's first scale, 30 steps skipped in a row


class TrainingState:
    """Network, average, optimiser and scaler, set up on their devices.

    Attributes:
        network: the network itself; its names are those of the checkpoint.
        training_network: the network as training sees it, unwrapped: for scoring.
        model: the same as wrapped by Fabric: for learning.
        optimizer: as wrapped by Fabric.
        ema: moving average of the network's weights.
        progress: position in the training run.
        teacher: its predictions are learnt beside the labels; or None. It has no state.
    """

    teacher: Teacher | None = None

    def __init__(self, fabric: Fabric, config: Config, diagnoses: int) -> None:
        c = config.train
        fabric.seed_everything(config.seed, verbose=False)
        self._fabric = fabric
        self.network = _network(config, diagnoses)
        if c.strategy == "fsdp" and any(parameter.ndim == 0 for parameter in self.network.parameters()):
            sentence = f"backbone '{config.model.backbone}' has scalar weights, which fsdp cannot"
            raise_on_rank_zero(fabric, TrainingError(f"{sentence} shard; set train.strategy to ddp."))
        if fabric.world_size > 1 and fabric.device.type == "cuda":
            self.network = convert_sync_batchnorm(self.network)  # type: ignore[no-untyped-call]
        if fabric.device.type == "cpu":
            leave_pixels_out_first(self.network)
        self._frozen = freeze_backbone(self.network) if c.probe else []
        if c.frozen_stages and not c.probe:
            self._frozen = freeze_stages(self.network, c.frozen_stages)
        if not c.auxiliary_diagnosis_weight:
            self.network.diagnosis.requires_grad_(False)  # several processes would wait for its gradient
        self.training_network = TrainingNetwork(self.network)
        compiled = (
            cast("nn.Module", torch.compile(self.training_network)) if c.compile else self.training_network
        )
        self.model = fabric.setup_module(compiled)
        groups = parameter_groups(self.network, c.weight_decay, c.layer_decay)
        self._optimizer = torch.optim.AdamW(groups, lr=c.learning_rate)
        self.optimizer = cast("_FabricOptimizer", fabric.setup_optimizers(self._optimizer))
        self.ema = ExponentialMovingAverage(
            self.network, c.ema_decay
        )  # last: the tensors must be those on the device
        self.progress = Progress()

    def may_skip_step(self) -> bool:
        """Whether a gradient that is not finite may be an overflow of a scaled loss.

        Then the scaler skips the step and halves the scale. If the gradient is still not finite at the
        smallest scale, halving does not help: without a limit every further step would be skipped, and the
        run would end with the weights it began with.
        """
        scaler = getattr(self._fabric.strategy.precision, "scaler", None)
        return scaler is not None and scaler.get_scale() > MIN_LOSS_SCALE

    def train_mode(self) -> None:
        """Switch to training mode, except for what is frozen."""
        self.network.train()
        for module in self._frozen:
            module.eval()

    def sync_batch_statistics(self) -> None:
        """Give all processes the first one's averaged batch statistics, which are those that are saved.

        If several processes share a batch, each has the statistics of its own part; see docs/training.md.
        """
        if self._fabric.world_size > 1:
            for name, _ in self.network.named_buffers():
                if name in self.ema.tensors:  # others are derived from the shape, not state
                    torch.distributed.broadcast(self.ema.tensors[name], 0)

    def write(self, folder: Path, key: str) -> None:
        """Save the state; to be called in all processes.

        Raises:
            RetryableTrainingError: the disk is full or refuses.
        """
        tensors = gather_on_rank_zero(self._fabric, self._tensors())
        error: str | None = None
        if self._fabric.is_global_zero:
            scaler = self._fabric.strategy.precision.state_dict() or None
            try:
                state_files.write(folder, key, replace(self.progress, scaler=scaler), tensors)
            except RetryableTrainingError as full:
                error = str(full)
        error = self._fabric.broadcast(error)
        if error is not None:
            raise_on_rank_zero(self._fabric, RetryableTrainingError(error))

    def resume(self, folder: Path, key: str, say: Callable[[str], None]) -> None:
        """Resume from the newest intact state with the same inputs, if there is one.

        Raises:
            TrainingStateError: a state that is damaged or does not fit.
            RetryableTrainingError: a state that this process does not see.
        """
        found = state_files.read(folder, key)
        progress = found[0] if found else None
        if self._fabric.broadcast(progress) != progress:
            raise RetryableTrainingError(
                f"{folder}: the training state here is not that of the first machine; all machines of a "
                "training run need the same folder."
            )
        self._fabric.barrier()  # until every process has read
        if self._fabric.is_global_zero:
            state_files.remove_newer(folder, than=progress)
        if found is None:
            return
        self.progress, tensors, damaged = found
        for sentence in damaged:
            say(sentence)
        try:
            self._load_tensors(tensors)
        except (KeyError, RuntimeError) as error:
            raise TrainingStateError(
                f"{folder / state_files.FOLDER}: does not match the network ({error}); --fresh starts over."
            ) from None
        if self.progress.scaler:
            self._fabric.strategy.precision.load_state_dict(dict(self.progress.scaler))
        say(f"resuming {self.progress}")

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"network/{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"average/{name}": value for name, value in self.ema.tensors.items()}
        for name, parameter in self.network.named_parameters():
            for kind, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{name}/{kind}"] = value
        return tensors

    def _load_tensors(self, tensors: dict[str, Tensor]) -> None:
        for name, parameter in self.network.named_parameters():
            prefix = f"optimizer/{name}/"
            kinds = {key.removeprefix(prefix): key for key in tensors if key.startswith(prefix)}
            if kinds:  # moments in the layout of the weights: another layout may round differently
                self._optimizer.state[parameter] = {
                    kind: tensors[key].clone() if kind == "step" else torch.zeros_like(parameter)
                    for kind, key in kinds.items()
                }
        mine = self._tensors()
        if mine.keys() != tensors.keys():
            raise KeyError(f"first: {min(mine.keys() ^ tensors.keys())}")
        for name, value in mine.items():
            copy_full_tensor(value, tensors[name])


def _network(config: Config, diagnoses: int) -> TriageNetwork:
    m = config.model
    body = create_backbone(m.backbone, m.weights, config.pixels.size_px, m.drop_rate, m.drop_path_rate)
    network = TriageNetwork(body, diagnoses)
    if config.train.channels_last and config.train.strategy != "fsdp":  # FSDP2 shards contiguous weights only
        network = network.to(memory_format=torch.channels_last)
    return network
