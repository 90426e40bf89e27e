"""The application: the endpoints of all protocols, the server's facts about itself, and error handling.

Imports FastAPI, the bundle's scorer and the modules beside it. Each protocol has an adapter.
Every request passes the middleware (ids, log lines, counters) and access control (authentication, rate
limit); behind every adapter is ``case_pipeline``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, nullcontext
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException

from lesion_triage.bundle.scorer import MAX_IMAGES_PER_CASE, Scorer
from lesion_triage.bundle.store import Bundle
from lesion_triage.errors import ConfigError
from triage_server import batch, cases, cds_hooks, dicom, fhir, open_inference, openapi, v1
from triage_server.audit_log import AuditLog
from triage_server.case_pipeline import check_ready
from triage_server.error_responses import response_to
from triage_server.fast_routes import add_fast_routes
from triage_server.middleware import RequestLogMiddleware
from triage_server.pool import ScoringPool, usable_processors
from triage_server.problems import RequestError
from triage_server.record import IdempotencyCache, Recorder
from triage_server.security import AuthenticationMiddleware, Authenticator, RateLimiter
from triage_server.service import Service, language_headers, language_of, service_of
from triage_server.settings import Settings
from triage_server.shadow import ShadowScorer
from triage_server.telemetry import CONTENT_TYPE, Telemetry
from triage_server.wire import (
    MAX_CASES_PER_BATCH,
    BundleFacts,
    Health,
    IssuedCertificate,
    RequestLimits,
    document_response,
)

if TYPE_CHECKING:
    from triage_server.page.context import Page
    from triage_server.webhooks.acceptance import WebhookService

router = APIRouter()

_PROTOCOLS = (v1, batch, open_inference, fhir, cds_hooks)
_CODES: dict[int, str] = {
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
}
"""Problem codes for what the framework refuses by itself."""


def create_app(
    bundle: Bundle,
    scorer: Scorer,
    settings: Settings,
    audit: AuditLog | None = None,
    shadows: Sequence[Scorer] = (),
) -> FastAPI:
    """The application that answers with ``scorer``, which must be the scorer of ``bundle``.

    Args:
        bundle: verified; its signature too, unless unsigned bundles are allowed.
        scorer: of that bundle.
        settings: of the operator.
        audit: where answers are recorded; whoever opened it closes it. None: nowhere.
        shadows: scorers of bundles that score the same cases after the answer, for the record only.

    Raises:
        ConfigError: API keys or key set cannot be read, or the reading queue or the callbacks cannot be
            used.
    """
    telemetry = Telemetry(bundle.sha256, bundle.certificate.certificate_id())
    with ExitStack() as undo:
        webhooks = None
        if settings.webhooks is not None:
            webhooks = _webhook_service(settings, audit, telemetry)
            undo.callback(webhooks.close)  # if the page cannot be opened, the outbox must not stay locked
        service = _service(bundle, scorer, settings, audit, shadows, telemetry, webhooks)
        pool, followers = service.pool, service.shadows

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            async with (
                webhooks.running() if webhooks is not None else nullcontext(),
                page.open() if page is not None else nullcontext(),
            ):
                yield
            await followers.close()
            pool.close()

        app = FastAPI(
            title="lesion-triage",
            summary=openapi.SUMMARY,
            description=openapi.DESCRIPTION,
            version="1",
            openapi_url="/openapi.json",
            docs_url=None,  # both pages would load scripts from another host
            redoc_url=None,
            redirect_slashes=False,
            lifespan=lifespan,
            telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        )
        app.state.service = service
        page = _page(app) if settings.reading_queue is not None else None
        undo.pop_all()
    _watch(telemetry, pool, audit, webhooks)
    _routes(app, page)
    return app


def _service(
    bundle: Bundle,
    scorer: Scorer,
    settings: Settings,
    audit: AuditLog | None,
    shadows: Sequence[Scorer],
    telemetry: Telemetry,
    webhooks: WebhookService | None,
) -> Service:
    """What every request uses; arguments as for ``create_app``."""
    threads = settings.threads or usable_processors()
    pool = ScoringPool(threads, settings.queue, settings.max_pending_bytes)
    recorder = Recorder(audit, bundle.sha256, bundle.certificate.certificate_id())
    return Service(
        bundle,
        scorer,
        settings,
        pool,
        Authenticator(settings, recorder.hash_of),
        RateLimiter(settings.rate_per_minute),
        recorder,
        IdempotencyCache(),
        telemetry,
        ShadowScorer(shadows, pool, settings.shadow_queue, telemetry),
        webhooks,
    )


def _routes(app: FastAPI, page: Page | None) -> None:
    """Add all paths, the middleware before them, and their description."""
    routers = [*(protocol.router for protocol in _PROTOCOLS), cases.router, router]
    for one in routers:
        app.include_router(one)
    add_fast_routes(app, *routers)
    app.add_exception_handler(HTTPException, _not_routed)
    if page is not None:
        from triage_server.page.routes import install  # noqa: PLC0415 - as the page itself

        install(app, page, _not_routed)
    service: Service = app.state.service
    app.add_exception_handler(RequestError, _refused)
    exempt_path = page.path if page is not None else None
    app.add_middleware(
        AuthenticationMiddleware,
        authenticator=service.authenticator,
        rate_limiter=service.rate_limiter,
        exempt_path=exempt_path,
    )
    app.add_middleware(RequestLogMiddleware, telemetry=service.telemetry)
    schemas = {name: schema for protocol in _PROTOCOLS for name, schema in protocol.SCHEMAS.items()}
    examples = {path: shown for protocol in _PROTOCOLS for path, shown in protocol.EXAMPLES.items()}
    openapi.install(app, schemas, examples, cases.EXAMPLES)


def _watch(
    telemetry: Telemetry, pool: ScoringPool, audit: AuditLog | None, webhooks: WebhookService | None
) -> None:
    """Export gauges of load and of the audit log."""
    telemetry.add_gauge(
        "triage_cases_here", "Cases being received, waiting or being scored.", lambda: pool.cases
    )
    telemetry.add_gauge(
        "triage_cases_capacity", "Most cases that the server holds at once.", lambda: pool.capacity
    )
    telemetry.add_gauge("triage_pending_bytes", "Photographs held in memory.", lambda: pool.pending_bytes)
    telemetry.add_gauge(
        "triage_audit_failed",
        "1 while the audit log cannot be written.",
        lambda: audit is not None and audit.failed,
    )
    for state in ("pending", "undelivered"):
        telemetry.add_gauge(
            f"triage_webhooks_{state}",
            f"Answers in the outbox that are {state}.",
            lambda state=state: webhooks.count_in_state(state) if webhooks is not None else 0,  # type: ignore[misc]
        )


def _page(app: FastAPI) -> Page:
    """The page; its packages are imported only if it is switched on."""
    try:
        from triage_server.page.context import Page  # noqa: PLC0415 - see above
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"The page needs the package '{error.name}': install the extras [serve,queue] (in a checkout: "
            "pip install '.[serve,queue]'), or unset TRIAGE_READING_QUEUE."
        ) from None
    return Page(app)


def _webhook_service(settings: Settings, audit: AuditLog | None, telemetry: Telemetry) -> WebhookService:
    """The webhook sender; imported only if it is switched on."""
    from triage_server.webhooks.acceptance import WebhookService  # noqa: PLC0415
    from triage_server.webhooks.callbacks import Callbacks  # noqa: PLC0415 - see above

    assert settings.webhooks is not None
    assert settings.webhook_outbox is not None
    if audit is None:
        raise ConfigError("Callbacks need an audit log: set TRIAGE_AUDIT_LOG.")
    return WebhookService(
        Callbacks.read(settings.webhooks),
        (settings.webhook_outbox, settings.webhook_outbox_cases),
        audit,
        telemetry,
        keep_hours=settings.webhook_keep_hours,
        first_pause_s=settings.webhook_first_pause_s,
    )


@router.get("/v1/bundle", **openapi.BUNDLE)
async def bundle_facts(request: Request) -> Response:
    """Which model answers here, and what it expects."""
    service, language = service_of(request), language_of(request)
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
            media_types=tuple(
                kind for kind in v1.ADAPTER.media_types if dicom.available() or kind != dicom.DICOM_TYPE
            ),
            max_cases_per_batch=MAX_CASES_PER_BATCH,
        ),
        languages=service.scorer.languages.names,
        red_flags=service.bundle.policy.red_flags,
        notice=service.scorer.languages.catalogue(language).notice,
    )
    return document_response(facts, language_headers(language))


@router.get("/v1/certificate", **openapi.CERTIFICATE)
async def certificate(request: Request) -> Response:
    """The certificate of the threshold in use."""
    bundle = service_of(request).bundle
    issued = IssuedCertificate(
        certificate_id=bundle.certificate.certificate_id(),
        bundle_sha256=bundle.sha256,
        synthetic=bundle.header.synthetic,
        certificate=bundle.certificate,
    )
    return document_response(issued)


@router.get("/health/live", **openapi.LIVE)
async def live(request: Request) -> Response:
    """The process is running."""
    return document_response(Health(status="live"))


@router.get("/health/ready", **openapi.READY)
async def ready(request: Request) -> Response:
    """The bundle is verified, there is room for a case, and its answer could be recorded."""
    await check_ready(request)
    return document_response(Health(status="ready"))


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Metrics for Prometheus."""
    return Response(service_of(request).telemetry.render(), media_type=CONTENT_TYPE)


async def _refused(request: Request, error: Exception) -> Response:
    refusal = cast("RequestError", error)
    request.state.problem = refusal.code
    return response_to(refusal, request.state.request_id, request.scope["path"])


async def _not_routed(request: Request, error: Exception) -> Response:
    raised = cast("HTTPException", error)
    headers = dict(raised.headers or {})
    if "Allow" in headers:  # Starlette joins a set, whose order differs between processes
        headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))
    code = _CODES.get(raised.status_code, "request_not_valid")
    return await _refused(request, RequestError(code, headers=headers, allowed=headers.get("Allow", "")))
