"""The note says what arrived, what was said and what is not known; it echoes nobody and promises nothing."""

import gc
import re
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histories import flag, histories
from lesion_triage.bundle.forbidden_words import forbidden_words_in
from lesion_triage.bundle.guidance import (
    assessment_limits,
    counselling_for,
    policy_questions,
    unassessed_aspects,
)
from lesion_triage.bundle.history import NO_HISTORY, History
from lesion_triage.bundle.messages import Catalogue, NotePhrase, available_languages
from lesion_triage.bundle.note import NoteFacts, NotePhotograph
from lesion_triage.bundle.note import write_note as written
from lesion_triage.bundle.red_flags import (
    NO_RED_FLAGS,
    YES_NO_FIELDS,
    RedFlag,
    RedFlags,
    Review,
    flag_presence,
)
from lesion_triage.bundle.schema import Disposition, ReasonCode

CATALOGUES = {language: Catalogue.load(language) for language in available_languages()}
ENGLISH = CATALOGUES["en"]
LANGUAGES = st.sampled_from(sorted(CATALOGUES))
FLAGS: tuple[RedFlag, ...] = (
    flag({"field": "bleeding", "is": True}, "bleeding"),
    flag({"field": "age_years", "at_most": 15}, "child"),
    flag({"any_of": [{"field": "fever", "is": True}, {"field": "unwell", "is": True}]}, "systemic_symptoms"),
    flag({"field": "patient_worried", "is": True}, "patient_worried", up_to_band=3),
)
RULES = RedFlags(flags=FLAGS)
BLURRED = NotePhotograph(usable=False, reasons=("image_too_dark",))
GOOD = NotePhotograph(usable=True, reasons=())


def facts(**changes: Any) -> NoteFacts:
    usual: dict[str, Any] = {
        "disposition": Disposition.needs_in_person,
        "priority_band": 2,
        "reasons": (ReasonCode.score_at_or_above_threshold,),
        "photographs": (GOOD,),
        "red_flags": RULES,
        "questions": (),
        "limits": (),
        "not_assessed": (),
        "counselling": (),
        "certificate_id": "0123456789abcdef",
        "bundle_name": "example",
        "bundle_sha256": "5f" * 32,
        "synthetic": False,
    }
    return NoteFacts(**{**usual, **changes})


def note(said: NoteFacts, history: History, catalogue: Catalogue) -> str:
    """With the questions, limits, gaps and advice that an answer of this history has."""
    unusable = sum(not photograph.usable for photograph in said.photographs)
    questions = policy_questions(said.red_flags.flags)
    whole = replace(
        said,
        questions=questions,
        limits=assessment_limits(history, questions, photographs_unusable=unusable),
        not_assessed=unassessed_aspects(history),
        counselling=counselling_for(said.disposition),
    )
    return written(whole, history, catalogue)


def test_the_note_counts_the_body_site_among_the_answers_where_a_rule_looks_at_it() -> None:
    by_site = flag({"field": "anatom_site_general", "one_of": ["oral/genital"]}, "oral_or_genital")
    rules, history = RedFlags(flags=(by_site,)), History(anatom_site_general="oral/genital")
    lines = note(facts(red_flags=rules), history, ENGLISH).splitlines()
    assert "- History: 1 of 26 questions answered." in lines
    assert f"- {ENGLISH.limits['history_partly_given']}" in lines
    assert "- History: 0 of 25 questions answered." in note(facts(), history, ENGLISH).splitlines()


answers = st.builds(
    facts,
    disposition=st.sampled_from(Disposition),
    priority_band=st.integers(1, 4),
    reasons=st.lists(st.sampled_from(sorted(ENGLISH.reasons)), max_size=3, unique=True).map(tuple),
    photographs=st.lists(
        st.builds(
            NotePhotograph,
            usable=st.booleans(),
            reasons=st.lists(st.sampled_from(sorted(ENGLISH.reasons)), max_size=2).map(tuple),
        ),
        min_size=1,
        max_size=16,
    ).map(tuple),
    red_flags=st.sampled_from([RULES, NO_RED_FLAGS]),
    synthetic=st.booleans(),
)


def section(text: str, title: NotePhrase, catalogue: Catalogue = ENGLISH) -> list[str]:
    """The lines under a title."""
    blocks = [block.splitlines() for block in text.split("\n\n")]
    return next(lines[1:] for lines in blocks if lines[0] == catalogue.note[title])


# Words


@given(answers, histories, LANGUAGES)
def test_no_note_names_or_excludes_a_condition_or_promises_a_discharge(
    said: NoteFacts, history: History, language: str
) -> None:
    text = note(said, history, CATALOGUES[language])
    sentence = CATALOGUES[language].notice.partition(".")[0]
    assert text.count(sentence) == 1
    assert forbidden_words_in(language, text.replace(sentence, "")) == []


@given(answers, histories, LANGUAGES)
def test_equal_cases_have_equal_notes(said: NoteFacts, history: History, language: str) -> None:
    again = History.model_validate_json(history.model_dump_json())
    assert note(said, history, CATALOGUES[language]) == note(said, again, Catalogue.load(language))


@given(st.text("QXZJ", min_size=6, max_size=60), st.sampled_from(["sex", "anatom_site_general"]))
def test_no_word_that_a_platform_sent_is_echoed(word: str, field: str) -> None:
    assert word not in note(facts(), History(**{field: word}), ENGLISH)


def test_nothing_of_a_case_is_kept_for_the_next_note() -> None:
    said, former = facts(), History(age_years=31.25, bleeding=True)
    assert "31.25" in note(said, former, ENGLISH)
    following = note(said, History(age_years=87.5, bleeding=False), ENGLISH)
    assert "87.5" in following
    assert "31.25" not in following


def test_notes_of_many_cases_leave_nothing_in_memory() -> None:
    """What is put together once and kept is the same for every case; of a case it would pile up."""

    def write(first: int) -> None:
        for number in range(first, first + 200):
            name = f"{number:064x}"
            said = facts(certificate_id=name[-16:], bundle_name=name, bundle_sha256=name)
            note(said, History(age_years=number / 64, bleeding=bool(number % 2)), ENGLISH)

    write(0)
    tracemalloc.start()
    try:
        write(1000)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 20_000
    finally:
        tracemalloc.stop()


@given(answers, histories)
def test_a_note_has_the_same_lines_in_every_language(said: NoteFacts, history: History) -> None:
    shapes = {
        tuple(re.match(r"\[ \]|-|", line)[0] for line in note(said, history, one).splitlines())  # type: ignore[index]
        for one in CATALOGUES.values()
    }
    assert len(shapes) == 1


def test_no_line_can_be_slipped_in_by_the_name_of_a_bundle() -> None:
    plain = note(facts(), NO_HISTORY, ENGLISH)
    tricky = note(facts(bundle_name="example\n\nRed flags\n- Present: none."), NO_HISTORY, ENGLISH)
    assert len(tricky.splitlines()) == len(plain.splitlines())


# What arrived


def test_photographs_are_counted_and_the_unusable_ones_named_from_one() -> None:
    hair = NotePhotograph(usable=True, reasons=("image_hair",))
    lines = section(note(facts(photographs=(GOOD, BLURRED, hair)), NO_HISTORY, ENGLISH), NotePhrase.received)
    assert lines[:3] == [
        "- Photographs: 3; usable: 2; not usable: 1.",
        f"- Photograph 2, not usable: {ENGLISH.reasons['image_too_dark'].text}",
        f"- Photograph 3, usable, with a remark: {ENGLISH.reasons['image_hair'].text}",
    ]


@given(histories, LANGUAGES)
def test_every_yes_is_in_the_note_whether_or_not_a_rule_asks_for_it(history: History, language: str) -> None:
    catalogue = CATALOGUES[language]
    lines = section(note(facts(red_flags=NO_RED_FLAGS), history, catalogue), NotePhrase.received, catalogue)
    yes = [catalogue.history[name] for name in YES_NO_FIELDS if getattr(history, name)]
    expected = [f"- {catalogue.phrase(NotePhrase.history_yes, labels='; '.join(yes))}"] if yes else []
    assert [line for line in lines if line.startswith(expected[0][:12] if expected else "\0")] == expected


@pytest.mark.parametrize(("language", "expected"), [("en", "6.5"), ("de", "6,5")])
def test_numbers_are_written_as_the_language_writes_them(language: str, expected: str) -> None:
    assert f": {expected}." in note(facts(), History(diameter_mm=6.5), CATALOGUES[language])


# What was said


def test_a_note_names_what_the_answer_rests_on() -> None:
    text = "\n".join(section(note(facts(priority_band=3), NO_HISTORY, ENGLISH), NotePhrase.said))
    for fact in (
        ENGLISH.dispositions["needs_in_person"],
        "band 3 of 4",
        "0123456789abcdef",
        "example",
        "5f5f5f5f",
    ):
        assert fact in text


@given(answers, histories, LANGUAGES)
def test_every_reason_is_in_the_note(said: NoteFacts, history: History, language: str) -> None:
    catalogue = CATALOGUES[language]
    lines = section(note(said, history, catalogue), NotePhrase.said, catalogue)
    assert {f"- {catalogue.reasons[code].text}" for code in said.reasons} <= set(lines)


def test_below_the_threshold_a_note_says_that_nothing_is_excluded() -> None:
    said = facts(disposition=Disposition.below_threshold, reasons=(ReasonCode.score_below_threshold,))
    text = note(said, NO_HISTORY, ENGLISH)
    assert section(text, NotePhrase.visit) == [f"- {ENGLISH.note['visit_none']}"]
    assert f"- {ENGLISH.limits['excludes_nothing']}" in section(text, NotePhrase.limits)


def test_a_visit_is_explained_by_every_flag_that_asks_for_it() -> None:
    history = History(bleeding=True, fever=True, patient_worried=True)
    said = facts(reasons=(ReasonCode.uncertified_subgroup, "red_flag"))
    assert section(note(said, history, ENGLISH), NotePhrase.visit) == [
        f"- {ENGLISH.reasons['uncertified_subgroup'].text}",
        f"- {ENGLISH.red_flags['bleeding'].text}",
        f"- {ENGLISH.red_flags['systemic_symptoms'].text}",
    ]


@pytest.mark.parametrize("synthetic", [True, False])
def test_a_model_of_drawn_pictures_says_so(synthetic: bool) -> None:
    text = note(facts(synthetic=synthetic), NO_HISTORY, ENGLISH)
    assert (ENGLISH.note["synthetic"] in text) is synthetic


# Red flags


@given(histories)
def test_every_declared_flag_is_present_absent_or_not_known(history: History) -> None:
    lines = section(note(facts(), history, ENGLISH), NotePhrase.flags)
    listed = {
        "absent": labels_after("- Absent, as told: ", lines),
        "not_known": labels_after(
            "- Not known, because not answered or answered in a word that the rule does not know: ", lines
        ),
    }
    for one in FLAGS:
        message = ENGLISH.red_flags[one.code]
        places = [state for state, labels in listed.items() if message.label in labels]
        places += ["present"] * lines.count(f"- Present: {message.text}")
        assert places == [flag_presence(one, history)]


def labels_after(opening: str, lines: list[str]) -> list[str]:
    return [
        label
        for line in lines
        if line.startswith(opening)
        for label in line.removeprefix(opening).removesuffix(".").split("; ")
    ]


def test_rules_that_no_clinician_has_reviewed_say_so() -> None:
    remark = f"- {ENGLISH.note['flags_not_reviewed']}"
    review = Review.model_validate({"by": "consultant", "reviewed_on": "2026-01-31"})
    assert remark in note(facts(), NO_HISTORY, ENGLISH)
    assert remark not in note(
        facts(red_flags=RedFlags(flags=FLAGS, reviewed_by=(review,))), NO_HISTORY, ENGLISH
    )


def test_a_policy_without_flags_does_not_claim_that_none_is_present() -> None:
    lines = section(note(facts(red_flags=NO_RED_FLAGS), History(bleeding=True), ENGLISH), NotePhrase.flags)
    assert lines == [f"- {ENGLISH.note['flags_undeclared']}"]


# What is left to the clinician


@given(answers, histories, LANGUAGES)
def test_advice_and_findings_are_boxes_for_the_clinician_to_tick_and_fill(
    said: NoteFacts, history: History, language: str
) -> None:
    catalogue = CATALOGUES[language]
    text = note(said, history, catalogue)
    advice = section(text, NotePhrase.counselling, catalogue)
    assert advice == [f"[ ] {catalogue.counselling[one]}" for one in counselling_for(said.disposition)]
    to_fill = section(text, NotePhrase.to_complete, catalogue)
    assert len(to_fill) == 6
    assert all(line.startswith("[ ] ") and line.endswith(":") for line in to_fill)
    assert text.count("[ ]") == len(advice) + len(to_fill)
    assert text.endswith(":\n")
