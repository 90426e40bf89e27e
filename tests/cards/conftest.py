"""A run from end to end on drawn pictures, as small as the pipeline takes it."""

from __future__ import annotations

from pathlib import Path

import pytest

RUN = {
    "name": "small",
    "data": {"source": "synthetic", "synthetic": {"lesions": 160, "positive_share": 0.4}},
    "split": {"fractions": {"train": 0.4, "validation": 0.2, "calibration": 0.2, "test": 0.2}},
    "pixels": {"size_px": 64},
    "model": {"backbone": "test_efficientnet", "weights": "none", "drop_path_rate": 0.0},
    "train": {
        "epochs": 1,
        "batch_size": 16,
        "learning_rate": 5e-3,
        "ema_decay": 0.8,
        "augmentation": "flips",
        "workers": 0,
        "accelerator": "cpu",
    },
    "calibrate": {
        "target_sensitivity": 0.8,
        "confidence": 0.8,
        "groups": [{"by": "sex"}, {"by": "fitzpatrick_skin_type"}],
    },
    "evaluate": {"bootstrap_draws": 100},
    "audit": {"pictures": 30},
    "tracking": {"enabled": False},
}


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """Folder of the run; not to be written to."""
    from lesion_triage import pipeline
    from lesion_triage.config import Config

    home = tmp_path_factory.mktemp("experiments")
    return pipeline.run_verb("run", Config.model_validate(RUN), home / "runs").folder
