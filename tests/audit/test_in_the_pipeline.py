"""``lesion-triage audit`` as a person calls it, and ``run`` that stops."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import yaml
from PIL import Image

from drawn_artefacts import skin, with_ruler
from lesion_triage import cli

SMALL = {
    "name": "audited",
    "data": {"source": "folder"},
    "split": {"fractions": {"train": 0.5, "validation": 0.2, "calibration": 0.2, "test": 0.1}},
    "pixels": {"size_px": 64},
    "audit": {"pictures": 60},
    "model": {"backbone": "test_efficientnet", "weights": "none", "drop_path_rate": 0.0},
    "train": {"epochs": 1, "batch_size": 16, "workers": 0, "accelerator": "cpu", "augmentation": "none"},
    "calibrate": {"target_sensitivity": 0.5, "confidence": 0.5},
    "evaluate": {"bootstrap_draws": 100},
    "tracking": {"enabled": False},
}


def shaded(picture, number):
    """Lit unevenly, each in its own way: equal moles on equal skin would be copies of one picture."""
    shade = np.random.default_rng(number).permutation(np.tile((-24.0, 24.0), 18)).reshape(6, 6)
    light = np.asarray(
        Image.fromarray(shade.astype(np.float32)).resize(picture.size, Image.Resampling.BICUBIC)
    )
    return Image.fromarray(np.clip(np.asarray(picture) + light[:, :, None], 0, 255).astype(np.uint8))


@pytest.fixture
def dataset(tmp_path):
    """A folder of moles; on request every positive has a ruler."""

    def make(*, rulers: bool, count: int = 120):
        root = tmp_path / "photos"
        root.mkdir(exist_ok=True)
        random = np.random.default_rng(0)
        with (root / "cases.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["image", "needs_in_person", "lesion_id", "fitzpatrick_skin_type"])
            for number in range(count):
                positive = number % 3 == 0
                picture = shaded(skin(number), number)
                (with_ruler(picture) if rulers and positive else picture).save(root / f"{number}.jpg")
                writer.writerow([f"{number}.jpg", positive, f"l{number}", random.choice(["II", "V"])])
        path = tmp_path / "audited.yaml"
        path.write_text(yaml.safe_dump(SMALL))
        return [str(path), "--data-root", str(root), "--runs", str(tmp_path / "runs")]

    return make


def the_run(tmp_path):
    (folder,) = (tmp_path / "runs").glob("[!.]*")
    return folder


def test_audit_leaves_a_page_and_a_file_and_passes(dataset, tmp_path, capsys):
    assert cli.main(["audit", *dataset(rulers=False)]) == 0
    folder = the_run(tmp_path) / "audit"
    assert json.loads((folder / "audit.json").read_text())["verdict"] == "pass"
    assert "verdict pass" in capsys.readouterr().out
    assert not (the_run(tmp_path) / "checkpoint.safetensors").exists()


def test_run_stops_before_training_where_the_audit_fails_and_says_how_to_go_on(dataset, tmp_path, capsys):
    arguments = dataset(rulers=True)
    assert cli.main(["run", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("AuditError: the audit failed on ")
    assert "'ruler'" in error
    assert "audit.accept.ruler" in error
    assert error.count("\n") == 1
    assert not (the_run(tmp_path) / "checkpoint.safetensors").exists()
    assert (the_run(tmp_path) / "audit" / "audit.html").is_file()
    assert cli.main(["run", *arguments]) == 2  # finished is not forgotten
    assert cli.main(["audit", *arguments]) == 2


def test_an_accepted_failure_lets_it_go_on_and_stays_in_the_report(dataset, tmp_path, capsys):
    arguments = dataset(rulers=True)
    for code in ("ruler", "frame_shortcut", "file_size_shortcut"):  # a ruler shows in all three
        arguments += ["--set", f"audit.accept.{code}=the rulers are cropped before training"]
    assert cli.main(["audit", *arguments]) == 0
    assert "fail, accepted: ruler" in capsys.readouterr().out
    content = json.loads((the_run(tmp_path) / "audit" / "audit.json").read_text())
    (finding,) = [one for one in content["findings"] if one["code"] == "ruler"]
    assert (finding["verdict"], finding["counts_as"]) == ("fail", "warn")
    assert finding["accepted"] == "the rulers are cropped before training"


def test_tables_only_opens_no_picture(dataset, tmp_path):
    arguments = dataset(rulers=True)
    assert cli.main(["audit", *arguments, "--tables-only"]) == 0
    content = json.loads((the_run(tmp_path) / "audit_tables" / "audit.json").read_text())
    assert content["facts"]["pictures_opened"] == 0


def test_tables_only_stays_in_the_run_s_folder_and_the_whole_audit_follows_it_there(
    dataset, tmp_path, capsys
):
    arguments = dataset(rulers=False)
    for verb in (["split"], ["audit", "--tables-only"], ["audit"], ["audit", "--tables-only"]):
        assert cli.main([verb[0], *arguments, *verb[1:]]) == 0
    folder = the_run(tmp_path)  # one, and no more
    opened = {
        name: json.loads((folder / name / "audit.json").read_text())["facts"]["pictures_opened"]
        for name in ("audit", "audit_tables")
    }
    assert opened == {"audit": 60, "audit_tables": 0}
    assert "audit_tables: unchanged" in capsys.readouterr().out


def test_pictures_are_shown_in_a_page_of_their_own(dataset, tmp_path):
    arguments = dataset(rulers=True)
    assert cli.main(["audit", *arguments, "--pictures"]) == 2
    assert "photographs of people" in (the_run(tmp_path) / "audit_pictures.html").read_text()


def test_tables_only_and_pictures_contradict_each_other(dataset, capsys):
    assert cli.main(["audit", *dataset(rulers=False, count=30), "--tables-only", "--pictures"]) == 2
    assert capsys.readouterr().err.startswith("ConfigError: --pictures shows")


@pytest.mark.slow
def test_once_there_is_a_model_it_is_audited_too(dataset, tmp_path, capsys):
    arguments = dataset(rulers=False)
    assert cli.main(["audit", *arguments]) == 0
    assert cli.main(["train", *arguments]) == 0
    capsys.readouterr()
    assert cli.main(["audit", *arguments]) == 0
    content = json.loads((the_run(tmp_path) / "audit_with_model" / "audit.json").read_text())
    codes = {one["code"] for one in content["findings"]}
    assert {"leakage", "lesion_covered", "model_within_source", "model_and_metadata"} <= codes
    assert content["facts"]["with_model"]
    assert cli.main(["audit", *arguments]) == 0
    assert "audit_model: unchanged" in capsys.readouterr().out
