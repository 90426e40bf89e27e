from __future__ import annotations

import numpy as np

from lesion_triage.audit.columns import Columns
from lesion_triage.data.categorical import Categorical
from lesion_triage.data.split import SPLITS


def test_words_become_numbers_and_none_is_the_empty_word():
    column = Categorical.from_values(["a", None, "b", "", "a"])
    assert [column.levels[code] for code in column.codes] == ["a", "", "b", "", "a"]
    assert column.is_missing().tolist() == [False, True, False, True, False]


def test_rare_words_become_one():
    column = Categorical.from_values(list("aaabbbcd")).merge_rare(2)
    assert [column.levels[code] for code in column.codes] == [*"aaabbb", "all others", "all others"]


def test_one_row_speaks_for_each_unit_and_label_and_none_of_calibration_or_test(made):
    columns = Columns.from_manifest(*made(1200, per_lesion=3))
    rows = columns.representatives(seed=0)
    assert np.unique(columns.unit[rows]).size == rows.size
    assert {SPLITS[code] for code in columns.split[rows]} == {"train", "validation"}
    assert np.unique(columns.unit[columns.is_modelled()]).size == rows.size
    assert rows.tolist() == columns.representatives(seed=0).tolist()
    assert rows.tolist() != columns.representatives(seed=1).tolist()


def test_a_patient_with_both_labels_speaks_once_for_each(made):
    known, splits = made(600, patient_id=lambda random, positive: None)
    columns = Columns.from_manifest(known, splits)
    one_unit = Columns(columns.records, columns.positive, columns.split, np.zeros(600, np.intp), columns.case)
    assert sorted(one_unit.positive[one_unit.representatives(0)].tolist()) == [0, 1]


def test_a_field_that_records_do_not_have_is_unknown_throughout(made):
    columns = Columns.from_manifest(*made(200))
    assert columns.categorical("duplicate_group").is_missing().all()
