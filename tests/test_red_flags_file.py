"""Red flags come from a file that clinicians can review: every word checked, every default sourced."""

import csv
import os
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from lesion_triage.bundle.forbidden_words import forbidden_words_in
from lesion_triage.bundle.history import History
from lesion_triage.bundle.red_flags import (
    YES_NO_FIELDS,
    RedFlag,
    RedFlags,
    any_flag_refers,
    latest_allowed_band,
    raised_flags,
)
from lesion_triage.errors import ConfigError
from lesion_triage.red_flags_file import read_red_flags

DEFAULTS = Path(__file__).resolve().parents[1] / "configs" / "red_flags.yaml"

RULE = """
  - code: bleeding
    when: {field: bleeding, is: true}
    action: {refer: true}
    source: somewhere
"""


@pytest.fixture(scope="module")
def defaults() -> RedFlags:
    return read_red_flags(DEFAULTS)


def written(folder: Path, text: str) -> Path:
    path = folder / "red_flags.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# The reader


def test_a_review_is_read_with_its_date(tmp_path: Path) -> None:
    text = f"reviewed_by:\n  - {{by: consultant, reviewed_on: 2026-01-31}}\nflags:{RULE}"
    rules = read_red_flags(written(tmp_path, text))
    assert [(review.by, review.reviewed_on) for review in rules.reviewed_by] == [
        ("consultant", date(2026, 1, 31))
    ]
    assert [flag.code for flag in rules.flags] == ["bleeding"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("reviewed_by: []\nflags: []\n", "no flag is declared"),
        ("reviewed_by: []\n", "no flag is declared"),
        (
            f"reviewed_by: [{{by: x, reviewed_on: 2999-01-31}}]\nflags:{RULE}",
            "2999-01-31, a day that has not",
        ),
        *(
            (f"reviewed_by: []\nflags:{RULE.replace('{field: bleeding, is: true}', when)}", complaint)
            for when, complaint in (
                ("{field: age_years, at_least: 400}", "flag 'bleeding' asks of age_years .* from 0 to 120"),
                ("{field: age_years, at_most: -1}", "from 0 to 120"),
                ("{all_of: [{any_of: [{field: diameter_mm, at_least: 501}]}]}", "from 0 to 500"),
            )
        ),
    ],
)
def test_rules_that_can_only_be_a_slip_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        read_red_flags(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (f"flags:{RULE}", "reviewed_by is missing; write who has read the rules"),
        (f"reviewed_by: []\nflgas:{RULE}", "'flgas' does not belong here; did you mean 'flags'"),
        (f"reviewed_by: []\nflags:{RULE.replace('source', 'sources')}", "did you mean 'source'"),
        (f"reviewed_by: []\nflags:{RULE.replace('refer', 'reffer')}", "did you mean 'refer'"),
        (f"reviewed_by: []\nreviewed_by: []\nflags:{RULE}", "'reviewed_by' appears twice"),
        (f"reviewed_by: []\nflags:{RULE}    source: elsewhere\n", "'source' appears twice"),
        (f"reviewed_by: []\nflags:{RULE.replace('bleeding,', 'bleding,')}", "did you mean 'bleeding'"),
        (f"reviewed_by: []\nflags:{RULE.replace('is: true', 'is: false')}", "Input should be True"),
        (f"reviewed_by: []\nflags:{RULE}{RULE}", "two flags have the code bleeding"),
        (f"reviewed_by: []\nflags:{RULE.replace('somewhere', chr(34) * 2)}", "source"),
        ("- reviewed_by", "expected reviewed_by and flags, found list"),
        ("", "found NoneType"),
        ("reviewed_by: [", "not valid YAML"),
    ],
)
def test_a_file_that_is_not_right_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=complaint) as refusal:
        read_red_flags(path)
    assert str(refusal.value).startswith(str(path))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read as red flags"):
        read_red_flags(tmp_path / "none.yaml")


# The defaults


def test_the_defaults_say_that_no_clinician_has_reviewed_them(defaults: RedFlags) -> None:
    assert defaults.reviewed_by == ()
    assert "NOT YET REVIEWED BY A CLINICIAN" in DEFAULTS.read_text(encoding="utf-8")


def test_no_yes_or_no_question_is_asked_for_nothing(defaults: RedFlags) -> None:
    every_answer = {"age_years": 50, "diameter_mm": 9, "is_new": True}
    partners = {"raised_and_firm": {"growing": True}, "inflamed": {"itching": True}}
    for question in YES_NO_FIELDS:
        around = {**every_answer, **partners.get(question, {})}
        without = raised_flags(defaults.flags, History(**{**around, question: False}))
        with_it = raised_flags(defaults.flags, History(**{**around, question: True}))
        assert len(with_it) > len(without), question


@pytest.mark.parametrize(
    "told",
    [
        {"changing": True},
        {"bleeding": True},
        {"growing": True},
        {"growing_rapidly": True},
        {"painful": True},
        {"itching": True},
        {"ulcerated": True},
        {"is_new": True, "age_years": 40},
        {"immunosuppressed": True},
        {"skin_tumour_treated_before": True},
        {"fever": True},
        {"weight_loss": True},
        {"unwell": True},
        {"swollen_lymph_nodes": True},
        {"unlike_other_moles": True},
        {"involves_nail": True},
        {"clinician_concerned": True},
        {"anatom_site_general": "oral/genital"},
        {"age_years": 15},
    ],
    ids=str,
)
def test_what_guidance_sends_to_a_visit_is_referred(defaults: RedFlags, told: dict[str, Any]) -> None:
    assert any_flag_refers(raised_flags(defaults.flags, History(**told)))


# NICE NG12: major features 2 points, minor ones 1, from 3 on refer. Shape and colour are for the picture.
_POINTS = {"changing": 2, "diameter_mm": 1, "inflamed": 1, "bleeding": 1, "itching": 1}


@pytest.mark.parametrize("present", range(2 ** len(_POINTS)))
def test_three_points_of_the_weighted_checklist_are_referred(defaults: RedFlags, present: int) -> None:
    features = [name for place, name in enumerate(_POINTS) if present >> place & 1]
    told = {name: 7 if name == "diameter_mm" else True for name in features}
    if sum(_POINTS[name] for name in features) >= 3:
        assert any_flag_refers(raised_flags(defaults.flags, History(**told)))


@pytest.mark.parametrize("told", [{"is_new": True, "age_years": 39}, {"age_years": 16}, {"inflamed": True}])
def test_what_no_rule_speaks_of_is_left_to_the_score(defaults: RedFlags, told: dict[str, Any]) -> None:
    assert raised_flags(defaults.flags, History(**told)) == ()


@pytest.mark.parametrize("told", [{"many_moles": True}, {"patient_worried": True}])
def test_a_risk_alone_only_keeps_a_case_out_of_the_last_band(
    defaults: RedFlags, told: dict[str, Any]
) -> None:
    found = raised_flags(defaults.flags, History(**told))
    assert (any_flag_refers(found), latest_allowed_band(found)) == (False, 3)


def test_what_is_sealed_of_the_defaults_names_no_condition(defaults: RedFlags) -> None:
    assert forbidden_words_in("en", defaults.to_json()) == []


# The page


def test_every_question_and_every_default_is_explained(defaults: RedFlags) -> None:
    page = (DEFAULTS.parents[1] / "docs" / "red-flags.md").read_text(encoding="utf-8")
    named = [*History.model_fields, *(flag.code for flag in defaults.flags)]
    assert [name for name in named if f"`{name}`" not in page] == []


_PAD_UFES_20 = {
    "changed": "changing",
    "grew": "growing",
    "bleed": "bleeding",
    "hurt": "painful",
    "itch": "itching",
    "skin_cancer_history": "skin_tumour_treated_before",
}
_POSITIVE = ("MEL", "BCC", "SCC", "ACK")


@pytest.mark.data
def test_the_page_states_what_the_defaults_cost_on_real_histories(defaults: RedFlags) -> None:
    beside = DEFAULTS.parents[2] / "shared" / "data"
    table = Path(os.environ.get("LESION_TRIAGE_TEST_DATA") or beside) / "pad_ufes_20" / "metadata.csv"
    if not table.is_file():
        pytest.skip(f"NO REAL HISTORIES at {table}: set LESION_TRIAGE_TEST_DATA; this promise was not tested")
    with table.open(encoding="utf-8", newline="") as stream:
        lesions = {
            (row["patient_id"], row["lesion_id"]): row for row in reversed(list(csv.DictReader(stream)))
        }
    told = [(row["diagnostic"] in _POSITIVE, _history(row)) for row in lesions.values()]
    page = (DEFAULTS.parents[1] / "docs" / "red-flags.md").read_text(encoding="utf-8")
    if f"in the {len(told)} of PAD" not in page:
        pytest.skip(f"the page speaks of another part of the dataset than these {len(told)} lesions")
    assert f"hold, {sum(positive for positive, _ in told)} of them positive" in page
    for code in (*(flag.code for flag in defaults.flags), "any that refers"):
        shares = []
        for group in (True, False):
            hits = [
                _hit(code, raised_flags(defaults.flags, history))
                for positive, history in told
                if positive is group
            ]
            shares.append(f"{100 * sum(hits) / len(hits):.0f} %")
        if shares != ["0 %", "0 %"]:
            named = code if " " in code else f"`{code}`"
            assert f"| {named} | {shares[0]} | {shares[1]} |" in page


def _history(row: dict[str, str]) -> History:
    told: dict[str, Any] = {
        field: {"True": True, "False": False}.get(row[column]) for column, field in _PAD_UFES_20.items()
    }
    numbers = {"age_years": row["age"], "diameter_mm": row["diameter_1"]}
    return History(**told, **{field: float(text) for field, text in numbers.items() if text})


def _hit(code: str, flags: tuple[RedFlag, ...]) -> bool:
    return any_flag_refers(flags) if code == "any that refers" else code in {flag.code for flag in flags}
