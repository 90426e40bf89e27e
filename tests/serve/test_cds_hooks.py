from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import httpx_60s
import tiny_bundle
from histories import flag
from lesion_triage.bundle.messages import Catalogue, available_languages
from lesion_triage.bundle.red_flags import RedFlags
from lesion_triage.bundle.scorer import Scorer
from sent_cases import JSON, as_hook, bundle, media, order, told

Ask = Callable[..., httpx.Response]
MakeApp = Callable[..., Any]
PATH = "/cds-services/lesion-triage"


def sent(ask: Ask, app: Any, document: Any) -> httpx.Response:
    return ask(app, "POST", PATH, content=json.dumps(document), headers=JSON)


def card(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    (found,) = response.json()["cards"]
    assert len(found["summary"]) < 140
    return dict(found)


def test_discovery_names_the_service_that_answers(ask: Ask, make_app: MakeApp, draw: Any):
    app = make_app()
    (service,) = ask(app, "GET", "/cds-services").json()["services"]
    assert {"hook", "id", "description", "title", "prefetch"} == service.keys()
    document = as_hook(draw())
    assert service["hook"] == document["hook"]
    assert document["prefetch"].keys() == service["prefetch"].keys()
    path = f"/cds-services/{service['id']}"
    assert card(ask(app, "POST", path, content=json.dumps(document), headers=JSON))


@pytest.mark.parametrize(
    ("kind", "indicator"), [("referred", "warning"), ("below", "info"), ("black", "warning")]
)
def test_card_says_what_the_policy_says_and_brings_the_note(
    kind: str,
    indicator: str,
    ask: Ask,
    make_app: MakeApp,
    picture_bytes: Callable[..., bytes],
    scorer: Scorer,
):
    picture = picture_bytes(kind, "JPEG")
    answer = scorer.score([picture])
    found = card(sent(ask, make_app(), as_hook(picture)))
    assert found["indicator"] == indicator
    assert found["summary"] == Catalogue.load("en").dispositions[answer.disposition]
    assert answer.note in found["detail"]
    assert answer.notice in found["detail"]
    assert answer.certificate_id in found["source"]["label"]


@pytest.mark.parametrize("language", available_languages())
def test_every_disposition_fits_on_a_card(language: str):
    assert max(map(len, Catalogue.load(language).dispositions.values())) < 140


def test_a_site_s_longer_sentence_is_cut_to_fit(tiny_bundle: Path, tmp_path: Path, launch: Any, draw: Any):
    text = "word " * 60
    texts = {"dispositions": {name: text.strip() for name in Catalogue.load("en").dispositions}}
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "en.json").write_text(json.dumps(texts), encoding="utf-8")
    with launch(TRIAGE_CATALOGUES=str(tmp_path / "texts")) as server:
        response = httpx_60s.post(server.url + PATH, json=as_hook(draw()))
    assert card(response)["summary"].endswith("…")


def test_only_the_selected_order_s_photographs_are_its_case(
    ask: Ask, make_app: MakeApp, picture_bytes: Callable[..., bytes]
):
    document = as_hook(picture_bytes("below", "JPEG"))
    other = media(picture_bytes("referred", "JPEG"), "other")
    document["prefetch"]["photographs"]["entry"].append({"resource": other})
    document["context"]["draftOrders"]["entry"].append({"resource": order("Media/other", id="order-2")})
    assert card(sent(ask, make_app(), document))["indicator"] == "info"
    document["context"]["selections"] = ["ServiceRequest/order-2", "MedicationRequest/1"]
    assert card(sent(ask, make_app(), document))["indicator"] == "warning"


def test_a_photograph_that_is_the_order_s_reason_is_of_its_case(
    ask: Ask, make_app: MakeApp, picture_bytes: Callable[..., bytes]
):
    document = as_hook(picture_bytes("below", "JPEG"))
    reason = media(picture_bytes("referred", "JPEG"), "reason")
    document["prefetch"]["photographs"]["entry"].append({"resource": reason})
    named = order("Media/m0", reasonReference=[{"reference": "Condition/c"}, {"reference": "Media/reason"}])
    document["context"]["draftOrders"] = bundle(named)
    assert card(sent(ask, make_app(), document))["indicator"] == "warning"


def test_missing_prefetch_is_said_with_412_and_nobody_is_asked_for_it(ask: Ask, make_app: MakeApp, draw: Any):
    for prefetch in ({}, {"photographs": None}, {"photographs": bundle()}):
        response = sent(ask, make_app(), {**as_hook(draw()), "prefetch": prefetch})
        assert (response.status_code, response.json()["code"]) == (412, "prefetch_missing")


@pytest.fixture
def flagged(make_app: MakeApp, tmp_path: Path) -> Any:
    """An application that refers whoever bleeds."""
    flags = RedFlags(flags=(flag({"field": "bleeding", "is": True}, "bleeding"),))
    return make_app(Scorer(tiny_bundle.make(tmp_path / "tiny", red_flags=flags)))


_BLEEDING = {
    "Observation": {
        "resourceType": "Observation",
        "id": "q",
        "status": "final",
        "code": {"coding": [{"system": "urn:lesion-triage:history", "code": "bleeding"}]},
        "valueBoolean": True,
    },
    "QuestionnaireResponse": {**told(bleeding=True), "id": "q"},
}


@pytest.mark.parametrize("named", [(), ("#q",), ("#q", "Media/m0")], ids=str)
@pytest.mark.parametrize("kind", _BLEEDING)
def test_what_the_order_contains_is_read(
    kind: str, named: tuple[str, ...], ask: Ask, flagged: Any, picture_bytes: Callable[..., bytes]
):
    document = as_hook(picture_bytes("below", "JPEG"))
    document["context"]["draftOrders"] = bundle(order(*named, contained=[_BLEEDING[kind]]))
    assert card(sent(ask, flagged, document))["indicator"] == "warning"


def test_what_another_order_contains_is_not_this_one_s(
    ask: Ask, flagged: Any, picture_bytes: Callable[..., bytes]
):
    document = as_hook(picture_bytes("below", "JPEG"))
    drafts = document["context"]["draftOrders"]["entry"]
    drafts.append({"resource": order(id="order-2", contained=[_BLEEDING["Observation"]])})
    drafts.append({"resource": {"resourceType": "MedicationRequest"}})
    assert card(sent(ask, flagged, document))["indicator"] == "info"
    drafts[0]["resource"]["supportingInfo"] = [{"reference": "#q"}]
    assert sent(ask, flagged, document).json()["code"] == "document_not_valid"


_OUTCOME = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "exception"}]}
_MORE = {"link": [{"relation": "next", "url": "https://ehr.example/fhir?page=2"}]}


def found_by(*resources: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**bundle(*resources), "type": "searchset", **more}


@pytest.mark.parametrize(
    "history",
    [
        _OUTCOME,
        found_by(_OUTCOME),
        found_by(**_MORE),
        found_by(total=1),
        found_by(total="1"),
        found_by(told(), told(), **_MORE),
    ],
    ids=["failed", "failed in part", "next", "total", "total in words", "more than were asked for"],
)
def test_a_history_that_could_not_be_found_is_not_taken_for_none(
    history: Any, ask: Ask, make_app: MakeApp, draw: Any
):
    document = as_hook(draw())
    document["prefetch"]["history"] = history
    response = sent(ask, make_app(), document)
    assert (response.status_code, response.json()["code"]) == (422, "document_not_valid")


@pytest.mark.parametrize("more", [_MORE, {"total": 2}], ids=["next", "total"])
def test_a_first_page_of_photographs_is_not_taken_for_all(
    more: dict[str, Any], ask: Ask, make_app: MakeApp, draw: Any
):
    document = as_hook(draw())
    document["prefetch"]["photographs"] = found_by(media(draw(), "m0"), **more)
    response = sent(ask, make_app(), document)
    assert (response.status_code, response.json()["code"]) == (422, "document_not_valid")
    assert "an incomplete search result" in response.json()["detail"]


def test_the_newest_history_of_several_is_the_one_that_was_asked_for(
    ask: Ask, flagged: Any, picture_bytes: Callable[..., bytes]
):
    document = as_hook(picture_bytes("below", "JPEG"))
    hint = {"resourceType": "OperationOutcome", "issue": [{"severity": "warning", "code": "informational"}]}
    newest = found_by(told(bleeding=True), hint, total=5, **_MORE)
    newest["entry"][1]["search"] = {"mode": "outcome"}
    document["prefetch"]["history"] = newest
    assert card(sent(ask, flagged, document))["indicator"] == "warning"


def test_resources_are_limited_over_all_of_the_prefetch(ask: Ask, make_app: MakeApp, draw: Any):
    """Photographs are compared with each other, so that thousands of them would keep a thread for seconds."""
    document = as_hook(draw())
    for search in range(3):
        found = [told() | {"id": f"{search}.{number}"} for number in range(100)]
        document["prefetch"][f"search {search}"] = found_by(*found)
    response = sent(ask, make_app(), document)
    assert (response.status_code, response.json()["code"]) == (422, "document_not_valid")
    assert "more than 256 resources" in response.json()["detail"]


EHR = "https://ehr.example/fhir"


@pytest.mark.parametrize(
    ("ordered", "photographed", "server", "one"),
    [
        ("Patient/p1", "Patient/p1", None, True),
        ("Patient/p1", f"{EHR}/Patient/p1", EHR, True),
        (f"{EHR}/Patient/p1", "Patient/p1", f"{EHR}/", True),
        ("Patient/p1", f"{EHR}/Patient/p1", None, False),
        ("Patient/p1", f"{EHR}/Patient/p1", "https://other.example/fhir", False),
        ("Patient/p1", "Patient/p2", EHR, False),
        ("Patient/p2", "Patient/p2", EHR, False),
        ("Patient/p2", None, None, False),
    ],
)
def test_order_and_photographs_are_of_the_patient_whose_chart_is_open(
    ordered: str,
    photographed: str | None,
    server: str | None,
    one: bool,
    ask: Ask,
    make_app: MakeApp,
    draw: Any,
):
    document = {**as_hook(draw()), **({"fhirServer": server} if server else {})}
    document["context"]["draftOrders"] = bundle(order(subject={"reference": ordered}))
    if photographed:
        document["prefetch"]["photographs"]["entry"][0]["resource"]["subject"] = {"reference": photographed}
    response = sent(ask, make_app(), document)
    assert response.status_code == (200 if one else 422), response.text
    assert one or "subject" in response.json()["detail"]
    assert "ehr.example" not in response.text


def test_patient_s_id_may_come_as_a_reference(ask: Ask, make_app: MakeApp, draw: Any):
    """The specification says an id; some programs send ``Patient/id``."""
    document = as_hook(draw())
    document["context"]["patientId"] = "Patient/p1"
    assert sent(ask, make_app(), document).status_code == 200


def chosen(*selections: Any) -> dict[str, Any]:
    """The request with these selections, and else as it should be."""
    return {"context": {**as_hook()["context"], "selections": list(selections)}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hook": "patient-view"}, "hook"),
        ({"hookInstance": "no uuid"}, "hookInstance"),
        ({"context": {}}, "context.draftOrders, context.patientId, context.selections"),
        ({"context": {**as_hook()["context"], "patientId": ""}}, "context.patientId"),
        (chosen(), "context.selections: expected one ServiceRequest"),
        (chosen("MedicationRequest/1"), "context.selections: expected one ServiceRequest"),
        (
            chosen("ServiceRequest/other"),
            "ServiceRequest: expected at most one, and the selected one if an order is selected",
        ),
        (chosen(*["ServiceRequest/order-1"] * 2), "context.selections: expected one ServiceRequest"),
        (
            chosen("ServiceRequest/order-1", "ServiceRequest/order-2"),
            "context.selections: expected one ServiceRequest",
        ),
        (chosen(7), "context.selections.0"),
        ({"prefetch": {"photographs": [media(b"x", "m")]}}, "an object was expected"),
        ({"prefetch": {"photographs": bundle(media(b"x", "m")), "history": 7}}, "an object was expected"),
    ],
    ids=lambda part: part if isinstance(part, str) else json.dumps(part)[:60],
)
def test_a_request_of_another_shape_is_refused(
    change: dict[str, Any], said: str, ask: Ask, make_app: MakeApp, draw: Any
):
    response = sent(ask, make_app(), {**as_hook(draw()), **change})
    assert (response.status_code, response.json()["code"]) == (422, "document_not_valid")
    assert response.json()["detail"].endswith(f": {said}.")
