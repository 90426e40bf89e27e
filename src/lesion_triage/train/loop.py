"""The training loop, read from top to bottom. Fabric brings devices and precision; there are no hooks."""

from __future__ import annotations

import hashlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple, NoReturn, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lesion_triage.config import Config, Train
from lesion_triage.console import ProgressCallback
from lesion_triage.data.dataset import DistributedBatchSampler, Example
from lesion_triage.errors import DivergedError
from lesion_triage.train import checkpoint, data_loading, distributed, memory, mixing, state_files, validation
from lesion_triage.train.data_loading import Pictures
from lesion_triage.train.distil import Teacher
from lesion_triage.train.interruption import Interrupted, InterruptionHandler
from lesion_triage.train.losses import class_weights, losses
from lesion_triage.train.optimizer import lr_schedule
from lesion_triage.train.probe import LinearProbe
from lesion_triage.train.training_state import TrainingState

__all__ = ["EpochMetrics", "Pictures", "join_training", "release_other_ranks", "train"]

MAX_GRADIENT_NORM = 5.0  # largest norm of the gradient
MAX_NAMED_PICTURES = 32  # pictures named when a loss is not a number


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
class Listener:
    """Callbacks for progress."""

    on_batch: Callable[[int, int, int], None] = lambda *_: None
    """Called with (epoch, batches done, batches in the epoch)."""
    on_epoch: Callable[[EpochMetrics], None] = lambda _: None
    """Receives each line of the curve, including those from before a resumption."""
    on_embedding: ProgressCallback = lambda *_: None
    """Called with (pictures done, all): ``probe`` only."""
    on_note: Callable[[str], None] = lambda _: None
    """One sentence: where an interrupted training run is resumed."""


@dataclass(frozen=True)
class _Job:
    """What rank 0 tells every process of a training run."""

    config: Config
    training: Pictures
    validation: Pictures
    folder: Path
    key: str
    teachers: Sequence[Path]


def train(
    config: Config,
    training: Pictures,
    validation: Pictures,
    folder: Path,
    key: str,
    listener: Listener = Listener(),
    teachers: Sequence[Path] = (),
) -> list[EpochMetrics]:
    """Fine-tune and leave ``checkpoint.safetensors`` in ``folder``.

    The last epoch's averaged weights are the result: nothing is selected on the validation split, so it
    stays fit for the calibrator. A state is written after each epoch and every few minutes; a run that was
    killed resumes from it. ``train_state`` stays: the caller removes it after recording the result.

    Args:
        config: the run.
        training: split 'train'; every record has a label.
        validation: split 'validation', for the curve.
        folder: the run folder.
        key: hash of the inputs; a state with another key is not resumed from.
        listener: receives the progress.
        teachers: run folders of finished networks, whose predictions are learnt beside the labels.

    Raises:
        TrainingError: weights that do not fit, a loss that is not finite, a full disk, a lost process.
        Interrupted: SIGINT or SIGTERM was received; the state is written.
    """
    fabric = distributed.launch_processes(config.train)
    with distributed.process_group(fabric):
        job = _Job(config, training, validation, folder, key, teachers)
        return _run_training(fabric, fabric.broadcast(job), listener)


def join_training(config: Config) -> None:
    """Take part in the training run that rank 0 starts; under torchrun in all of them, until dismissed."""
    again = True
    while again:
        fabric = distributed.launch_processes(config.train)
        with distributed.process_group(fabric):
            job = fabric.broadcast(cast("_Job | None", None))
            if job is None:
                distributed.leave_process_group()
                return
            try:
                _run_training(fabric, job, Listener())
            except (distributed.QuietExit, Interrupted):
                return
        again = distributed.is_torchrun()


def release_other_ranks(config: Config) -> None:
    """Tell the processes that torchrun started beside this one that there is nothing more to train."""
    if distributed.is_torchrun():
        fabric = distributed.launch_processes(config.train)
        with distributed.process_group(fabric):
            fabric.broadcast(None)
        distributed.leave_process_group()


@memory.retain_freed_memory()
def _run_training(fabric: Fabric, job: _Job, listener: Listener) -> list[EpochMetrics]:
    config, c = job.config, job.config.train
    names = sorted({record.diagnosis for record in job.training.records})
    labels = [names.index(record.diagnosis) for record in job.training.records]
    weights = class_weights(job.training.needs_in_person(), c).to(fabric.device)
    state = TrainingState(fabric, config, len(names))
    if job.teachers:
        state.teacher = Teacher(fabric, config, job.teachers)
    probe: LinearProbe | None = None
    if c.probe:
        listener.on_note("computing embeddings: the backbone is frozen, no picture is augmented or reduced")
        probe = LinearProbe(state.network, job.training, job.validation, labels, listener.on_embedding)
    state.resume(job.folder, job.key, listener.on_note)
    curve = [EpochMetrics(**line) for line in state.progress.curve]  # type: ignore[arg-type]
    for line in curve:
        listener.on_epoch(line)

    def score(start: int, stop: int) -> Tensor:
        if probe is not None:
            return probe.logits(start, stop)
        pixels = torch.from_numpy(job.validation.pixels[start:stop].copy()).to(fabric.device)
        logit: Tensor = state.training_network(pixels).logit
        return logit

    with InterruptionHandler() as interruption:
        for epoch in range(state.progress.epoch, c.epochs):
            dataset = (
                probe.dataset
                if probe
                else data_loading.augmented_dataset(config, job.training, labels, epoch)
            )
            began = time.monotonic() - state.progress.seconds
            loss = _run_epoch(fabric, job, state, dataset, weights, interruption, listener)
            state.sync_batch_statistics()
            with state.ema.applied():
                logits = validation.logits(fabric, len(job.validation.records), score)
            validation.require_finite(fabric, logits, epoch)
            auroc = validation.case_auroc(job.validation.records, logits, config.calibrate.aggregation)
            curve.append(EpochMetrics(epoch + 1, loss, auroc, time.monotonic() - began))
            state.progress = state_files.Progress(epoch + 1, curve=[asdict(line) for line in curve])
            listener.on_epoch(curve[-1])
            state.write(job.folder, job.key)
        with state.ema.applied():
            if probe is not None:
                probe.unscale()
            tensors = distributed.gather_on_rank_zero(fabric, state.network.state_dict())
            if fabric.is_global_zero:
                checkpoint.save_checkpoint(job.folder, tensors, config, names)
    if interruption.received_signal is not None:
        raise Interrupted(interruption.received_signal)
    return curve


def _run_epoch(
    fabric: Fabric,
    job: _Job,
    state: TrainingState,
    dataset: Dataset[Example],
    weights: Tensor,
    interruption: InterruptionHandler,
    listener: Listener,
) -> float:
    """Run the remaining batches of the epoch. Returns the mean loss of all."""
    config, c = job.config, job.config.train
    at = state.progress
    order = data_loading.batch_order(
        config, len(job.training.records), at.epoch, fabric.world_size, fabric.global_rank, at.batch
    )
    share = lr_schedule(c, order.batches)
    state.train_mode()
    began = written = time.monotonic()
    loader = data_loading.data_loader(
        dataset, order, 0 if c.probe else c.workers, pinned=fabric.device.type == "cuda"
    )
    stream: Iterator[Example] = iter(
        cast("DataLoader[Example]", fabric.setup_dataloaders(loader, use_distributed_sampler=False))
    )
    for number in range(at.batch, order.batches):
        step = at.epoch * order.batches + number
        for group in state.optimizer.param_groups:
            group["lr"] = c.learning_rate * group["lr_scale"] * share(step)
        part = _backward(fabric, state, stream, order, weights, config, number)
        due = fabric.is_global_zero and time.monotonic() - written >= 60 * c.checkpoint_minutes
        loss, norm, save, stop = _sync_step(fabric, part, due, interruption.received_signal is not None)
        if not math.isfinite(loss) or not (math.isfinite(norm) or state.may_skip_step()):
            _raise_diverged(fabric, job, order, number, part, loss)
        state.optimizer.step()
        state.ema.update(step)
        state.progress = replace(
            state.progress,
            batch=number + 1,
            loss_sum=state.progress.loss_sum + loss,
            seconds=at.seconds + time.monotonic() - began,
        )
        listener.on_batch(at.epoch, number + 1, order.batches)
        if save or stop:
            state.write(job.folder, job.key)
            written = time.monotonic()
        if stop:
            raise Interrupted(interruption.received_signal or signal.SIGTERM)
    return state.progress.loss_sum / order.batches


class _StepResult(NamedTuple):
    """One process's results of one step."""

    loss: Tensor
    """Its share of the mean loss of the batch."""
    norm: Tensor
    """Norm of the whole gradient, before clipping."""
    losses: list[tuple[int, Tensor]]
    """Part of the batch, losses of its pictures."""


def _backward(
    fabric: Fabric,
    state: TrainingState,
    stream: Iterator[Example],
    order: DistributedBatchSampler,
    weights: Tensor,
    config: Config,
    number: int,
) -> _StepResult:
    """Leave the gradient of one batch's mean loss in the network, however the batch is divided."""
    c, epoch = config.train, state.progress.epoch
    mix = mixing.draw(c, config.seed, epoch, number)
    state.optimizer.zero_grad()
    found: list[tuple[int, Tensor]] = []
    for part in order.own:
        batch = next(stream)
        name = f"{config.seed}:{epoch}:{number}:{part}".encode()
        seed = int.from_bytes(hashlib.blake2b(name, digest_size=4).digest())
        fabric.seed_everything(seed, verbose=False)  # dropout: drawn by position
        with fabric.no_backward_sync(state.model, enabled=part != order.own[-1]):
            each = _losses(state, batch, mix, c, weights)
            # Processes average their gradients; a sum divided by the batch size thus gives its exact mean.
            fabric.backward(each.sum() * (fabric.world_size / c.batch_size))
        found.append((part, each.detach()))
    norm = fabric.clip_gradients(
        state.model, state.optimizer, max_norm=MAX_GRADIENT_NORM, error_if_nonfinite=False
    )
    assert norm is not None
    loss = torch.cat([each for _, each in found]).sum() / c.batch_size
    return _StepResult(loss, distributed.full_tensor(norm.detach()), found)


def _losses(
    state: TrainingState, batch: Example, mix: mixing.Mix | None, c: Train, weights: Tensor
) -> Tensor:
    given, other, share = mixing.mix_batch(batch, mix) if mix else (batch.pixels, None, 1.0)
    heads = state.model(given)
    found = losses(heads, batch, c, weights)
    if other is not None:
        found = share * found + (1 - share) * losses(heads, other, c, weights)
    return found if state.teacher is None else state.teacher.distillation_loss(found, heads, given)


def _sync_step(fabric: Fabric, part: _StepResult, due: bool, asked: bool) -> tuple[float, float, bool, bool]:
    """Values that all processes act on together: loss, norm, whether to write the state, whether to stop."""
    flags = torch.tensor([due, asked], dtype=torch.float32, device=part.loss.device)
    mine = torch.stack([part.loss, part.norm.to(part.loss)])
    loss, norm, save, stop = distributed.all_reduce_sum(fabric, torch.cat([mine, flags])).tolist()
    return loss, norm / fabric.world_size, save > 0, stop > 0


def _raise_diverged(
    fabric: Fabric, job: _Job, order: DistributedBatchSampler, number: int, part: _StepResult, loss: float
) -> NoReturn:
    """Name the batch and its pictures. Nothing is written, so the last state stays good."""
    broken, all_of_them = [], []
    for index, losses_ in part.losses:
        for picture, finite in zip(order.part(number, index), losses_.isfinite().tolist(), strict=True):
            name = job.training.records[picture].image_id
            all_of_them.append(name)
            if not finite:
                broken.append(name)
    broken = distributed.all_gather_list(fabric, broken) or distributed.all_gather_list(fabric, all_of_them)
    more = f" and {len(broken) - MAX_NAMED_PICTURES} more" if len(broken) > MAX_NAMED_PICTURES else ""
    what = f"gradient is not finite (loss {loss})" if math.isfinite(loss) else f"loss is {loss}"
    distributed.raise_on_rank_zero(
        fabric,
        DivergedError(
            f"the {what} in epoch {order.epoch + 1}, batch {number + 1}, "
            f"for the pictures {', '.join(broken[:MAX_NAMED_PICTURES])}{more}; look at them, lower "
            "train.learning_rate or use train.precision 32-true. The last good state is kept."
        ),
    )
