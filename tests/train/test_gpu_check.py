"""The check of a GPU, tried on the processor: that it can pass, and that it can fail."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import gpu_check


@pytest.mark.slow
def test_each_way_to_train_comes_to_the_losses_of_the_processor(tmp_path: Path) -> None:
    assert gpu_check.check_ways(tmp_path, "cpu", 0)


def test_training_with_another_rate_or_another_error_is_not_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = gpu_check.losses(tmp_path / "expected", {})
    slower = gpu_check.losses(tmp_path / "slower", {"learning_rate": 8e-4})
    assert gpu_check.agrees("the same", expected, expected, 0.0)
    assert not gpu_check.agrees("slower", expected, slower, gpu_check.EXACT)
    refused = gpu_check.losses(tmp_path / "refused", {"precision": "16-mixed"})
    assert "needs a CUDA GPU" in refused
    assert not gpu_check.agrees("refused", expected, refused, gpu_check.SKIPPING)
    assert capsys.readouterr().out.count("NOT SO") == 2


def test_steps_are_timed_and_compared_with_a_product_of_matrices(capsys: pytest.CaptureFixture[str]) -> None:
    gpu_check.time_steps(torch.device("cpu"), "32-true", "test_resnet", 32, 2)
    printed = capsys.readouterr().out
    assert printed.startswith("test_resnet, 32 px, 32-true: ")
    assert "% of what a product of matrices reaches" in printed


def test_machine_without_a_gpu_is_told_what_can_be_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # also where there is one
    monkeypatch.setattr("sys.argv", ["gpu_check.py"])
    with pytest.raises(SystemExit) as stopped:
        gpu_check.main()
    assert stopped.value.code == 2
    assert "--accelerator cpu" in capsys.readouterr().err
