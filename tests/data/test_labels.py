from __future__ import annotations

from pathlib import Path

import pytest

from lesion_triage.data.labels import CODES, DECISIONS, LABELS, label_for
from lesion_triage.data.labels.decisions import REFERENCES
from lesion_triage.data.labels.page import page
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
        ("isic_2018", {"MEL", "BCC", "AKIEC"}),
        ("ph2", {"2"}),
        ("dermamnist", {"0", "1", "4"}),
        ("synthetic", {"irregular"}),
    ],
)
def test_the_positive_class_is_the_reviewed_one(family: str, positive: set[str]) -> None:
    assert {code for code, label in LABELS[family].items() if label.needs_in_person} == positive
    assert all(label.needs_in_person is not None for label in LABELS[family].values())


def test_an_unknown_code_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(
        DataError, match=r"'meel' is not a known diagnosis of 'ham10000'; did you mean 'mel'\?"
    ):
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


def test_an_official_list_of_codes_is_mapped_whole() -> None:
    # Groh 2021: 114 conditions. Daneshjou 2022: 78 diseases. Kurtansky 2024: 52 paths in train-metadata.csv.
    assert [len(LABELS[family]) for family in ("fitzpatrick17k", "ddi", "isic_2024")] == [114, 78, 52]


@pytest.mark.parametrize(
    ("family", "unknown"),
    [
        ("isic_2019", {"UNK"}),
        ("bcn20000", {"UNK", "OOD", ""}),
        ("isic_2020", {"atypical melanocytic proliferation"}),
        ("milk10k", {"INF"}),
        ("derm7pt", {"miscellaneous"}),
        ("scin", {"differential", "ungradable"}),
    ],
)
def test_what_is_unknown_or_undecided_is_none_and_never_false(family: str, unknown: set[str]) -> None:
    assert {code for code, label in LABELS[family].items() if label.needs_in_person is None} == unknown


def test_the_archive_s_tree_is_followed_where_it_names_a_side() -> None:
    for path, label in LABELS["isic_2024"].items():
        top = path.partition("::")[0]
        if top == "Malignant":
            assert label.needs_in_person is True, path
        elif top == "Indeterminate":
            assert label.needs_in_person is not False, path
        else:
            assert label.needs_in_person is not True, path


def test_actinic_keratosis_is_decided_alike_in_every_dataset() -> None:
    named = {
        ("ham10000", "akiec"),
        ("pad_ufes_20", "ACK"),
        ("isic_2019", "AK"),
        ("ddi", "actinic-keratosis"),
        ("fitzpatrick17k", "actinic keratosis"),
        ("milk10k", "AKIEC"),
    }
    assert {label_for(*pair).needs_in_person for pair in named} == {True}


def test_every_decision_is_used_and_every_code_has_one() -> None:
    used = {key for _, codes in CODES.values() for key in codes.values()}
    assert used == set(DECISIONS)


def test_every_reference_of_a_decision_is_given_in_full_and_none_is_idle() -> None:
    cited = {
        short
        for key, decision in DECISIONS.items()
        for short in decision.source.split("; ")
        if not short.startswith(("none:", "drawn"))
    }
    assert cited == set(REFERENCES)


def test_the_page_for_reviewers_is_the_table() -> None:
    written = Path(__file__).resolve().parents[2] / "docs" / "labels.md"
    assert written.read_text(encoding="utf-8") == page()
