from __future__ import annotations

import copy
import json
import socket
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

import tiny_bundle
from fhir_requests import PATH, observation, outcome, resources, sent
from histories import flag
from lesion_triage.bundle.red_flags import RedFlags
from lesion_triage.bundle.schema import Grouping
from lesion_triage.bundle.scorer import Scorer
from sent_cases import as_fhir, bundle, dicom, in_base64, media, order, told

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fhir.resources.R4B.capabilitystatement import CapabilityStatement

Ask = Callable[..., httpx.Response]
MakeApp = Callable[..., Any]


def score_in(risk: Any) -> float | None:
    """On the scale of the threshold beside it, to the last bit."""
    said = {one["url"]: one.get("valueDecimal") for one in risk["extension"]}
    return said.get("urn:lesion-triage:score")


@pytest.mark.parametrize("kind", ["referred", "below", "black"])
def test_answer_is_valid_r4_and_says_what_the_policy_says(
    kind: str, ask: Ask, make_app: MakeApp, picture_bytes: Callable[..., bytes], scorer: Scorer
):
    picture = picture_bytes(kind, "JPEG")
    answer = scorer.score([picture])
    found = resources(sent(ask, make_app(), as_fhir(picture)))
    assert found.keys() == {"Task", "RiskAssessment", "DetectedIssue", "Provenance"}
    (task,), (risk,), (origin,) = found["Task"], found["RiskAssessment"], found["Provenance"]
    assert task["priority"] == {1: "asap", 2: "urgent", 3: "routine", 4: "routine"}[answer.priority_band]
    assert task["code"]["coding"][0]["code"] == answer.disposition
    assert task["for"] == risk["subject"] == {"reference": "Patient/p1"}
    assert task["focus"] == risk["basedOn"] == {"reference": "ServiceRequest/order-1"}
    assert risk["status"] == "preliminary"
    assert risk["basis"] == [{"reference": "Media/m0"}]
    assert score_in(risk) == answer.score
    percent = None if answer.score is None else 100 * answer.score
    assert risk["prediction"][0].get("probabilityDecimal") == percent
    assert answer.note in [note["text"] for note in risk["note"]]
    values = {one["what"]["identifier"]["value"] for one in origin["entity"]}
    assert values == {answer.bundle_sha256, answer.certificate_id}
    everything = {entry["fullUrl"] for entry in sent(ask, make_app(), as_fhir(picture)).json()["entry"]}
    assert len(origin["target"]) == len(everything) - 1


def test_what_limits_an_answer_is_an_issue_each(
    ask: Ask, make_app: MakeApp, picture_bytes: Callable[..., bytes], tmp_path: Path
):
    flags = RedFlags(flags=(flag({"field": "bleeding", "is": True}, "bleeding"),))
    scorer = Scorer(tiny_bundle.make(tmp_path / "tiny", red_flags=flags))
    pictures = [picture_bytes("below", "JPEG"), picture_bytes("black", "JPEG")]
    found = resources(sent(ask, make_app(scorer), as_fhir(*pictures, bleeding=True)))
    issues = {one["code"]["coding"][0]["code"]: one for one in found["DetectedIssue"]}
    assert issues["bleeding"]["severity"] == "high"
    assert issues["image_too_dark"]["implicated"] == [{"reference": "Media/m1"}]
    assert issues["image_too_dark"]["mitigation"][0]["action"]["text"]
    assert {"no_touch", "photographs_unusable"} <= issues.keys()
    assert {one["status"] for one in issues.values()} == {"preliminary"}
    assert found["Task"][0]["code"]["coding"][0]["code"] == "needs_in_person"


def test_why_a_case_cannot_be_relied_on_is_an_issue_of_high_severity(
    ask: Ask, make_app: MakeApp, picture_bytes: Callable[..., bytes], tmp_path: Path
):
    women = Grouping(by="sex", thresholds={"female": 0.5})
    app = make_app(Scorer(tiny_bundle.make(tmp_path / "tiny", groupings=(women,))))
    for kind, told_of, expected in (
        ("below", {"sex": "female"}, set()),
        ("below", {}, {"uncertified_subgroup"}),
        ("black", {"sex": "female"}, {"no_gradable_image"}),
    ):
        found = resources(sent(ask, app, as_fhir(picture_bytes(kind, "JPEG"), **told_of)))
        high = [one for one in found["DetectedIssue"] if one.get("severity") == "high"]
        assert {one["code"]["coding"][0]["code"] for one in high} == expected
        assert all("implicated" not in one for one in high)


def test_a_deadline_beyond_the_calendar_is_none(
    ask: Ask, make_app: MakeApp, picture_bytes: Callable[..., bytes], tmp_path: Path
):
    """A sealed bundle may hold one from before there was a limit."""
    scorer = Scorer(tiny_bundle.make(tmp_path / "tiny", deadline_hours=1e9))
    (task,) = resources(sent(ask, make_app(scorer), as_fhir(picture_bytes("below", "JPEG"))))["Task"]
    assert "restriction" not in task


def test_a_deadline_is_the_end_of_the_task_s_period(
    ask: Ask, make_app: MakeApp, picture_bytes: Callable[..., bytes], tmp_path: Path
):
    scorer = Scorer(tiny_bundle.make(tmp_path / "tiny", deadline_hours=48.0))
    (task,) = resources(sent(ask, make_app(scorer), as_fhir(picture_bytes("below", "JPEG"))))["Task"]
    assert task["restriction"]["period"]["start"] == task["authoredOn"]
    start, end = (task["restriction"]["period"][name][8:10] for name in ("start", "end"))
    assert start != end


def test_parameters_documents_and_dicom_are_read_like_a_bundle_of_media(
    ask: Ask, make_app: MakeApp, draw: Any, scorer: Scorer
):
    app, picture = make_app(), draw()
    expected = scorer.score([picture]).score
    in_dicom = document(dicom(picture))
    in_dicom["content"][0]["attachment"]["contentType"] = "application/dicom"
    contained = order("#m0", contained=[media(picture, "m0")])
    several = [{"name": "case", "resource": bundle(order(), media(picture, "m0"))}]
    for body in (
        bundle(in_dicom),
        bundle(contained),
        {"resourceType": "Parameters", "parameter": several},
        {
            "resourceType": "Parameters",
            "parameter": [{"name": "photograph", "resource": media(picture, "x")}],
        },
    ):
        (risk,) = resources(sent(ask, app, body))["RiskAssessment"]
        assert score_in(risk) == expected


def test_photographs_keep_the_order_in_which_the_order_names_them(
    ask: Ask, make_app: MakeApp, picture_bytes: Callable[..., bytes]
):
    good, black = picture_bytes("below", "JPEG"), picture_bytes("black", "JPEG")
    body = bundle(media(good, "a"), media(black, "b"), order("Media/b", "Media/a", "Condition/7"))
    found = resources(sent(ask, make_app(), body))
    assert found["RiskAssessment"][0]["basis"] == [{"reference": "Media/b"}, {"reference": "Media/a"}]
    dark = next(one for one in found["DetectedIssue"] if one["code"]["coding"][0]["code"] == "image_too_dark")
    assert dark["implicated"] == [{"reference": "Media/b"}]


def in_unit(value: float, code: str, system: str = "http://unitsofmeasure.org") -> dict[str, Any]:
    return {"valueQuantity": {"value": value, "unit": code, "system": system, "code": code}}


def test_history_comes_by_observations_and_questionnaires_alike(ask: Ask, make_app: MakeApp, draw: Any):
    app = make_app()
    concept = {"valueCodeableConcept": {"coding": [{"code": "female"}]}}
    nested = {"linkId": "group", "item": told(bleeding=True)["item"]}
    questionnaire = told(age_years=61, sex="female")
    questionnaire["item"].append(nested)
    unknown = observation("painful", dataAbsentReason={"text": "not asked"})
    observed = [
        observation("bleeding", valueBoolean=True),
        observation("age_years", **in_unit(61, "a")),
        observation("sex", **concept),
        unknown,
    ]
    first = sent(ask, app, bundle(media(draw(), "m0"), questionnaire), **{"Idempotency-Key": "a" * 16})
    second = sent(ask, app, bundle(media(draw(), "m0"), *observed), **{"Idempotency-Key": "a" * 16})
    assert first.status_code == 200
    assert second.content == first.content  # the same case under the same key: its history has the same hash


@pytest.mark.parametrize("where", ["under an item", "under an answer", "under an answer's answer"])
def test_a_red_flag_in_a_question_asked_further_refers(
    where: str, ask: Ask, make_app: MakeApp, picture_bytes: Callable[..., bytes], tmp_path: Path
):
    flags = RedFlags(flags=(flag({"field": "bleeding", "is": True}, "bleeding"),))
    app = make_app(Scorer(tiny_bundle.make(tmp_path / "tiny", red_flags=flags)))
    questionnaire, further = told(changing=False), told(bleeding=True)["item"]
    match where:
        case "under an item":
            questionnaire["item"].append({"linkId": "group", "item": further})
        case "under an answer":
            questionnaire["item"][0]["answer"][0]["item"] = further
        case _:
            between = told(growing=False)["item"]
            between[0]["answer"][0]["item"] = further
            questionnaire["item"][0]["answer"][0]["item"] = between
    found = resources(sent(ask, app, bundle(media(picture_bytes("below", "JPEG"), "m0"), questionnaire)))
    assert found["Task"][0]["code"]["coding"][0]["code"] == "needs_in_person"
    assert "bleeding" in {one["code"]["coding"][0]["code"] for one in found["DetectedIssue"]}


def _further(questionnaire: dict[str, Any], **history: Any) -> dict[str, Any]:
    """A questionnaire whose first answer leads to more questions."""
    questionnaire["item"][0]["answer"][0]["item"] = told(**history)["item"]
    return questionnaire


def _modified(questionnaire: dict[str, Any]) -> dict[str, Any]:
    """A questionnaire whose innermost question is to be understood in another way."""
    item = questionnaire["item"][0]
    while further := item["answer"][0].get("item"):
        item = further[0]
    item["modifierExtension"] = [{"url": "urn:negated", "valueBoolean": True}]
    return questionnaire


def _changed(change: Callable[[dict[str, Any]], object], *history: dict[str, Any]) -> Callable[[bytes], Any]:
    def build(picture: bytes) -> dict[str, Any]:
        tree = copy.deepcopy(as_fhir(picture, picture))
        tree["entry"] += [{"resource": one} for one in history]
        change(tree)
        return tree

    return build


def document(picture: bytes) -> dict[str, Any]:
    """A photograph as a DocumentReference."""
    attachment = {"contentType": "image/jpeg", "data": in_base64(picture)}
    return {
        "resourceType": "DocumentReference",
        "id": "d",
        "status": "current",
        "content": [{"attachment": attachment}],
    }


def _of(tree: dict[str, Any], place: int) -> dict[str, Any]:
    resource: dict[str, Any] = tree["entry"][place]["resource"]
    return resource


def _naming(what: dict[str, Any], tree: dict[str, Any], where: str = "supportingInfo") -> None:
    """The order names one more thing."""
    _of(tree, 0).setdefault(where, []).append(what)


_PATIENT = {"resourceType": "Patient", "id": "1"}
REFUSED: dict[str, tuple[Callable[[bytes], Any], str]] = {
    "another resource": (_changed(lambda t: t.update(resourceType="Patient")), "document_not_valid"),
    "entry is no list": (_changed(lambda t: t.update(entry={})), "document_not_valid"),
    "entry is no object": (_changed(lambda t: t["entry"].append(7)), "document_not_valid"),
    "resource is none": (_changed(lambda t: t["entry"].append({})), "document_not_valid"),
    "unknown resource": (
        _changed(lambda t: t["entry"].append({"resource": {"resourceType": "Specimen"}})),
        "document_not_valid",
    ),
    "modifier": (
        _changed(lambda t: _of(t, 1).update(modifierExtension=[{"url": "x"}])),
        "document_not_valid",
    ),
    "modifier of the bundle's entry": (
        _changed(lambda t: t["entry"][1].update(modifierExtension=[{"url": "x"}])),
        "document_not_valid",
    ),
    "modifier of an attachment": (
        _changed(lambda t: _of(t, 1)["content"].update(modifierExtension=[{"url": "x"}])),
        "document_not_valid",
    ),
    "modifier of a question": (_changed(bool, _modified(told(bleeding=False))), "document_not_valid"),
    "modifier of a question under an answer": (
        _changed(
            lambda t: _further(_of(t, 3), bleeding=False) and _modified(_of(t, 3)), told(changing=False)
        ),
        "document_not_valid",
    ),
    "rules of the bundle": (_changed(lambda t: t.update(implicitRules="urn:x")), "document_not_valid"),
    "rules of parameters": (
        lambda picture: {
            "resourceType": "Parameters",
            "implicitRules": "urn:x",
            "parameter": [{"name": "case", "resource": as_fhir(picture)}],
        },
        "document_not_valid",
    ),
    "a part beside a resource": (
        lambda picture: {
            "resourceType": "Parameters",
            "parameter": [
                {
                    "name": "x",
                    "resource": as_fhir(picture),
                    "part": [{"name": "y", "resource": told(bleeding=True)}],
                }
            ],
        },
        "document_not_valid",
    ),
    "a value that is absent": (
        _changed(bool, observation("bleeding", valueBoolean=True, dataAbsentReason={"text": "not asked"})),
        "history_not_valid",
    ),
    "withdrawn": (_changed(lambda t: _of(t, 1).update(status="entered-in-error")), "document_not_valid"),
    "a document that was withdrawn": (
        lambda picture: bundle(document(picture) | {"docStatus": "entered-in-error"}),
        "document_not_valid",
    ),
    "a document with two photographs": (
        lambda picture: bundle({**document(picture), "content": document(picture)["content"] * 2}),
        "document_not_valid",
    ),
    "odd status": (
        _changed(lambda t: _of(t, 1).update(status={"entered": []}, content=[])),
        "document_not_valid",
    ),
    "do not perform": (_changed(lambda t: _of(t, 0).update(doNotPerform=True)), "document_not_valid"),
    "two orders": (_changed(lambda t: t["entry"].append({"resource": order()})), "document_not_valid"),
    "photograph that was not sent": (
        _changed(lambda t: _of(t, 0)["supportingInfo"].append({"reference": "Media/gone"})),
        "document_not_valid",
    ),
    **{
        f"{place} that was not sent": (
            _changed(partial(_naming, {"reference": f"{place}/gone"})),
            "document_not_valid",
        )
        for place in ("Observation", "QuestionnaireResponse", "https://ehr.example/fhir/Observation")
    },
    **{
        f"by an identifier: {kind}": (
            _changed(partial(_naming, {"type": kind, "identifier": {"value": "x"}})),
            "document_not_valid",
        )
        for kind in ("Media", "Observation", None)
    },
    **{
        f"not sent, and named otherwise: {' '.join(named.values())}": (
            _changed(partial(_naming, named)),
            "document_not_valid",
        )
        for named in (
            {"reference": "Media?identifier=x"},
            {"reference": "https://ehr.example/fhir/QuestionnaireResponse?identifier=x"},
            {"reference": "urn:oid:1.2.3"},
            {"reference": "https://pictures.example/7", "type": "Media"},
            {"display": "the second picture", "type": "DocumentReference"},
        )
    },
    **{
        f"reason that was not sent: {named}": (
            _changed(partial(_naming, {"reference": named}, where="reasonReference")),
            "document_not_valid",
        )
        for named in ("Observation/gone", "https://ehr.example/fhir/DocumentReference/gone", "#gone")
    },
    "contained in another resource": (
        _changed(
            lambda t: (
                _naming({"reference": "#q"}, t),
                _of(t, 1).update(contained=[{**told(bleeding=True), "id": "q"}]),
            )
        ),
        "document_not_valid",
    ),
    "contained in what is contained": (
        _changed(lambda t: _of(t, 0).update(contained=[{**_PATIENT, "contained": [told(bleeding=True)]}])),
        "document_not_valid",
    ),
    "a search that failed": (
        _changed(bool, {"resourceType": "OperationOutcome", "issue": [{"severity": "error"}]}),
        "document_not_valid",
    ),
    "a first page": (_changed(lambda t: t.update(type="searchset", total=9)), "document_not_valid"),
    "a first page with what it includes": (
        _changed(
            lambda t: (
                t.update(type="searchset", total=3),
                t["entry"][0].update(search={"mode": "include"}),
            )
        ),
        "document_not_valid",
    ),
    "photograph that is not named": (
        _changed(lambda t: t["entry"].append({"resource": media(b"x", "extra")})),
        "document_not_valid",
    ),
    "another patient": (
        _changed(lambda t: _of(t, 1).update(subject={"reference": "Patient/p2"})),
        "document_not_valid",
    ),
    "address": (
        _changed(lambda t: _of(t, 2).update(content={"url": "http://127.0.0.1:1/x"})),
        "photograph_by_address",
    ),
    "document as pdf": (
        _changed(lambda t: _of(t, 2)["content"].update(contentType="application/pdf")),
        "content_type_not_supported",
    ),
    "unknown question": (_changed(bool, told(mood="x")), "history_not_valid"),
    "unknown question under an answer": (
        _changed(bool, _further(told(changing=False), mood="x")),
        "history_not_valid",
    ),
    "unknown question that leads to known ones": (
        _changed(bool, _further(told(symptoms=True), bleeding=True)),
        "history_not_valid",
    ),
    "two answers": (_changed(bool, told(bleeding=True), told(bleeding=False)), "history_not_valid"),
    "centimetres": (_changed(bool, observation("diameter_mm", **in_unit(1.2, "cm"))), "history_not_valid"),
    "months": (_changed(bool, observation("age_years", **in_unit(9, "mo"))), "history_not_valid"),
    "a system of units that is not UCUM": (
        _changed(bool, observation("diameter_mm", **in_unit(12, "mm", system="urn:x"))),
        "history_not_valid",
    ),
    "an observation about somebody else": (
        _changed(bool, observation("bleeding", valueBoolean=False, focus=[{"reference": "Patient/p2"}])),
        "document_not_valid",
    ),
    "no unit": (_changed(bool, observation("diameter_mm", valueQuantity={"value": 12})), "history_not_valid"),
    "foreign code": (
        _changed(bool, {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}),
        "history_not_valid",
    ),
    "two values": (
        _changed(bool, observation("bleeding", valueBoolean=True, valueString="no")),
        "history_not_valid",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_read_without_doubt_is_refused(what: str, ask: Ask, make_app: MakeApp, draw: Any):
    build, code = REFUSED[what]
    outcome(sent(ask, make_app(), build(draw())), 422, code)


EHR = "https://ehr.example/fhir"


def people(*subjects: Any, urls: tuple[str | None, ...] = (), others: Any = ()) -> Callable[[bytes], Any]:
    """Photographs with these subjects, and the addresses that they lie at."""

    def build(picture: bytes) -> dict[str, Any]:
        tree = bundle(*(media(picture, f"m{at}", subject=one) for at, one in enumerate(subjects)), *others)
        for entry, url in zip(tree["entry"], urls, strict=False):
            entry.update({} if url is None else {"fullUrl": url})
        return tree

    return build


def ref(reference: str, **more: Any) -> dict[str, Any]:
    return {"reference": reference, **more}


def known_as(value: str, **more: Any) -> dict[str, Any]:
    return {"identifier": {"system": "urn:site:mrn", "value": value}, **more}


_UUID = "urn:uuid:8d3f5b0c-6f0e-4c53-9d4e-0d6a52b1f001"
TWO_PEOPLE = {
    "addresses": people(ref(f"{EHR}/Patient/1"), ref(f"{EHR}/Patient/2")),
    "an address of nobody knows which server": people(ref("Patient/1"), ref(f"{EHR}/Patient/1")),
    "identifiers": people(known_as("A"), known_as("B")),
    "identifiers without a system": people({"identifier": {"value": "A"}}, {"identifier": {"value": "B"}}),
    "a reference and an identifier": people(ref("Patient/1"), known_as("A")),
    "one identifier, two references": people(
        known_as("A", **ref("Patient/1")), known_as("A", **ref("Patient/2"))
    ),
    "one reference, two identifiers": people(
        known_as("A", **ref("Patient/1")), known_as("B", **ref("Patient/1"))
    ),
    "names": people({"display": "A"}, {"display": "B"}),
    "one name": people({"display": "A"}, {"display": "A"}),
    "nothing": people({}, {}),
    "a type": people({"type": "Patient"}, {"type": "Patient"}),
    "nothing and a reference": people({}, ref("Patient/1")),
    "a reference and a name": people(ref("Patient/1"), {"display": "A"}),
    "one number on two servers": people(
        ref("Patient/1"), ref("Patient/1"), urls=(f"{EHR}/Media/m0", "https://other.example/fhir/Media/m1")
    ),
    "two that are contained": people(ref("#p"), ref("#p")),
    "one number for two patients": people(
        ref("Patient/1"),
        ref(_UUID),
        urls=(None, None, _UUID, None),
        others=(_PATIENT, _PATIENT | {"active": True}),
    ),
    "no reference": people(ref("Patient/1"), {"reference": 7}),
    "no subject": people(ref("Patient/1"), 7),
}
ONE_PERSON = {
    "addresses": people(ref(f"{EHR}/Patient/1"), ref(f"{EHR}/Patient/1")),
    "its own server": people(ref("Patient/1"), ref(f"{EHR}/Patient/1"), urls=(f"{EHR}/Media/m0",)),
    "versions": people(ref("Patient/1"), ref("Patient/1/_history/2")),
    "identifiers": people(known_as("A"), known_as("A")),
    "joined by a third": people(ref("Patient/1"), known_as("A"), known_as("A", **ref("Patient/1"))),
    "what the patient is called": people(
        ref("Patient/1"), ref(_UUID), urls=(None, None, _UUID), others=(_PATIENT,)
    ),
    "the same twice": people(
        ref("Patient/1"),
        ref(_UUID.upper().replace("URN:UUID", "urn:uuid")),
        urls=(None, None, _UUID, _UUID),
        others=(_PATIENT, _PATIENT),
    ),
    "one that says nothing": people(ref(f"{EHR}/Patient/1"), None),
    "one with a name alone": people({"display": "A"}, None),
}


@pytest.mark.parametrize("what", TWO_PEOPLE)
def test_photographs_that_may_be_of_two_people_make_no_case(
    what: str, ask: Ask, make_app: MakeApp, draw: Any
):
    text = outcome(sent(ask, make_app(), TWO_PEOPLE[what](draw())), 422, "document_not_valid")
    assert "subject" in text
    assert "ehr.example" not in text


@pytest.mark.parametrize("what", ONE_PERSON)
def test_one_person_may_be_said_in_several_ways(what: str, ask: Ask, make_app: MakeApp, draw: Any):
    body = ONE_PERSON[what](draw())
    found = resources(sent(ask, make_app(), body))
    assert len(found["RiskAssessment"][0]["basis"]) == sum(
        "content" in one["resource"] for one in body["entry"]
    )
    assert "ehr.example" not in json.dumps(found)


@pytest.mark.parametrize(
    ("subject", "named"),
    [
        (ref("Patient/1"), True),
        (ref(_UUID), True),
        (ref(_UUID, type="Group"), False),
        (ref("Group/1"), False),
        (ref("Patient/1", type=["Patient"]), False),
    ],
    ids=str,
)
def test_only_a_patient_is_an_issue_s_patient(
    subject: dict[str, Any], named: bool, ask: Ask, make_app: MakeApp, draw: Any
):
    found = resources(sent(ask, make_app(), people(subject)(draw())))
    assert {json.dumps(one.get("patient")) for one in found["DetectedIssue"]} == {
        json.dumps(ref(subject["reference"]) if named else None)
    }
    assert found["RiskAssessment"][0]["subject"] == ref(subject["reference"])


def test_an_address_is_never_opened(ask: Ask, make_app: MakeApp):
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.2)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/photo.jpg"
    body = bundle({"resourceType": "Media", "status": "completed", "content": {"url": url}})
    outcome(sent(ask, make_app(), body), 422, "photograph_by_address")
    with pytest.raises(TimeoutError):
        listener.accept()
    listener.close()


def test_errors_before_the_operation_are_outcomes_too(ask: Ask, make_app: MakeApp):
    app = make_app()
    outcome(ask(app, "GET", PATH), 405, "method_not_allowed")
    outcome(ask(app, "GET", "/fhir/Patient/1"), 404, "not_found")
    outcome(sent(ask, make_app(max_body_bytes=10), {"resourceType": "Bundle"}), 413, "body_too_large")


def test_capabilities_are_a_valid_statement(ask: Ask, make_app: MakeApp):
    CapabilityStatement.model_validate(ask(make_app(), "GET", "/fhir/metadata").json())


def test_repeats_are_the_same_document_to_the_last_uuid(ask: Ask, make_app: MakeApp, draw: Any):
    app, again = make_app(), {"Idempotency-Key": "0123456789abcdef"}
    first, second = (sent(ask, app, as_fhir(draw()), **again) for _ in range(2))
    assert first.content == second.content
