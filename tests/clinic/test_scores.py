"""Every verb reads a table of scores by the same rules: those by which reports write one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lesion_triage.clinic.scores import read_scores
from lesion_triage.errors import DataError


@pytest.mark.parametrize("mark", ["\ufeff", ""])
@pytest.mark.parametrize(("yes", "no"), [("True", "False"), ("1", "0"), ("yes", "NO"), (" true ", "false")])
def test_outcomes_are_read_as_people_write_them(tmp_path, mark, yes, no):
    path = tmp_path / "scores.csv"
    path.write_text(f"{mark}needs_in_person,score\n{yes},0.5\n{no}, 1 \n{no},inf\n", encoding="utf-8")
    scores, positive = read_scores(path)
    assert scores.tolist() == [0.5, 1.0, math.inf]
    assert positive.tolist() == [True, False, False]


def test_table_saved_by_a_spreadsheet_is_read(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_bytes("\ufeffcase,score,needs_in_person\r\na,0.9,TRUE\r\nb,,1\r\nc,0.2,false\r\n".encode())
    scores, positive = read_scores(path)
    assert scores.tolist() == [0.9, math.inf, 0.2]
    assert np.flatnonzero(positive).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("score,outcome\n0.5,1\n", "found no needs_in_person"),
        ("", "found no score"),
        ("score;needs_in_person\n0,5;1\n", "found no score, needs_in_person; commas separate columns"),
        ("score,needs_in_person\n\n0.5,1\n\nhigh,0\n", "line 5: expected a number or nothing in score"),
        ('note,score,needs_in_person\n"a\nb",0.5,1\n,high,0\n', "line 4: expected a number or nothing"),
        ("score,needs_in_person\n0_1,1\n", "line 2: expected a number or nothing in score"),
        ("score,needs_in_person\n0.5,1\n,\n", "line 3: expected a number or nothing in score"),
        ("score,needs_in_person\n0.5,1\nhigh,0\n", "line 3: expected a number or nothing in score"),
        ("score,needs_in_person\n0.5,\n", "line 2: expected a number or nothing in score and True or False"),
        ("score,needs_in_person\n0.5,maybe\n", "True or False in needs_in_person"),
        ("score,needs_in_person\n0.5\n", "line 2: more or fewer cells than the header"),
        ("score,needs_in_person\nnan,1\n", "line 2: expected a number or nothing in score"),
        ("score,needs_in_person\n1.5,1\n", "line 2: the score is not in [0, 1]"),
        ("score,needs_in_person\n-inf,1\n", "line 2: expected a number or nothing in score"),
        ("score,score,needs_in_person\n0.1,0.9,true\n", "column 'score' appears twice; keep one"),
        ("score,needs_in_person\n-5,true\n", "line 2: the score is not in [0, 1]"),
    ],
)
def test_unusable_table_is_refused_with_its_line(tmp_path, content, sentence):
    path = tmp_path / "scores.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_scores(path)
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_table_that_is_not_there_or_not_text_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_scores(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"score,needs_in_person\n\xff\xfe,True\n")
    with pytest.raises(DataError, match="cannot be read"):
        read_scores(tmp_path / "bytes.csv")
