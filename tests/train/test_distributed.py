"""One training on several processes, parts or devices is the training on one. Real processes, over gloo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from itertools import chain
from pathlib import Path

import drawn
import numpy as np
import pytest
import torch
import yaml
from drawn import TRAINING, VALIDATION, config, weights
from hypothesis import given
from hypothesis import strategies as st
from lightning_fabric import Fabric
from safetensors.torch import load_file

from lesion_triage import cli
from lesion_triage.data.dataset import DistributedBatchSampler
from lesion_triage.errors import TrainingError
from lesion_triage.train import distributed, loop, preflight
from lesion_triage.train.data_loading import Pictures, augmented_dataset, batch_order, data_loader
from lesion_triage.train.loop import EpochMetrics, Listener, train
from lesion_triage.train.training_state import TrainingState

# No batch statistics: on processors each process has those of its own part. No dropout: each part draws its
# own. Both are in docs/training.md.
RECIPE = {
    "backbone": "test_vit",
    "drop_rate": 0.0,
    "epochs": 3,
    "batch_size": 12,
    "learning_rate": 1e-3,
    "mixup_alpha": 0.4,
    "cutmix_alpha": 1.0,
    "loss": "balanced",
}
CONFIG = {
    "name": "several",
    "data": {"source": "synthetic", "synthetic": {"lesions": 100, "positive_share": 0.4}},
    "split": {"fractions": {"train": 0.4, "validation": 0.2, "calibration": 0.2, "test": 0.2}},
    "pixels": {"size_px": 32},
    "model": {"backbone": "test_vit", "weights": "none"},
    "train": {"epochs": 1, "batch_size": 16, "workers": 0, "accelerator": "cpu"},
    "ensemble": {"members": 2, "combine": "distil"},
    "calibrate": {"target_sensitivity": 0.8, "confidence": 0.8},
    "tracking": {"enabled": False},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[list[EpochMetrics], dict[str, torch.Tensor]]:
    """Curve and weights of one process."""
    folder = tmp_path_factory.mktemp("whole")
    curve = train(config(**RECIPE), TRAINING, VALIDATION, folder, "key")
    return curve, weights(folder)


def start(folder: Path, *more: str, **section) -> subprocess.Popen[str]:
    settings = [f"{key}={value}" for key, value in {**RECIPE, **section}.items()]
    command = [sys.executable, *more, drawn.__file__, str(folder), *settings]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def assert_the_same(curve, tensors, losses, others) -> None:
    """Losses agree to 1e-5. Adam divides by small numbers, so weights agree to less."""
    assert losses == pytest.approx([line.loss for line in curve], rel=1e-5)
    assert others.keys() == tensors.keys()
    for name, value in tensors.items():
        torch.testing.assert_close(others[name], value, rtol=0, atol=2e-3, msg=name)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_give_the_curve_of_one(whole, tmp_path, strategy):
    process = start(tmp_path, devices=2, strategy=strategy)
    out, err = process.communicate(timeout=550)
    assert process.returncode == 0, err
    assert "Starting with 2 processes" in err
    (line,) = [line for line in out.splitlines() if line.startswith("losses ")]
    assert_the_same(*whole, json.loads(line.removeprefix("losses ")), weights(tmp_path))


GATHER = """
import sys
from drawn import config
from safetensors.torch import save_file
from lesion_triage.train import distributed
from lesion_triage.train.training_state import TrainingState

c = config("test_vit", devices=2, strategy="fsdp")
fabric = distributed.launch_processes(c.train)
with distributed.process_group(fabric):
    tensors = TrainingState(fabric, c, 2).network.state_dict()
    save_file(distributed.gather_on_rank_zero(fabric, tensors), f"{sys.argv[1]}/{fabric.global_rank}")
"""


def test_a_sharded_network_is_gathered_in_the_first_process_alone(tmp_path):
    (tmp_path / "gather.py").write_text(GATHER)
    path = os.pathsep.join([str(Path(drawn.__file__).parent), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, str(tmp_path / "gather.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        check=True,
        timeout=200,
    )
    assert load_file(tmp_path / "1") == {}
    state = TrainingState(Fabric(accelerator="cpu", devices=1), config("test_vit"), 2)
    assert drawn.same(load_file(tmp_path / "0"), dict(state.network.state_dict()))


@pytest.mark.slow
def test_a_backbone_with_buffers_that_are_no_state_trains_on_two_processes_as_on_one(tmp_path):
    """Relative positions of swin, eva and others are buffers that the checkpoint does not hold."""
    recipe = {**RECIPE, "backbone": "eva02_tiny_patch14_224", "epochs": 1, "batch_size": 24}
    (tmp_path / "one").mkdir()
    curve = train(config(**recipe), TRAINING, VALIDATION, tmp_path / "one", "key")
    (tmp_path / "two").mkdir()
    process = start(tmp_path / "two", **{**recipe, "devices": 2})
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    (line,) = [line for line in out.splitlines() if line.startswith("losses ")]
    found = json.loads(line.removeprefix("losses "))
    assert_the_same(curve, weights(tmp_path / "one"), found, weights(tmp_path / "two"))


def test_fsdp_refuses_weights_that_are_single_numbers_in_one_sentence():
    c = config("dm_nfnet_f0", strategy="fsdp")
    with pytest.raises(TrainingError, match="'dm_nfnet_f0' has scalar weights, which fsdp"):
        TrainingState(Fabric(accelerator="cpu", devices=1), c, 2)


@pytest.mark.slow
def test_a_killed_process_ends_the_others_and_the_training_goes_on_from_its_state(whole, tmp_path):
    process = start(tmp_path, devices=2, checkpoint_minutes=0)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("batch 1"):
        assert process.poll() is None
    (other,) = children(process.pid)
    os.kill(other, signal.SIGKILL)
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 2
    assert out.splitlines()[-1].startswith("error another process of this training run has ended; its own")
    notes = []
    curve = train(config(**RECIPE), TRAINING, VALIDATION, tmp_path, "key", Listener(on_note=notes.append))
    assert notes[0].startswith("resuming ")
    assert_the_same(*whole, [line.loss for line in curve], weights(tmp_path))


@pytest.mark.slow
def test_torchrun_starts_the_pipeline_once_for_all_trainings_and_ends_when_there_is_none(tmp_path):
    """Two members and their student: the processes meet once, and train three networks."""
    (tmp_path / "several.yaml").write_text(yaml.safe_dump(CONFIG))
    arguments = [str(tmp_path / "several.yaml"), "--runs", str(tmp_path / "runs")]
    for verb in ("manifest", "split"):
        assert cli.main([verb, *arguments]) == 0
    script = tmp_path / "lesion-triage"
    script.write_text("import sys\nfrom lesion_triage.cli import main\nsys.exit(main())\n")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for said, times in (("epoch 1/1: loss", 3), ("train: unchanged", 1)):
        done = subprocess.run(
            [*torchrun, str(script), "train", *arguments],
            capture_output=True, text=True, timeout=550, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(said) == times
    assert len(list((tmp_path / "runs").glob("[!.]*"))) == 3
    (graph,) = tmp_path.glob("runs/*/model.onnx")
    assert graph.is_file()
    assert not list(tmp_path.glob("runs/*/train_state"))


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
    first = min(first, length // size)
    whole = list(DistributedBatchSampler(length, size, seed=3, epoch=1, first=first))
    dealt = []
    for rank in range(world):
        own = range(rank * accumulate, (rank + 1) * accumulate)
        dealt.append(list(DistributedBatchSampler(length, size, 3, 1, world * accumulate, own, first)))
    assert len(whole) == length // size - first
    for number, batch in enumerate(whole):
        parts = [part for rank in dealt for part in rank[number * accumulate : (number + 1) * accumulate]]
        assert list(chain(*parts)) == batch
        assert all(len(part) % 2 == 0 and part for part in parts)


def test_an_epoch_gone_on_with_is_the_rest_of_the_epoch():
    whole = list(DistributedBatchSampler(100, 8, 0, 5))
    assert list(DistributedBatchSampler(100, 8, 0, 5, first=7)) == whole[7:]
    pictures = list(chain(*whole))
    assert len(pictures) == len(set(pictures)) == 96


def gradients(accumulate: int, size: int = 24) -> dict[str, torch.Tensor]:
    """Of the first batch, before it is clipped beyond notice."""
    c = config("test_vit", drop_rate=0.0, batch_size=size, accumulate=accumulate, mixup_alpha=0.4)
    fabric = Fabric(accelerator="cpu", devices=1)
    state = TrainingState(fabric, c, 2)
    state.train_mode()
    order = batch_order(c, 48, 0, 1, 0)
    labels = [record.diagnosis == "irregular" for record in TRAINING.records]
    stream = iter(data_loader(augmented_dataset(c, TRAINING, labels, 0), order, 0))
    loop._backward(fabric, state, stream, order, torch.ones(2), c, 0)
    return {
        name: parameter.grad
        for name, parameter in state.network.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("accumulate", [2, 3, 5])
def test_accumulated_parts_give_the_gradient_of_the_whole_batch_even_when_they_are_uneven(accumulate):
    whole, parts = gradients(1), gradients(accumulate)
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_a_loss_that_is_no_number_names_batch_and_picture_and_writes_nothing(tmp_path):
    """A picture that becomes no number in the middle; without batch statistics it stands alone."""
    broken = Pictures(TRAINING.records, TRAINING.pixels.astype(np.float32))
    c = config("test_vit", augmentation="none", checkpoint_minutes=60)
    culprit = batch_order(c, 48, 1, 1, 0).part(2, 0)[5]

    def poison(epoch, done, _):
        if (epoch, done) == (1, 2):
            broken.pixels[culprit] = np.nan

    with pytest.raises(TrainingError) as caught:
        train(c, broken, VALIDATION, tmp_path, "key", Listener(on_batch=poison))
    named = TRAINING.records[culprit].image_id
    expected = f"the loss is nan in epoch 2, batch 3, for the pictures {named}; look at them, lower"
    assert str(caught.value).startswith(expected)
    assert "The last good state is kept" in str(caught.value)
    (kept,) = (tmp_path / "train_state").glob("*.json")
    assert json.loads(kept.read_text())["facts"]["progress"]["epoch"] == 1
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_a_batch_too_small_for_its_processes_is_refused():
    with pytest.raises(ValueError, match="less than two pictures for each of 2 devices times 3"):
        config(batch_size=8, devices=2, accumulate=3)


def cuda_is_full() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def other_job_has_the_gpu() -> None:
    raise torch.AcceleratorError(
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"
    )


def mps_is_full() -> None:
    raise RuntimeError("MPS backend out of memory (MPS allocated: 17.88 GiB, max allowed: 18.13 GiB).")


@pytest.mark.parametrize(
    "work",
    [
        cuda_is_full,
        other_job_has_the_gpu,
        mps_is_full,
        lambda: torch.empty(2**58, dtype=torch.uint8),
    ],
)
def test_a_memory_that_is_too_small_is_one_sentence_that_says_what_to_lower(work):
    with (
        pytest.raises(TrainingError, match=r"the memory of cpu; raise train\.accumulate, or lower") as caught,
        distributed.process_group(Fabric(accelerator="cpu", devices=1)),
    ):
        work()
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("devices", [1, 2, "auto"])
def test_a_gpu_that_is_not_there_is_one_sentence_before_anything_is_decoded(devices):
    wanted = config(accelerator="cuda", devices=devices)
    complaint = r"train\.accelerator is cuda, and torch finds none"
    with pytest.raises(TrainingError, match=complaint):
        preflight.check_network(wanted)
    with pytest.raises(TrainingError, match=complaint):
        distributed.launch_processes(wanted.train)


@pytest.mark.parametrize(("strategy", "expected"), [("auto", "16-mixed"), ("fsdp", "32-true")])
def test_a_gpu_without_bf16_scales_losses_where_fabric_can(monkeypatch, strategy, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    wanted = config(precision="auto", accelerator="auto", strategy=strategy)
    assert distributed.resolve_precision(wanted.train) == expected


@pytest.mark.parametrize("section", [{"devices": 2}, {"strategy": "ddp"}, {"strategy": "fsdp"}])
def test_an_apple_gpu_is_not_shared_by_processes(monkeypatch, section):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for accelerator in ("auto", "mps"):
        with pytest.raises(TrainingError, match=r"Apple GPU trains in one process; set train\.accelerator"):
            distributed.require_hardware(config(accelerator=accelerator, **section).train)
        distributed.require_hardware(config(accelerator=accelerator).train)
    distributed.require_hardware(config(accelerator="cpu", **section).train)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(TrainingError, match="2 processes need a GPU each, and torch finds 1 on this machine"):
        distributed.require_hardware(config(accelerator="auto", devices=2).train)
    distributed.require_hardware(config(accelerator="auto", devices="auto").train)
    distributed.require_hardware(config(accelerator="cpu", devices=2).train)


def test_16_bit_losses_without_a_gpu_are_refused_and_not_replaced():
    with pytest.raises(TrainingError, match="16-mixed needs a CUDA GPU"):
        distributed.resolve_precision(config(precision="16-mixed").train)


def test_automatic_precision_on_a_processor_is_bf16_where_it_has_the_instructions():
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    native = "avx512_bf16" in flags or "amx_bf16" in flags
    assert distributed.resolve_precision(config(precision="auto").train) == (
        "bf16-mixed" if native else "32-true"
    )


def test_a_processor_trains_in_32_bits_unless_told_otherwise():
    assert distributed.resolve_precision(config().train) == "32-true"


def test_bf16_is_warned_of_where_it_is_slow_and_fabric_says_nothing_of_its_own():
    code = (
        "from lesion_triage.config import Train; from lesion_triage.train import distributed; "
        "distributed.launch_processes(Train(accelerator='cpu', precision='bf16-mixed'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = (done.stdout + done.stderr).splitlines()
    assert len(said) == (0 if distributed.cpu_has_bf16() else 1)
    assert [line for line in said if "no bf16 instructions" not in line] == []
