"""What is known of a lesion, in Observations and QuestionnaireResponses of FHIR R4. Imports the resources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lesion_triage.bundle.history import History
from triage_server import json_body
from triage_server.fhir_resources import Resource, listed, mapped
from triage_server.problems import RequestError

HISTORY_SYSTEM = "urn:lesion-triage:history"
"""Code system whose codes are the fields of the schema History."""
_UNITS = {"age_years": "a", "duration_weeks": "wk", "diameter_mm": "mm"}
"""UCUM. A centimetre that is taken for a millimetre is not seen in the answer."""


def told_in(resources: Sequence[Resource]) -> History:
    """The history that these resources tell together.

    Raises:
        RequestError: a question that is not known, answered in two ways, or an answer that is none.
    """
    said: dict[str, object] = {}
    for resource in resources:
        answers = _observed(resource) if resource["resourceType"] == "Observation" else _items(resource)
        for field, value in answers:
            if field not in History.model_fields:
                raise RequestError("history_not_valid", fields="a question that is not known")
            if said.setdefault(field, value) != value:
                raise RequestError("history_not_valid", fields=f"{field}, said in two ways")
    return json_body.history_in(said)


def _observed(resource: Resource) -> Iterator[tuple[str, object]]:
    codings = [mapped(one) for one in listed(mapped(resource.get("code")), "coding")]
    ours = [one.get("code") for one in codings if one.get("system") == HISTORY_SYSTEM]
    if len(ours) != 1 or not isinstance(ours[0], str) or resource.get("component"):
        raise RequestError("history_not_valid", fields=f"an Observation without one code of {HISTORY_SYSTEM}")
    if not resource.get("dataAbsentReason"):
        yield ours[0], _value(resource, ours[0])
    elif any(name.startswith("value") for name in resource):  # R4 forbids it (obs-6); which of the two holds?
        raise RequestError("history_not_valid", fields="an Observation with a value and a dataAbsentReason")


def _items(tree: Resource) -> Iterator[tuple[str, object]]:
    """What the items of a questionnaire, of a group or of an answer say."""
    for item in listed(tree, "item"):
        question = mapped(item)
        answers = [mapped(answer) for answer in listed(question, "answer")]
        if len(answers) > 1 or (answers and question.get("item")):
            raise RequestError("history_not_valid", fields="an item with several answers")
        for answer in answers:
            field = str(question.get("linkId"))
            yield field, _value(answer, field)
            yield from _items(answer)  # R4 has what is asked further there, not beside the answer (qrs-1)
        yield from _items(question)


def _value(resource: Resource, field: str) -> object:
    """What is said, of the few types that a history has."""
    given = [name for name in resource if name.startswith("value")]
    if len(given) != 1:
        raise RequestError(
            "history_not_valid", fields="expected one value, and null is said by leaving it out"
        )
    value = resource[given[0]]
    match given[0]:
        case "valueBoolean" | "valueInteger" | "valueDecimal" | "valueString":
            return value
        case "valueQuantity":
            quantity = mapped(value)
            if quantity.get("comparator") or quantity.get("code") != _UNITS.get(field, ""):
                raise RequestError(
                    "history_not_valid", fields=f"a quantity that is not in UCUM's unit of {_UNITS}"
                )
            return quantity.get("value")
        case "valueCoding":
            return mapped(value).get("code")
        case "valueCodeableConcept":
            codings = listed(mapped(value), "coding")
            return mapped(codings[0]).get("code") if len(codings) == 1 else mapped(value).get("text")
    raise RequestError("history_not_valid", fields="a value of another type")
