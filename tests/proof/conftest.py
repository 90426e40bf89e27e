"""The recorded table of real held-out logits, as it lies in the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from lesion_triage.proof import pool as pools


@pytest.fixture(scope="session")
def recorded() -> Path:
    return Path(__file__).resolve().parents[2] / "experiments/certificate-coverage/scores.csv"


@pytest.fixture(scope="session")
def pool(recorded: Path) -> pools.Pool:
    return pools.read(recorded)
