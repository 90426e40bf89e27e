"""Sign-in and sign-out. Imports FastAPI, the page's context and its route, and the problems."""

from __future__ import annotations

import math
from http import HTTPStatus

from fastapi import Request, Response

from triage_server.page.context import Page, context_of, page_of, proxy_token
from triage_server.page.route import page_router, redirect
from triage_server.problems import RequestError
from triage_server.service import service_of
from triage_server.settings import Settings

_MAX_READER_CHARS = 60

router = page_router()


@router.get("/login")
async def login(request: Request) -> Response:
    """The sign-in form."""
    return _sign_in_form(request)


@router.post("/login")
async def sign_in(request: Request) -> Response:
    """Begin a session, if key or token is valid for this page."""
    page, texts = page_of(request), context_of(request).texts
    if context_of(request).session is None:  # the form was open for longer than its session
        raise RequestError("not_authenticated")
    form = await page.read_form(request)
    reader = _one_line(form.get("reader"))
    if not 1 <= len(reader) <= _MAX_READER_CHARS:
        return _sign_in_form(request, ("reader", texts("login.who")), reader)
    known = await page.authenticate(request, form.get("key").strip())
    if known is None:
        request.state.problem = "not_authenticated"
        return _sign_in_form(
            request, ("key" if page.needs_credential(request) else "reader", texts("login.wrong")), reader
        )
    response = redirect("/ui")
    proxy_authenticated = bool(proxy_token(request))
    until = math.inf if proxy_authenticated else known.expires_at  # a proxy renews the token itself
    page.sessions.begin(response, known.caller, reader, proxy_authenticated=proxy_authenticated, until=until)
    return response


@router.post("/logout")
async def sign_out(request: Request) -> Response:
    """End a session."""
    page, session = page_of(request), context_of(request).session
    await page.read_form(request)
    assert session is not None
    response = redirect("/ui/login")
    page.sessions.end(response, session)
    return response


def _sign_in_form(request: Request, error: tuple[str, str] | None = None, reader: str = "") -> Response:
    page, context = page_of(request), context_of(request)
    status = HTTPStatus.OK if error is None else HTTPStatus.UNAUTHORIZED
    if context.session is not None:
        return _render_form(page, request, status, error, reader)
    # The form needs a session for its token, so that no other site can sign people in (login CSRF).
    cookie_response = Response()
    session = page.sessions.begin(cookie_response)
    request.state.context = type(context)(session, context.texts, context.catalogue)
    response = _render_form(page, request, status, error, reader)
    response.headers["set-cookie"] = cookie_response.headers["set-cookie"]
    return response


def _render_form(
    page: Page, request: Request, status: int, error: tuple[str, str] | None, reader: str
) -> Response:
    return page.render(
        request,
        "login.html",
        status,
        error=error,
        reader=reader,
        form_lost=request.query_params.get("kept") == "nothing",
        needs_credential=page.needs_credential(request),
        requires_credential=service_of(request).authenticator.requires_credentials,
        credential=_credential_kind(service_of(request).settings),
    )


def _credential_kind(settings: Settings) -> str:
    """What a person can type: ``key``, ``token`` or ``either``."""
    if settings.jwt_jwks is None:
        return "key"
    return "token" if settings.api_keys_file is None else "either"


def _one_line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
