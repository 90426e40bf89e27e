"""A training that is killed, stopped, or whose files are damaged goes on to the bits of one that was not."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import drawn
import pytest
import torch
from drawn import TRAINING, VALIDATION, config, half_precision, same, weights
from lightning_fabric import Fabric

from lesion_triage import locks
from lesion_triage.errors import TrainingStateError
from lesion_triage.train import state_files
from lesion_triage.train.checkpoint import load_checkpoint
from lesion_triage.train.interruption import Interrupted
from lesion_triage.train.loop import Listener, train
from lesion_triage.train.training_state import TrainingState

# Everything that draws random numbers or has a memory of its own is on.
RECIPE = {
    "checkpoint_minutes": 0,
    "mixup_alpha": 0.4,
    "cutmix_alpha": 1.0,
    "accumulate": 2,
    "layer_decay": 0.8,
    "augmentation": "strong",
    "small_first": 0.4,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[dict, list[float]]:
    """Weights and curve of the training that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    curve = train(config(**RECIPE), TRAINING, VALIDATION, folder, "key")
    return weights(folder), [line.loss for line in curve]


def start(folder: Path, new_group: bool = False, **more) -> subprocess.Popen[str]:
    settings = [f"{key}={value}" for key, value in {**RECIPE, **more}.items()]
    command = [sys.executable, drawn.__file__, str(folder), *settings]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=new_group)


def read_until(process: subprocess.Popen[str], batches: int) -> list[str]:
    """Lines up to so many finished batches, or to the end of the program."""
    lines: list[str] = []
    assert process.stdout is not None
    while batches > 0 and (line := process.stdout.readline()):
        lines.append(line.rstrip())
        batches -= line.startswith("batch")
    return lines


def finish(process: subprocess.Popen[str]) -> list[str]:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    return out.splitlines()


def kill(folder: Path, after_batches: int, and_seconds: float, **more) -> list[str]:
    process = start(folder, **more)
    lines = read_until(process, after_batches)
    time.sleep(and_seconds)
    process.kill()
    process.communicate()
    return lines


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_kill_9_in_the_middle_of_an_epoch_changes_no_bit(tmp_path, whole):
    kill(tmp_path, after_batches=2, and_seconds=0.0)
    kill(tmp_path, after_batches=6, and_seconds=0.02)
    lines = finish(start(tmp_path))
    assert re.match(r"note resuming (in epoch [23], after|after epoch [12]$)", lines[0])
    assert same(weights(tmp_path), whole[0])
    assert json.loads(lines[-1].removeprefix("losses ")) == whole[1]


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_twenty_kills_at_random_moments_change_no_bit(tmp_path, whole):
    seed = int(os.environ.get("TORTURE_SEED", time.time_ns() % 2**32))
    print(f"TORTURE_SEED={seed}")
    moments = random.Random(seed)
    for _ in range(20):
        workers = moments.choice([0, 2])
        kill(tmp_path, moments.randrange(4), moments.uniform(0, 0.3), workers=workers)
    finish(start(tmp_path))
    assert same(weights(tmp_path), whole[0])


def test_sigterm_writes_the_state_and_ends_with_status_143(tmp_path, whole):
    process = start(tmp_path, checkpoint_minutes=60, workers=2)
    read_until(process, 2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    found = state_files.read(tmp_path, "key")
    assert found is not None
    assert (found[0].epoch, found[0].batch) >= (0, 2)
    train(config(**RECIPE), TRAINING, VALIDATION, tmp_path, "key")
    assert same(weights(tmp_path), whole[0])


def test_sigterm_to_the_whole_group_is_answered_by_the_parent_alone(tmp_path):
    process = start(tmp_path, checkpoint_minutes=60, workers=2, new_group=True)
    read_until(process, 2)
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    found = state_files.read(tmp_path, "key")
    assert found is not None
    assert (found[0].epoch, found[0].batch) >= (0, 2)


def test_a_failure_that_nobody_catches_ends_the_program_though_its_traceback_holds_the_loader(tmp_path):
    """The loader's processes ignored SIGTERM, also that by which Python ends them: it waited without end."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from drawn import TRAINING, VALIDATION, config\n"
        "from lesion_triage.train.loop import Listener, train\n"
        "def fail(*_): raise RuntimeError('of nobody')\n"
        "recipe = config('test_resnet', workers=2)\n"
        "train(recipe, TRAINING, VALIDATION, Path(sys.argv[1]), 'key', Listener(on_batch=fail))\n"
    )
    path = os.pathsep.join([str(Path(drawn.__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("RuntimeError: of nobody")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds the loader in /proc")
def test_a_loader_process_that_is_killed_is_one_sentence_and_the_last_state_is_kept(tmp_path):
    """As the system does when memory is full, and a container when its shared memory is."""
    process = start(tmp_path, epochs=500, workers=1)
    read_until(process, 8)
    while process.poll() is None:  # between two epochs there is none
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
        time.sleep(0.01)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 2, out
    # torch's own word is the second where it misses a picture before it hears of the death.
    said = r"^error a loader process .*(Killed|exited unexpectedly).* set train\.workers to 0"
    assert re.search(said, out, re.MULTILINE)
    found = state_files.read(tmp_path, "key")
    assert found is not None
    assert found[0].epoch >= 1


def test_the_locks_of_a_killed_process_are_not_held_by_its_loader(tmp_path):
    """The trial of a sweep that was killed looked as if somebody were still working on it."""
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from torch.utils.data._utils import worker\n"
        "from drawn import TRAINING, config\n"
        "from lesion_triage import locks\n"
        "from lesion_triage.train.data_loading import augmented_dataset, batch_order, data_loader\n"
        "worker.MP_STATUS_CHECK_INTERVAL = 600  # torch looks for the parent itself, but not in this test\n"
        "held = locks.try_lock(Path(sys.argv[1]))\n"
        "dataset = augmented_dataset(config(), TRAINING, [0] * 48, 0)\n"
        "stream = iter(data_loader(dataset, batch_order(config(), 48, 0, 1, 0), 1))\n"
        "next(stream)\n"
        "print('loading', flush=True)\n"
        "time.sleep(60)\n"
    )
    path = os.pathsep.join([str(Path(drawn.__file__).parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "lock")],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    assert locks.try_lock(tmp_path / "lock") is None
    process.kill()
    process.wait(timeout=60)
    process.stdout.close()
    until = time.monotonic() + 60
    while (lock := locks.try_lock(tmp_path / "lock")) is None:
        assert time.monotonic() < until, "the loader still holds the lock"
        time.sleep(0.05)
    lock.close()


def test_an_interrupt_writes_the_state_after_the_step_under_way(tmp_path, whole):
    def stop(epoch, done, _):
        if (epoch, done) == (1, 2):
            os.kill(os.getpid(), signal.SIGINT)

    recipe = config(**{**RECIPE, "checkpoint_minutes": 60})
    before = signal.getsignal(signal.SIGINT)  # a shell's background job begins with the signal ignored
    with pytest.raises(Interrupted) as caught:
        train(recipe, TRAINING, VALIDATION, tmp_path, "key", Listener(on_batch=stop))
    assert caught.value.status == 130
    assert signal.getsignal(signal.SIGINT) is before
    found = state_files.read(tmp_path, "key")
    assert found is not None
    assert (found[0].epoch, found[0].batch) in {(1, 2), (1, 3)}
    train(config(**RECIPE), TRAINING, VALIDATION, tmp_path, "key")
    assert same(weights(tmp_path), whole[0])


def test_a_signal_during_the_last_validation_loses_nothing(tmp_path):
    def stop(line):
        if line.epoch == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(config(epochs=2), TRAINING, VALIDATION, tmp_path, "key", Listener(on_epoch=stop))
    batches = []
    train(config(epochs=2), TRAINING, VALIDATION, tmp_path, "key", Listener(lambda *at: batches.append(at)))
    assert batches == []


class PlugPulledError(Exception):
    """Stands for a pulled plug."""


def interrupted_at(folder: Path, epoch: int, batch: int) -> None:
    def pull(at, done, _):
        if (at, done) == (epoch, batch):
            raise PlugPulledError

    with pytest.raises(PlugPulledError):
        train(config(**RECIPE), TRAINING, VALIDATION, folder, "key", Listener(on_batch=pull))


def states(folder: Path) -> list[Path]:
    return sorted((folder / state_files.FOLDER).glob("*.safetensors"))


@pytest.mark.parametrize("which", ["tensors", "facts", "half a file", "missing"])
def test_a_damaged_state_is_passed_over_for_the_one_before_it(tmp_path, whole, which):
    interrupted_at(tmp_path, 1, 4)
    before, last = states(tmp_path)
    victim = last.with_suffix(".json") if which == "facts" else last
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content[: len(content) // 2] if which == "half a file" else content)
    if which == "missing":
        victim.unlink()
    notes = []
    train(config(**RECIPE), TRAINING, VALIDATION, tmp_path, "key", Listener(on_note=notes.append))
    assert "damaged" in notes[0]
    assert last.stem in notes[0]
    assert notes[1] == f"resuming in epoch 2, after {int(before.stem[-8:])} of its batches"
    assert same(weights(tmp_path), whole[0])


def test_states_that_are_all_damaged_are_one_sentence(tmp_path):
    interrupted_at(tmp_path, 1, 4)
    for path in states(tmp_path):
        path.write_bytes(path.read_bytes()[:-1])
    said = r"no state of this training run in it is complete .*--fresh starts over"
    with pytest.raises(TrainingStateError, match=said):
        train(config(**RECIPE), TRAINING, VALIDATION, tmp_path, "key")


@pytest.mark.parametrize("victim", ["json", "safetensors"])
def test_a_damaged_state_beside_a_whole_one_of_other_inputs_is_no_new_beginning(tmp_path, victim):
    state_files.write(tmp_path, "other", state_files.Progress(1), {"a": torch.zeros(3)})
    state_files.write(tmp_path, "key", state_files.Progress(2), {"a": torch.zeros(3)})
    (last,) = (tmp_path / state_files.FOLDER).glob(f"000002-*.{victim}")
    last.write_bytes(last.read_bytes()[:-9])
    with pytest.raises(TrainingStateError, match="no state of this training run in it is complete"):
        state_files.read(tmp_path, "key")


def test_whole_states_of_other_inputs_are_no_state(tmp_path):
    state_files.write(tmp_path, "other", state_files.Progress(1), {"a": torch.zeros(3)})
    assert state_files.read(tmp_path, "key") is None


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from lesion_triage.train import state_files

os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
state_files.write(Path(sys.argv[1]), "key", state_files.Progress(2), {"a": torch.zeros(1000)})
"""


@pytest.mark.parametrize("next_step", ["resume", "write"])
def test_what_a_kill_while_writing_leaves_is_removed(tmp_path, next_step):
    state_files.write(tmp_path, "key", state_files.Progress(1), {"a": torch.zeros(3)})
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    home = tmp_path / state_files.FOLDER
    assert [path.suffix for path in home.glob(".*")] == [".tmp"]
    if next_step == "resume":
        state_files.remove_newer(tmp_path, than=state_files.Progress(1))
    else:
        state_files.write(tmp_path, "key", state_files.Progress(2), {"a": torch.zeros(3)})
    assert not list(home.glob(".*"))
    assert (home / "000001-00000000.json").exists()


def test_only_the_last_two_states_are_kept_and_none_is_a_pickle(tmp_path):
    interrupted_at(tmp_path, 1, 4)
    files = sorted(path.name for path in (tmp_path / state_files.FOLDER).iterdir())
    assert [name.partition(".")[2] for name in files] == ["json", "safetensors"] * 2
    for path in states(tmp_path):
        assert b"pickle" not in path.read_bytes()[:4096]
        assert json.loads(path.with_suffix(".json").read_text())["facts"]["key"] == "key"


def test_a_state_that_does_not_fit_the_network_is_refused(tmp_path):
    interrupted_at(tmp_path, 1, 4)
    other = config(backbone="test_resnet", **RECIPE)
    with pytest.raises(TrainingStateError, match="does not match the network"):
        train(other, TRAINING, VALIDATION, tmp_path, "key")


def disk_of(size_bytes: int):
    """For a child process: no file may grow beyond this, which is how a full disk looks to a writer."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))


def test_a_full_disk_is_one_sentence_and_the_last_good_state_still_loads(tmp_path, whole):
    interrupted_at(tmp_path, 1, 4)
    found = state_files.read(tmp_path, "key")
    assert found is not None
    before = found[0]
    size = states(tmp_path)[0].stat().st_size
    command = [sys.executable, drawn.__file__, str(tmp_path), *(f"{k}={v}" for k, v in RECIPE.items())]
    done = subprocess.run(
        command, preexec_fn=disk_of(size // 2), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    message = done.stdout.splitlines()[-1]
    assert message.startswith("error ")
    assert "cannot be written (" in message
    assert "is complete. Make room and run the same command again." in message
    again = state_files.read(tmp_path, "key")
    assert again is not None
    assert again[0] == before
    assert not list((tmp_path / state_files.FOLDER).glob("*.tmp"))
    train(config(**RECIPE), TRAINING, VALIDATION, tmp_path, "key")
    assert same(weights(tmp_path), whole[0])


def test_the_scale_of_16_bit_losses_is_part_of_the_state(tmp_path):
    fabric = half_precision()
    scaler = {"scale": 1024.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000}
    fabric.strategy.precision.load_state_dict({**scaler, "_growth_tracker": 7})
    written = TrainingState(fabric, config(), 2)
    assert written.may_skip_step()
    written.write(tmp_path, "key")
    other = half_precision()
    assert other.strategy.precision.state_dict()["scale"] != 1024.0
    TrainingState(other, config(), 2).resume(tmp_path, "key", print)
    assert other.strategy.precision.state_dict() == {**scaler, "_growth_tracker": 7}


def test_tied_weights_are_written_and_read_under_each_of_their_names(tmp_path):
    """As of coat_tiny, which uses one module in many places."""
    tied = torch.arange(6.0).view(2, 3)
    tensors = {"a": tied, "b": tied, "c": tied[1], "alone": torch.ones(1)}
    state_files.write(tmp_path, "key", state_files.Progress(1), tensors)
    found = state_files.read(tmp_path, "key")
    assert found is not None
    assert same(found[1], tensors)


@pytest.mark.timeout(180)
def test_a_backbone_with_tied_weights_is_trained_resumed_and_kept(tmp_path):
    recipe = {"backbone": "coat_tiny", "batch_size": 24, "epochs": 1, "augmentation": "none"}
    train(config(**recipe), TRAINING, VALIDATION, tmp_path, "key")
    kept = weights(tmp_path)
    assert same(dict(load_checkpoint(tmp_path).state_dict()), kept)
    train(config(**recipe), TRAINING, VALIDATION, tmp_path, "key")  # from the state after the epoch
    assert same(weights(tmp_path), kept)


def test_moments_of_a_single_number_are_read_onto_the_device_of_its_weight():
    state = TrainingState(Fabric(accelerator="cpu", devices=1), config(), 2)
    gain = torch.nn.Parameter(torch.zeros((), device="meta"))
    state.network.register_parameter("gain", gain)
    tensors = state._tensors()
    for kind in ("step", "exp_avg", "exp_avg_sq"):
        tensors[f"optimizer/gain/{kind}"] = torch.ones(())
    state._load_tensors(tensors)
    found = state._optimizer.state[gain]
    devices = {kind: value.device.type for kind, value in found.items()}
    assert devices == {"step": "cpu", "exp_avg": "meta", "exp_avg_sq": "meta"}
