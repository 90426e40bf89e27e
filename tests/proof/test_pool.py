"""The recorded table: what is kept, what is left out, and what is refused."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tiny_bundle
from lesion_triage.errors import PredictionsError
from lesion_triage.predictions import Prediction, Predictions
from lesion_triage.proof import pool as pools

ROW = Prediction(
    image_id="secret-image-1",
    case_id="secret-lesion-1",
    unit_id="secret-patient-1",
    file_fingerprint="0" * 16,
    pixel_fingerprint="1" * 16,
    logit=0.5,
    quality_codes="",
    novelty=None,
    needs_in_person=True,
    diagnosis="mel",
    diagnosis_confirm_type="histopathology",
    source="rosendahl",
    sex="female",
    age_approx=50.0,
    anatom_site_general="back",
    fitzpatrick_skin_type="",
)
ROWS = {
    "calibration": (
        ROW,
        replace(ROW, image_id="secret-image-2", logit=1.5),
        replace(
            ROW,
            image_id="secret-image-3",
            case_id="secret-lesion-2",
            logit=-1.0,
            needs_in_person=False,
            diagnosis="nv",
            age_approx=None,
            sex="",
        ),
    ),
    "test": (
        replace(ROW, image_id="secret-image-4", case_id="secret-lesion-3", unit_id="p2", logit=None),
        replace(ROW, image_id="secret-image-5", case_id="secret-lesion-4", unit_id="p3", logit=-3.0),
    ),
}


def run_folder(tmp_path: Path, models: tuple[str, str] = ("m", "m"), **rows: tuple[Prediction, ...]) -> Path:
    for (split, own), model in zip({**ROWS, **rows}.items(), models, strict=True):
        Predictions(split, "a" * 64, "b" * 64, model, own).write(tmp_path / "run" / "predictions")
    write_policy(tmp_path / "run", None)
    return tmp_path / "run"


def write_policy(run: Path, novelty_limit: float | None) -> None:
    policy = tiny_bundle.policy(novelty_limit=novelty_limit)
    (run / "policy.json").write_text(policy.to_json(), encoding="utf-8")


def test_what_a_gate_refuses_is_recorded_as_refused(tmp_path):
    rows = tuple(replace(row, novelty=float(place)) for place, row in enumerate(ROWS["calibration"]))
    tests = tuple(replace(row, novelty=0.0) for row in ROWS["test"])
    run = run_folder(tmp_path, calibration=rows, test=tests)
    write_policy(run, 1.0)
    pool = pools.record(run, tmp_path / "scores.csv")
    assert [case.logits for case in pool.cases] == [(0.5, None), (None,), (-3.0,)]


def test_a_run_without_a_policy_is_refused(tmp_path):
    run = run_folder(tmp_path)
    (run / "policy.json").unlink()
    with pytest.raises(PredictionsError, match=r"policy\.json: no policy"):
        pools.record(run, tmp_path / "scores.csv")


@pytest.mark.parametrize("content", [b"{}", b"no JSON", b'{"threshold": 2, "unknown": 1}'])
def test_a_policy_of_another_version_is_refused_in_one_line(tmp_path, content):
    run = run_folder(tmp_path)
    (run / "policy.json").write_bytes(content)
    with pytest.raises(PredictionsError, match="no policy of this version") as refused:
        pools.record(run, tmp_path / "scores.csv")
    assert "\n" not in str(refused.value)
    assert "pydantic" not in str(refused.value)


def test_what_was_recorded_is_what_the_run_predicted(tmp_path):
    pool = pools.record(run_folder(tmp_path), tmp_path / "kept" / "scores.csv")
    assert [case.logits for case in pool.cases] == [(0.5, 1.5), (None,), (-3.0,)]
    assert [case.logits for case in pool.negative_cases] == [(-1.0,)]
    sigmoids = [1 / (1 + math.exp(-1.5)), math.inf, 1 / (1 + math.exp(3.0))]
    assert pool.scores == pytest.approx(sigmoids)
    first, negative = pool.cases[0], pool.negative_cases[0]
    assert (first.rows[0].diagnosis, first.rows[0].source, first.rows[0].sex) == (
        "mel",
        "rosendahl",
        "female",
    )
    assert (first.rows[0].age_approx, negative.rows[0].age_approx, negative.rows[0].sex) == (50.0, None, "")
    assert first.unit_id == negative.unit_id != pool.cases[1].unit_id


def test_a_recorded_table_is_read_back_as_it_was_written(tmp_path):
    table = tmp_path / "scores.csv"
    written, read = pools.record(run_folder(tmp_path), table), pools.read(table)
    assert (read.cases, read.negative_cases, read.sha256) == (
        written.cases,
        written.negative_cases,
        written.sha256,
    )


def test_no_identifier_is_recorded(tmp_path):
    table = tmp_path / "scores.csv"
    pools.record(run_folder(tmp_path), table)
    assert "secret" not in table.read_text()


def test_photographs_stand_in_rows_of_their_case(tmp_path):
    pool = pools.record(run_folder(tmp_path), tmp_path / "scores.csv")
    table = pool.photographs()
    assert table.shape == (3, 2)
    assert np.isnan(table).tolist() == [[False, False], [False, True], [False, True]]
    assert np.isposinf(table[1, 0])
    assert table[0, 1] == pool.scores[0], "the case takes the highest of its photographs"


def test_the_recorded_table_is_that_of_the_page(pool):
    assert (pool.scores.size, pool.negatives.size) == (280, 1513)
    assert {case.rows[0].diagnosis for case in pool.cases} == {"mel", "bcc", "akiec"}
    assert np.unique(pool.scores).size == pool.scores.size, "the law of the misses presumes no ties"


def test_predictions_of_two_models_are_refused(tmp_path):
    with pytest.raises(PredictionsError, match="of one model"):
        pools.record(run_folder(tmp_path, models=("m", "other")), tmp_path / "scores.csv")


def test_a_case_in_both_splits_is_refused(tmp_path):
    run = run_folder(tmp_path, test=(replace(ROW, image_id="again"),))
    with pytest.raises(PredictionsError, match="in two splits"):
        pools.record(run, tmp_path / "scores.csv")


def test_a_missing_table_is_refused_and_the_error_says_how_to_make_one(tmp_path):
    with pytest.raises(PredictionsError, match="--record"):
        pools.read(tmp_path / "scores.csv")


@pytest.mark.parametrize(
    ("column", "cell"),
    [("logit", "nan"), ("logit", "inf"), ("logit", "high"), ("needs_in_person", ""), ("age_approx", "old")],
)
def test_a_cell_that_cannot_be_used_is_refused_with_its_line(tmp_path, column, cell):
    table = tmp_path / "scores.csv"
    pools.record(run_folder(tmp_path), table)
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows[1][column] = cell
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, pools.COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(PredictionsError, match="line 3"):
        pools.read(table)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("calibration,1,1,0.5,True", "line 3"),
        ("calibration,1,1,0.5,True,mel,rosendahl,female,50,more", "line 3"),
        ('calibration,1,1,0.5,True,"mel,rosendahl,female,50', "unexpected end"),
    ],
)
def test_a_line_that_was_cut_short_is_refused(tmp_path, line, said):
    """A photograph without class and source was read as one whose class nobody knows."""
    table = tmp_path / "scores.csv"
    pools.record(run_folder(tmp_path), table)
    head, first, *_ = table.read_text().splitlines()
    table.write_text(f"{head}\n{first}\n{line}")
    with pytest.raises(PredictionsError, match=said):
        pools.read(table)


def test_a_table_that_is_not_text_is_refused(tmp_path):
    table = tmp_path / "scores.csv"
    table.write_bytes(b"\xff\xfe")
    with pytest.raises(PredictionsError, match="expected text in UTF-8"):
        pools.read(table)


def test_a_run_that_makes_no_population_leaves_the_recorded_table_as_it_is(tmp_path):
    table = tmp_path / "scores.csv"
    run = run_folder(tmp_path)
    pools.record(run, table)
    before = table.read_bytes()
    run_folder(tmp_path, calibration=ROWS["calibration"][:2])
    with pytest.raises(PredictionsError, match="positive and other cases"):
        pools.record(run, table)
    assert table.read_bytes() == before


def test_other_columns_are_refused(tmp_path):
    table = tmp_path / "scores.csv"
    table.write_text("case,logit\n1,0.5\n")
    with pytest.raises(PredictionsError, match="expected the columns"):
        pools.read(table)


def test_a_table_of_one_class_is_refused(tmp_path):
    table = tmp_path / "scores.csv"
    pools.record(run_folder(tmp_path), table)
    kept = [line for line in table.read_text().splitlines() if ",False," not in line]
    table.write_text("\n".join(kept) + "\n")
    with pytest.raises(PredictionsError, match="positive and other cases"):
        pools.read(table)
