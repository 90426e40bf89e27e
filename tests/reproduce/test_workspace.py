"""Which pictures are at hand: folders that hold datasets, and folders named one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_experiment import EXPERIMENT, VERSION

from lesion_triage.config import Config, Data
from lesion_triage.errors import ConfigError
from lesion_triage.reproduce.definition import Experiment
from lesion_triage.reproduce.records import read
from lesion_triage.reproduce.workspace import Workspace, find_datasets
from lesion_triage.tracking import Tracker

STEP = {"kind": "train", "name": "one", "config": "small.yaml", "data": "far"}
REAL = {**VERSION, "steps": [STEP], "table": VERSION["table"][:1]}
DATA = [{"name": "far", "what": "pictures that nobody has"}]
NEEDS_ONE = Experiment.model_validate(
    {**EXPERIMENT, "data": DATA, "full": REAL, "quick": REAL, "drawn": VERSION}
)


def found(root: object) -> dict[str, Path]:
    return find_datasets(NEEDS_ONE, NEEDS_ONE.full, [str(root)])


def test_a_folder_may_have_an_equals_sign_in_its_path_with_a_name_before_it_or_without(tmp_path):
    pictures = tmp_path / "size=160" / "pictures"
    pictures.mkdir(parents=True)
    assert found(pictures) == found(f"far={pictures}") == {"far": pictures}
    pictures.rename(pictures.with_name("far"))
    assert found(tmp_path / "size=160") == {"far": tmp_path / "size=160" / "far"}


def test_a_document_that_was_made_elsewhere_is_made_again(tmp_path, monkeypatch):
    """Its cells would be compared by the tolerances of this machine."""
    definition = Experiment.model_validate(EXPERIMENT)
    version = definition.versions()["quick"]
    folder = tmp_path / "reproduction"
    workspace = Workspace(
        experiment=tmp_path,
        name="small",
        version=version,
        version_name="quick",
        runs=tmp_path,
        folder=folder,
        data={},
        record=read(tmp_path, definition, "quick"),
        tracker=Tracker(Config(name="small", data=Data(source="synthetic")), folder, print),
    )
    made = []

    def document(threads: str, **inputs: int) -> bytes:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        return workspace.cached_document("waits", inputs, lambda _: made.append(threads) or b"{}")

    for threads, seed in (("1", 0), ("1", 0), ("2", 0), ("2", 1)):
        assert document(threads, seed=seed) == b"{}"
    assert made == ["1", "2", "2"]


def test_what_is_neither_a_dataset_of_the_experiment_nor_a_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"has no dataset 'fra'; known: far\.$"):
        found(f"fra={tmp_path}")
    for lost in (tmp_path / "lost", f"far={tmp_path / 'lost'}"):
        with pytest.raises(ConfigError, match=r"lost: no such folder\.$"):
            found(lost)
