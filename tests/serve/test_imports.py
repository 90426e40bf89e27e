from __future__ import annotations

import subprocess
import sys

TRAINING = (
    "torch",
    "torchvision",
    "timm",
    "sklearn",
    "mlflow",
    "albumentations",
    "matplotlib",
    "scipy",
    "onnx",
)


def test_server_never_sees_the_training_libraries():
    code = f"import sys, triage_server.cli; print([name for name in {TRAINING!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
