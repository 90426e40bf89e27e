"""Answers in codes: a translation never hides a red flag, and a code that nobody knows is no answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import tiny_bundle
from fhir_requests import observation, outcome, resources, sent
from histories import flag
from lesion_triage.bundle.red_flags import RedFlags
from lesion_triage.bundle.scorer import Scorer
from sent_cases import bundle, media
from triage_server.fhir_history import history_from_resources
from triage_server.problems import RequestError

Ask = Callable[..., httpx.Response]
MakeApp = Callable[..., Any]
SITE = "anatom_site_general"
_WORD = {"system": "urn:x", "code": "oral/genital"}
_OURS = {"system": "urn:lesion-triage:history", "code": "oral/genital"}
_FOREIGN = {"system": "http://snomed.info/sct", "code": "45292006"}


def answered(field: str, *codings: Any, text: str | None = None) -> dict[str, Any]:
    concept = {"coding": list(codings)} if codings else {}
    return observation(field, valueCodeableConcept=concept | ({"text": text} if text else {}))


def asked(value: dict[str, Any]) -> dict[str, Any]:
    """The same answer to a question of a questionnaire, which has codings and no concepts."""
    item = {"linkId": SITE, "answer": [value]}
    return {"resourceType": "QuestionnaireResponse", "status": "completed", "item": [item]}


@pytest.fixture
def flagged(make_app: MakeApp, tmp_path: Path) -> Any:
    """An application that refers lesions of mouth and genitals."""
    flags = RedFlags(flags=(flag({"field": SITE, "one_of": ["oral/genital"]}, "oral_or_genital"),))
    return make_app(Scorer(tiny_bundle.make(tmp_path / "tiny", red_flags=flags)))


KNOWN = {
    "with a translation and a text": answered(SITE, _WORD, _FOREIGN, text="Vulva"),
    "behind its translation": answered(SITE, _FOREIGN, _WORD),
    "of our system": answered(SITE, _FOREIGN, _OURS),
    "twice the same": answered(SITE, _WORD, _OURS),
    "without a system": answered(SITE, {"code": "oral/genital"}),
    "alone, with a text": answered(SITE, _WORD, text="Vulva"),
    "a word as text": answered(SITE, text="oral/genital"),
    "a coding": asked({"valueCoding": _WORD}),
}
UNKNOWN = {
    "a foreign code": answered(SITE, _FOREIGN),
    "a foreign code with our word as text": answered(SITE, _FOREIGN, text="oral/genital"),
    "two foreign codes": answered(SITE, _FOREIGN, {"system": "urn:x", "code": "C51.9"}),
    "a code without a system": answered(SITE, {"code": "45292006"}),
    "a text": answered(SITE, text="Vulva"),
    "nothing": answered(SITE),
    "a coding with a name alone": answered(SITE, {"display": "oral/genital"}),
    "a code that is no text": answered(SITE, {"code": ["oral/genital"]}),
    "a foreign coding": asked({"valueCoding": _FOREIGN}),
}


@pytest.mark.parametrize("what", KNOWN)
def test_a_red_flag_is_read_beside_translations(
    what: str, ask: Ask, flagged: Any, picture_bytes: Callable[..., bytes]
):
    body = bundle(media(picture_bytes("below", "JPEG"), "m0"), KNOWN[what])
    found = resources(sent(ask, flagged, body))
    assert found["Task"][0]["code"]["coding"][0]["code"] == "needs_in_person"
    assert "oral_or_genital" in {one["code"]["coding"][0]["code"] for one in found["DetectedIssue"]}


@pytest.mark.parametrize("what", UNKNOWN)
def test_an_answer_in_codes_that_are_not_known_is_refused_and_not_taken_for_a_group(
    what: str, ask: Ask, flagged: Any, picture_bytes: Callable[..., bytes]
):
    body = bundle(media(picture_bytes("below", "JPEG"), "m0"), UNKNOWN[what])
    text = outcome(sent(ask, flagged, body), 422, "history_not_valid")
    assert "urn:lesion-triage:history" in text
    assert "45292006" not in text
    assert "Vulva" not in text


def test_a_yes_is_no_code(ask: Ask, make_app: MakeApp, draw: Any):
    for code in ({"system": "http://snomed.info/sct", "code": "373066001"}, {**_OURS, "code": "true"}):
        body = bundle(media(draw(), "m0"), answered("bleeding", code))
        text = outcome(sent(ask, make_app(), body), 422, "history_not_valid")
        assert "bleeding, as a code; expected yes or no" in text


def test_two_codes_that_are_two_answers_are_refused(ask: Ask, flagged: Any, draw: Any):
    for one, other in (
        (_WORD, {"system": "urn:y", "code": "head/neck"}),
        (_OURS, {**_OURS, "code": "vulva"}),
        ({**_OURS, "code": "head/neck"}, {"system": "urn:y", "code": "oral/genital"}),
    ):
        body = bundle(media(draw(), "m0"), answered(SITE, one, other))
        assert "two different answers" in outcome(sent(ask, flagged, body), 422, "history_not_valid")


@pytest.mark.parametrize(
    ("field", "own", "translation"), [("fitzpatrick_skin_type", "I-II", "II"), ("sex", "Male", "male")]
)
def test_a_group_of_a_site_s_own_is_the_answer_beside_its_translation(field: str, own: str, translation: str):
    ours, foreign = {**_OURS, "code": own}, {"system": "urn:x", "code": translation}
    for codings in ((ours, foreign), (foreign, ours)):
        assert getattr(history_from_resources([answered(field, *codings)]), field) == own


def test_a_word_of_a_site_s_own_is_taken_under_our_system(ask: Ask, make_app: MakeApp, tmp_path: Path):
    flags = RedFlags(flags=(flag({"field": SITE, "one_of": ["vulva"]}, "oral_or_genital"),))
    app = make_app(Scorer(tiny_bundle.make(tmp_path / "tiny", red_flags=flags)))
    picture = tiny_bundle.picture_bytes("below", "JPEG")
    body = bundle(media(picture, "m0"), answered(SITE, _FOREIGN, {**_OURS, "code": "vulva"}))
    assert resources(sent(ask, app, body))["Task"][0]["code"]["coding"][0]["code"] == "needs_in_person"


def test_a_question_of_the_sender_s_is_not_quoted(ask: Ask, make_app: MakeApp, draw: Any):
    question = asked({"valueCoding": _FOREIGN})
    question["item"][0]["linkId"] = "Mustermann"
    text = outcome(sent(ask, make_app(), bundle(media(draw(), "m0"), question)), 422, "history_not_valid")
    assert "an unknown question" in text
    assert "Mustermann" not in text


def question(**told: Any) -> dict[str, Any]:
    """A questionnaire with one question, whether it bleeds."""
    item = {"linkId": "bleeding", **told}
    return {"resourceType": "QuestionnaireResponse", "status": "completed", "item": [item]}


def codes(*codings: dict[str, Any], **told: Any) -> dict[str, Any]:
    return {**observation("bleeding", **told), "code": {"coding": list(codings)}}


_BLEEDS, _GROWS = ({"system": "urn:lesion-triage:history", "code": name} for name in ("bleeding", "growing"))
_MILLIMETRES = {"value": 6, "system": "http://unitsofmeasure.org", "code": "mm"}
AMBIGUOUS = {
    "more than so many millimetres": (
        observation("diameter_mm", valueQuantity={**_MILLIMETRES, "comparator": ">"}),
        "a quantity with a comparator or in another unit",
    ),
    "a value beside components": (
        observation("bleeding", valueBoolean=False, component=[observation("growing", valueBoolean=True)]),
        "an Observation without exactly one code",
    ),
    "two questions in one": (
        codes(_BLEEDS, _GROWS, valueBoolean=False),
        "an Observation without exactly one code",
    ),
    "no question of ours": (codes(_FOREIGN, valueBoolean=False), "an Observation without exactly one code"),
    "two answers to one question": (
        question(answer=[{"valueBoolean": False}, {"valueBoolean": True}]),
        "an item with several answers",
    ),
    "a question beside an answer": (
        question(answer=[{"valueBoolean": False}], item=[{"linkId": "growing"}]),
        "an item with several answers",
    ),
    "a time": (question(answer=[{"valueDateTime": "2026-01-31"}]), "a value of an unsupported type"),
    "no value": (question(answer=[{}]), "without exactly one value"),
    "a null": (question(answer=[{"valueBoolean": None}]), "bleeding, without a value"),
    "a unit alone": (
        observation("diameter_mm", valueQuantity={**_MILLIMETRES, "value": None}),
        "diameter_mm, without a value",
    ),
}


@pytest.mark.parametrize("what", AMBIGUOUS)
def test_an_answer_that_could_be_understood_in_two_ways_is_refused(what: str):
    resource, said = AMBIGUOUS[what]
    with pytest.raises(RequestError, match=said) as refused:
        history_from_resources([resource])
    assert refused.value.code == "history_not_valid"
    assert history_from_resources([observation("diameter_mm", valueQuantity=_MILLIMETRES)]).diameter_mm == 6
