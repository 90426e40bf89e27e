from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lesion_triage import locks
from lesion_triage.config import Config
from lesion_triage.tracking import Tracker, environment, flat_params, tracker
from lesion_triage.tracking.tracker import LOCK


def config(tmp_path: Path, **tracking) -> Config:
    return Config.model_validate(
        {
            "name": "try",
            "data": {
                "source": "folder",
                "root": str(tmp_path / "Jane-Doe"),
                "table": str(tmp_path / "Jane-Doe" / "cases.csv"),
            },
            "model": {"weights": str(tmp_path / "Jane-Doe" / "w.safetensors")},
            "tracking": tracking,
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "experiments" / "runs" / "try-20260101-000000"
    made.mkdir(parents=True)
    return made


def test_a_run_is_recorded_and_reopened(tmp_path, folder):
    from mlflow.tracking import MlflowClient

    said: list[str] = []
    for epoch in (1, 2):
        tracker = Tracker(config(tmp_path), folder, said.append)
        tracker.params({"config_sha256": "ab"})
        tracker.metrics({"train.loss": 1.0 / epoch}, step=epoch)
        tracker.text(environment(), "environment.txt")
        tracker.finish()
    assert said == []
    client = MlflowClient(tracking_uri=f"sqlite:///{folder.parent.parent / 'mlflow.db'}")
    run_id = (folder / "mlflow_run_id.txt").read_text().strip()
    assert client.get_run(run_id).data.params["config_sha256"] == "ab"
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "train.loss")] == [
        (1, 1.0),
        (2, 0.5),
    ]
    assert [file.path for file in client.list_artifacts(run_id)] == ["environment.txt"]
    assert len(client.search_runs([client.get_run(run_id).info.experiment_id])) == 1


def test_an_experiment_that_another_client_creates_meanwhile_is_used(tmp_path):
    from mlflow.tracking import MlflowClient

    class Overtaken(MlflowClient):
        """Between its question whether the experiment exists and its answer, another client creates it."""

        def get_experiment_by_name(self, name):
            found = super().get_experiment_by_name(name)
            if found is None:
                super().create_experiment(name)
            return found

    client = Overtaken(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    made = tracker.experiment_id(client, "skin", None)
    assert made == client.get_experiment_by_name("skin").experiment_id
    assert made == tracker.experiment_id(client, "skin", None)


def test_two_first_runs_at_once_do_not_both_make_the_database(tmp_path, folder):
    said: list[str] = []
    experiments = folder.parent.parent
    with ThreadPoolExecutor(1) as pool:
        with locks.hold_lock(experiments / LOCK):  # as the other has it
            opened = pool.submit(Tracker, config(tmp_path), folder, said.append)
            with pytest.raises(TimeoutError):
                opened.result(2.0)
            assert not (experiments / "mlflow.db").exists()
        assert opened.result().run_id
    assert said == []


def test_a_run_whose_database_was_deleted_is_tracked_in_a_new_one(tmp_path, folder):
    from mlflow.tracking import MlflowClient

    said: list[str] = []
    Tracker(config(tmp_path), folder, said.append).finish()
    first = (folder / "mlflow_run_id.txt").read_text()
    uri = f"sqlite:///{folder.parent.parent / 'other.db'}"  # a process keeps a database open once it knows it
    tracker = Tracker(config(tmp_path, uri=uri), folder, said.append)
    tracker.metrics({"test.auroc": 0.5})
    assert said == []
    assert (folder / "mlflow_run_id.txt").read_text() == f"{tracker.run_id}\n" != first
    assert MlflowClient(uri).get_run(tracker.run_id).data.metrics == {"test.auroc": 0.5}


def test_a_server_that_is_down_costs_one_warning_and_no_run(tmp_path, folder):
    said: list[str] = []
    tracker = Tracker(config(tmp_path, uri="http://ada:secret@127.0.0.1:9"), folder, said.append)
    tracker.params({"a": 1})
    tracker.metrics({"b": 1.0})
    tracker.finish()
    assert len(said) == 1
    assert "tracking is off" in said[0]
    assert "127.0.0.1" in said[0]  # what was the matter, not only that something was
    assert "secret" not in said[0]  # which a log would keep


@pytest.mark.parametrize(
    "key",
    ["devices", "strategy", "compile", "channels_last", "checkpoint_minutes", "pixel_cache", "teacher_share"],
)
def test_a_command_that_does_the_run_in_another_way_goes_on_with_its_record(tmp_path, folder, key):
    """Such a key does not make another run, and MLflow refuses another value of a parameter."""
    from mlflow.tracking import MlflowClient

    other = {"devices": 2, "strategy": "ddp", "compile": True, "channels_last": False}
    other |= {"checkpoint_minutes": 1.0, "pixel_cache": False, "teacher_share": 0.7}
    section = "ensemble" if key == "teacher_share" else "train"
    first = config(tmp_path)
    second = Config.model_validate({**first.model_dump(), section: {key: other[key]}})
    assert first.identity_sha256() == second.identity_sha256()
    said: list[str] = []
    for again in (first, second, second):
        tracker = Tracker(again, folder, said.append)
        tracker.params(flat_params(again))
        tracker.params({"manifest_sha256": "ab"})
        tracker.tags({"certificate_id": "cd"})
        tracker.finish()
    assert said == []
    data = MlflowClient(f"sqlite:///{folder.parent.parent / 'mlflow.db'}").get_run(tracker.run_id).data
    assert data.tags["certificate_id"] == "cd"
    assert data.params[f"{section}.{key}"] == str(flat_params(first)[f"{section}.{key}"])
    assert data.tags[f"{section}.{key}"] == str(other[key])
    assert not any(name.startswith("train.epochs") for name in data.tags)


def test_a_parameter_that_is_what_it_was_at_first_again_has_no_tag_that_says_otherwise(tmp_path, folder):
    from mlflow.tracking import MlflowClient

    for devices in (1, 2, 1):
        tracker = Tracker(config(tmp_path), folder, print)
        tracker.params({"train.devices": devices})
        tracker.finish()
    data = MlflowClient(f"sqlite:///{folder.parent.parent / 'mlflow.db'}").get_run(tracker.run_id).data
    assert (data.params["train.devices"], data.tags["train.devices"]) == ("1", "1")


def test_switched_off_it_writes_nothing(tmp_path, folder):
    Tracker(config(tmp_path, enabled=False), folder, print).params({"a": 1})
    assert not (folder.parent.parent / "mlflow.db").exists()
    assert not list(folder.iterdir())


def test_neither_parameters_nor_environment_say_where_anything_lies(tmp_path):
    text = repr(flat_params(config(tmp_path))) + environment()
    assert "Jane-Doe" not in text
    assert str(tmp_path) not in text


def test_no_parameter_says_where_a_part_of_a_mixture_lies(tmp_path):
    parts = [
        {"source": "ddi", "root": str(tmp_path / "Jane-Doe"), "table": "../Jane-Doe/cases.csv"},
        {"source": "ham10000"},
    ]
    mixed = {"name": "try", "data": {"source": "mixture", "mixture": parts}}
    found = flat_params(Config.model_validate(mixed))
    assert "Jane-Doe" not in repr(found)
    assert (found["data.mixture.1.source"], found["data.mixture.2.source"]) == ("ddi", "ham10000")


def test_no_parameter_says_where_the_weights_of_a_further_backbone_lie(tmp_path):
    others = [
        {"backbone": "resnet18", "weights": str(tmp_path / "Jane-Doe" / "r.safetensors")},
        {"backbone": "resnet34"},
    ]
    several = {**config(tmp_path).model_dump(mode="json"), "ensemble": {"backbones": others}}
    found = flat_params(Config.model_validate(several))
    assert "Jane-Doe" not in repr(found)
    assert found["ensemble.backbones.1.weights"] == "r.safetensors"
    assert found["ensemble.backbones.2.backbone"] == "resnet34"
    assert found["ensemble.backbones.2.weights"] == "hub"


def test_a_run_that_told_of_its_mixture_in_one_parameter_is_tracked_on(tmp_path, folder):
    """MLflow refuses another value of a parameter; the one of before held the folders of the parts."""
    mixed = {"name": "try", "data": {"source": "mixture", "mixture": [{"source": "ddi"}]}}
    said: list[str] = []
    made = Config.model_validate(mixed)
    for values in ({"data.mixture": "[{'source': 'ddi', 'root': '/data/ddi'}]"}, flat_params(made)):
        tracker = Tracker(made, folder, said.append)
        tracker.params(values)
        tracker.finish()
    assert said == []
    assert tracker.run_id


def test_each_split_is_a_dataset_with_the_manifests_hash_and_no_name_of_a_file(tmp_path, folder):
    from mlflow.tracking import MlflowClient

    said: list[str] = []
    tracker = Tracker(config(tmp_path), folder, said.append)
    hashes = {"manifest_sha256": "ab" * 32, "splits_sha256": "cd" * 32}
    for split, cases in (("train", 60), ("test", 15)):
        tracker.dataset("ham10000", split, hashes, {"photographs": 2 * cases, "cases": cases, "positives": 5})
    assert said == []
    client = MlflowClient(tracking_uri=f"sqlite:///{folder.parent.parent / 'mlflow.db'}")
    inputs = client.get_run(tracker.run_id).inputs.dataset_inputs
    found = {one.tags[0].value: one.dataset for one in inputs}
    assert found.keys() == {"train", "test"}
    assert {one.digest for one in found.values()} == {("ab" * 32)[:36]}
    assert json.loads(found["test"].source) == hashes
    assert json.loads(found["train"].profile) == {"cases": 60, "photographs": 120, "positives": 5}
    assert [one.name for one in found.values()] == [f"ham10000: {split}" for split in found]
