from __future__ import annotations

import pytest

from lesion_triage.data.labels import LABELS, label_for
from lesion_triage.errors import DataError


def test_every_label_says_why_and_on_whose_authority() -> None:
    for codes in LABELS.values():
        for label in codes.values():
            assert label.name
            assert label.why
            assert label.source


@pytest.mark.parametrize(
    ("family", "positive"),
    [
        ("ham10000", {"mel", "bcc", "akiec"}),
        ("pad_ufes_20", {"MEL", "BCC", "SCC", "ACK"}),
        ("synthetic", {"irregular"}),
    ],
)
def test_the_positive_class_is_the_reviewed_one(family: str, positive: set[str]) -> None:
    assert {code for code, label in LABELS[family].items() if label.needs_in_person} == positive
    assert all(label.needs_in_person is not None for label in LABELS[family].values())


def test_an_unknown_code_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(DataError, match=r"'meel' is no known diagnosis of 'ham10000'; did you mean 'mel'\?"):
        label_for("ham10000", "meel")


def test_a_code_in_another_case_is_another_code() -> None:
    with pytest.raises(DataError, match="MEL"):
        label_for("ham10000", "MEL")


def test_an_unknown_family_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(DataError, match=r"did you mean 'ham10000'\?"):
        label_for("ham1000", "mel")


def test_the_table_cannot_be_changed_at_run_time() -> None:
    with pytest.raises(TypeError):
        LABELS["ham10000"]["new"] = LABELS["ham10000"]["nv"]  # type: ignore[index]
