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
from triage_server.page.context import SECURITY_HEADERS, page_of
from triage_server.problems import RequestError
from triage_server.security import requested_hosts
from triage_server.service import service_of

PUBLIC_PATHS = frozenset({"/ui/login", "/ui/static/{name}"})
"""Routes that need no sign-in."""
_SIGN_OUT_PATH = "/ui/logout"

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
        else:
            if path is not None and path not in PUBLIC_PATHS:
                await page.require_sign_in(request)
            response = await call_endpoint(request)
    except RequestError as refusal:
        if refusal.code == "not_authenticated":
            request.state.problem = refusal.code
            response = await _redirect_to_sign_in(request, path)
        else:
            response = page.render_error(request, refusal)
    except (HTTPException, ClientDisconnect):
        raise
    except Exception as error:
        identified = {"fields": {"request_id": request.state.request_id}}
        log.error("internal error", exc_info=error, extra=identified)
        response = page.render_error(request, RequestError("internal_error"))
    response.headers.update(SECURITY_HEADERS)
    return response


def page_router() -> APIRouter:
    """A router for paths of the page, which are not part of the described interface."""
    return APIRouter(prefix="/ui", route_class=PageRoute, include_in_schema=False)


async def _redirect_to_sign_in(request: Request, path: str | None) -> Response:
    """Redirect to sign-in; whoever sent a form after the session's end is told that nothing was kept."""
    if request.method != "POST" or path == _SIGN_OUT_PATH:
        return redirect("/ui/login")
    with suppress(RequestError):
        await receive_in_time(request, _drain_body(request))
    return redirect("/ui/login", kept="nothing")


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
