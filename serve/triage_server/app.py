"""The endpoints: one function each, and the translation of what goes wrong into problems.

Imports FastAPI, the bundle's scorer and the rooms beside it. Around ``triage`` stand the envelope (ids, log
lines, counters) and the gate (who may ask); what is answered is recorded before it is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import cast

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from lesion_triage.bundle.scorer import MAX_IMAGES_PER_CASE, Scorer
from lesion_triage.bundle.store import Bundle
from lesion_triage.errors import ImageError, ScoringError
from triage_server import openapi
from triage_server.audit_chain import End
from triage_server.audit_log import AuditLog
from triage_server.envelope import Envelope
from triage_server.intake import SentCase, check_announcement, idempotency_key, read_case
from triage_server.negotiation import language_for
from triage_server.pool import ScoringPool, usable_processors
from triage_server.record import UNRECORDED, Answered, Recorder, Repeats, answered
from triage_server.security import Door, Gate, Pace
from triage_server.settings import Settings
from triage_server.shadow import Shadows
from triage_server.straight import straighten
from triage_server.telemetry import CONTENT_TYPE, Telemetry
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
    door: Door
    recorder: Recorder
    repeats: Repeats
    telemetry: Telemetry
    shadows: Shadows


def create_app(
    bundle: Bundle,
    scorer: Scorer,
    settings: Settings,
    audit: AuditLog | None = None,
    shadows: Sequence[Scorer] = (),
) -> FastAPI:
    """The application that answers with ``scorer``, which must be the scorer of ``bundle``.

    Args:
        bundle: whose signature has been checked, or need not be.
        scorer: of that bundle.
        settings: of the operator.
        audit: where answers are recorded; closed by whoever opened it. None: nowhere.
        shadows: of bundles that score the same cases afterwards, for the record alone.

    Raises:
        ConfigError: keys or key set of the callers cannot be read.
    """
    threads = settings.threads or usable_processors()
    pool = ScoringPool(threads, settings.queue, settings.max_pending_bytes)
    certificate_id = bundle.certificate.certificate_id()
    recorder = Recorder(audit, bundle.sha256, certificate_id)
    door = Door(settings, recorder.hash_of)
    telemetry = Telemetry(bundle.sha256, certificate_id)
    telemetry.gauge(
        "triage_cases_here", "Cases on their way in, waiting or being scored.", lambda: pool.cases
    )
    telemetry.gauge("triage_cases_capacity", "Cases that may be here at once.", lambda: pool.capacity)
    telemetry.gauge("triage_pending_bytes", "Photographs held in memory.", lambda: pool.pending_bytes)
    telemetry.gauge(
        "triage_audit_failed",
        "1 while the audit log cannot be written.",
        lambda: audit is not None and audit.failed,
    )

    followers = Shadows(shadows, pool, settings.shadow_queue, telemetry)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await followers.close()
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
    app.state.service = Service(
        bundle, scorer, settings, pool, door, recorder, Repeats(), telemetry, followers
    )
    app.include_router(router)
    straighten(app, router)
    app.add_exception_handler(RequestError, _refused)
    app.add_exception_handler(HTTPException, _not_routed)
    app.add_middleware(Gate, door=door, pace=Pace(settings.rate_per_minute))
    app.add_middleware(Envelope, telemetry=telemetry)
    openapi.install(app)
    return app


@router.post("/v1/triage", **openapi.TRIAGE)
async def triage(request: Request) -> Response:
    """Score the photographs of one lesion and say who should look at it, and how soon."""
    service, state = _service(request), request.state
    line: dict[str, object] = {}
    try:
        state.caller.must_be_allowed_to_score()
        await service.recorder.require()
        repeat_key = idempotency_key(request)
        answer = await _answer(service, request, line, repeat_key)
    except RequestError as refusal:
        if refusal.code not in UNRECORDED:
            await _record(service, request, "refusal", {**line, "problem": refusal.code})
        raise
    except ClientDisconnect:
        raise
    except Exception:
        await _record(service, request, "refusal", {**line, "problem": "internal_error"})
        raise
    state.disposition = answer.disposition
    end = await _record(
        service, request, "repeat" if answer.repeated else "answer", {**line, **answer.fields}
    )
    if repeat_key is not None:
        service.repeats.keep(state.caller.name, repeat_key, line, answer)
    service.telemetry.answer(answer.disposition, answer.priority_band, answer.codes)
    service.shadows.follow(service.recorder, answer, state.request_id, state.caller.name, end)
    headers = _in(answer.language)
    if end is not None:
        headers["X-Audit-Hash"] = end.head
    return Response(answer.body, media_type="application/json", headers=headers)


async def _answer(
    service: Service, request: Request, line: dict[str, object], repeat_key: str | None
) -> Answered:
    """Read the case and score it; ``line`` gets the hashes of what was sent."""
    settings = service.settings
    check_announcement(request, settings.max_body_bytes)
    with service.pool.place() as place:
        try:
            async with asyncio.timeout(settings.body_timeout_s):
                case = await read_case(request, max_body_bytes=settings.max_body_bytes, take=place.take)
        except TimeoutError:
            raise RequestError("body_not_received", seconds=settings.body_timeout_s) from None
        caller, language = request.state.caller.name, _language(request)

        def work() -> Answered:
            line.update(service.recorder.inputs(case))
            if repeat_key is not None and (kept := service.repeats.find(caller, repeat_key, line)):
                return replace(kept, repeated=True)
            return _score(service.scorer, case, language)

        try:
            async with asyncio.timeout(settings.answer_timeout_s):
                return await service.pool.run(work)
        except TimeoutError:
            raise RequestError(
                "not_answered_in_time", headers={"Retry-After": "5"}, seconds=settings.answer_timeout_s
            ) from None


async def _record(service: Service, request: Request, event: str, fields: Mapping[str, object]) -> End | None:
    """Bring the line to the disk before anything is answered; gives its number and hash."""
    state = request.state
    end = await service.recorder.write(event, state.request_id, state.caller.name, fields)
    if end is not None:
        state.audit = f"{end.sequence}:{end.head[:16]}"
    return end


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
    """The bundle is verified, there is room for a case, and its answer could be recorded."""
    service = _service(request)
    service.pool.refuse_if_full()
    await service.recorder.require()
    if not service.door.usable:
        raise RequestError("authentication_unavailable", headers={"Retry-After": "2"})
    return document_response(Health(status="ready"))


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Counters for whoever watches the service."""
    return Response(_service(request).telemetry.page(), media_type=CONTENT_TYPE)


def _score(scorer: Scorer, case: SentCase, language: str) -> Answered:
    """Runs on a thread of the pool, writing the answer included."""
    try:
        answer = scorer.score(case.images, case.history, language)
    except ImageError as error:
        raise RequestError(error.code, index=error.index) from None
    except ScoringError:
        raise RequestError("not_scored") from None
    return replace(answered(answer), case=case)


def _language(request: Request) -> str:
    languages = _service(request).scorer.languages
    header = ",".join(request.headers.getlist("accept-language"))
    return language_for(header, languages.names, languages.default)


def _in(language: str) -> dict[str, str]:
    return {"Content-Language": language, "Vary": "Accept-Language"}


def _service(request: Request) -> Service:
    """What stood when the request asked first: it ends with the bundle that it began with."""
    state = request.state
    if not hasattr(state, "service"):
        state.service = request.app.state.service
    return cast("Service", state.service)


async def _refused(request: Request, error: Exception) -> Response:
    refusal = cast("RequestError", error)
    request.state.problem = refusal.code
    return problem_response(refusal, request.state.request_id)


async def _not_routed(request: Request, error: Exception) -> Response:
    raised = cast("HTTPException", error)
    headers = raised.headers or {}
    code = _CODES.get(raised.status_code, "request_not_valid")
    return await _refused(request, RequestError(code, headers=headers, allowed=headers.get("Allow", "")))
