from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from lesion_triage.calibrate.metrics import proportion
from lesion_triage.config import Config
from lesion_triage.errors import DataError
from lesion_triage.evaluate.summary import summary


def results(auroc: float, **changes) -> dict:
    estimate = {"value": auroc, "low": auroc - 0.01, "high": auroc + 0.01}
    part = {
        "name": "all",
        "title": "All cases",
        "cases": 9,
        "positives": 3,
        "metrics": {
            "auroc": estimate,
            "sensitivity": estimate,
            "specificity": estimate,
            "referral_rate": None,
        },
    }
    return {
        "split": "test",
        "unit": "lesion",
        "manifest_sha256": "m",
        "splits_sha256": "s",
        "photographs": 12,
        "missed": 1,
        "positives": 3,
        "slices": [part],
        "parity": {"largest_score_difference": auroc * 1e-6, "decision_flips": 0},
        **changes,
    }


def test_results_that_a_run_took_over_from_another_are_not_counted_twice(written):
    paths = written(*(results(0.8, bundle_sha256=name) for name in "aba"))
    with pytest.raises(DataError, match=r"0\.json and .*2\.json are results of one bundle"):
        summary(paths)


@pytest.fixture
def written(tmp_path: Path):
    def write(*contents: dict) -> list[Path]:
        paths = [tmp_path / f"{number}.json" for number, _ in enumerate(contents)]
        for path, content in zip(paths, contents, strict=True):
            path.write_text(json.dumps(content))
        return paths

    return write


def test_seeds_and_cases_are_two_different_intervals(written):
    table = summary(written(results(0.90), results(0.96), results(0.93)))
    row = next(line for line in table.splitlines() if "AUROC" in line)
    assert "| 0.930 | 0.900 to 0.960 | 0.920 to 0.940 |" in row


def test_what_cannot_be_estimated_is_said_and_not_left_out(written):
    assert "referral rate | not estimable" in summary(written(results(0.9)))


def test_price_of_the_promise_to_groups_is_told_where_there_is_one(written):
    assert "price" not in summary(written(results(0.9)))
    alone = {"threshold": 0.1, "sensitivity": 2 / 3, "specificity": 0.95, "referral_rate": 0.3}
    told = summary(written(results(0.90, everyone_alone=alone), results(0.80, everyone_alone=alone)))
    assert "would be 0.950 (0.950 to 0.950) instead of 0.850, with 1, 1 positive lesions" in told


def test_a_run_that_the_groups_cost_nothing_is_in_the_mean_of_their_price(written):
    """Of three runs one alone paid, and the mean was over that one."""
    alone = {"threshold": 0.1, "sensitivity": 2 / 3, "specificity": 0.96, "referral_rate": 0.3}
    told = summary(written(results(0.90, everyone_alone=alone), results(0.80), results(0.70)))
    assert "would be 0.820 (0.700 to 0.960) instead of 0.800, with 1, 1, 1 positive lesions" in told


def test_too_few_cases_for_numbers_have_no_price_either(written):
    alone = {"threshold": 0.1, "sensitivity": 2 / 3, "specificity": 0.96, "referral_rate": 0.3}
    few = results(0.9, everyone_alone=alone)
    few["slices"][0]["metrics"] = {}
    told = summary(written(few, results(0.9, everyone_alone=alone)))
    assert "not estimable" in told
    assert "price" not in told


def test_the_interval_of_a_share_is_the_exact_one(written):
    """111 of 112: the bootstrap's (0.971 to 1.000) looked as if a target of 0.95 had been passed by far."""
    content = results(111 / 112)
    content["slices"][0]["sensitivity_exact"] = asdict(proportion(111, 112))
    row = next(line for line in summary(written(content)).splitlines() if "sensitivity" in line)
    assert row.endswith("| 0.951 to 1.000 |")


def test_a_share_that_draws_of_few_patients_lack_has_the_interval_of_their_number(written):
    """All positives are of two patients: one draw in eight has none, and the table said `not estimable`."""
    content = results(11 / 12)
    content["slices"][0]["metrics"]["sensitivity"] = None
    content["slices"][0]["sensitivity_exact"] = asdict(replace(proportion(11, 12), low=0.134, high=0.998))
    row = next(line for line in summary(written(content)).splitlines() if "sensitivity" in line)
    assert row.endswith("| 0.917 | 0.917 to 0.917 | 0.134 to 0.998 |")


def test_a_share_that_draws_of_few_patients_lack_has_its_place_in_the_price(written):
    """It was a traceback."""
    content = results(0.9, everyone_alone={"sensitivity": 2 / 3, "specificity": 0.95})
    content["slices"][0]["metrics"]["specificity"] = None
    content["slices"][0]["specificity_exact"] = asdict(proportion(9, 10))
    assert "would be 0.950 (0.950 to 0.950) instead of 0.900" in summary(written(content))


def test_runs_on_different_cases_are_not_averaged(written):
    with pytest.raises(DataError, match="splits_sha256"):
        summary(written(results(0.9), results(0.9, splits_sha256="other")))


@pytest.mark.parametrize("text", ["", "[]", '{"split": "test"}'])
def test_another_file_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError):
        summary([tmp_path / "a.json"])


def test_the_page_of_the_baseline_shows_the_recorded_results():
    folder = Path("experiments/ham10000-baseline")
    recorded = sorted(folder.glob("seed-*.json"))
    assert recorded
    assert summary(recorded) in (folder / "README.md").read_text(encoding="utf-8")


RECORDED = sorted(
    path
    for path in (Path(__file__).parents[2] / "experiments").glob("*/*.json")
    if "slices" in (content := json.loads(path.read_text())) and "parity" in content
)


@pytest.mark.parametrize("field", ["missed", "positives", "photographs", "slices"])
def test_a_file_without_what_the_table_takes_is_refused_in_a_sentence(written, field):
    content = results(0.9)
    del content[field]
    with pytest.raises(DataError, match=f"lacks {field}"):
        summary(written(content))


def test_there_are_recorded_results():
    assert len(RECORDED) > 5


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_results_recorded_before_a_field_existed_are_still_read(path):
    """Those of schema 1, from before the curves, the subgroups and the rest were in the file."""
    found = json.loads(path.read_text())
    assert found["schema_version"] == 1
    auroc = found["slices"][0]["metrics"]["auroc"]["value"]
    assert f"{auroc:.3f}" in summary([path])


def test_deals_are_counted_over_splits_that_all_differ_of_the_same_pictures(written):
    other = results(0.96, splits_sha256="t", photographs=14)
    other["slices"][0] |= {"cases": 10, "positives": 4}
    table = summary(written(results(0.90), other), deals=True)
    assert "mean of 2 deals | lowest to highest deal" in table
    assert "| All cases | 9 to 10 (3 to 4) | AUROC | 0.930 |" in table
    assert "on 12 to 14 photographs" in table
    with pytest.raises(DataError, match="--deals"):
        summary(written(results(0.90), other))
    with pytest.raises(DataError, match="share a split"):
        summary(written(results(0.90), other, results(0.93)), deals=True)
    with pytest.raises(DataError, match="manifest_sha256"):
        summary(written(results(0.90), {**other, "manifest_sha256": "n"}), deals=True)


def test_missed_lesions_are_not_called_patients_where_patients_are_the_unit(written):
    """``missed`` and ``positives`` count cases, of which a patient may have several."""
    alone = {"sensitivity": 0.4, "specificity": 0.8}
    text = summary(written(results(0.9, unit="patient", everyone_alone=alone)))
    assert "Positive lesions below the threshold: 1 of 3." in text
    assert "with 2 positive lesions below the threshold." in text
    assert "patients below" not in text


@pytest.fixture
def in_runs(tmp_path: Path):
    """Folders of runs, each with results and the configuration that its changes make."""

    def write(*changes: dict) -> list[Path]:
        folders = [tmp_path / f"run-{number}" for number, _ in enumerate(changes)]
        for number, (folder, change) in enumerate(zip(folders, changes, strict=True)):
            (folder / "report").mkdir(parents=True)
            (folder / "report" / "results.json").write_text(json.dumps(results(0.9 + number / 100)))
            config = {"name": "x", "seed": number, "data": {"source": "synthetic"}, **change}
            (folder / "config.yaml").write_text(Config.model_validate(config).to_yaml())
        return folders

    return write


def test_the_folder_of_a_run_stands_for_its_results(in_runs):
    folders = in_runs({}, {})
    assert summary(folders) == summary([folder / "report" / "results.json" for folder in folders])


def test_another_place_of_the_weights_and_a_second_look_are_no_other_recipe(in_runs):
    again = {"calibrate": {"second_look": "a reason"}}
    elsewhere = {"train": {"workers": 7}, "model": {"weights": "/somewhere/weights.safetensors"}}
    assert "These runs differ" not in summary(
        in_runs({"model": {"weights": "weights.safetensors"}}, again | elsewhere)
    )


def test_the_table_names_the_keys_in_which_recipes_differ(in_runs):
    table = summary(in_runs({}, {"pixels": {"size_px": 96}, "train": {"epochs": 2}}, {}))
    assert table.endswith("the seed: pixels.size_px, train.epochs. The means are over different recipes.\n")


def test_a_configuration_that_this_version_cannot_read_hides_no_table(in_runs):
    folders = in_runs({}, {})
    (folders[0] / "config.yaml").write_text("name: x\nobsolete: 1\n")
    assert summary(folders).startswith("| test split")
