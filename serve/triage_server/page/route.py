"""What surrounds every path below /ui. Imports FastAPI, the readers of bodies and the page's context."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from triage_server.case_pipeline import receive_in_time
from triage_server.multipart import read_chunks
from triage_server.page.context import SECURITY_HEADERS, form_to_show_again, page_of
from triage_server.problems import RequestError
from triage_server.security import requested_hosts
from triage_server.service import service_of

PUBLIC_PATHS = frozenset({"/ui/login", "/ui/static/{name}"})
"""Routes that need no sign-in."""
_SIGN_OUT_PATH = "/ui/logout"
_READING_PATH = "/ui/cases/{number}/reading"

log = logging.getLogger("triage_server")


class PageRoute(APIRoute):
    """A route for browsers: access control, headers, and refusals as pages."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """As FastAPI's own, but a path that takes GET takes HEAD too, as RFC 9110 asks (section 9.1)."""
        super().__init__(path, endpoint, **options)
        methods = self.methods or set()
        self.methods = methods | {"HEAD"} if "GET" in methods else methods

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, wrapped in all of that."""
        call_endpoint = super().get_route_handler()

        async def handler(request: Request) -> Response:
            return await respond(request, self.path, call_endpoint)

        return handler


async def respond(
    request: Request, path: str | None, call_endpoint: Callable[[Request], Coroutine[Any, Any, Response]]
) -> Response:
    """The response to a request below /ui, whatever happens inside.

    Args:
        request: of a browser.
        path: the template of its route; None: it has none, and nobody needs to sign in to be told so.
        call_endpoint: makes the response, or raises a refusal.
    """
    page = page_of(request)
    request.state.context = page.context(request)
    try:
        if not page.allows_hosts(requested_hosts(request.headers)):
            response = page.render_misdirected(request)
        elif _follows_link_from_elsewhere(request):
            response = page.render_again(request)
        else:
            if path is not None and path not in PUBLIC_PATHS:
                await page.require_sign_in(request)
            response = await call_endpoint(request)
    except RequestError as refusal:
        reason = await _unrecorded_reason(request, path)
        if refusal.code == "not_authenticated" and not reason:
            request.state.problem = refusal.code
            response = await _redirect_to_sign_in(request, path)
        else:
            response = page.render_error(request, refusal, reason)
    except (HTTPException, ClientDisconnect):
        raise
    except Exception as error:
        identified = {"fields": {"request_id": request.state.request_id}}
        log.error("internal error", exc_info=error, extra=identified)
        reason = await _unrecorded_reason(request, path)
        response = page.render_error(request, RequestError("internal_error"), reason)
    response.headers.update(SECURITY_HEADERS)
    return response


def _follows_link_from_elsewhere(request: Request) -> bool:
    """Whether a browser left out the session's cookie, which it sends only with links of this server."""
    fetch = [request.headers.get(f"sec-fetch-{name}") for name in ("site", "mode")]
    return request.method in ("GET", "HEAD") and fetch == ["cross-site", "navigate"]


def page_router() -> APIRouter:
    """A router for paths of the page, which are not part of the described interface."""
    return APIRouter(prefix="/ui", route_class=PageRoute, include_in_schema=False)


async def _unrecorded_reason(request: Request, path: str | None) -> str:
    """What a reader wrote in a form that is refused: some browsers keep nothing of it on the way back."""
    if request.method != "POST" or path != _READING_PATH:
        return ""
    if not _is_read(request):
        with suppress(RequestError):
            await page_of(request).read_form(request)
    return form_to_show_again(request).get("reason")


async def _redirect_to_sign_in(request: Request, path: str | None) -> Response:
    """Redirect to sign-in; whoever sent a form after the session's end is told that nothing was kept."""
    if request.method != "POST" or path == _SIGN_OUT_PATH:
        return redirect("/ui/login")
    if not _is_read(request):
        with suppress(RequestError):
            await receive_in_time(request, _drain_body(request))
    return redirect("/ui/login", kept="nothing")


def _is_read(request: Request) -> bool:
    """Whether the form was read before it was refused, as far as it came."""
    return hasattr(request.state, "form_to_show_again")


async def _drain_body(request: Request) -> None:
    """Read the body and discard it: a browser whose upload is cut off shows no response."""
    # The connection's own limit (``lingering_close``) is too short for photographs on a slow line.
    chunks = read_chunks(request, service_of(request).settings.max_body_bytes, lambda _: None)
    async with aclosing(chunks):
        async for _ in chunks:
            pass


def redirect(path: str, **query: str) -> Response:
    """Redirect the browser with GET (303)."""
    return RedirectResponse(f"{path}?{urlencode(query)}" if query else path, HTTPStatus.SEE_OTHER)
