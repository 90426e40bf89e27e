"""``make fuzz``: requests that schemathesis makes from the published description, to a real server process.

Every reply must be of a status and a form that the description names, and none may be a 500. What no schema
can say is left out: that a text is a photograph in base64.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tiny_bundle

_CONFIG = """
[parameters]
name = "tiny"

[[operations]]
include-path = "/v1/triage/batch"
checks.negative_data_rejection.enabled = false
"""
"""A case of another shape is refused by itself, inside an answer of status 200."""


def main(words: list[str]) -> int:
    """Run it; further words go to schemathesis.

    Returns:
        What schemathesis returns: 0 if every reply was as described.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ready, config = folder / "ready", folder / "schemathesis.toml"
        config.write_text(_CONFIG, encoding="utf-8")
        tiny_bundle.make(folder / "tiny")
        command = [sys.executable, "-m", "triage_server", "--bundle", str(folder / "tiny"), "--port", "0"]
        process = subprocess.Popen(
            [*command, "--ready-file", str(ready)],
            stderr=subprocess.DEVNULL,
            env=os.environ | {"TRIAGE_ALLOW_UNSIGNED": "1"},
        )
        try:
            while not ready.exists():
                if process.poll() is not None:
                    return 1
                time.sleep(0.1)
            fuzz = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"]
            options = [
                "--exclude-checks",
                "positive_data_acceptance",
                "--phases",
                "examples,coverage,fuzzing",
            ]
            url = f"{ready.read_text(encoding='utf-8').strip()}/openapi.json"
            done = subprocess.run(
                [*fuzz, url, *options, "--continue-on-failure", *words], cwd=folder, check=False
            )
            return done.returncode if process.poll() is None else 1
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
