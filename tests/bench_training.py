"""How fast the training loop is beside the same loop fed from memory, and what layout and precision bring.

    python tests/bench_training.py [BACKBONE [SIZE_PX [BATCHES]]]

Ratios of medians over steps that take turns, so that a neighbour on the machine slows both.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Iterator

import numpy as np
import torch

from lesion_triage.config import Config
from lesion_triage.data.dataset import Example
from lesion_triage.data.records import Record
from lesion_triage.train import loop, pictures, processes
from lesion_triage.train.learning import Learning
from lesion_triage.train.pictures import Pictures


def config(backbone: str, size_px: int, **section: object) -> Config:
    train = {"accelerator": "cpu", "frozen_stages": 0, **section}
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
        self._fabric = processes.launch(c.train)
        self._config = c
        self._learning = Learning(self._fabric, c, 2)
        self._learning.learn()
        self._order = pictures.batch_order(c, len(given.records), 0, 1, 0)
        labels = [record.diagnosis == "b" for record in given.records]
        fed = pictures.loader(pictures.augmented(c, given, labels, 0), self._order, c.train.workers)
        self._stream: Iterator[Example] = iter(fed)
        if from_memory:
            self._stream = itertools.cycle([next(iter(fed))])
        self._number = 0
        self.seconds: list[float] = []

    def step(self) -> None:
        began = time.perf_counter()
        part = loop._gradient(
            self._fabric, self._learning, self._stream, self._order, torch.ones(2), self._config, self._number
        )
        loop._summed(self._fabric, part, due=False, asked=False)
        self._learning.optimizer.step()
        self._learning.average.update(self._number)
        self._number += 1
        self.seconds.append(time.perf_counter() - began)


def compare(title: str, one: Steps, other: Steps, batches: int) -> None:
    for _ in range(batches):
        one.step()
        other.step()
    ratios = [b / a for a, b in zip(one.seconds[2:], other.seconds[2:], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    size = one._config.train.batch_size
    print(
        f"{title}: speed ratio {middle:.3f} (quartiles {low:.3f} to {high:.3f}); "
        f"{size / statistics.median(one.seconds[2:]):.1f} against "
        f"{size / statistics.median(other.seconds[2:]):.1f} images/s",
        flush=True,
    )


def main(backbone: str = "tf_efficientnet_lite0", size_px: str = "160", batches: str = "24") -> None:
    size, number = int(size_px), int(batches)
    given = training(32 * (number + 4), size)
    plain = config(backbone, size)

    def variant(**section: object) -> Steps:
        return Steps(config(backbone, size, **section), given, from_memory=True)

    compare("loop / fed from memory", Steps(plain, given, False), Steps(plain, given, True), number)
    compare("channels-last / not", variant(), variant(channels_last=False), number)
    compare("bf16-mixed / 32-true", variant(precision="bf16-mixed"), variant(), number)


if __name__ == "__main__":
    main(*sys.argv[1:])
