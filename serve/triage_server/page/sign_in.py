"""Sign-in and sign-out. Imports FastAPI, the page's context and its route."""

from __future__ import annotations

import math
from http import HTTPStatus

from fastapi import Request, Response

from triage_server.page.context import Page, page_of, passed_on, visit_of
from triage_server.page.route import page_router, to
from triage_server.service import service_of
from triage_server.settings import Settings

_MOST_READER = 60

router = page_router()


@router.get("/login")
async def login(request: Request) -> Response:
    """The sign-in form."""
    return _login(request)


@router.post("/login")
async def sign_in(request: Request) -> Response:
    """Begin a session, if key or token is valid for this page."""
    page, texts = page_of(request), visit_of(request).texts
    sent = await page.form(request)
    reader = _one_line(sent.get("reader"))
    if not 1 <= len(reader) <= _MOST_READER:
        return _login(request, ("reader", texts("login.who")), reader)
    arriving = await page.arriving(request, sent.get("key").strip())
    if arriving is None:
        request.state.problem = "not_authenticated"
        return _login(request, ("key" if page.asks(request) else "reader", texts("login.wrong")), reader)
    response = to("/ui")
    vouched = bool(passed_on(request))
    until = math.inf if vouched else arriving.until  # a proxy renews the token itself
    page.sessions.begin(response, arriving.caller, reader, vouched=vouched, until=until)
    return response


@router.post("/logout")
async def sign_out(request: Request) -> Response:
    """End a session."""
    page, session = page_of(request), visit_of(request).session
    await page.form(request)
    assert session is not None
    response = to("/ui/login")
    page.sessions.end(response, session)
    return response


def _login(request: Request, error: tuple[str, str] | None = None, reader: str = "") -> Response:
    page, visit = page_of(request), visit_of(request)
    status = HTTPStatus.OK if error is None else HTTPStatus.UNAUTHORIZED
    if visit.session is not None:
        return _login_page(page, request, status, error, reader)
    # The form needs a session for its token, so that no other site can sign people in (login CSRF).
    carrier = Response()
    session = page.sessions.begin(carrier)
    request.state.visit = type(visit)(session, visit.texts, visit.catalogue)
    response = _login_page(page, request, status, error, reader)
    response.headers["set-cookie"] = carrier.headers["set-cookie"]
    return response


def _login_page(
    page: Page, request: Request, status: int, error: tuple[str, str] | None, reader: str
) -> Response:
    return page.rendered(
        request,
        "login.html",
        status,
        error=error,
        reader=reader,
        lost=request.query_params.get("kept") == "nothing",
        asks=page.asks(request),
        known=service_of(request).door.asks,
        way=_way_in(service_of(request).settings),
    )


def _way_in(settings: Settings) -> str:
    """What a person can type: ``key``, ``token`` or ``either``."""
    if settings.jwt_jwks is None:
        return "key"
    return "token" if settings.api_keys_file is None else "either"


def _one_line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
