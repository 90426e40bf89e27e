"""The endpoints: one function each, and the translation of what goes wrong into problems.

Imports FastAPI, the bundle's scorer and the rooms beside it. Whoever wants a new gate (who may ask, what
is recorded) puts it around ``triage``; the scorer behind it stays the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException

from lesion_triage.bundle.schema import Disposition
from lesion_triage.bundle.scorer import MAX_IMAGES_PER_CASE, Scorer
from lesion_triage.bundle.store import Bundle
from lesion_triage.errors import ImageError, ScoringError
from triage_server import openapi
from triage_server.envelope import Envelope
from triage_server.intake import SentCase, check_announcement, read_case
from triage_server.negotiation import language_for
from triage_server.pool import ScoringPool, usable_processors
from triage_server.settings import Settings
from triage_server.wire import (
    MULTIPART_TYPE,
    PICTURE_TYPES,
    BundleFacts,
    Health,
    IssuedCertificate,
    RequestError,
    RequestLimits,
    document_response,
    problem_response,
)

router = APIRouter()

_CODES: dict[int, str] = {
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
}
"""What the framework refuses by itself."""


@dataclass(frozen=True)
class Service:
    """What the endpoints stand on."""

    bundle: Bundle
    scorer: Scorer
    settings: Settings
    pool: ScoringPool


def create_app(bundle: Bundle, scorer: Scorer, settings: Settings) -> FastAPI:
    """The application that answers with ``scorer``, which must be the scorer of ``bundle``."""
    threads = settings.threads or usable_processors()
    pool = ScoringPool(threads, settings.queue, settings.max_pending_bytes)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        pool.close()

    app = FastAPI(
        title="lesion-triage",
        summary=openapi.SUMMARY,
        description=openapi.DESCRIPTION,
        version="1",
        openapi_url="/openapi.json",
        docs_url=None,  # both pages load scripts from another host
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.service = Service(bundle, scorer, settings, pool)
    app.include_router(router)
    app.add_exception_handler(RequestError, _refused)
    app.add_exception_handler(HTTPException, _not_routed)
    app.add_middleware(Envelope)
    openapi.install(app)
    return app


@router.post("/v1/triage", **openapi.TRIAGE)
async def triage(request: Request) -> Response:
    """Score the photographs of one lesion and say who should look at it, and how soon."""
    service = _service(request)
    limit = service.settings.max_body_bytes
    check_announcement(request, limit)
    with service.pool.place() as place:
        try:
            async with asyncio.timeout(service.settings.body_timeout_s):
                case = await read_case(request, max_body_bytes=limit, take=place.take)
        except TimeoutError:
            raise RequestError("body_not_received", seconds=service.settings.body_timeout_s) from None
        language = _language(request)
        body, disposition = await service.pool.run(lambda: _score(service.scorer, case, language))
    request.state.disposition = disposition
    return Response(body, media_type="application/json", headers=_in(language))


@router.get("/v1/bundle", **openapi.BUNDLE)
async def bundle_facts(request: Request) -> Response:
    """Which model answers here, and what it expects."""
    service, language = _service(request), _language(request)
    header = service.bundle.header
    facts = BundleFacts(
        bundle_name=header.name,
        bundle_sha256=service.bundle.sha256,
        created_at=header.created_at,
        made_with=header.made_with,
        synthetic=header.synthetic,
        model=header.model,
        pixels=header.pixels,
        request_limits=RequestLimits(
            max_images=MAX_IMAGES_PER_CASE,
            max_body_bytes=service.settings.max_body_bytes,
            media_types=(*PICTURE_TYPES, MULTIPART_TYPE),
        ),
        languages=service.scorer.languages.names,
        red_flags=service.bundle.policy.red_flags,
        notice=service.scorer.languages.catalogue(language).notice,
    )
    return document_response(facts, _in(language))


@router.get("/v1/certificate", **openapi.CERTIFICATE)
async def certificate(request: Request) -> Response:
    """The certificate of the threshold that is served."""
    bundle = _service(request).bundle
    issued = IssuedCertificate(
        certificate_id=bundle.certificate.certificate_id(),
        bundle_sha256=bundle.sha256,
        synthetic=bundle.header.synthetic,
        certificate=bundle.certificate,
    )
    return document_response(issued)


@router.get("/health/live", **openapi.LIVE)
async def live(request: Request) -> Response:
    """The process answers."""
    return document_response(Health(status="live"))


@router.get("/health/ready", **openapi.READY)
async def ready(request: Request) -> Response:
    """The bundle is verified and there is room for a case."""
    service = _service(request)
    service.pool.refuse_if_full()
    return document_response(Health(status="ready"))


def _score(scorer: Scorer, case: SentCase, language: str) -> tuple[bytes, Disposition]:
    """Runs on a thread of the pool, writing the answer included."""
    try:
        answer = scorer.score(case.images, case.history, language)
    except ImageError as error:
        raise RequestError(error.code, index=error.index) from None
    except ScoringError:
        raise RequestError("not_scored") from None
    return answer.model_dump_json().encode(), answer.disposition


def _language(request: Request) -> str:
    languages = _service(request).scorer.languages
    header = ",".join(request.headers.getlist("accept-language"))
    return language_for(header, languages.names, languages.default)


def _in(language: str) -> dict[str, str]:
    return {"Content-Language": language, "Vary": "Accept-Language"}


def _service(request: Request) -> Service:
    return cast("Service", request.app.state.service)


async def _refused(request: Request, error: Exception) -> Response:
    refusal = cast("RequestError", error)
    request.state.problem = refusal.code
    return problem_response(refusal, request.state.request_id)


async def _not_routed(request: Request, error: Exception) -> Response:
    raised = cast("HTTPException", error)
    headers = raised.headers or {}
    code = _CODES.get(raised.status_code, "request_not_valid")
    return await _refused(request, RequestError(code, headers=headers, allowed=headers.get("Allow", "")))
