"""What every path below /ui has around it. Imports FastAPI, the readers of bodies and the page's desk."""

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

from triage_server.casework import received
from triage_server.multipart import chunks_of
from triage_server.page.desk import HEADERS, page_of
from triage_server.problems import RequestError
from triage_server.security import hosts_named
from triage_server.service import service_of

OPEN = frozenset({"/ui/login", "/ui/static/{name}"})
"""Routes for which nobody has to be signed in."""
_LEAVING = "/ui/logout"

log = logging.getLogger("triage_server")


class PageRoute(APIRoute):
    """A route for browsers: its door, its headers, and its refusals as pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler with all of that around it."""
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
    """For paths of the page, which is no interface and not described."""
    return APIRouter(prefix="/ui", route_class=PageRoute, include_in_schema=False)


async def _to_login(request: Request, path: str) -> Response:
    """Ask who is there; whoever sent something in a session that had ended is told that it is not kept."""
    if request.method != "POST" or path == _LEAVING:
        return to("/ui/login")
    with suppress(RequestError):
        await received(request, _let_pass(request))
    return to("/ui/login", kept="nothing")


async def _let_pass(request: Request) -> None:
    """Read what comes and keep none of it: a browser that is cut off while it sends shows no answer."""
    # The connection's own patience (``parting``) is too short for photographs on a slow line or with a pause.
    chunks = chunks_of(request, service_of(request).settings.max_body_bytes, lambda _: None)
    async with aclosing(chunks):
        async for _ in chunks:
            pass


def to(path: str, **query: str) -> Response:
    """Send the browser there, by GET."""
    return RedirectResponse(f"{path}?{urlencode(query)}" if query else path, HTTPStatus.SEE_OTHER)
