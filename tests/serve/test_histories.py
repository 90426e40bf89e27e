"""A history means the same through every protocol: none drops, weakens or invents an answer."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_bundle
from fhir_requests import observation, years_ago
from lesion_triage.bundle.history import ISIC_TERMS, History
from lesion_triage.bundle.red_flags import GROUP_FIELDS, NUMBER_FIELDS, YES_NO_FIELDS
from lesion_triage.bundle.schema import Answer
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.red_flags_file import read_red_flags
from sent_cases import JSON, as_fhir, as_hook, as_json, as_tensors
from sent_cases import bundle as collected
from triage_server.app import create_app
from triage_server.settings import Settings

PICTURE = tiny_bundle.picture_bytes("below", "JPEG")
RULES = Path(__file__).parents[2] / "configs" / "red_flags.yaml"
_UNITS = {"age_years": "a", "duration_weeks": "wk", "diameter_mm": "mm"}
_UNKNOWN = {
    "coding": [{"system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "unknown"}]
}

Said = dict[str, Any]
"""A history as JSON: an answer, null, or nothing, for each field."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """An application with the rules that we ship, for which each yes and each number may matter."""
    bundle = tiny_bundle.make(tmp_path_factory.mktemp("flags") / "tiny", red_flags=read_red_flags(RULES))
    return create_app(bundle, Scorer(bundle), Settings(bundle=bundle.folder, threads=1))


def words(field: str) -> st.SearchStrategy[str]:
    own = st.sampled_from(["Oral/Genital", "vulva", "Kopf/Hals", "unknown", "I-II", "a"])
    return st.sampled_from(ISIC_TERMS[field]) | own


NUMBERS = st.sampled_from([0, 1, 1.0, 6, 50, 0.1, 5.999999999999999]) | st.floats(0, 120)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(YES_NO_FIELDS, st.none() | st.booleans()),
    **dict.fromkeys(NUMBER_FIELDS, st.none() | NUMBERS),
    **{field: st.none() | words(field) for field in GROUP_FIELDS},
}
histories = st.fixed_dictionaries({}, optional=FIELDS)


def values(field: str, value: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Ways of FHIR to give an answer."""
    if isinstance(value, bool):
        return st.just({"valueBoolean": value})
    if isinstance(value, str):
        ours = {"system": "urn:lesion-triage:history", "code": value}
        foreign = {"system": "http://snomed.info/sct", "code": "45292006"}
        codings = st.permutations([ours, foreign]) | st.just([ours])
        return st.one_of(
            st.just({"valueString": value}),
            st.just({"valueCoding": ours}),
            codings.map(lambda found: {"valueCodeableConcept": {"coding": found, "text": "Vulva"}}),
        )
    unit = {"system": "http://unitsofmeasure.org", "code": _UNITS[field]}
    whole = [{"valueInteger": int(value)}] if value == int(value) else []
    return st.sampled_from([{"valueDecimal": value}, {"valueQuantity": {"value": value, **unit}}, *whole])


def patient_member(field: str, value: Any) -> dict[str, Any]:
    """How a Patient says it; empty if it cannot."""
    if field == "sex" and value in ISIC_TERMS["sex"]:
        return {"gender": value}
    return {"birthDate": years_ago(int(value))} if field == "age_years" and value == int(value) else {}


@st.composite
def resources(draw: st.DrawFn, said: Said) -> list[dict[str, Any]]:
    """The history as Observations and as questionnaires, each answer in one or both; or as the Patient's."""
    patient: dict[str, Any] = {}
    observations: list[dict[str, Any]] = []
    items: list[dict[str, Any]] = []
    for field, value in said.items():
        if value is None:
            silent = draw(st.sampled_from(["an observation", "a question", "nothing"]))
            if silent == "an observation":
                observations.append(observation(field, dataAbsentReason=_UNKNOWN))
            elif silent == "a question":
                items.append({"linkId": field})
            continue
        if (of_patient := patient_member(field, value)) and draw(st.booleans()):
            patient |= of_patient
            continue
        places = draw(st.sampled_from(["observation", "item", "both"]))
        if places != "item":
            # valueCoding is no type of an Observation in R4
            kinds = values(field, value).filter(lambda one: "valueCoding" not in one)
            observations.append(observation(field, **draw(kinds)))
        if places != "observation":
            kinds = values(field, value).filter(lambda one: "valueCodeableConcept" not in one)
            items.append({"linkId": field, "answer": [draw(kinds)]})
    nested = draw(st.sampled_from(["flat", "group", "answer"]))
    if nested == "group":
        items = [{"linkId": "my-group", "item": items}]
    elif nested == "answer" and len(items) > 1 and "answer" in items[0]:
        items[0]["answer"][0]["item"] = items[1:]
        items = items[:1]
    asked = {"resourceType": "QuestionnaireResponse", "status": "completed", "item": items}
    person = {"resourceType": "Patient", "id": "p1", **patient}
    return [*observations, *([asked] if items else []), *([person] if patient else [])]


def ask_all(app: FastAPI, requests: dict[str, dict[str, Any]]) -> dict[str, httpx.Response]:
    async def send() -> dict[str, httpx.Response]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return {name: await client.post(**request) for name, request in requests.items()}

    return asyncio.run(send())


def in_json(path: str, tree: Any) -> dict[str, Any]:
    return {"url": path, "content": json.dumps(tree), "headers": JSON}


def expect_resources(found: dict[str, Any], answer: Answer) -> None:
    by_type: dict[str, list[dict[str, Any]]] = {}
    for entry in found["entry"]:
        by_type.setdefault(entry["resource"]["resourceType"], []).append(entry["resource"])
    (task,), (risk,) = by_type["Task"], by_type["RiskAssessment"]
    extensions = {
        one["url"].rpartition(":")[2]: next(value for name, value in one.items() if name != "url")
        for one in risk["extension"]
    }
    assert extensions == {
        "disposition": answer.disposition.value,
        "priority-band": answer.priority_band,
        **({} if answer.score is None else {"score": answer.score}),
        "threshold": answer.threshold,
        "synthetic": answer.synthetic,
    }
    assert task["code"]["coding"][0]["code"] == answer.disposition.value
    assert risk["prediction"][0]["rationale"] == " ".join(one.text for one in answer.reasons)
    assert [one["text"] for one in risk["note"]] == [answer.note, answer.notice]
    issues = [one["code"]["coding"][0]["code"] for one in by_type["DetectedIssue"]]
    assert issues[: len(answer.red_flags)] == [one.code for one in answer.red_flags]
    assert issues[-len(answer.limits) :] == [one.code for one in answer.limits]


@settings(max_examples=50)
@given(data=st.data(), said=histories)
def test_the_same_case_gets_the_same_answer_through_every_protocol(app: FastAPI, data: Any, said: Said):
    scorer = app.state.service.scorer
    expected = scorer.score([PICTURE], History(**said))
    given_in_fhir = data.draw(resources(said))
    fhir, hook = as_fhir(PICTURE), as_hook(PICTURE)
    fhir["entry"] += [{"resource": one} for one in given_in_fhir]
    hook["prefetch"]["observed"] = collected(*given_in_fhir)
    form = {"image": ("a", PICTURE), **({"history": ("h", json.dumps(said).encode())} if said else {})}
    one = {**as_json(PICTURE), "history": said}
    tensors = as_tensors(PICTURE, **said)
    heard = ask_all(
        app,
        {
            "form": {"url": "/v1/triage", "files": form},
            "json": in_json("/v1/triage", one),
            "batch": in_json("/v1/triage/batch", {"cases": [as_json(PICTURE), one]}),
            "infer": in_json("/v2/models/tiny/infer", tensors),
            "fhir": in_json("/fhir/$triage", fhir),
            "hook": in_json("/cds-services/lesion-triage", hook),
        },
    )
    for name, response in heard.items():
        assert response.status_code == 200, (name, response.text)
    document = expected.model_dump(mode="json")
    assert heard["form"].json() == document
    assert heard["json"].json() == document
    assert heard["batch"].json()["cases"][1]["answer"] == document
    outputs = {one["name"]: one["data"] for one in heard["infer"].json()["outputs"]}
    for name in ("disposition", "priority_band", "score", "threshold", "note", "notice", "certificate_id"):
        assert outputs[name] == [document[name]], name
    assert outputs["reasons"] == [one.code.value for one in expected.reasons]
    assert outputs["red_flags"] == [one.code for one in expected.red_flags]
    assert outputs["limits"] == [one.text for one in expected.limits]
    expect_resources(heard["fhir"].json(), expected)
    (card,) = heard["hook"].json()["cards"]
    assert card["detail"] == f"```\n{expected.note}\n```\n\n{expected.notice}"
