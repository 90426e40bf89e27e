"""One training on several processes, parts or devices is the training on one. Real processes, over gloo."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from drawn import TRAINING, VALIDATION, config, pictures, weights
from hypothesis import given
from hypothesis import strategies as st
from lightning_fabric import Fabric
from safetensors.torch import load_file

from lesion_triage import cli
from lesion_triage.data.dataset import BatchOrder
from lesion_triage.errors import TrainingError
from lesion_triage.train import loop, processes
from lesion_triage.train.learning import Learning
from lesion_triage.train.loop import Listener, train
from lesion_triage.train.pictures import augmented, batch_order, loader

# No batch statistics: on processors each process has those of its own part (docs/training.md).
CONFIG = {
    "name": "several",
    "data": {"source": "synthetic", "synthetic": {"lesions": 100, "positive_share": 0.4}},
    "split": {"fractions": {"train": 0.4, "validation": 0.2, "calibration": 0.2, "test": 0.2}},
    "pixels": {"size_px": 32},
    "model": {"backbone": "test_vit", "weights": "none", "drop_rate": 0.0, "drop_path_rate": 0.0},
    "train": {
        "epochs": 2,
        "batch_size": 16,
        "learning_rate": 1e-3,
        "ema_decay": 0.8,
        "mixup_alpha": 0.4,
        "cutmix_alpha": 1.0,
        "loss": "balanced",
        "workers": 0,
        "accelerator": "cpu",
    },
    "calibrate": {"target_sensitivity": 0.8, "confidence": 0.8},
    "tracking": {"enabled": False},
}
PROGRAM = [sys.executable, "-c", "import sys; from lesion_triage.cli import main; sys.exit(main())"]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Listed and split, and trained in one process."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "several.yaml").write_text(yaml.safe_dump(CONFIG))
    for verb in ("manifest", "split", "train"):
        assert cli.main([verb, str(folder / "several.yaml"), "--runs", str(folder / "runs")]) == 0
    return folder


@pytest.fixture
def copy(home, tmp_path) -> Path:
    """The same, not trained yet."""
    (tmp_path / "home").mkdir()
    shutil.copy(home / "several.yaml", tmp_path / "home")
    shutil.copytree(home / "cache", tmp_path / "home" / "cache")
    shutil.copytree(
        home / "runs",
        tmp_path / "home" / "runs",
        ignore=shutil.ignore_patterns("train.json", "checkpoint.safetensors", "learning_curve.json"),
    )
    return tmp_path / "home"


def command(folder: Path, *more: str) -> list[str]:
    return ["train", str(folder / "several.yaml"), "--runs", str(folder / "runs"), *more]


def script(tmp_path: Path) -> str:
    """The installed program: a file, as Fabric wants it to start the other processes by."""
    path = tmp_path / "lesion-triage"
    path.write_text("import sys\nfrom lesion_triage.cli import main\nsys.exit(main())\n")
    return str(path)


def result(folder: Path) -> tuple[list[dict], dict[str, torch.Tensor]]:
    (path,) = folder.glob("runs/*/checkpoint.safetensors")
    return json.loads((path.parent / "learning_curve.json").read_text()), load_file(path)


def assert_the_same(one: Path, other: Path) -> None:
    (curve, own), (curve_, own_) = result(one), result(other)
    for line, line_ in zip(curve, curve_, strict=True):
        assert line["loss"] == pytest.approx(line_["loss"], rel=1e-5)
        assert line["validation_auroc"] == pytest.approx(line_["validation_auroc"], abs=0.02)
    for name, value in own.items():
        torch.testing.assert_close(own_[name], value, rtol=0, atol=2e-3, msg=name)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_give_the_curve_of_one(home, copy, tmp_path, strategy):
    more = ["--set", "train.devices=2", "--set", f"train.strategy={strategy}"]
    done = subprocess.run(
        [sys.executable, script(tmp_path), *command(copy, *more)],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Starting with 2 processes" in done.stderr
    assert done.stdout.count("epoch 1/2: loss") == 1
    assert_the_same(home, copy)


def test_torchrun_starts_the_processes_and_is_told_when_there_is_nothing_to_do(home, copy, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for said in ("epoch 2/2: loss", "train: unchanged"):
        done = subprocess.run(
            [*torchrun, script(tmp_path), *command(copy)],
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
    assert_the_same(home, copy)


def test_a_killed_process_ends_the_others_and_the_training_goes_on_from_its_state(home, copy, tmp_path):
    more = ["--set", "train.devices=2", "--set", "train.checkpoint_minutes=0", "--set", "train.epochs=200"]
    process = subprocess.Popen(
        [sys.executable, script(tmp_path), *command(copy, *more)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    while "epoch 1/200" not in process.stdout.readline():
        assert process.poll() is None
    (other,) = children(process.pid)
    os.kill(other, signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "TrainingError: another process of this training has ended" in error
    newest = max((copy / "runs").glob("*/train_state/*.json"))
    assert json.loads(newest.read_text())["facts"]["progress"]["epoch"] >= 1


def children(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


@given(st.integers(1, 200), st.integers(1, 16), st.integers(1, 4), st.integers(1, 3), st.integers(0, 5))
def test_parts_of_all_processes_make_up_every_batch_and_neighbours_stay_together(
    length, pairs, world, accumulate, first
):
    size = 2 * max(pairs, world * accumulate)
    whole = list(BatchOrder(length, size, seed=3, epoch=1, first=first))
    dealt = []
    for rank in range(world):
        own = range(rank * accumulate, (rank + 1) * accumulate)
        dealt.append(list(BatchOrder(length, size, 3, 1, world * accumulate, own, first)))
    assert len(whole) == max(0, length // size - first)
    for number, batch in enumerate(whole):
        parts = [part for rank in dealt for part in rank[number * accumulate : (number + 1) * accumulate]]
        assert sum(parts, []) == batch
        assert all(len(part) % 2 == 0 and part for part in parts)


def test_an_epoch_gone_on_with_is_the_rest_of_the_epoch():
    whole = list(BatchOrder(100, 8, 0, 5))
    assert list(BatchOrder(100, 8, 0, 5, first=7)) == whole[7:]
    assert sorted(sum(whole, [])) == sorted(set(sum(whole, [])))


def gradients(accumulate: int, size: int = 24) -> dict[str, torch.Tensor]:
    """Of the first batch, before it is clipped beyond notice."""
    c = config("test_vit", drop_rate=0.0, batch_size=size, accumulate=accumulate, mixup_alpha=0.4)
    fabric = Fabric(accelerator="cpu", devices=1)
    learning = Learning(fabric, c, 2)
    learning.learn()
    order = batch_order(c, 48, 0, 1, 0)
    labels = [record.diagnosis == "irregular" for record in TRAINING.records]
    stream = iter(loader(augmented(c, TRAINING, labels, 0), order, 0))
    loop._gradient(fabric, learning, stream, order, torch.ones(2), c, 0)
    return {
        name: parameter.grad
        for name, parameter in learning.network.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("accumulate", [2, 3, 5])
def test_accumulated_parts_give_the_gradient_of_the_whole_batch_even_when_they_are_uneven(accumulate):
    whole, parts = gradients(1), gradients(accumulate)
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_a_loss_that_is_no_number_names_batch_and_picture_and_writes_nothing(tmp_path):
    """A weight that explodes for one picture stands for a broken one: the others are not accused."""
    broken = pictures(48, 1)
    order = batch_order(config(), 48, 1, 1, 0)
    culprit = order.part(2, 0)[5]

    def poison(epoch, done, _):
        if (epoch, done) == (1, 2):
            broken.pixels[culprit] = 255
            hurt()

    def hurt():
        # The picture itself cannot be no number, so its label is made one.
        data[0]._needs[culprit] = float("nan")

    data = []
    real = loop.pictures.augmented

    def remember(*arguments):
        data[:] = [real(*arguments)]
        return data[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.pictures, "augmented", remember)
        with pytest.raises(TrainingError) as caught:
            train(config(), broken, VALIDATION, tmp_path, "key", Listener(on_batch=poison))
    message = str(caught.value)
    assert message.startswith("the loss is nan in epoch 2, batch 3, for the pictures 1-")
    assert f"for the pictures 1-{culprit};" in message
    assert "The last good state is kept" in message
    (kept,) = (tmp_path / "train_state").glob("*.json")
    assert json.loads(kept.read_text())["facts"]["progress"]["epoch"] == 1
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_a_batch_too_small_for_its_processes_is_refused():
    with pytest.raises(ValueError, match="less than two pictures for each of 2 devices times 3"):
        config(batch_size=8, devices=2, accumulate=3)


def test_16_bit_losses_without_a_gpu_are_refused_and_not_replaced():
    with pytest.raises(TrainingError, match="16-mixed needs a CUDA GPU"):
        processes.precision(config(precision="16-mixed").train)


def test_automatic_precision_asks_the_processor():
    found = processes.precision(config(precision="auto").train)
    flags = Path("/proc/cpuinfo").read_text()
    native = "avx512_bf16" in flags or "amx_tile" in flags
    assert found == ("bf16-mixed" if native else "32-true")
