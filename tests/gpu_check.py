"""``make gpu-check``: whether training does on this machine's GPU what the tests show of it on a processor.

python tests/gpu_check.py [--accelerator cuda|cpu] [--backbone NAME] [--size-px N] [--batches N]

Each way to train is compared with the same training on the processor, in 32 bits: drawn pictures, a small
network, the losses of three epochs. Then steps of a common backbone are timed: pictures a second, memory, and
the share of what a product of large matrices reaches on the same device. Takes a few minutes. With
``--accelerator cpu`` the check tries itself where there is no GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import drawn
import torch
from torch.utils.flop_counter import FlopCounterMode

import bench_training
from lesion_triage.errors import LesionTriageError
from lesion_triage.train.distributed import resolve_precision
from lesion_triage.train.interruption import Interrupted
from lesion_triage.train.loop import Listener, train

RECIPE: dict[str, Any] = {"backbone": "test_resnet", "drop_rate": 0.0, "epochs": 3, "learning_rate": 1e-3}
EXACT, REDUCED, SKIPPING = 0.02, 0.10, 0.50
"""How far a loss may lie from that of the processor, as a share: in 32 bits, where convolutions on a GPU may
compute in TF32; in 16 bits; and where the first steps are skipped until the scale of the loss is found."""


def main() -> None:
    """Print a line for each way; status 1 if one is not as it must be, 2 without such a device."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--accelerator", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--backbone", default="resnet50", help="that is timed")
    parser.add_argument("--size-px", type=int, default=224)
    parser.add_argument("--batches", type=int, default=30, help="that are timed")
    arguments = parser.parse_args()
    if arguments.accelerator == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU on this machine; --accelerator cpu runs the check on its processor")
    device = torch.device(arguments.accelerator)
    on_gpu = device.type == "cuda"
    count = torch.cuda.device_count() if on_gpu else 0
    name = torch.cuda.get_device_name() if on_gpu else "processor"
    print(f"{name}, {count} in this machine; torch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        agree = check_ways(Path(folder), arguments.accelerator, count)
    for precision in ("32-true", "bf16-mixed"):
        time_steps(device, precision, arguments.backbone, arguments.size_px, arguments.batches)
    sys.exit(0 if agree else 1)


def check_ways(folder: Path, accelerator: str, gpus: int) -> bool:
    """Whether each way to train, broken off or not, comes to the losses of the processor."""
    ways: dict[str, tuple[dict[str, Any], float]] = {
        "32 bits": ({}, EXACT),
        "without channels-last": ({"channels_last": False}, EXACT),
        "bf16-mixed": ({"precision": "bf16-mixed"}, REDUCED),
        "compiled": ({"compile": True}, EXACT),
        "ddp": ({"strategy": "ddp"}, EXACT),
        "fsdp": ({"strategy": "fsdp", "channels_last": False}, EXACT),
    }
    if accelerator == "cuda":
        ways["16-mixed, which scales the loss"] = ({"precision": "16-mixed"}, SKIPPING)
        ways["compiled, bf16-mixed"] = ({"compile": True, "precision": "bf16-mixed"}, REDUCED)
    expected = losses(folder / "expected", {"accelerator": "cpu"})
    found = [
        agrees(way, expected, losses(folder / way, {"accelerator": accelerator, **section}), share)
        for way, (section, share) in ways.items()
    ]
    for precision, share in (("32-true", EXACT), ("auto", REDUCED)):
        section = {"accelerator": accelerator, "precision": precision}
        chosen = resolve_precision(drawn.config(**RECIPE, **section).train)
        broken_off = losses(folder / f"broken off {precision}", section, break_off=True)
        found.append(agrees(f"broken off and resumed, {chosen}", expected, broken_off, share))
    parts = {"backbone": "test_vit", "accumulate": 2}  # without batch statistics, which are those of a part
    whole = losses(folder / "expected in one", {"accelerator": "cpu", "backbone": "test_vit"})
    in_parts = losses(folder / "in parts", {"accelerator": accelerator, **parts})
    found.append(agrees("in two accumulated parts", whole, in_parts, EXACT))
    if gpus < 2:
        print("NOT TRIED: several GPUs, of which this machine has none or one")
    return all(found)


def losses(folder: Path, section: dict[str, Any], break_off: bool = False) -> list[float] | str:
    """The mean loss of each epoch, or the error that training ended with."""
    folder.mkdir()
    given = drawn.config(**{**RECIPE, **section}), drawn.TRAINING, drawn.VALIDATION, folder, "key"
    try:
        if break_off:
            with contextlib.suppress(Interrupted):
                train(*given, Listener(on_batch=_stop_in_the_second_epoch))
                return "was not broken off"
        curve = train(*given)
    except LesionTriageError as error:
        return str(error)
    return [line.loss for line in curve]


def _stop_in_the_second_epoch(epoch: int, done: int, _: int) -> None:
    if (epoch, done) == (1, 2):
        os.kill(os.getpid(), signal.SIGTERM)


def agrees(way: str, expected: Sequence[float] | str, found: Sequence[float] | str, share: float) -> bool:
    """Whether the losses lie within a share of those of the processor; a line says so."""
    if isinstance(expected, str) or isinstance(found, str):
        print(f"NOT SO: {way}: {expected if isinstance(expected, str) else found}", flush=True)
        return False
    distance = max(abs(one - other) / other for one, other in zip(found, expected, strict=True))
    is_so = distance <= share
    said = " ".join(f"{loss:.4f}" for loss in found)
    print(
        f"{'ok ' if is_so else 'NOT SO:'} {way}: losses {said}, {distance:.2%} from the processor's",
        flush=True,
    )
    return is_so


def time_steps(device: torch.device, precision: str, backbone: str, size_px: int, batches: int) -> None:
    """Print how fast steps are that are fed from memory, and what share of the device they use."""
    c = bench_training.config(backbone, size_px, precision=precision, accelerator=device.type, batch_size=64)
    given = bench_training.training(64 * 2, size_px)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    steps = bench_training.Steps(c, given, from_memory=True)
    with FlopCounterMode(display=False) as counter:
        steps.step()
    for _ in range(batches + bench_training.UNCOUNTED):
        steps.step()
    seconds = statistics.median(steps.seconds[1 + bench_training.UNCOUNTED :])
    reached = counter.get_total_flops() / seconds
    peak = matrix_product_flops(device, torch.float32 if precision == "32-true" else torch.bfloat16)
    memory = f", {torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if device.type == "cuda" else ""
    print(
        f"{backbone}, {size_px} px, {precision}: {64 / seconds:.0f} pictures a second{memory}; "
        f"{reached / 1e12:.2f} TFLOP/s, {reached / peak:.0%} of what a product of matrices reaches",
        flush=True,
    )


def matrix_product_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a product of square matrices."""
    side = 8192 if device.type == "cuda" else 1024
    one = torch.randn(side, side, device=device, dtype=dtype)
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        one @ one
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / statistics.median(seconds)


if __name__ == "__main__":
    main()
