"""The loop beside itself fed from memory; what memory, layout and precision bring; the loader alone.

    python tests/bench_training.py [BACKBONE [SIZE_PX [BATCHES]]]

Ratios of medians over steps that take turns, so that a neighbour on the machine slows both; by the processor
time of the training process, which a neighbour disturbs least, and by the clock. On a machine with a GPU the
steps run there, and only the clock says something. The loader is compared with a folder of JPEGs of 600 x 450
pixels, decoded by Pillow and altered by torchvision, both with two processes and batches of 64.
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from lesion_triage.config import Config
from lesion_triage.data.augment import augmentation
from lesion_triage.data.dataset import DistributedBatchSampler, Example, TrainingPictures
from lesion_triage.data.records import Record
from lesion_triage.data.synthetic import draw_picture
from lesion_triage.train import data_loading, distributed, loop, memory
from lesion_triage.train.data_loading import Pictures
from lesion_triage.train.training_state import TrainingState


def config(backbone: str, size_px: int, **section: object) -> Config:
    train = {"frozen_stages": 0, **section}
    tree = {
        "name": "bench",
        "data": {"source": "synthetic"},
        "pixels": {"size_px": size_px},
        "model": {"backbone": backbone, "weights": "none"},
        "train": train,
    }
    return Config.model_validate(tree)


def training(count: int, size_px: int) -> Pictures:
    blank = {"patient_id": None, "diagnosis_confirm_type": "", "source": "synthetic", "sha256": "0" * 64}
    size = {"width_px": size_px, "height_px": size_px}
    records = [
        Record(
            image_id=f"{n}",
            path="",
            lesion_id=f"{n}",
            diagnosis="ab"[n % 2],
            needs_in_person=bool(n % 2),
            **blank,
            **size,
        )
        for n in range(count)
    ]
    random = np.random.default_rng(0)
    return Pictures(records, random.integers(0, 256, (count, size_px, size_px, 3)).astype(np.uint8))


class Steps:
    """Steps of one training, timed one at a time."""

    def __init__(self, c: Config, given: Pictures, from_memory: bool) -> None:
        self._fabric = distributed.launch_processes(c.train)
        self._config = c
        self._state = TrainingState(self._fabric, c, 2)
        self._state.train_mode()
        self._order = data_loading.batch_order(c, len(given.records), 0, 1, 0)
        labels = [record.diagnosis == "b" for record in given.records]
        fed = data_loading.data_loader(
            data_loading.augmented_dataset(c, given, labels, 0), self._order, c.train.workers
        )
        fed = self._fabric.setup_dataloaders(fed, use_distributed_sampler=False)
        self._stream: Iterator[Example] = iter(fed)
        if from_memory:
            self._stream = itertools.cycle([next(iter(fed))])
        self._number = 0
        self._weights = torch.ones(2, device=self._fabric.device)
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []

    def step(self) -> None:
        began, cpu = time.perf_counter(), time.process_time()
        part = loop._backward(
            self._fabric, self._state, self._stream, self._order, self._weights, self._config, self._number
        )
        loop._sync_step(self._fabric, part, due=False, asked=False)
        self._state.optimizer.step()
        self._state.ema.update(self._number)
        self._number += 1
        self.seconds.append(time.perf_counter() - began)
        self.cpu_seconds.append(time.process_time() - cpu)


UNCOUNTED = 2  # steps at first


def report(title: str, one: list[float], other: list[float], per: int, clock: tuple[float, float]) -> None:
    """How much faster the first is than the second, step by step of processor time."""
    low, middle, high = statistics.quantiles([b / a for a, b in zip(one, other, strict=True)], n=4)
    own, others = (1e3 * statistics.median(times) / per for times in (one, other))
    print(
        f"{title}: {middle:.2f} times as fast by processor time (quartiles {low:.2f} to {high:.2f}; "
        f"{own:.2f} against {others:.2f} CPU ms a picture), {clock[1] / clock[0]:.2f} by the clock",
        flush=True,
    )


def compare(title: str, one: Steps, other: Steps, batches: int) -> None:
    for _ in range(batches):
        one.step()
        other.step()
    clock = tuple(statistics.median(steps.seconds[UNCOUNTED:]) for steps in (one, other))
    times = (steps.cpu_seconds[UNCOUNTED:] for steps in (one, other))
    report(title, *times, one._config.train.batch_size, (clock[0], clock[1]))


def compare_memory(steps: Steps, batches: int) -> None:
    """Blocks of steps with and without keeping what is freed; a block's first step is not counted."""
    block, kept, given_back = 4, [], []
    for _ in range(max(2, batches // (2 * block))):
        with memory.retain_freed_memory():
            kept += [steps.step() or (steps.cpu_seconds[-1], steps.seconds[-1]) for _ in range(block)][1:]
        given_back += [steps.step() or (steps.cpu_seconds[-1], steps.seconds[-1]) for _ in range(block)][1:]
    clock = statistics.median(b for _, b in kept), statistics.median(b for _, b in given_back)
    each = [a for a, _ in kept], [a for a, _ in given_back]
    report("freed memory kept / given back", *each, steps._config.train.batch_size, clock)


def pass_through(batches: Iterable[Any]) -> tuple[float, float]:
    """Processor seconds of the loader's processes and of this one, and seconds on the clock, a picture."""
    cpu, began, count = sum(os.times()[:4]), time.perf_counter(), 0
    for batch in batches:
        count += len(batch[1])
    return (sum(os.times()[:4]) - cpu) / count, (time.perf_counter() - began) / count


def compare_loaders(size_px: int, turns: int = 3, count: int = 512) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            path = Path(folder) / "ab"[number % 2] / f"{number}.jpg"
            path.parent.mkdir(exist_ok=True)
            draw_picture("irregular", number).resize((600, 450)).save(path, quality=90)
        usual = v2.Compose(
            [
                v2.RandomResizedCrop(size_px, scale=(0.6, 1.0), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.RandomVerticalFlip(),
                v2.ColorJitter(0.2, 0.2, 0.2, 0.03),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )
        files = ImageFolder(folder, usual)
        side = (size_px, size_px)
        decoded = np.stack([np.asarray(Image.open(path).resize(side)) for path, _ in files.samples])
        repeated = np.concatenate([decoded] * 8)  # as long as theirs takes

        def ours(level: Any, epoch: int) -> Iterable[Example]:
            labels = [0] * len(repeated)
            data = TrainingPictures(repeated, labels, labels, augmentation(level, size_px), 0, epoch)
            return data_loading.data_loader(data, DistributedBatchSampler(len(repeated), 64, 0, epoch), 2)

        ways: dict[str, Callable[[int], Iterable[Any]]] = {
            "theirs": lambda _: DataLoader(files, 64, shuffle=True, num_workers=2),
            **{
                level: lambda turn, level=level: ours(level, turn)
                for level in ("flips", "standard", "strong")
            },
        }
        taken = {name: [pass_through(way(turn)) for turn in range(turns)] for name, way in ways.items()}
    for level in ("flips", "standard", "strong"):
        each = [[cpu for cpu, _ in taken[name]] for name in (level, "theirs")]
        clock = tuple(statistics.median(seconds for _, seconds in taken[name]) for name in (level, "theirs"))
        report(f"loader, {level}, {size_px} px / JPEGs through Pillow and torchvision", *each, 1, clock)


def main(backbone: str = "tf_efficientnet_lite0", size_px: str = "160", batches: str = "24") -> None:
    size, number = int(size_px), int(batches)
    given = training(32 * (number + 4), size)
    plain = config(backbone, size)

    def variant(**section: object) -> Steps:
        return Steps(config(backbone, size, **section), given, from_memory=True)

    compare_memory(variant(), number)
    with memory.retain_freed_memory():
        compare("loop / fed from memory", Steps(plain, given, False), Steps(plain, given, True), number)
        compare("channels-last / not", variant(), variant(channels_last=False), number)
        if torch.cuda.is_available() or distributed.cpu_has_bf16():
            compare("bf16-mixed / 32-true", variant(precision="bf16-mixed"), variant(), number)
    compare_loaders(size)


if __name__ == "__main__":
    main(*sys.argv[1:])
