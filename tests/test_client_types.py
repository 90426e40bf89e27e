"""The client as a type checker sees it, which is installed for development only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_type_checker_sees_a_wrong_call(tmp_path: Path):
    (tmp_path / "use.py").write_text(
        "from triage_client import Client, verify_webhook\n"
        'Client("http://127.0.0.1:9").triage([b"x"]).answer.score\n'
        'Client("http://127.0.0.1:9").triage(7)\n'
        'verify_webhook("body", {}, "secret")\n'
    )
    line = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "--cache-dir",
        str(tmp_path),
        "use.py",
    ]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = [said.split(":")[1] for said in done.stdout.splitlines() if "[arg-type]" in said]
    assert (found, done.stdout.count("error:")) == (["3", "4"], 2), done.stdout
