"""The scripts beside the experiments' records: no test runs them, since they need hours or large datasets."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_scripts_of_experiments_still_fit_the_code_that_they_call(tmp_path: Path):
    scripts = sorted((ROOT / "experiments").glob("*/*.py"))
    assert scripts
    for script in scripts:  # several are called measure.py, and mypy takes no two modules of one name
        name = f"{script.parent.name}_{script.name}".replace("-", "_")
        shutil.copy2(script, tmp_path / name)
    line = [sys.executable, "-m", "mypy", *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_script_reads_the_configuration_of_a_run_as_its_record() -> None:
    """``data.root`` of a run then takes precedence over the variable, which may name other data."""
    loads = [
        (script, call)
        for script in sorted((ROOT / "experiments").glob("*/*.py"))
        for call in ast.walk(ast.parse(script.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "config_file.load"
    ]
    of_runs = [(script, ast.unparse(call)) for script, call in loads]
    of_runs = [(script, call) for script, call in of_runs if "config.yaml" in call or "FROZEN_CONFIG" in call]
    assert of_runs
    assert [str(script) for script, call in of_runs if "frozen=True" not in call] == []
