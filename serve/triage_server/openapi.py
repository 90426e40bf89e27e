"""The published description of the interface, with examples. Imports the bundle's schema and the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from lesion_triage.bundle.answers import Issuer, answer_for, reason
from lesion_triage.bundle.calibration import PlattCalibrator, score_of
from lesion_triage.bundle.history import NO_HISTORY, History
from lesion_triage.bundle.messages import english
from lesion_triage.bundle.policy import decide
from lesion_triage.bundle.red_flags import RedFlag, RedFlags
from lesion_triage.bundle.schema import Answer, ImageAnswer, Policy, ReasonCode
from lesion_triage.bundle.scorer import MAX_IMAGES_PER_CASE
from triage_server.wire import (
    KINDS,
    MULTIPART_TYPE,
    PICTURE_TYPES,
    PROBLEM_TYPE,
    BundleFacts,
    Health,
    IssuedCertificate,
    Problem,
    RequestError,
)

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
    "description": "Carried through to the answer and the log; made if absent or of another form.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
}
_LANGUAGE = {
    "name": "Accept-Language",
    "in": "header",
    "required": False,
    "description": "Chooses the language of the texts among the languages of GET /v1/bundle.",
    "schema": {"type": "string"},
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same case under the same key gets the same answer for a day; another is refused.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{16,64}$"},
}
_PROBLEM_REF = {"$ref": "#/components/schemas/Problem"}
_PHOTOGRAPH = {"type": "string", "format": "binary"}
_HASH = "5f3b" * 16
_CALIBRATOR = PlattCalibrator(slope=0.9, intercept=-0.6)


_FLAG = RedFlag.model_validate(
    {
        "code": "bleeding",
        "when": {"field": "bleeding", "is": True},
        "action": {"refer": True},
        "source": "An example.",
    }
)
_ISSUER = Issuer(
    policy=Policy(
        calibrator=_CALIBRATOR,
        threshold=0.12,
        band_limits=(0.5, 0.12, 0.04),
        deadline_hours=48.0,
        red_flags=RedFlags(flags=(_FLAG,)),
    ),
    bundle_name="example",
    bundle_sha256=_HASH,
    certificate_id=_HASH[:16],
    synthetic=False,
)


def _answer(logits: Sequence[float | None], history: History) -> dict[str, Any]:
    """What a case would be told; rounded, as an example is read by people."""
    images = [
        ImageAnswer(
            index=index,
            gradable=logit is not None,
            logit=logit,
            score=None if logit is None else round(score_of(_CALIBRATOR, logit), 4),
            reasons=() if logit is not None else (reason(ReasonCode.image_too_dark, english()),),
            advice=() if logit is None else (reason(ReasonCode.image_hair, english()),),
        )
        for index, logit in enumerate(logits)
    ]
    decision = decide(_ISSUER.policy, logits, history)
    if decision.score is not None:
        decision = replace(decision, score=round(decision.score, 4))
    return {"value": answer_for(_ISSUER, decision, images, history, english()).model_dump(mode="json")}


_ANSWERS = {
    "needs_in_person": _answer([1.4, None], NO_HISTORY),
    "red_flag": _answer([-3.2], History(age_years=61, bleeding=True, painful=False)),
    "below_threshold": _answer([-3.2], NO_HISTORY),
    "ungradable": _answer([None], NO_HISTORY),
}


def _problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The error half of an operation's responses: by status, one example for each code."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        error = RequestError(
            code,
            index=1 if code.startswith("image_") else None,
            limit=67_108_864,
            seconds=60,
            fields="age_years",
        )
        problem = Problem.of(error, "case-0001")
        content = {PROBLEM_TYPE: {"schema": _PROBLEM_REF, "examples": {}}}
        response = responses.setdefault(
            problem.status, {"description": error.kind.status.phrase, "content": content}
        )
        example = {"value": problem.model_dump(mode="json", exclude_none=True)}
        response["content"][PROBLEM_TYPE]["examples"][code] = example
    return responses


_ELSEWHERE = {"not_found", "method_not_allowed", "head_too_large", "head_not_received"}
"""Answered before any operation is reached."""

TRIAGE: dict[str, Any] = {
    "response_model": None,
    "responses": {
        200: {"model": Answer},
        **_problems(*(code for code in KINDS if code not in _ELSEWHERE)),
    },
    "openapi_extra": {
        "parameters": [_REQUEST_ID, _LANGUAGE, _IDEMPOTENCY_KEY],
        "requestBody": {
            "required": True,
            "description": f"One photograph, or up to {MAX_IMAGES_PER_CASE} of one lesion as parts 'image', "
            "with at most one part 'history'.",
            "content": {
                **{media_type: {"schema": _PHOTOGRAPH} for media_type in PICTURE_TYPES},
                MULTIPART_TYPE: {
                    "schema": {
                        "type": "object",
                        "required": ["image"],
                        "additionalProperties": False,
                        "properties": {
                            "image": {
                                "type": "array",
                                "items": _PHOTOGRAPH,
                                "minItems": 1,
                                "maxItems": MAX_IMAGES_PER_CASE,
                            },
                            "history": {"$ref": "#/components/schemas/History"},
                        },
                    }
                },
            },
        },
    },
}


def _reading(model: type[Any], *codes: str) -> dict[str, Any]:
    return {
        "response_model": None,
        "responses": {200: {"model": model}, **_problems(*codes, "internal_error")},
        "openapi_extra": {"parameters": [_REQUEST_ID]},
    }


_GATE = ("not_authenticated", "not_allowed", "rate_limited", "authentication_unavailable")
BUNDLE = _reading(BundleFacts, *_GATE)
BUNDLE["openapi_extra"]["parameters"].append(_LANGUAGE)
CERTIFICATE = _reading(IssuedCertificate, *_GATE)
LIVE = _reading(Health)
READY = _reading(Health, "busy", "audit_unavailable", "authentication_unavailable")


def install(app: FastAPI) -> None:
    """Make ``app`` publish its description together with the problem document."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=app.description,
                routes=app.routes,
            )
            # FastAPI strips every null out of examples, and with them the score of an ungradable case.
            answers = schema["paths"]["/v1/triage"]["post"]["responses"]["200"]["content"]["application/json"]
            answers["examples"] = _ANSWERS
            schema["components"]["schemas"]["History"] = History.model_json_schema(mode="validation")
            schema["components"]["schemas"]["Problem"] = Problem.model_json_schema(mode="serialization")
            schema["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"bearer": []}, {}]  # none where the operator lets anyone ask
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]
