"""The training loop, read from top to bottom. Fabric brings devices and precision; there are no hooks."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from lesion_triage.bundle.policy import case_logit
from lesion_triage.config import Config, Train
from lesion_triage.data.augment import augmentation
from lesion_triage.data.dataset import EpochOrder, Example, TrainingPictures
from lesion_triage.data.pixel_cache import Pixels
from lesion_triage.data.records import Record
from lesion_triage.errors import TrainingError
from lesion_triage.train import checkpoint
from lesion_triage.train.network import Heads, TriageNetwork, freeze_stages
from lesion_triage.train.weights import backbone

SMALL = 0.8  # side of the pictures in the first epochs, as a share of the full one


@dataclass(frozen=True)
class EpochMetrics:
    """One line of the learning curve."""

    epoch: int
    loss: float
    """Mean training loss."""
    validation_auroc: float
    """Case level, averaged weights, in torch: for the curve only; everything certified comes from ONNX."""
    seconds: float


@dataclass(frozen=True)
class Pictures:
    """Decoded pictures of one split beside their records, in the same order."""

    records: Sequence[Record]
    pixels: Pixels


OnBatch = Callable[[int, int, int], None]
"""Called with (epoch, batches done, batches in the epoch)."""
OnEpoch = Callable[[EpochMetrics], None]


def train(
    config: Config,
    training: Pictures,
    validation: Pictures,
    folder: Path,
    key: str,
    on_batch: OnBatch = lambda *_: None,
    on_epoch: OnEpoch = lambda _: None,
) -> list[EpochMetrics]:
    """Fine-tune and leave ``checkpoint.safetensors`` in ``folder``.

    The last epoch's averaged weights are the result: nothing is chosen on the validation split, so it
    stays fit for the calibrator. The state is kept after each epoch; a run that was killed goes on there.

    Args:
        config: the run.
        training: split 'train'; every record has a label.
        validation: split 'validation', for the curve.
        folder: the run folder.
        key: hash of the inputs; a state with another key is not resumed from.
        on_batch: progress.
        on_epoch: receives each line of the curve, also those of a resumed run's past.

    Raises:
        TrainingError: weights that do not fit, or a loss that is no finite number.
    """
    c = config.train
    fabric = Fabric(accelerator=c.accelerator, devices=1, precision=c.precision)
    fabric.seed_everything(config.seed, verbose=False)
    diagnoses = sorted({record.diagnosis for record in training.records})
    network = TriageNetwork(
        backbone(
            config.model.backbone,
            config.model.weights,
            config.pixels.size_px,
            config.model.drop_rate,
            config.model.drop_path_rate,
        ),
        len(diagnoses),
    ).to(memory_format=torch.channels_last)
    frozen = freeze_stages(network, c.frozen_stages) if c.frozen_stages else []
    optimizer = torch.optim.AdamW(_decayed(network, c.weight_decay), lr=c.learning_rate)
    network_, optimizer_ = fabric.setup(network, optimizer)
    network_.mark_forward_method("heads")
    average = Average(network, c.ema_decay)  # after setup: the tensors must be those on the device

    curve: list[EpochMetrics] = []
    if state := checkpoint.load_state(folder, key):
        network.load_state_dict(state["network"])
        average.network.load_state_dict(state["average"])
        optimizer_.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        curve = [EpochMetrics(**line) for line in state["curve"]]
        for line in curve:
            on_epoch(line)

    for epoch in range(len(curve), c.epochs):
        began = time.monotonic()
        loader = _loader(config, training, diagnoses, epoch)
        batches = len(loader)
        network.train()
        for module in frozen:
            module.eval()
        total = 0.0
        for number, batch in enumerate(fabric.setup_dataloaders(loader)):
            step = epoch * batches + number
            for group in optimizer_.param_groups:
                group["lr"] = c.learning_rate * _schedule(step, batches, c.epochs * batches)
            loss = _loss(network_, batch, c)
            value = loss.item()
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss is {value} in epoch {epoch + 1}, batch {number + 1}: lower "
                    "train.learning_rate or use train.precision 32-true. The last whole epoch is kept."
                )
            optimizer_.zero_grad()
            fabric.backward(loss)
            fabric.clip_gradients(network_, optimizer_, max_norm=5.0)
            optimizer_.step()
            average.update(step)
            total += value
            on_batch(epoch, number + 1, batches)
        line = EpochMetrics(
            epoch=epoch + 1,
            loss=total / batches,
            validation_auroc=_validate(average.network, validation, config),
            seconds=time.monotonic() - began,
        )
        curve.append(line)
        on_epoch(line)
        checkpoint.save_state(
            folder,
            {
                "key": key,
                "network": network.state_dict(),
                "average": average.network.state_dict(),
                "optimizer": optimizer_.state_dict(),
                "random": torch.get_rng_state(),
                "curve": [asdict(line) for line in curve],
            },
        )
    checkpoint.save_checkpoint(folder, average.network, config, diagnoses)
    (folder / checkpoint.STATE).unlink(missing_ok=True)
    return curve


def _decayed(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay for matrices and kernels only; biases and norms are scales, not complexity."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _loader(config: Config, training: Pictures, diagnoses: Sequence[str], epoch: int) -> DataLoader[Example]:
    c = config.train
    small = epoch < round(c.small_first * c.epochs)
    side = round(config.pixels.size_px * SMALL / 32) * 32 if small else config.pixels.size_px
    dataset = TrainingPictures(
        training.pixels,
        [bool(record.needs_in_person) for record in training.records],
        [diagnoses.index(record.diagnosis) for record in training.records],
        augmentation(c.augmentation, side),
        config.seed,
        epoch,
    )
    if len(dataset) < c.batch_size:
        raise TrainingError(
            f"split 'train' has {len(dataset)} pictures, less than one batch of {c.batch_size}; "
            "lower train.batch_size or enlarge the split."
        )
    return DataLoader(
        dataset,
        batch_size=c.batch_size,
        sampler=EpochOrder(len(dataset), config.seed, epoch),
        drop_last=True,  # a last batch of one picture has no batch statistics
        num_workers=c.workers,
    )


def _schedule(step: int, warm_up: int, steps: int) -> float:
    """Linear warm-up over one epoch, then a cosine to zero (Loshchilov and Hutter 2017)."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _loss(network: Any, batch: Example, c: Train) -> Tensor:
    """Loss of one batch, blended where the configuration says so (mixup, Zhang et al. 2018)."""
    if not c.mixup_alpha:
        return _distance(network.heads(batch.pixels), batch, c)
    share = float(torch.distributions.Beta(c.mixup_alpha, c.mixup_alpha).sample())
    other = Example(*(part.roll(1, 0) for part in batch))  # the order is random already
    heads = network.heads(batch.pixels.float().lerp(other.pixels.float(), 1 - share))
    return share * _distance(heads, batch, c) + (1 - share) * _distance(heads, other, c)


def _distance(heads: Heads, batch: Example, c: Train) -> Tensor:
    target = batch.needs_in_person * (1 - c.label_smoothing) + c.label_smoothing / 2
    loss = functional.binary_cross_entropy_with_logits(heads.logit, target)
    if c.auxiliary_diagnosis_weight:
        loss = loss + c.auxiliary_diagnosis_weight * functional.cross_entropy(
            heads.diagnosis, batch.diagnosis, label_smoothing=c.label_smoothing
        )
    return loss


class Average:
    """Exponential moving average of a network's weights and statistics.

    Short at first, so that the random head is soon forgotten: decay min(``decay``, (1 + t) / (10 + t)).
    """

    def __init__(self, network: TriageNetwork, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay
        pairs = list(zip(self.network.state_dict().values(), network.state_dict().values(), strict=True))
        self._floats = [(mean, value) for mean, value in pairs if mean.dtype.is_floating_point]
        self._counts = [(mean, value) for mean, value in pairs if not mean.dtype.is_floating_point]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take one step towards the network."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        means, values = zip(*self._floats, strict=True)
        torch._foreach_lerp_(means, values, share)
        for mean, value in self._counts:
            mean.copy_(value)


@torch.inference_mode()
def _validate(average: nn.Module, validation: Pictures, config: Config) -> float:
    device = next(average.parameters()).device
    logits: list[float] = []
    for start in range(0, len(validation.records), 64):
        pixels = torch.from_numpy(validation.pixels[start : start + 64].copy()).to(device)
        logits += average(pixels)[0].tolist()
    cases: dict[str, list[float]] = {}
    positive: dict[str, bool] = {}
    for record, logit in zip(validation.records, logits, strict=True):
        cases.setdefault(record.case_id, []).append(logit)
        positive[record.case_id] = positive.get(record.case_id, False) or bool(record.needs_in_person)
    scores = [case_logit(values, config.calibrate.aggregation) for values in cases.values()]
    return float(roc_auc_score(list(positive.values()), scores))
