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
from triage_server.page.context import HEADERS, page_of
from triage_server.problems import RequestError
from triage_server.security import hosts_named
from triage_server.service import service_of

OPEN = frozenset({"/ui/login", "/ui/static/{name}"})
"""Routes that need no sign-in."""
_LEAVING = "/ui/logout"

log = logging.getLogger("triage_server")


class PageRoute(APIRoute):
    """A route for browsers: access control, headers, and refusals as pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, wrapped in all of that."""
        inside = super().get_route_handler()

        async def handler(request: Request) -> Response:
            page = page_of(request)
            request.state.visit = page.visit(request)
            try:
                if not page.expects(hosts_named(request.headers)):
                    response = page.misaddressed(request)
                else:
                    if self.path not in OPEN:
                        await page.admit(request)
                    response = await inside(request)
            except RequestError as refusal:
                if refusal.code == "not_authenticated":
                    request.state.problem = refusal.code
                    response = await _to_login(request, self.path)
                else:
                    response = page.refused(request, refusal)
            except (HTTPException, ClientDisconnect):
                raise
            except Exception as error:
                identified = {"fields": {"request_id": request.state.request_id}}
                log.error("internal error", exc_info=error, extra=identified)
                response = page.refused(request, RequestError("internal_error"))
            response.headers.update(HEADERS)
            return response

        return handler


def page_router() -> APIRouter:
    """A router for paths of the page, which are not part of the described interface."""
    return APIRouter(prefix="/ui", route_class=PageRoute, include_in_schema=False)


async def _to_login(request: Request, path: str) -> Response:
    """Redirect to sign-in; whoever sent a form after the session's end is told that nothing was kept."""
    if request.method != "POST" or path == _LEAVING:
        return to("/ui/login")
    with suppress(RequestError):
        await receive_in_time(request, _let_pass(request))
    return to("/ui/login", kept="nothing")


async def _let_pass(request: Request) -> None:
    """Read the body and discard it: a browser whose upload is cut off shows no response."""
    # The connection's own limit (``lingering_close``) is too short for photographs on a slow line.
    chunks = read_chunks(request, service_of(request).settings.max_body_bytes, lambda _: None)
    async with aclosing(chunks):
        async for _ in chunks:
            pass


def to(path: str, **query: str) -> Response:
    """Redirect the browser with GET (303)."""
    return RedirectResponse(f"{path}?{urlencode(query)}" if query else path, HTTPStatus.SEE_OTHER)
