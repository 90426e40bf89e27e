"""A small experiment on drawn pictures, done and recorded once."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_experiment import write

from lesion_triage.cli import main


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``small``, recorded; the runs are in ``runs`` beside it. Not to be written to."""
    home = tmp_path_factory.mktemp("recorded")
    folder = write(home / "small")
    assert main(["reproduce", str(folder), "--runs", str(home / "runs"), "--record"]) == 0
    return folder
