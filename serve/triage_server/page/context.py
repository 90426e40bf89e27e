"""The page's central object: what it is made of, access control, and how responses are rendered.

Imports Jinja2 and the server's modules. Everything put into a page passes Jinja2's escaping.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar, cast
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lesion_triage.bundle.messages import Catalogue
from lesion_triage.errors import ConfigError
from triage_server.api_keys import Role
from triage_server.case_pipeline import receive_in_time
from triage_server.negotiation import language_for
from triage_server.page.case_locks import CaseLocks
from triage_server.page.database import open_database
from triage_server.page.database_threads import DatabaseThreads
from triage_server.page.forms import CSRF_FIELD, MAX_SHORT_FORM_BYTES, Form, read_form
from triage_server.page.open_cases import OpenCases
from triage_server.page.queue_metrics import QueueMetrics
from triage_server.page.records import Actor
from triage_server.page.retention import Retention
from triage_server.page.sessions import Session, Sessions
from triage_server.page.single_submit import FORM_ID_FIELD, SingleSubmit, new_form_id
from triage_server.page.store import ReadingQueue
from triage_server.page.texts import FALLBACK_LANGUAGE, LANGUAGES, Texts
from triage_server.problems import RequestError
from triage_server.security import ANONYMOUS, Caller, VerifiedCaller
from triage_server.service import Service, language_of, service_of
from triage_server.settings import refuse_exposure
from triage_server.timestamps import clock_warning

_PACKAGE = Path(__file__).resolve().parents[1]
_REQUIRED_ROLE: Role = "clinic"
"""Role that may see the photographs of all cases: of a person, not of a platform."""
SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

Result = TypeVar("Result")
log = logging.getLogger("triage_server")


@dataclass(frozen=True)
class RequestContext:
    """One request from a browser: who sent it, and in which language it is answered."""

    session: Session | None
    texts: Texts
    catalogue: Catalogue
    """Catalogue of the system's answers, in the reader's language."""

    @property
    def caller(self) -> Caller:
        """Who has signed in.

        Raises:
            RequestError: nobody has.
        """
        if self.session is None or self.session.caller is None:
            raise RequestError("not_authenticated")
        return self.session.caller

    @property
    def actor(self) -> Actor:
        """Key and reader's name, for what is recorded."""
        assert self.session is not None
        return Actor(self.caller.name, self.session.reader)


class Page:
    """The reading queue in the browser, for one application."""

    path = "/ui"

    def __init__(self, app: FastAPI) -> None:
        """Open the queue's database.

        Args:
            app: which already has its service.

        Raises:
            ConfigError: the database cannot be used, or its tables are of another version.
        """
        self._app = app
        settings = self._service.settings
        assert settings.reading_queue is not None
        self.queue = ReadingQueue(
            open_database(settings.reading_queue.get_secret_value()),
            settings.reading_queue_keep_days,
            follow_up_share=settings.reading_queue_follow_up_share,
        )
        self._database_threads = DatabaseThreads()
        self._single_submit = SingleSubmit()
        self.case_locks = CaseLocks()
        self.open_cases = OpenCases()
        self.retention = Retention(self.queue, self.run_in_thread, self._record_expiry, self.case_locks)
        self.queue_metrics = QueueMetrics(self.queue, self.run_in_thread, self._service.telemetry)
        self.sessions = Sessions(
            encrypted=bool(settings.tls_cert)
            or settings.behind_tls_proxy
            or settings.behind_authenticating_proxy
        )
        self._texts = {language: Texts(language) for language in LANGUAGES}
        self._templates = Environment(
            loader=FileSystemLoader(_PACKAGE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.static_files = {path.name: path.read_bytes() for path in (_PACKAGE / "static").iterdir()}

    @property
    def _service(self) -> Service:
        """The current service, for work outside requests; a request uses ``service_of``, so one bundle."""
        service: Service = self._app.state.service
        return service

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Delete expired cases, and count those that wait, for as long as the server runs."""
        work = (self.retention.run(), self.queue_metrics.run(), self._check_clock())
        tasks = [asyncio.create_task(one) for one in work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            self.close()

    def close(self) -> None:
        """Close the database and stop the threads."""
        self._database_threads.close()
        self.queue.close()

    async def run_in_thread(self, work: Callable[[], Result]) -> Result:
        """Run a database call on a thread.

        Raises:
            RequestError: the database cannot be used, or does not answer in time.
        """
        return await self._database_threads.run(work)

    async def _check_clock(self) -> None:
        """Warn if the newest case is of a time that has not come yet."""
        with suppress(RequestError):  # whoever counts the cases says so
            newest = await self.run_in_thread(self.queue.newest_arrival)
            if told := clock_warning("the newest case of the page", newest):
                log.warning(told)

    async def _record_expiry(self, event: str, number: str) -> None:
        line = {"case_hmac": self.case_hash(number), "why": "retention"}
        await self._service.recorder.write(event, secrets.token_hex(16), "retention", line)

    # Who is let in

    def context(self, request: Request) -> RequestContext:
        """Session and language of a request; checks no permission."""
        header = ",".join(request.headers.getlist("accept-language"))
        languages = service_of(request).scorer.languages
        fallback = languages.default if languages.default in LANGUAGES else FALLBACK_LANGUAGE
        return RequestContext(
            self.sessions.find(request),
            self._texts[language_for(header, LANGUAGES, fallback)],
            languages.catalogue(language_of(request)),
        )

    def allows_hosts(self, hosts: Sequence[str]) -> bool:
        """Whether a browser may reach the page under these host names, of which it sends one.

        Another site can make its own name point to this machine (DNS rebinding). If no key is required, it
        could then read everything. So the host name must pass the same rule as the listening address at the
        start.
        """
        try:
            for host in hosts:
                refuse_exposure(self._service.settings, host)
        except ConfigError:
            return False
        return True

    async def require_sign_in(self, request: Request) -> None:
        """Admit only those who have signed in with a key or token that is still valid.

        If a proxy vouched for a person at sign-in, it must do so again with each request.

        Raises:
            RequestError: somebody else, too many requests, or the keys cannot be read.
        """
        context, service = context_of(request), service_of(request)
        caller, token = context.caller, proxy_token(request)
        if not service.authenticator.is_still_valid(caller):
            raise RequestError("not_authenticated")
        assert context.session is not None
        if token or context.session.proxy_authenticated:
            named = await service.authenticator.verify(token, _REQUIRED_ROLE)
            if named is None or named.caller != caller:
                raise RequestError("not_authenticated")
        request.state.caller = caller
        if caller is not ANONYMOUS:
            service.rate_limiter.take(caller, asyncio.get_running_loop().time())

    def needs_credential(self, request: Request) -> bool:
        """Whether a person must type a key or token: not if none is required, or a proxy passes one on."""
        return service_of(request).authenticator.requires_credentials and not proxy_token(request)

    async def authenticate(self, request: Request, typed: str) -> VerifiedCaller | None:
        """Who signs in, by the token that a proxy passes on, else by what was typed; None: unknown.

        Raises:
            RequestError: the keys cannot be read.
        """
        authenticator = service_of(request).authenticator
        if not authenticator.requires_credentials:
            return VerifiedCaller(ANONYMOUS)
        return await authenticator.verify(proxy_token(request) or typed, _REQUIRED_ROLE)

    async def read_form(
        self,
        request: Request,
        max_body_bytes: int = MAX_SHORT_FORM_BYTES,
        reserve: Callable[[int], None] = lambda _: None,
    ) -> Form:
        """The form in a request, proven to come from a page of its session. Refusals may show it again.

        Raises:
            RequestError: ``not_allowed`` if it does not; or it cannot be read.
        """
        request.state.form_to_show_again = Form()
        form = await receive_in_time(request, read_form(request, max_body_bytes, reserve))
        session = context_of(request).session
        is_proven = session is not None and self.sessions.csrf_token_matches(session, form.get(CSRF_FIELD))
        # The token of a page that outlived its session proves nothing; the browser knows whose page it was.
        if is_proven or request.headers.get("sec-fetch-site") == "same-origin":
            request.state.form_to_show_again = form
        if not is_proven:
            raise RequestError("not_allowed")
        return form

    async def submit_once(
        self,
        request: Request,
        form: Form,
        work: Callable[[], Awaitable[str]],
        release: Callable[[], None] = lambda: None,
    ) -> str:
        """Do what a form asks for; if the same form was sent before, return the result of that."""
        # Not by session: a form that was kept open is sent again after its reader has signed in again.
        actor = context_of(request).actor
        sender = f"{actor.caller}\n{actor.reader}"
        return await self._single_submit.run(sender, request.url.path, form, work, release)

    # What is recorded

    def case_hash(self, number: str) -> str:
        """What a case is called in the audit log."""
        return self._service.recorder.hash_of(number.encode())

    # What a browser gets

    def render(self, request: Request, template: str, status: int = 200, **variables: object) -> Response:
        """A template as a response."""
        context = context_of(request)
        bundle = service_of(request).bundle
        session = context.session
        text = self._templates.get_template(template).render(
            t=context.texts,
            catalogue=context.catalogue,
            session=session,
            signed_in=session is not None and session.caller is not None,
            csrf_token=self.sessions.csrf_token(session) if session else "",
            csrf_field_name=CSRF_FIELD,
            form_id=new_form_id(),
            form_id_name=FORM_ID_FIELD,
            here=request.url.path,
            bundle_name=bundle.header.name,
            bundle_sha256=bundle.sha256,
            certificate_id=bundle.certificate.certificate_id(),
            synthetic=bundle.header.synthetic,
            now=self.queue.now(),
            **variables,
        )
        language = context.texts.language
        headers = {"Content-Language": language, "Vary": "Accept-Language, Cookie"}
        return Response(text, status, headers, media_type="text/html")

    def render_error(self, request: Request, refusal: RequestError, reason: str = "") -> Response:
        """A refusal as a page that says what to do.

        Args:
            request: which is refused.
            refusal: why.
            reason: of a reading that was not recorded, to be copied by who wrote it; empty: none.
        """
        request.state.problem = refusal.code
        text = context_of(request).texts.problem(refusal.code, number=(refusal.index or 0) + 1, fields="")
        response = self._render_problem(request, refusal.problem_type.status, text, reason)
        response.headers.update(refusal.headers)
        return response

    def render_again(self, request: Request) -> Response:
        """A page that leads to the same address, so that the browser sends the session's cookie.

        Otherwise a link from elsewhere would end at the sign-in, and its session would replace the reader's.
        """
        target = quote(request.scope["path"])
        response = self.render(request, "again.html", target=target)
        response.headers["Refresh"] = f"0;url={target}"
        return response

    def render_misdirected(self, request: Request) -> Response:
        """The response to a browser that used an unexpected host name."""
        log.warning(
            "the page was requested under an unexpected host name; behind a proxy, set "
            "TRIAGE_BEHIND_TLS_PROXY and keys",
            extra={"fields": {"request_id": request.state.request_id}},
        )
        text = context_of(request).texts("problem.strange_host")
        return self._render_problem(request, HTTPStatus.MISDIRECTED_REQUEST, text)

    def _render_problem(self, request: Request, status: int, text: str, reason: str = "") -> Response:
        request_id = request.state.request_id
        return self.render(request, "problem.html", status, text=text, reason=reason, request_id=request_id)


def proxy_token(request: Request) -> str:
    """The bearer token that an authenticating proxy passes on; empty if there is none.

    If this server reads no tokens, a token from a proxy is meant for somebody else and is ignored.
    """
    said = (
        request.headers.getlist("authorization") if service_of(request).authenticator.accepts_tokens else []
    )
    scheme, _, token = said[0].partition(" ") if len(said) == 1 else ("", "", "")
    return token if scheme.lower() == "bearer" else ""


def form_to_show_again(request: Request) -> Form:
    """What a refused form said, for who filled it in; empty if it was not read, or may be of another site."""
    form: Form = getattr(request.state, "form_to_show_again", Form())
    return form


def page_of(request: Request) -> Page:
    """The page of this application."""
    return cast("Page", request.app.state.page)


def context_of(request: Request) -> RequestContext:
    """The context of a request."""
    return cast("RequestContext", request.state.context)
