"""The processes of one training run: how many, where, how they communicate. Imports Fabric and configuration.

Processes come from torchrun, or Fabric starts them by repeating this process's own command.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from lesion_triage.config import Train
from lesion_triage.console import echo
from lesion_triage.errors import RetryableTrainingError, TrainingError, first_line

# Long, since the others wait while rank 0 lists and decodes the pictures. The death of a process is
# noticed at once, by other means.
COLLECTIVE_TIMEOUT = timedelta(hours=6)

_Item = TypeVar("_Item")


class QuietExit(Exception):  # noqa: N818 - not an error: rank 0 reports what there is to report
    """This process has nothing more to do."""


def is_torchrun() -> bool:
    """Whether torchrun started this process."""
    return dist.is_torchelastic_launched()


def launch_processes(c: Train) -> Fabric:
    """Start and connect the processes of this training run.

    Raises:
        TrainingError: a batch too small for the number of processes, a probe on several of them, or an
            accelerator, a number of GPUs or a precision that this machine does not have.
    """
    require_hardware(c)
    devices = _processes_on_this_machine(c)
    nodes = int(os.environ["WORLD_SIZE"]) // devices if is_torchrun() else 1
    world = devices * nodes
    chosen = resolve_precision(c)
    if chosen == "bf16-mixed" and not _uses_cuda(c) and not cpu_has_bf16():
        echo("note: this processor has no bf16 instructions; train.precision: auto is many times faster")
    _require_fit(c, world)
    if world == 1 and c.strategy == "auto":
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # its message would break the bar
        fabric = Fabric(accelerator=c.accelerator, devices=1, precision=chosen)
        fabric.launch()
        return fabric
    environment = TorchElasticEnvironment() if is_torchrun() else LightningEnvironment()
    strategy: Any = DDPStrategy(timeout=COLLECTIVE_TIMEOUT)
    if c.strategy == "fsdp":
        strategy = ModelParallelStrategy(
            _shard, data_parallel_size=world, tensor_parallel_size=1, timeout=COLLECTIVE_TIMEOUT
        )
    fabric = Fabric(
        accelerator=c.accelerator,
        devices=devices,
        num_nodes=nodes,
        precision=chosen,
        strategy=strategy,
        plugins=[environment],
    )
    fabric.launch()
    if not is_torchrun() and fabric.global_rank > 0:
        threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()
    return fabric


def _uses_cuda(c: Train) -> bool:
    return c.accelerator in ("auto", "cuda") and torch.cuda.is_available()


def _processes_on_this_machine(c: Train) -> int:
    if is_torchrun():
        return int(os.environ["LOCAL_WORLD_SIZE"])
    if c.devices == "auto":
        return torch.cuda.device_count() if _uses_cuda(c) else 1
    return c.devices


def require_hardware(c: Train) -> None:
    """Check that this machine has the accelerator, the GPUs and the precision that are asked for.

    An Apple GPU is not shared: Fabric knows no process group for it.

    Raises:
        TrainingError: it has not.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(c.accelerator, True):
        raise TrainingError(
            f"train.accelerator is {c.accelerator}, and torch finds none on this machine; use auto or cpu, "
            "or install its driver and a torch that is built for it."
        )
    processes = _processes_on_this_machine(c)
    if _uses_cuda(c) and processes > torch.cuda.device_count():
        raise TrainingError(
            f"{processes} processes need a GPU each, and torch finds {torch.cuda.device_count()} on this "
            "machine; lower train.devices (under torchrun: --nproc-per-node)."
        )
    on_apple = c.accelerator in ("auto", "mps") and available["mps"] and not _uses_cuda(c)
    if on_apple and (processes > 1 or c.strategy != "auto"):
        raise TrainingError(
            "an Apple GPU trains in one process; set train.accelerator to cpu, or train.devices to 1 and "
            "train.strategy to auto."
        )
    resolve_precision(c)


def _require_fit(c: Train, world: int) -> None:
    """Checked only here, because only torchrun or ``devices: auto`` decides how many processes there are."""
    if c.batch_size < 2 * world * c.accumulate:
        raise TrainingError(
            f"a batch of {c.batch_size} leaves less than two pictures for each of {world} processes times "
            f"{c.accumulate} accumulated parts; raise train.batch_size."
        )
    if world > 1 and c.probe:
        raise TrainingError("train.probe takes one process: its head is trained in seconds.")


def cpu_has_bf16() -> bool:
    """Whether the CPU has bf16 instructions. Without them each step takes many times as long."""
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def resolve_precision(c: Train) -> Any:
    """What ``train.precision`` means on this machine.

    ``auto`` is bf16-mixed on a GPU or CPU with native bf16 (AVX512-BF16 or AMX), 16-mixed on an older GPU
    unless with fsdp, for which Fabric does not scale losses, else 32-true.

    Raises:
        TrainingError: 16-mixed without a GPU; Fabric would compute in another precision than asked for.
    """
    cuda = _uses_cuda(c)
    if c.precision == "16-mixed" and not cuda:
        raise TrainingError("train.precision 16-mixed needs a CUDA GPU; use auto, bf16-mixed or 32-true.")
    if c.precision != "auto":
        return c.precision
    if not cuda:
        return "bf16-mixed" if cpu_has_bf16() else "32-true"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16-mixed"
    return "32-true" if c.strategy == "fsdp" else "16-mixed"


@contextmanager
def process_group(fabric: Fabric) -> Iterator[None]:
    """Turn the loss of a worker into one error, and destroy the process group on exit.

    torchrun's processes keep their group until ``leave_process_group``: another training run may follow, and
    they can connect only once.

    Raises:
        RetryableTrainingError: a process that shared the work, or prepared pictures for it, has ended.
        TrainingError: out of memory.
    """
    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        if any(words in str(error) for words in ("out of memory", "DefaultCPUAllocator")):
            raise TrainingError(
                f"training does not fit into the memory of {fabric.device}; raise train.accumulate, or "
                f"lower train.batch_size or pixels.size_px. ({' '.join(str(error).split())[:200]})"
            ) from None
        if "DataLoader worker" in str(error):  # torch's own words for one that was killed
            raise RetryableTrainingError(
                f"a loader process of this training run was ended from outside ({str(error).strip()}). "
                "Mostly memory has run out, or the shared memory of a container (docker run --shm-size): "
                "make room, or set train.workers to 0. The last training state is kept; run the same command "
                "again."
            ) from None
        lost = isinstance(error, dist.DistError) or "gloo" in str(error)
        if fabric.world_size > 1 and lost:
            raise RetryableTrainingError(
                "another process of this training run has ended; its own message says why. The last "
                f"training state is kept; run the same command again. ({first_line(error)})"
            ) from None
        raise
    finally:
        if dist.is_initialized() and not is_torchrun():
            leave_process_group()
            for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
                os.environ.pop(name, None)


def leave_process_group() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def raise_on_rank_zero(fabric: Fabric, error: TrainingError) -> NoReturn:
    """To be called in all processes: the first raises the error, the others leave silently.

    Raises:
        TrainingError: in the first process.
        QuietExit: in the others.
    """
    if fabric.is_global_zero:
        raise error
    raise QuietExit


def all_gather_list(fabric: Fabric, thing: list[_Item]) -> list[_Item]:
    """The concatenated lists of all processes. To be called in all of them."""
    if fabric.world_size == 1:
        return thing
    parts: list[Any] = [None] * fabric.world_size
    dist.all_gather_object(parts, thing)
    return [one for part in parts for one in part]


def all_reduce_sum(fabric: Fabric, tensor: Tensor) -> Tensor:
    """The sum of the tensors of all processes. To be called in all of them."""
    total = fabric.all_reduce(tensor, reduce_op="sum")
    assert isinstance(total, Tensor)
    return total


def full_tensor(tensor: Tensor) -> Tensor:
    """The full tensor, gathered from all shards. To be called in all processes."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather_on_rank_zero(fabric: Fabric, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Full tensors on the CPU of rank 0, and nothing elsewhere. To be called in all processes.

    One after the other: a network that is sharded need not fit into the memory of one GPU.
    """
    found = {}
    for name, tensor in tensors.items():
        full = full_tensor(tensor)
        if fabric.is_global_zero:
            found[name] = full.cpu()
    return found


@torch.no_grad()
def copy_full_tensor(target: Tensor, content: Tensor) -> None:
    """Copy a full tensor into a tensor, or into this process's shard of it, keeping its layout."""
    content = content.to(target.device, target.dtype)
    if isinstance(target, DTensor):
        content = distribute_tensor(content, target.device_mesh, target.placements)
    target.copy_(content)


def _shard(module: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """FSDP2: weights, gradients and moments in shards, gathered for one stage of the backbone at a time."""
    for part in module.network.backbone.children():  # type: ignore[union-attr]
        if isinstance(part, nn.Sequential | nn.ModuleList):
            for block in part:
                fully_shard(block, mesh=mesh["data_parallel"])
    fully_shard(module, mesh=mesh["data_parallel"])
    return module


def _exit_with_parent(parent: int) -> None:
    """Make a process that was started by another end with it, even if that one is killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
