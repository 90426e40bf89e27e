from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import triage_client
import triage_server
from lesion_triage.bundle.messages import english_catalogue
from lesion_triage.bundle.schema import Answer, Disposition
from triage_server.error_responses import FHIR_TYPE
from triage_server.problems import PROBLEM_TYPES, Problem, RequestError
from triage_server.wire import PROBLEM_JSON, CaseStatus

ELSEWHERE = {
    *("not_found", "method_not_allowed", "head_too_large", "head_not_received", "too_many_requests_ahead"),
    "transfer_coding_not_supported",
    *("not_read_yet", "outcome_meanwhile", "read_meanwhile", "queue_unavailable"),
}
"""Answered before any operation is reached, or by the page, which is no interface and not described."""
FORBIDDEN = re.compile(
    r"(?<![a-z])(benign|malignan|cancer|melanom|diagnos|safe|healthy|clear)", re.IGNORECASE
)
OPERATIONS = {
    ("/v1/triage", "post"),
    ("/v1/triage/batch", "post"),
    ("/v1/cases/{case_id}", "get"),
    ("/v2", "get"),
    ("/v2/health/live", "get"),
    ("/v2/health/ready", "get"),
    ("/v2/models/{name}", "get"),
    ("/v2/models/{name}/ready", "get"),
    ("/v2/models/{name}/infer", "post"),
    ("/fhir/$triage", "post"),
    ("/fhir/metadata", "get"),
    ("/cds-services", "get"),
    ("/cds-services/lesion-triage", "post"),
    ("/v1/bundle", "get"),
    ("/v1/certificate", "get"),
    ("/health/live", "get"),
    ("/health/ready", "get"),
}


@pytest.fixture
def description(ask: Callable[..., httpx.Response], make_app: Callable[..., Any]) -> dict[str, Any]:
    document: dict[str, Any] = ask(make_app(), "GET", "/openapi.json").json()
    return document


def operations(description: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_description_names_every_operation_once(description: dict[str, Any]):
    assert description["openapi"].startswith("3.1.")
    assert {"title", "version"} <= description["info"].keys()
    assert {(path, method) for path, method, _ in operations(description)} == OPERATIONS
    names = [operation["operationId"] for _, _, operation in operations(description)]
    assert len(names) == len(set(names))


def test_every_reference_resolves(description: dict[str, Any]):
    found = set(references(description))
    assert "#/components/schemas/Problem" in found
    for reference in found:
        node = description
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


def test_every_response_is_described_with_a_schema(description: dict[str, Any]):
    for path, _, operation in operations(description):
        assert "200" in operation["responses"]
        spoken = ("application/json", PROBLEM_JSON)
        answer, problem = (FHIR_TYPE, FHIR_TYPE) if path.startswith("/fhir/") else spoken
        for status, response in operation["responses"].items():
            assert response["description"]
            expected = answer if status.startswith("2") else problem
            assert list(response["content"]) == [expected]
            assert response["content"][expected]["schema"]


def test_every_way_to_be_refused_is_shown_somewhere(description: dict[str, Any]):
    shown = {
        code
        for _, _, operation in operations(description)
        for response in operation["responses"].values()
        for content in response["content"].values()
        for code in content.get("examples", {})
    }
    assert PROBLEM_TYPES.keys() - shown == ELSEWHERE


def test_every_example_of_a_request_is_answered_and_every_answer_has_its_example(
    description: dict[str, Any], ask: Callable[..., httpx.Response], make_app: Callable[..., Any]
):
    app, asked = make_app(), 0
    for path, method, operation in operations(description):
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            for example in content.get("examples", {}).values():
                headers = {"Content-Type": media_type}
                body = json.dumps(example["value"])
                response = ask(app, method, path.format(name="tiny"), content=body, headers=headers)
                assert response.status_code == 200, response.text
                asked += 1
        if method == "post":
            (answer,) = operation["responses"]["200"]["content"].values()
            assert answer["examples"]
    assert asked >= 6


def test_examples_are_valid_documents(description: dict[str, Any]):
    responses = description["paths"]["/v1/triage"]["post"]["responses"]
    accepted = responses["202"]["content"]["application/json"]["examples"]["pending"]["value"]
    assert Answer.model_validate(CaseStatus.model_validate(accepted).answer)
    answers = responses["200"]["content"]["application/json"]["examples"]
    shown = {name: Answer.model_validate(answer["value"]) for name, answer in answers.items()}
    assert {answer.disposition for answer in shown.values()} == set(Disposition)
    assert all(shown[disposition].disposition is disposition for disposition in Disposition)
    assert shown["red_flag"].red_flags
    for status, response in responses.items():
        if not status.startswith("2"):
            for code, example in response["content"][PROBLEM_JSON]["examples"].items():
                problem = Problem.model_validate(example["value"])
                assert (problem.code, str(problem.status)) == (code, status)


def test_request_body_admits_photographs_and_one_history(description: dict[str, Any]):
    content = description["paths"]["/v1/triage"]["post"]["requestBody"]["content"]
    assert set(content) == {
        "image/jpeg",
        "image/png",
        "image/webp",
        "application/dicom",
        "application/octet-stream",
        "multipart/form-data",
        "application/json",
    }
    schema = content["multipart/form-data"]["schema"]
    assert schema["properties"]["image"]["maxItems"] == 16
    assert set(schema["properties"]) == {"image", "history"}
    assert schema["required"] == ["image"]
    assert schema["additionalProperties"] is False


def test_no_word_of_a_finding_or_an_all_right_is_ever_uttered(
    description: dict[str, Any], ask: Callable[..., httpx.Response], make_app: Callable[..., Any], draw: Any
):
    app = make_app()
    uttered = [json.dumps(description)]
    uttered += [ask(app, "GET", path).text for path in ("/v1/bundle", "/v1/certificate", "/health/ready")]
    for picture in (draw(), draw(1, 1, "PNG"), b"text"):
        response = ask(app, "POST", "/v1/triage", content=picture, headers={"Content-Type": "image/png"})
        uttered.append(response.text)
    uttered += [Problem.from_error(_refusal(code), "id").to_json() for code in PROBLEM_TYPES]
    for text in uttered:
        assert not FORBIDDEN.search(text.replace(english_catalogue().notice, ""))


def test_no_such_word_stands_in_the_source():
    packages = (triage_server.__file__, triage_client.__file__)
    files = sorted(one for package in packages for one in Path(package).parent.rglob("*.py"))
    assert len(files) > 80
    for path in files:
        assert not FORBIDDEN.search(path.read_text(encoding="utf-8")), path.name


def test_problem_code_decides_the_status_and_the_title():
    for code, kind in PROBLEM_TYPES.items():
        problem = Problem.from_error(_refusal(code), "id")
        assert (problem.status, problem.title) == (kind.status, kind.title)
        assert problem.type == f"urn:lesion-triage:problem:{code}"


def _refusal(code: str) -> RequestError:
    words = {"limit": 1, "seconds": 1, "allowed": "GET", "fields": "age_years", "found": "x", "expected": "y"}
    return RequestError(code, headers=None, differing="the history", most=1, **words)
