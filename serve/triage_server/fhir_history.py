"""A history from Observations and QuestionnaireResponses of FHIR R4. Imports the resources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lesion_triage.bundle.history import USUAL_WORDS, History
from triage_server import json_body
from triage_server.fhir_resources import Resource, listed, mapped
from triage_server.problems import RequestError

HISTORY_SYSTEM = "urn:lesion-triage:history"
"""Code system: its codes are the fields of the schema History and, in answers, the names of its groups."""
_UCUM = "http://unitsofmeasure.org"
_UNITS = {"age_years": "a", "duration_weeks": "wk", "diameter_mm": "mm"}
"""UCUM. A mistake of centimetres for millimetres would not show in the answer."""
_WORDS = {
    field: frozenset(words) | ({"unknown"} if field == "sex" else frozenset())
    for field, words in USUAL_WORDS.items()
}
"""Codes that are accepted under any system: the ISIC archive's words, and FHIR's for a sex."""


def told_in(resources: Sequence[Resource]) -> History:
    """The history that these resources give together.

    Raises:
        RequestError: an unknown question, two different answers to one, or an invalid answer.
    """
    said: dict[str, object] = {}
    for resource in resources:
        answers = _observed(resource) if resource["resourceType"] == "Observation" else _items(resource)
        for field, value in answers:
            if said.setdefault(field, value) != value:
                raise RequestError("history_not_valid", fields=f"{field}, with two different answers")
    return json_body.parse_history(said)


def _observed(resource: Resource) -> Iterator[tuple[str, object]]:
    codings = [mapped(one) for one in listed(mapped(resource.get("code")), "coding")]
    ours = [one.get("code") for one in codings if one.get("system") == HISTORY_SYSTEM]
    if len(ours) != 1 or not isinstance(ours[0], str) or resource.get("component"):
        raise RequestError(
            "history_not_valid", fields=f"an Observation without exactly one code of {HISTORY_SYSTEM}"
        )
    _check_known(ours[0])
    if not resource.get("dataAbsentReason"):
        yield ours[0], _value(resource, ours[0])
    elif any(name.startswith("value") for name in resource):  # R4 forbids it (obs-6): which one is true?
        raise RequestError("history_not_valid", fields="an Observation with a value and a dataAbsentReason")


def _items(tree: Resource) -> Iterator[tuple[str, object]]:
    """Questions and answers in the items of a questionnaire, a group or an answer."""
    for item in listed(tree, "item"):
        question = mapped(item)
        answers = [mapped(answer) for answer in listed(question, "answer")]
        if len(answers) > 1 or (answers and question.get("item")):
            raise RequestError("history_not_valid", fields="an item with several answers")
        for answer in answers:
            field = str(question.get("linkId"))
            _check_known(field)
            yield field, _value(answer, field)
            yield from _items(answer)  # R4 puts follow-up questions there, not beside the answer (qrs-1)
        yield from _items(question)


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
            quantity = mapped(value)
            known = quantity.get("code") == _UNITS.get(field, "") and quantity.get("system", _UCUM) == _UCUM
            if quantity.get("comparator") or not known:
                raise RequestError(
                    "history_not_valid",
                    fields=f"{field}, as a quantity with a comparator or in another unit; the UCUM units are "
                    + ", ".join(f"{name}: {unit}" for name, unit in _UNITS.items()),
                )
            return quantity.get("value")
        case "valueCoding":
            return _word([value], field)
        case "valueCodeableConcept":
            concept = mapped(value)
            return _word(listed(concept, "coding") or [{"code": concept.get("text")}], field)
    raise RequestError("history_not_valid", fields="a value of an unsupported type")


def _word(codings: Sequence[object], field: str) -> object:
    """The one answer in a concept and its translations: from our code system, else a known word.

    A site's own group may come with its translation, such as ``I-II`` with ``II``. Two different known words
    contradict each other, whatever their systems. A code from another terminology would be an unknown group,
    and its red flag would count as absent. So it is ignored beside a known answer, and refused alone.
    """
    if field not in _WORDS:
        raise RequestError("history_not_valid", fields=f"{field}, as a code; expected yes or no, or a number")
    known = [one for one in map(mapped, codings) if _is_answer(one, field)]
    ours = [one for one in known if one.get("system") == HISTORY_SYSTEM]
    said = {str(one.get("code")) for one in ours or known}
    words = {word.casefold() for word in _WORDS[field]} & {str(one.get("code")).casefold() for one in known}
    if len(said) > 1 or len(words) > 1:
        raise RequestError("history_not_valid", fields=f"{field}, with two different answers")
    if not said:
        expected = f"a code of {HISTORY_SYSTEM}, or {', '.join(sorted(_WORDS[field]))}"
        raise RequestError(
            "history_not_valid",
            fields=f"{field}, in unknown codes or words; expected {expected}",
        )
    return said.pop()


def _is_answer(coding: Resource, field: str) -> bool:
    code = coding.get("code")
    return isinstance(code, str) and (coding.get("system") == HISTORY_SYSTEM or code in _WORDS[field])
