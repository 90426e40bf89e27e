"""A history from Observations and QuestionnaireResponses of FHIR R4. Imports the resources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lesion_triage.bundle.history import ISIC_TERMS, History
from triage_server import json_body
from triage_server.fhir_resources import Resource, as_object, list_member
from triage_server.problems import RequestError

HISTORY_SYSTEM = "urn:lesion-triage:history"
"""Code system: its codes are the fields of the schema History and, in answers, the names of its groups."""
_UCUM = "http://unitsofmeasure.org"
_UNITS = {"age_years": "a", "duration_weeks": "wk", "diameter_mm": "mm"}
"""UCUM. A mistake of centimetres for millimetres would not show in the answer."""
_ACCEPTED_CODES = {
    field: frozenset(words) | ({"unknown"} if field == "sex" else frozenset())
    for field, words in ISIC_TERMS.items()
}
"""Codes that are accepted under any system: the ISIC archive's words, and FHIR's for a sex."""


def history_from_resources(resources: Sequence[Resource]) -> History:
    """The history that these resources give together.

    Raises:
        RequestError: an unknown question, two different answers to one, or an invalid answer.
    """
    by_field: dict[str, object] = {}
    for resource in resources:
        answers = (
            _observation_answers(resource)
            if resource["resourceType"] == "Observation"
            else _item_answers(resource)
        )
        for field, value in answers:
            if value is None:  # a null, or a Quantity with a unit alone: a lost answer, not an open question
                raise RequestError("history_not_valid", fields=f"{field}, without a value")
            if by_field.setdefault(field, value) != value:
                raise RequestError("history_not_valid", fields=f"{field}, with two different answers")
    return json_body.parse_history(by_field)


def _observation_answers(resource: Resource) -> Iterator[tuple[str, object]]:
    codings = [as_object(one) for one in list_member(as_object(resource.get("code")), "coding")]
    own_codes = [one.get("code") for one in codings if one.get("system") == HISTORY_SYSTEM]
    if len(own_codes) != 1 or not isinstance(own_codes[0], str) or resource.get("component"):
        raise RequestError(
            "history_not_valid", fields=f"an Observation without exactly one code of {HISTORY_SYSTEM}"
        )
    _check_known(own_codes[0])
    if not resource.get("dataAbsentReason"):
        yield own_codes[0], _value(resource, own_codes[0])
    elif any(name.startswith("value") for name in resource):  # R4 forbids it (obs-6): which one is true?
        raise RequestError("history_not_valid", fields="an Observation with a value and a dataAbsentReason")


def _item_answers(tree: Resource) -> Iterator[tuple[str, object]]:
    """Questions and answers in the items of a questionnaire, a group or an answer."""
    for item in list_member(tree, "item"):
        question = as_object(item)
        answers = [as_object(answer) for answer in list_member(question, "answer")]
        if len(answers) > 1 or (answers and question.get("item")):
            raise RequestError("history_not_valid", fields="an item with several answers")
        for answer in answers:
            field = str(question.get("linkId"))
            _check_known(field)
            yield field, _value(answer, field)
            # R4 puts follow-up questions there, not beside the answer (qrs-1).
            yield from _item_answers(answer)
        yield from _item_answers(question)


def _check_known(field: str) -> None:
    if field not in History.model_fields:
        raise RequestError("history_not_valid", fields="an unknown question")


def _value(resource: Resource, field: str) -> object:
    """The value given, which must be of a type that a history has; ``field`` is a field of the history."""
    given = [name for name in resource if name.startswith("value")]
    if len(given) != 1:
        raise RequestError(
            "history_not_valid", fields="an answer without exactly one value; leave out what was not answered"
        )
    value = resource[given[0]]
    match given[0]:
        case "valueBoolean" | "valueInteger" | "valueDecimal" | "valueString":
            return value
        case "valueQuantity":
            quantity = as_object(value)
            known = quantity.get("code") == _UNITS.get(field, "") and quantity.get("system", _UCUM) == _UCUM
            if quantity.get("comparator") or not known:
                raise RequestError(
                    "history_not_valid",
                    fields=f"{field}, as a quantity with a comparator or in another unit; the UCUM units are "
                    + ", ".join(f"{name}: {unit}" for name, unit in _UNITS.items()),
                )
            return quantity.get("value")
        case "valueCoding":
            return _coded_answer([value], field)
        case "valueCodeableConcept":
            concept = as_object(value)
            return _coded_answer(list_member(concept, "coding") or [{"code": concept.get("text")}], field)
    raise RequestError("history_not_valid", fields="a value of an unsupported type")


def _coded_answer(codings: Sequence[object], field: str) -> object:
    """The one answer in a concept and its translations: from our code system, else a known word.

    A site's own group may come with its translation, such as ``I-II`` with ``II``. Two different known words
    contradict each other, whatever their systems. A code from another terminology would be an unknown group,
    and its red flag would count as absent. So it is ignored beside a known answer, and refused alone.
    """
    if field not in _ACCEPTED_CODES:
        raise RequestError("history_not_valid", fields=f"{field}, as a code; expected yes or no, or a number")
    known = [one for one in map(as_object, codings) if _is_answer(one, field)]
    ours = [one for one in known if one.get("system") == HISTORY_SYSTEM]
    codes = {str(one.get("code")) for one in ours or known}
    words = {word.casefold() for word in _ACCEPTED_CODES[field]} & {
        str(one.get("code")).casefold() for one in known
    }
    if len(codes) > 1 or len(words) > 1:
        raise RequestError("history_not_valid", fields=f"{field}, with two different answers")
    if not codes:
        expected = f"a code of {HISTORY_SYSTEM}, or {', '.join(sorted(_ACCEPTED_CODES[field]))}"
        raise RequestError(
            "history_not_valid",
            fields=f"{field}, in unknown codes or words; expected {expected}",
        )
    return codes.pop()


def _is_answer(coding: Resource, field: str) -> bool:
    code = coding.get("code")
    return isinstance(code, str) and (
        coding.get("system") == HISTORY_SYSTEM or code in _ACCEPTED_CODES[field]
    )
