"""A step that was done is done again as soon as anything that it reads is another."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from small_experiment import CONFIG, EXPERIMENT, VERSION, write

import tiny_bundle
from lesion_triage.config import Config
from lesion_triage.console import echo
from lesion_triage.errors import ConfigError
from lesion_triage.reproduce import definition
from lesion_triage.reproduce.definition import Experiment
from lesion_triage.reproduce.records import Record
from lesion_triage.reproduce.steps import run_step
from lesion_triage.reproduce.workspace import Workspace
from lesion_triage.runs import Run, make
from lesion_triage.tracking import Tracker

READS = (
    "import sys; from pathlib import Path; Path(sys.argv[1]).write_text(Path(sys.argv[2], 'a').read_text())"
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """One run is made, and a script copies a file of it."""
    config = Config.model_validate({**CONFIG, "tracking": {"enabled": False}})
    folder = write(tmp_path / "small")
    (folder / "reads.py").write_text(READS)
    version = Experiment.model_validate(EXPERIMENT).quick
    record = Record({}, {}, {}, {}, "", ())
    tracker = Tracker(config, tmp_path, echo)
    made = Workspace(folder, "small", version, "quick", tmp_path / "runs", tmp_path, {}, record, tracker)
    made.finished_runs["seed-0"] = make(config, tmp_path / "runs")
    made.hashes["seed-0"] = {"manifest_sha256": "m"}
    finish(made.finished_runs["seed-0"], "train", "1")
    return made


def finish(run: Run, stage: str, content: str) -> None:
    (run.folder / "a").write_text(content)
    run.record_stage(stage, "inputs", ["a"], 1.0)


def script(**parts: object) -> definition.Script:
    step = {"kind": "script", "name": "reads", "script": "reads.py", **parts}
    return definition.Script.model_validate(step)


@pytest.mark.parametrize(
    "step",
    [
        script(arguments=["{out}"], runs=["seed-0"]),
        script(arguments=["{out}", "{run:seed-0}"]),
    ],
    ids=["listed", "named by an argument"],
)
def test_a_script_is_run_again_where_any_stage_of_a_run_that_it_reads_is_another(workspace, step):
    assert run_step(step, workspace)["reads"].document == 1
    finish(workspace.finished_runs["seed-0"], "evaluate", "2")
    again = run_step(step, workspace)["reads"]
    assert again.document == 2
    assert again.made_from == {"seed-0 manifest_sha256": "m"}


@pytest.mark.parametrize("name", ["seed-7", "waits"])
def test_a_script_may_name_no_run_that_no_step_makes(tmp_path, name):
    step = {
        "kind": "script",
        "name": "reads",
        "script": "reads.py",
        "arguments": ["{out}", f"{{run:{name}}}"],
    }
    light = {**VERSION, "steps": [*VERSION["steps"], step]}
    folder = write(tmp_path / "small", {**EXPERIMENT, "full": light})
    with pytest.raises(
        ConfigError, match=f"step 'reads' needs the run '{name}', which no earlier step makes"
    ):
        definition.load_experiment(folder)


def test_a_transfer_is_measured_again_where_its_configuration_is_another(workspace, tmp_path):
    tiny_bundle.make(workspace.finished_runs["seed-0"].folder / "bundle")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for kind in ("referred", "below"):
        (pictures / f"{kind}.png").write_bytes(tiny_bundle.picture_bytes(kind))
    (pictures / "one.csv").write_text("image,needs_in_person\nreferred.png,1\nbelow.png,0\n")
    (pictures / "other.csv").write_text("image,needs_in_person\nreferred.png,1\nbelow.png,1\n")
    workspace.data = {"far": pictures}
    step = definition.Transfer(kind="transfer", name="far", bundle="seed-0", config="far.yaml", data="far")
    manifests = set()
    for table in ("one.csv", "other.csv"):
        far = {"name": "far", "data": {"source": "folder", "table": table}, "tracking": {"enabled": False}}
        (workspace.experiment / "far.yaml").write_text(yaml.safe_dump(far))
        manifests.add(run_step(step, workspace)["far"].document["manifest_sha256"])
    assert len(manifests) == 2
