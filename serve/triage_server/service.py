"""What endpoints use: the service of a request, and the language of its answer.

Imports the bundle's store and scorer and the parts of a service; never the case pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from starlette.requests import Request
from starlette.types import Scope

from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import Bundle
from triage_server.negotiation import language_for
from triage_server.pool import ScoringPool
from triage_server.record import IdempotencyCache, Recorder
from triage_server.security import Authenticator, RateLimiter
from triage_server.settings import Settings
from triage_server.shadow import ShadowScorer
from triage_server.telemetry import Telemetry

if TYPE_CHECKING:
    from triage_server.webhooks.acceptance import WebhookService


@dataclass(frozen=True)
class Service:
    """Everything the endpoints use."""

    bundle: Bundle
    scorer: Scorer
    settings: Settings
    pool: ScoringPool
    authenticator: Authenticator
    rate_limiter: RateLimiter
    recorder: Recorder
    idempotency_cache: IdempotencyCache
    telemetry: Telemetry
    shadows: ShadowScorer
    webhooks: WebhookService | None = None
    """None: no callback is configured."""


def service_of(request: Request) -> Service:
    """The service of this request, fixed at first use, so a bundle swap never affects a request in flight."""
    state = request.scope["state"]  # called some ten times a case: ``request.state`` costs twice as much
    if "service" not in state:
        state["service"] = request.app.state.service
    return cast("Service", state["service"])


def forget_service(scope: Scope) -> None:
    """Let go of the service of a finished request: its connection may stay open, and keep the bundle."""
    scope["state"].pop("service", None)


def language_of(request: Request) -> str:
    """The language in which this request is answered."""
    languages = service_of(request).scorer.languages
    header = ",".join(request.headers.getlist("accept-language"))
    return language_for(header, languages.names, languages.default)


def language_headers(language: str) -> dict[str, str]:
    """Headers that state the language."""
    return {"Content-Language": language, "Vary": "Accept-Language"}
