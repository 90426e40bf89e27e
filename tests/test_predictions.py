from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion_triage import predictions
from lesion_triage.errors import PredictionsError, ScoringError
from lesion_triage.predictions import Prediction, Predictions

ROW = Prediction(
    image_id="a",
    case_id="lesion-1",
    unit_id="patient-1",
    file_fingerprint="0123456789abcdef",
    pixel_fingerprint="fedcba9876543210",
    logit=-0.25,
    quality_codes="",
    novelty=0.75,
    needs_in_person=True,
    diagnosis="irregular",
    diagnosis_confirm_type="",
    source="synthetic",
    sex="",
    age_approx=None,
    anatom_site_general="",
    fitzpatrick_skin_type="",
)


def table(*rows: Prediction) -> Predictions:
    return Predictions("validation", "1" * 64, "2" * 64, "3" * 64, rows)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=20))
def test_logits_come_back_with_the_same_bits(tmp_path_factory, logits):
    folder = tmp_path_factory.mktemp("table")
    written = table(*(replace(ROW, image_id=str(i), logit=logit) for i, logit in enumerate(logits)))
    digest = written.write(folder)
    assert predictions.read(folder, "validation") == (written, digest)


def test_unknown_values_come_back_as_none(tmp_path):
    row = replace(ROW, logit=None, quality_codes="image_too_dark", novelty=None, needs_in_person=None)
    table(row).write(tmp_path)
    assert predictions.read(tmp_path, "validation")[0].rows == (row,)


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_no_number_is_refused_and_nothing_is_written(tmp_path, logit):
    with pytest.raises(PredictionsError, match=r"picture 1 of the split: .*nothing was written"):
        table(replace(ROW, logit=logit)).write(tmp_path)
    assert not list(tmp_path.glob("*.csv"))
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize("novelty", [math.nan, math.inf])
def test_a_novelty_that_is_no_number_is_refused(tmp_path, novelty):
    with pytest.raises(PredictionsError, match="the novelty is"):
        table(replace(ROW, novelty=novelty)).write(tmp_path)


def test_behind_the_gate_an_unfamiliar_photograph_has_a_reason_and_no_logit():
    dark = replace(ROW, logit=None, novelty=None, quality_codes="image_too_dark")
    rows = (ROW, replace(ROW, novelty=2.0), dark)
    behind = table(*rows).behind_gate(2.0).rows
    assert behind == (ROW, replace(rows[1], logit=None, quality_codes="out_of_distribution"), dark)
    assert table(*rows).behind_gate(2.0).behind_gate(2.0).rows == behind
    assert table(*rows).behind_gate(None).rows == rows


def test_a_logit_without_a_novelty_does_not_pass_a_gate():
    with pytest.raises(ScoringError, match="novelty is None"):
        table(replace(ROW, novelty=None)).behind_gate(2.0)


def test_an_altered_table_is_refused(tmp_path):
    table(ROW).write(tmp_path)
    path = tmp_path / "validation.csv"
    path.write_text(path.read_text().replace("-0.25", "-0.35"))
    with pytest.raises(PredictionsError, match="altered"):
        predictions.read(tmp_path, "validation")


def test_a_table_without_its_header_is_incomplete(tmp_path):
    table(ROW).write(tmp_path)
    (tmp_path / "validation.json").unlink()
    with pytest.raises(PredictionsError, match="no complete predictions"):
        predictions.read(tmp_path, "validation")


def test_rows_are_grouped_by_case_in_order():
    rows = [replace(ROW, image_id=name, case_id=case) for name, case in (("a", "2"), ("b", "1"), ("c", "2"))]
    grouped = table(*rows).by_case()
    assert [(case, [row.image_id for row in found]) for case, found in grouped.items()] == [
        ("2", ["a", "c"]),
        ("1", ["b"]),
    ]
