"""Which case the resources of FHIR make: each photograph once, whoever names it and however."""

from __future__ import annotations

import base64
import json
import time
import tracemalloc
from collections.abc import Callable
from datetime import date
from typing import Any

import httpx
import pytest

from fhir_requests import outcome, resources, sent
from sent_cases import JSON, WAYS, as_hook, bundle, in_base64, media, order
from triage_server.fhir_case import parse_case_resources
from triage_server.fhir_resources import parse_resources
from triage_server.problems import RequestError

Ask = Callable[..., httpx.Response]
MakeApp = Callable[..., Any]
EHR = "https://ehr.example/fhir"


def lying_at(server: str, *found: dict[str, Any]) -> dict[str, Any]:
    """A bundle as a FHIR server gives it: every entry says where it lies."""
    tree = bundle(*found)
    for entry in tree["entry"]:
        resource = entry["resource"]
        entry["fullUrl"] = f"{server}/{resource['resourceType']}/{resource['id']}"
    return tree


def photographs_of(response: httpx.Response) -> list[str]:
    (risk,) = resources(response)["RiskAssessment"]
    references = [one["reference"] for one in risk["basis"]]
    assert f"Photographs: {len(references)}" in risk["note"][0]["text"]
    return references


@pytest.mark.parametrize("named", ["Media/m{}", f"{EHR}/Media/m{{}}"])
@pytest.mark.parametrize("number", [1, 9, 16])
def test_photographs_with_addresses_count_once_each(
    number: int, named: str, ask: Ask, make_app: MakeApp, draw: Any
):
    names = [named.format(place) for place in range(number)]
    sent_ones = [media(draw(seed=place), f"m{place}") for place in range(number)]
    response = sent(ask, make_app(), lying_at(EHR, order(*names), *sent_ones))
    assert photographs_of(response) == [f"Media/m{place}" for place in range(number)]


def test_a_hook_s_photographs_with_addresses_count_once_each(ask: Ask, make_app: MakeApp, draw: Any):
    document = as_hook(draw())
    document["prefetch"]["photographs"] = lying_at(EHR, media(draw(), "m0"))
    document["context"]["draftOrders"] = bundle(order("Media/m0"))
    response = ask(make_app(), "POST", "/cds-services/lesion-triage", json=document, headers=JSON)
    assert "Photographs: 1" in response.json()["cards"][0]["detail"]


def test_a_photograph_that_is_named_or_sent_twice_counts_once(ask: Ask, make_app: MakeApp, draw: Any):
    app, one = make_app(), media(draw(), "m0")
    for body in (
        bundle(order("Media/m0", "Media/m0"), one),
        bundle(order("Media/m0"), one, one),
        bundle(one, one),
        lying_at(EHR, order("Media/m0", f"{EHR}/Media/m0"), one, one),
    ):
        assert photographs_of(sent(ask, app, body)) == ["Media/m0"]


def test_two_photographs_under_one_name_are_two(ask: Ask, make_app: MakeApp, draw: Any):
    app, two = make_app(), (media(draw(), "m0"), media(draw(seed=1), "m0"))
    for body in (bundle(order("Media/m0"), *two), bundle(*two), lying_at(EHR, order("Media/m0"), *two)):
        assert photographs_of(sent(ask, app, body)) == ["Media/m0", "Media/m0"]


def with_contained(picture: bytes, server: str, number: int = 250) -> dict[str, Any]:
    """A photograph that holds many Observations, each of which names its subject."""
    subject = {"subject": {"reference": "Patient/1"}}
    code = {"coding": [{"system": "urn:lesion-triage:history", "code": "age_years"}]}
    told = {"resourceType": "Observation", "status": "final", "code": code, "valueInteger": 50, **subject}
    inner = [told | {"id": f"o{place}"} for place in range(number)]
    return lying_at(server, media(picture, "m0", contained=inner, **subject))


def test_a_long_address_is_refused_and_not_kept_with_each_reference(ask: Ask, make_app: MakeApp, draw: Any):
    app = make_app()
    body = with_contained(draw(), f"https://{'a' * 2_000_000}/fhir")
    tracemalloc.start()
    try:
        response = sent(ask, app, body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    outcome(response, 422, "document_not_valid")
    assert peak < 60_000_000


@pytest.mark.parametrize("where", ["subject", "supportingInfo", "id", "fullUrl of a Patient"])
def test_no_reference_is_longer_than_an_address_may_be(where: str, ask: Ask, make_app: MakeApp, draw: Any):
    app, long = make_app(), "Media/" + "m" * 2_048
    body = {
        "subject": bundle(order(subject={"reference": long}), media(draw(), "m0")),
        "supportingInfo": bundle(order("Media/m0", long), media(draw(), "m0")),
        "id": bundle(media(draw(), "m" * 2_048)),
        "fullUrl of a Patient": lying_at(
            EHR + "/a" * 1_024, {"resourceType": "Patient", "id": "p1"}, media(draw(), "m0")
        ),
    }[where]
    assert "2,048 characters" in outcome(sent(ask, app, body), 422, "document_not_valid")


def test_a_hook_s_server_has_an_address_of_bearable_length(ask: Ask, make_app: MakeApp, draw: Any):
    document = as_hook(draw()) | {"fhirServer": "https://" + "a" * 2_048}
    response = ask(make_app(), "POST", "/cds-services/lesion-triage", json=document, headers=JSON)
    assert (response.status_code, response.json()["code"]) == (422, "document_not_valid")
    assert "fhirServer" in response.json()["detail"]


def test_an_order_that_names_one_thing_thousands_of_times_is_soon_read():
    same = [media(b"picture %d" % place, "m0") for place in range(200)]
    names = [f"Media/m0/_history/{number}" for number in range(2_000)]
    began = time.process_time()
    with pytest.raises(RequestError) as refusal:
        parse_case_resources(parse_resources(bundle(order(*names), *same)), date(2026, 1, 31))
    assert refusal.value.code == "too_many_images"
    assert time.process_time() - began < 5


PATIENT = f"{EHR}/Patient/p1"
NAMED = {"display": "named in the request in a way that is not repeated here"}
_ADDRESS, _NUMBER = {"reference": PATIENT}, {"identifier": {"system": "urn:mrn", "value": "0815"}}


def of(subject: Any, picture: bytes) -> tuple[dict[str, Any], ...]:
    return order("Media/m0", subject=subject), media(picture, "m0", subject=subject)


@pytest.mark.parametrize("version", ["", "/_history/2", "/_history/2-1.b"])
def test_a_subject_s_address_is_repeated_as_seen_from_its_server(
    version: str, ask: Ask, make_app: MakeApp, draw: Any
):
    app, said = make_app(), {"reference": PATIENT + version}
    patient = {"resourceType": "Patient", "id": "p1"}
    for more in ((), (patient,)):
        found = resources(sent(ask, app, lying_at(EHR, *of(said, draw()), *more)))
        expected = {"reference": f"Patient/p1{version}"}
        assert found["Task"][0]["for"] == found["RiskAssessment"][0]["subject"] == expected
        assert all(one["patient"] == expected for one in found["DetectedIssue"])


@pytest.mark.parametrize(
    ("subject", "server", "said"),
    [
        (_ADDRESS, None, NAMED),
        (_ADDRESS, "https://other.example/fhir", NAMED),
        (_ADDRESS, f"{EHR}/Patient", NAMED),
        ({"reference": "Patient/p1/_history/Müller"}, EHR, NAMED),
        (_NUMBER, None, NAMED),
        (_NUMBER, EHR, NAMED),
        ({"reference": "#p"}, EHR, NAMED),
        ({}, EHR, {"display": "not named in the request"}),
        (None, None, {"display": "not named in the request"}),
    ],
    ids=str,
)
def test_a_subject_that_is_not_repeated_is_not_said_to_be_missing(
    subject: Any, server: str | None, said: Any, ask: Ask, make_app: MakeApp, draw: Any
):
    one = media(draw(), "m0", **({} if subject is None else {"subject": subject}))
    response = sent(ask, make_app(), lying_at(server, one) if server else bundle(one))
    found = resources(response)
    assert found["RiskAssessment"][0]["subject"] == said
    assert "for" not in found["Task"][0]
    assert "0815" not in response.text
    assert "ehr.example" not in response.text


def test_answers_that_say_different_things_of_the_subject_are_no_repeats(
    ask: Ask, make_app: MakeApp, draw: Any
):
    app, again = make_app(), {"Idempotency-Key": "0123456789abcdef"}
    first = sent(ask, app, bundle(media(draw(), "m0", subject=_NUMBER)), **again)
    assert first.status_code == 200
    assert sent(ask, app, bundle(media(draw(), "m0")), **again).status_code == 422


def labelled(picture: bytes, media_type: Any) -> dict[str, Any]:
    one = media(picture, "m0")
    one["content"]["contentType"] = media_type
    return bundle(one)


@pytest.mark.parametrize(
    "media_type",
    ["image/jpg", "IMAGE/JPEG", "image/jpeg; charset=binary", " image/PNG ;q=1", "application/DICOM", None],
)
def test_a_picture_is_taken_however_its_type_is_written(
    media_type: str | None, ask: Ask, make_app: MakeApp, draw: Any
):
    assert photographs_of(sent(ask, make_app(), labelled(draw(), media_type))) == ["Media/m0"]


@pytest.mark.parametrize("media_type", ["application/pdf", "image/heic", "image", "", ";image/jpeg", 7, {}])
def test_a_type_that_is_no_picture_s_is_refused_by_its_name(
    media_type: Any, ask: Ask, make_app: MakeApp, draw: Any
):
    response = sent(ask, make_app(), labelled(draw(), media_type))
    assert "Attachment.contentType" in outcome(response, 422, "content_type_not_supported")


def _broken(picture: bytes, way: str) -> dict[str, Any]:
    """The same request with the photograph's base64 in lines, as e-mail and openssl write it."""
    request = WAYS[way].request(picture)
    in_lines = base64.encodebytes(picture).decode().replace("\n", "\r\n")
    whole, lines = json.dumps(in_base64(picture)), json.dumps(f" {in_lines}\t")
    assert whole in request["content"]
    return {**request, "content": request["content"].replace(whole, lines)}


@pytest.mark.parametrize("way", ["fhir", "cds-hooks"])
def test_base64_in_lines_is_the_same_photograph_in_fhir(way: str, ask: Ask, make_app: MakeApp, draw: Any):
    app, again = make_app(), {"Idempotency-Key": "0123456789abcdef"}
    whole, lines = WAYS[way].request(draw()), _broken(draw(), way)
    first, second = (
        ask(app, "POST", WAYS[way].path, content=one["content"], headers=one["headers"] | again)
        for one in (whole, lines)
    )
    assert first.status_code == 200
    assert second.content == first.content


@pytest.mark.parametrize("way", ["v1", "batch", "open-inference"])
def test_base64_in_lines_is_refused_elsewhere(way: str, ask: Ask, make_app: MakeApp, draw: Any):
    response = ask(make_app(), "POST", WAYS[way].path, **_broken(draw(), way))
    assert "base64_not_valid" in response.text


@pytest.mark.parametrize("data", ["AA\n=A", "AA\u00a0AA", "AA\u000bAA", "AA A"])
def test_other_characters_are_no_white_space(data: str, ask: Ask, make_app: MakeApp):
    one = media(b"", "m0")
    one["content"]["data"] = data
    outcome(sent(ask, make_app(), bundle(one)), 422, "base64_not_valid")


_VERSION_3 = {"meta": {"versionId": "3"}}


@pytest.mark.parametrize(
    ("reference", "more"),
    [
        ("Media/m0/_history/1", {}),
        ("Media/m0/_history/3", _VERSION_3),
        ("Media/m0", _VERSION_3),
        (f"{EHR}/Media/m0/_history/3", _VERSION_3),
        ("Media/m0/_history/1", {"meta": None}),
    ],
    ids=str,
)
def test_a_reference_to_a_version_means_what_was_sent(
    reference: str, more: dict[str, Any], ask: Ask, make_app: MakeApp, draw: Any
):
    body = lying_at(EHR, order(reference), media(draw(), "m0", **more))
    assert photographs_of(sent(ask, make_app(), body)) == ["Media/m0"]


@pytest.mark.parametrize(
    "reference", ["Media/m0/_history/2", f"{EHR}/Media/m0/_history/2", "Media/m1/_history/3"]
)
def test_another_version_was_not_sent(reference: str, ask: Ask, make_app: MakeApp, draw: Any):
    body = lying_at(EHR, order(reference), media(draw(), "m0", **_VERSION_3))
    assert "refers to a resource that was not sent" in outcome(
        sent(ask, make_app(), body), 422, "document_not_valid"
    )


@pytest.mark.parametrize("kind", ["collection", "searchset", "batch", "transaction", "history"])
def test_a_bundle_of_any_type_that_is_named_is_read(kind: str, ask: Ask, make_app: MakeApp, draw: Any):
    body = bundle(order("Media/m0"), media(draw(), "m0")) | {"type": kind}
    for entry in body["entry"]:
        entry["request"] = {"method": "PUT", "url": "x"}
    assert photographs_of(sent(ask, make_app(), body)) == ["Media/m0"]


@pytest.mark.parametrize(
    ("kind", "first"), [("document", "Composition"), ("message", "MessageHeader"), ("document", "Patient")]
)
def test_a_document_and_a_message_are_refused_by_the_type_of_the_bundle(
    kind: str, first: str, ask: Ask, make_app: MakeApp, draw: Any
):
    body = bundle({"resourceType": first, "id": "c"}, media(draw(), "m0")) | {"type": kind}
    assert "Bundle.type" in outcome(sent(ask, make_app(), body), 422, "document_not_valid")


def test_a_deletion_is_refused_as_one(ask: Ask, make_app: MakeApp, draw: Any):
    body = bundle(media(draw(), "m0")) | {"type": "history"}
    body["entry"].append({"request": {"method": "DELETE", "url": "Media/m1"}})
    assert "deletion" in outcome(sent(ask, make_app(), body), 422, "document_not_valid")
