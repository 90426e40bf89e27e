"""Describes operations for OpenAPI: headers, bodies, problems. Imports the wire and the error responses.

Each protocol describes its own operations with these functions, next to the code that the description is of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi

from lesion_triage.bundle.history import History
from lesion_triage.bundle.scorer import MAX_IMAGES_PER_CASE
from triage_server.error_responses import FHIR_TYPE, error_document
from triage_server.problems import Problem, RequestError
from triage_server.wire import BundleFacts, Health, IssuedCertificate

SUMMARY = "Orders the reading queue of a skin-lesion clinic from photographs."
DESCRIPTION = (
    f"A case is one lesion of one patient on one occasion: 1 to {MAX_IMAGES_PER_CASE} photographs and, if "
    "there is one, a short history. "
    "The answer says whether the score reaches the certified threshold for an in-person visit, and in which "
    "order the case should be read. Every case is read by a clinician, whatever the answer. Photographs "
    "are held in memory while they are scored and are never stored; file names are not read."
)

_REQUEST_ID = {
    "name": "X-Request-Id",
    "in": "header",
    "required": False,
    "description": "1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-': returned with the response and written "
    "to the log; generated if absent or malformed.",
    "schema": {"type": "string"},
}
_LANGUAGE = {
    "name": "Accept-Language",
    "in": "header",
    "required": False,
    "description": "Language of the texts: one of those that GET /v1/bundle lists.",
    "schema": {"type": "string"},
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same request with the same key gets the same answer for a day; a different one "
    "is refused.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{16,64}$"},
}

ACCESS_CODES = (
    "not_authenticated",
    "not_allowed",
    "from_elsewhere",
    "rate_limited",
    "authentication_unavailable",
)
"""Problems that every path but those of health may answer with."""
_BODY_CODES = (
    *ACCESS_CODES,
    *("audit_unavailable", "request_not_valid", "idempotency_key_not_valid", "repeated_differently"),
    *("body_not_received", "body_too_large", "busy", "stopping", "internal_error"),
    *("media_type_not_supported", "content_encoding_not_supported"),
)
_CASE_ONLY_CODES = (
    *("history_not_valid", "no_image", "too_many_images", "not_answered_in_time", "not_scored"),
    *("image_empty", "image_too_large", "image_format_not_supported", "image_animated"),
    *("image_not_decodable", "dicom_not_valid", "dicom_not_supported", "dicom_not_available"),
)
JSON_CODES = ("json_not_valid", "document_not_valid", "base64_not_valid")
BATCH_CODES = (*_BODY_CODES, "json_not_valid", "document_not_valid", "too_many_cases", "not_answered_in_time")
CASE_CODES = (*_BODY_CODES, *_CASE_ONLY_CODES)
"""Problems that may keep a case from its answer, whatever the protocol."""


class _UntypedResponse(Response):
    """Has no media type of its own, which the framework would add to the one described."""

    media_type = None


_NO_RESPONSE_MODEL = {"response_model": None, "response_class": _UntypedResponse}


def describe_case_operation(
    path: str,
    content: Mapping[str, Any],
    answer: Mapping[str, Any],
    codes: tuple[str, ...],
    body: str,
    parameters: tuple[Mapping[str, Any], ...] = (),
    accepted_response: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Describe an operation that takes a case.

    Args:
        path: of the operation.
        content: of the request, by media type.
        answer: the response of status 200.
        codes: of the problems it may answer with.
        body: what the request holds, in a sentence.
        parameters: beside those that all such operations have.
        accepted_response: of status 202; None: every case is answered at once.
    """
    accepted = {} if accepted_response is None else {202: accepted_response}
    return {
        **_NO_RESPONSE_MODEL,
        "responses": {200: answer, **accepted, **_problems(path, codes)},
        "openapi_extra": {
            "parameters": [_REQUEST_ID, _LANGUAGE, _IDEMPOTENCY_KEY, *parameters],
            "requestBody": {"required": True, "description": body, "content": content},
        },
    }


def describe_read_operation(
    path: str,
    answer: Mapping[str, Any],
    *codes: str,
    has_language: bool = False,
    parameters: tuple[Mapping[str, Any], ...] = (),
) -> dict[str, Any]:
    """Describe an operation that only reads; arguments as above."""
    languages = (_LANGUAGE,) if has_language else ()
    return {
        **_NO_RESPONSE_MODEL,
        "responses": {200: answer, **_problems(path, (*codes, "internal_error"))},
        "openapi_extra": {"parameters": [_REQUEST_ID, *languages, *parameters]},
    }


def json_response(schema: Mapping[str, Any], media_type: str = "application/json") -> dict[str, Any]:
    """A response of status 200 with this schema."""
    return {"description": "Successful Response", "content": {media_type: {"schema": schema}}}


def _problems(path: str, codes: tuple[str, ...]) -> dict[int | str, dict[str, Any]]:
    """The error responses of an operation: by status, with an example for each code."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        photograph = code.startswith(("image_", "dicom_", "base64_", "photograph_"))
        error = RequestError(code, index=1 if photograph else None, headers=None, **_PLACEHOLDER_EXAMPLES)
        problem = Problem.from_error(error, "case-0001")
        document, media_type = error_document(problem, path)
        schema = "OperationOutcome" if media_type == FHIR_TYPE else "Problem"
        content = {media_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}, "examples": {}}}
        new_response = {"description": error.problem_type.status.phrase, "content": content}
        response = responses.setdefault(problem.status, new_response)
        response["content"][media_type]["examples"][code] = {"value": document}
    return responses


_PLACEHOLDER_EXAMPLES: dict[str, object] = {
    "limit": 67_108_864,
    "seconds": 60,
    "fields": "age_years",
    "differing": "the photographs",
    "found": "an object of class Secondary Capture Image Storage",
    "expected": "VL Photographic Image Storage or Dermoscopic Photography Image Storage",
}
_OPERATION_OUTCOME_SCHEMA = {
    "title": "OperationOutcome",
    "description": "A FHIR R4 OperationOutcome: an error with a code of this interface and a sentence "
    "for people.",
    "type": "object",
    "required": ["resourceType", "issue"],
    "properties": {
        "resourceType": {"const": "OperationOutcome"},
        "issue": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["severity", "code", "details"],
                "properties": {
                    "severity": {"const": "error"},
                    "code": {"type": "string"},
                    "details": {"type": "object"},
                },
            },
        },
    },
}

BUNDLE = describe_read_operation("/v1/bundle", {"model": BundleFacts}, *ACCESS_CODES, has_language=True)
CERTIFICATE = describe_read_operation("/v1/certificate", {"model": IssuedCertificate}, *ACCESS_CODES)
LIVE = describe_read_operation("/health/live", {"model": Health})
READY_CODES = ("busy", "audit_unavailable", "authentication_unavailable")
READY = describe_read_operation("/health/ready", {"model": Health}, *READY_CODES)


def install(
    app: FastAPI,
    schemas: Mapping[str, Any],
    examples: Mapping[str, Mapping[str, Any]],
    other_examples: Sequence[tuple[str, str, str, Any]],
) -> None:
    """Make ``app`` publish its description.

    Args:
        app: with all its routes.
        schemas: of request bodies, by name.
        examples: of answers, by path and name.
        other_examples: path, method, status and example of every other response that has one.
    """

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=app.description,
                routes=app.routes,
            )
            for path, example in examples.items():
                # FastAPI strips every null from examples, and so the score of an ungradable case.
                (content,) = schema["paths"][path]["post"]["responses"]["200"]["content"].values()
                content["examples"] = {name: {"value": value} for name, value in example.items()}
            for path, method, status, example in other_examples:
                content = schema["paths"][path][method]["responses"][status]["content"]["application/json"]
                content["examples"] = {"pending": {"value": example}}
            components = schema["components"]
            components["schemas"] |= {**schemas, "OperationOutcome": _OPERATION_OUTCOME_SCHEMA}
            components["schemas"]["History"] = History.model_json_schema(mode="validation")
            components["schemas"]["Problem"] = _problem_schema()
            components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"bearer": []}, {}]  # none, if the operator requires no credentials
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]


def _problem_schema() -> dict[str, Any]:
    """The schema of a problem with the further member of /v2, which RFC 9457 allows."""
    schema = Problem.model_json_schema(mode="serialization")
    schema["properties"]["error"] = {
        "type": "string",
        "description": "The same as detail; only under /v2, where the Open Inference Protocol requires it.",
    }
    return schema
